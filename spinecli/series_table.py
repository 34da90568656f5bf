"""The table of DICOM series that ``convert --list`` and ``inspect`` show."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engines.results import CaseResult, Note
from spinecli import render

if TYPE_CHECKING:
    from engines.convert.findings import Repairs
    from engines.convert.inspect import Row
    from engines.convert.left_out import LeftOut

MAX_NAMES = 3
"""Names of files that a note shows; all of them are in the JSON record."""

FINE, NOTED, REFUSED = "ok", "note", "NO"
"""What a line begins with: nothing is wrong, something is to be known, or it would be
refused."""

STYLES = {FINE: "green", NOTED: "yellow", REFUSED: "bold red"}

INDENT = " " * 6


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
    """Print a line for each series, by study, and below it what is wrong with it."""
    studies: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        studies[row.study].append(row)
    wide = {key: max(len(_facts(row)[key]) for row in rows) for key in _facts(rows[0])}
    for number, held in enumerate(studies.values(), 1):
        if len(studies) > 1:
            several = f"{len(held)} series" if len(held) > 1 else "1 series"
            render.out(f"study {number}, {several}")
        for row in sorted(held, key=_order):
            facts = _facts(row)
            line = "  ".join(f"{facts[key]:{wide[key]}}" for key in facts if wide[key])
            mark = _mark(row)
            shown = f"{mark:<{len(INDENT)}}"
            render.out(line.rstrip(), mark=shown, style=STYLES[mark], whole=True)
            for remark in _remarks(row):
                render.out(remark, indent=INDENT)
    counted = Counter(_mark(row) for row in rows)
    told = ((FINE, "fine"), (NOTED, "with notes"), (REFUSED, "refused"))
    parts = [f"{counted[mark]} {word}" for mark, word in told if counted[mark]]
    render.out(f"{len(rows)} series: {', '.join(parts)}")


def _mark(row: "Row") -> str:
    if row.error is not None:
        return REFUSED
    return NOTED if row.remarks else FINE


def _order(row: "Row") -> tuple[bool, int, str]:
    return row.series is None, row.series or 0, row.name


def _facts(row: "Row") -> dict[str, str]:
    """Return what is known of a series, in the order of its line."""
    sizes = " x ".join("?" if mm is None else f"{mm:.4g}" for mm in row.spacing_mm)
    matrix = " x ".join(str(count) for count in (*row.matrix, row.slices))
    if row.volumes > 1:
        matrix += f" x {row.volumes} ({row.axis})"
    plain = ("implicit LE", "explicit LE")
    return {
        "series": "" if row.series is None else f"#{row.series}",
        "modality": row.modality,
        "matrix": matrix if row.slices else "",
        "spacing": f"{sizes} mm" if sizes else "",
        "axes": row.orientation,
        "syntax": ", ".join(one for one in row.syntax if one not in plain),
        "name": row.name,
        "description": f'"{row.description}"' if row.description else "",
    }


def _remarks(row: "Row") -> list[str]:
    problem = [f"refused: {row.error.message}"] if row.error else []
    hint = [row.error.hint] if row.error and row.error.hint else []
    return [*problem, *hint, *(note.message for note in row.remarks)]
