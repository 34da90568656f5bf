"""``spine evaluate --robustness``: its options, and the table of what it found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engines.errors import SettingsError
from engines.results import CaseResult
from spinecli import progress, render

if TYPE_CHECKING:
    from engines.robustness.robustness import RobustnessSettings

PANEL = "Robustness"

Robustness = Annotated[
    bool,
    typer.Option(
        "--robustness",
        help="Segment the scans in PREDS as they are and altered, and tell how far the "
        "Dice falls.",
        rich_help_panel=PANEL,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KIND",
        help="Alterations to do: field, slices, kernel, noise, streaks, metal, "
        "contrast, orientation (6 of the 48 orders of the axes), orientation-all, "
        "spacing, or one by its name in the table; may be repeated. Default: all but "
        "orientation-all.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Model to test: a name that 'spine models' lists, or a model file.",
        rich_help_panel=PANEL,
    ),
]

HEADINGS = ("alteration", "scans", "Dice", "worst", "as it is", "fall", "remarks")


def both(
    scans: Path | None, truth: Path | None, others: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Return scans and truth, after proving that nothing given is left unused."""
    unused = [name for name, value in others.items() if value]
    if unused:
        msg = f"{' and '.join(unused)} and --robustness do not go together"
        raise SettingsError(msg, hint="Leave one of them out.")
    if scans is None or truth is None:
        msg = "--robustness needs scans and their truth"
        raise SettingsError(
            msg, hint="Give both: spine evaluate SCANS GT --robustness."
        )
    return scans, truth


def run(
    into: render.Run,
    scans: Path,
    truth: Path,
    settings: "RobustnessSettings",
    output: Path | None,
    command: str,
) -> None:
    """Do the work and leave what it found in ``into``."""
    from engines.robustness.robustness import RobustnessRun

    with progress.batch() as bar:
        work = RobustnessRun(
            scans, truth, settings, output, command=command, told=bar.stage
        )
        into.table = lambda cases: _show(cases, work.rows)
        into.describe(work.facts)
        bar.expect(work.count)
        for result in work.results():
            into.add(result)
            bar.finished(result)
    if output is not None and not into.as_json:
        render.say(f"results: {output / 'robustness.csv'}")


def _show(cases: Sequence[CaseResult], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table on stdout, and what needs attention on stderr."""
    from engines.robustness.table import FALL

    cells = [_cells(row) for row in rows]
    width = len(HEADINGS) if any(row[-1] for row in cells) else len(HEADINGS) - 1
    if any(row["dice"] is not None for row in rows):
        render.table(HEADINGS[:width], [row[:width] for row in cells])
    low = [row["alteration"] for row in rows if row["exceeds"]]
    if low:
        render.say(f"falls of more than {FALL:g}: {', '.join(low)}")
    changed = [row["alteration"] for row in rows if row["identical"] is False]
    if changed:
        render.say(f"the mask should be the same, and is not: {', '.join(changed)}")
    render.closing_table(cases, rows=0)


def _cells(row: Mapping[str, Any]) -> list[str]:
    numbers = [row[key] for key in ("dice", "worst", "unaltered")]
    fall = "" if row["fall"] is None else f"{row['fall']:.4f}"
    remarks = ["falls"] * bool(row["exceeds"])
    if row["identical"] is not None:
        remarks.append("same mask" if row["identical"] else "another mask")
    return [
        row["alteration"],
        str(row["scans"]),
        *("" if number is None else f"{number:.4f}" for number in numbers),
        fall,
        ", ".join(remarks),
    ]
