"""Tables as people save them, read and written: CSV from any program, safe to open."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.errors import UnreadableError

DELIMITERS = (",", ";", "\t")

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes a cell for a formula by."""

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

HINT = "Save it as CSV in UTF-8, with the names of the columns in its first line."


def read_table(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a table, each with its line.

    Commas, semicolons, tabs or spaces part the cells; UTF-8, UTF-16 and Windows'
    letters are known. Names of columns come in small letters, cells without the
    spaces around them; a cell that is missing is empty, as are lines that are left
    out.

    Args:
        path: of the table.
        needed: columns that it must have.

    Raises:
        UnreadableError: it is no text, or lacks a column.
    """
    try:
        text = _decoded(path.read_bytes())
        lines = [*csv.reader(io.StringIO(text), delimiter=_delimiter(text))]
    except (OSError, ValueError, csv.Error) as error:
        msg = f"{path}: not a table ({error})"
        raise UnreadableError(msg, hint=HINT) from error
    if _delimiter(text) == " ":
        lines = [[cell for cell in line if cell] for line in lines]
    numbered = [
        (n, line) for n, line in enumerate(lines, 1) if any(map(str.strip, line))
    ]
    columns = [name.strip().lower() for name in numbered[0][1]] if numbered else []
    missing = [name for name in needed if name not in columns]
    if missing:
        told = ", ".join(columns) or "none"
        msg = f"{path} has no column {' and no '.join(missing)}; it has {told}"
        hint = f"Put {','.join(needed)} in its first line."
        raise UnreadableError(msg, hint=hint)
    return [(n, _row(columns, line)) for n, line in numbered[1:]]


def _row(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    padded = [*cells, *[""] * len(columns)]
    return {name: cell.strip() for name, cell in zip(columns, padded, strict=False)}


def _decoded(content: bytes) -> str:
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content.decode(encoding)
    start = content[:200]
    if start.count(b"\0") > len(start) // 4:  # UTF-16 without a mark
        big = start[:1] == b"\0"
        return content.decode("utf-16-be" if big else "utf-16-le")
    if b"\0" in content:
        msg = "it holds bytes that are no text"
        raise ValueError(msg)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _delimiter(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    most = max(DELIMITERS, key=bare.count)
    return most if most in bare else " "


def defused(value: Any) -> Any:  # noqa: ANN401
    """Return a cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


class TableWriter:
    """Writes rows as CSV, every cell defused; what a row has beyond is left out."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(self.columns)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row by the names of its columns."""
        self._writer.writerow([defused(row.get(name, "")) for name in self.columns])

    def text(self, rows: Iterable[Mapping[str, Any]] = ()) -> str:
        """Return the table, after ``rows`` were added."""
        for row in rows:
            self.add(row)
        return self._text.getvalue()
