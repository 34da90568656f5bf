"""Which columns of a table fit beside each other, and which of them hold numbers."""

import re
from collections.abc import Iterator, Sequence

FIRST_WIDTH = 12
"""Columns of text that the first column of a table keeps at least."""

TEXT_WIDTH = 16
"""Columns of text that a cell of words keeps at least, if it has so many."""

BETWEEN = 3
"""Columns of text between two columns of a table."""

EDGES = 2
"""Columns of text left and right of a table."""

_NUMBER = re.compile(
    r"[-+]?(\d[\d,]*(\.\d*)?|\.\d+|inf)(e[-+]?\d+)?\s?(%|\*|ms|s|mm|ml|MB|MiB|deg)?\*?"
)


def are_numbers(cells: Sequence[str]) -> bool:
    """Say whether a column holds numbers and nothing else, empty cells aside."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)


def least_width(heading: str, cells: Sequence[str], *, whole: bool = False) -> int:
    """Return the width that a column needs to be read."""
    longest = max((len(line) for c in cells for line in c.splitlines()), default=0)
    words = max((len(word) for word in heading.split()), default=0)
    if are_numbers(cells):
        return max(longest, len(heading))
    if whole:
        return max(longest, words)
    return max(min(longest, TEXT_WIDTH), words)


def fitting(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    whole: bool = False,
) -> Iterator[list[int]]:
    """Yield the columns of each table, the first column in every one.

    Args:
        headings: of all columns.
        rows: cells of all columns.
        width: of the terminal, in characters.
        whole: whether cells of words may not be broken.
    """
    first = max((len(row[0]) for row in rows), default=0)
    kept = min(max(first, len(headings[0])), max(FIRST_WIDTH, width // 3))
    room = width - kept - EDGES
    together, used = [0], 0
    for place in range(1, len(headings)):
        cells = [row[place] for row in rows]
        need = least_width(headings[place], cells, whole=whole) + BETWEEN
        if len(together) > 1 and used + need > room:
            yield together
            together, used = [0], 0
        together.append(place)
        used += need
    yield together
