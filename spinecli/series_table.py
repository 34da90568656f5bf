"""The table of DICOM series that ``convert --list`` and ``inspect`` show."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engines.results import CaseResult, Note
from spinecli import render

if TYPE_CHECKING:
    from engines.convert.findings import Repairs
    from engines.convert.inspect import Row
    from engines.convert.stack import LeftOut

MAX_NAMES = 3
"""Names of files that a note shows; all of them are in the JSON record."""

HEADINGS = (
    "name",
    "series",
    "description",
    "modality",
    "matrix",
    "spacing mm",
    "axes",
    "syntax",
    "what is wrong",
)


def command(
    name: str,
    paths: Sequence[Path],
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    repairs: "Repairs",
    *,
    as_json: bool,
) -> None:
    """Run a command that shows the table, as text or as JSON."""
    with render.command(name, as_json=as_json) as run:
        from engines.convert.inspect import inspect

        seen = inspect(paths, include or (), exclude or (), repairs)
        for row in seen.rows:
            run.add(_result(row))
        run.facts["series"] = [row.as_json() for row in seen.rows]
        run.facts["left_out"] = [one.as_json() for one in seen.left_out]
        run.warnings += left_out_notes(seen.left_out)
        run.table = lambda _: _show(seen.rows)


def left_out_notes(left_out: "Sequence[LeftOut]") -> list[Note]:
    """Return one note that counts the files that hold no scan, by kind, with names."""
    by_why: defaultdict[str, list[str]] = defaultdict(list)
    for one in left_out:
        by_why[one.why].append(one.path.name)
    told = ", ".join(
        f"{len(names)} {why} ({_first(names)})"
        for why, names in sorted(by_why.items(), key=lambda item: -len(item[1]))
    )
    return [Note("left_out", f"left out files: {told}")] if told else []


def _first(names: Sequence[str]) -> str:
    more = " ..." if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _result(row: "Row") -> CaseResult:
    status: Literal["failed", "done"] = "failed" if row.error else "done"
    return CaseResult(
        row.name, row.input, status, warnings=row.remarks, error=row.error
    )


def _show(rows: "Sequence[Row]") -> None:
    render.table(HEADINGS, [_cells(row) for row in rows])


def _cells(row: "Row") -> list[str]:
    sizes = " x ".join("?" if mm is None else f"{mm:.4g}" for mm in row.spacing_mm)
    matrix = " x ".join(str(count) for count in (*row.matrix, row.slices))
    if row.volumes > 1:
        matrix += f" x {row.volumes} ({row.axis})"
    problems = [row.error.message] if row.error else []
    return [
        row.name,
        "" if row.series is None else str(row.series),
        row.description,
        row.modality,
        matrix if row.slices else "",
        sizes,
        row.orientation,
        ", ".join(row.syntax),
        "\n".join([*problems, *(note.message for note in row.remarks)]),
    ]
