"""``spine study``."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engines.errors import SettingsError
from engines.results import CaseResult
from spinecli import console, options, progress, render

if TYPE_CHECKING:
    from engines.train.loop import Event
    from engines.train.study_run import StudyRun

WIDE = 110
"""Columns of a terminal that has room for parameters, operations and time."""

StudyFile = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="TOML file with the grid, or the name of a shipped one "
        "(engines/train/studies).",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of scans with label maps; not needed with --table.",
        exists=True,
        file_okay=False,
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="LABEL",
        help="Train only configurations that have this in their labels; may be "
        "repeated.",
        show_default=False,
    ),
]
TableOnly = Annotated[
    bool,
    typer.Option("--table", help="Train nothing, print the tables of what is there."),
]
KeepModels = Annotated[
    bool,
    typer.Option(
        "--keep-models/--drop-models",
        help="Whether model files stay after they are scored.",
    ),
]


def study(
    name: StudyFile,
    output: options.Output,
    *,
    data: Data = None,
    only: Only = None,
    table: TableOnly = False,
    keep_models: KeepModels = True,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Train a grid of configurations and print their table.

    A study is a TOML file. Its table "base" has the settings of a training, as for
    'spine train'; its "axis" tables have rows that change them. Every combination is
    trained once with each seed, in OUT/runs. After every training OUT gets study.md,
    study.csv, study.json and index.html, a page with the learning curves. Held-out
    scans are scored on their unaltered slices: those of the part "test", or else "val".

    Run the same command again to go on: what is done is skipped, an interrupted
    training resumes from its checkpoint, one that failed or whose settings or data
    changed begins anew. A training that fails leaves the others.

    Example: spine study mr-networks-losses --data DATA -o OUT --only Dice
    """
    with render.command("study", as_json=as_json, cases_are="runs") as run:
        from engines.train import study as studies
        from engines.train.study_run import StudyRun

        work = StudyRun(
            studies.read(studies.find(name)),
            output,
            only=only or (),
            keep_models=keep_models,
            device=device,
            command=shlex.join(["spine", *sys.argv[1:]]),
        )
        run.table = lambda cases: _show(cases, work)
        run.describe(lambda: _record(work))
        if table:
            for result in work.found():
                run.add(result)
        else:
            _train(work, _required(data), run)
        if not as_json:
            render.say(f"results: {output / 'index.html'}")


def _train(work: "StudyRun", data: Path, run: render.Run) -> None:
    with progress.runs(len(work.planned)) as bar:
        for result in work.results(
            data, lambda one, event: _tell(bar, one.name, event)
        ):
            run.add(result)
            bar.finished(result)


def _tell(bar: progress.Runs, name: str, event: "Event") -> None:
    notable = event.val_dice is not None
    bar.told(name, event.step, event.steps, event.line(), notable=notable)


def _required(data: Path | None) -> Path:
    if data is None:
        msg = "there is no data folder to train on"
        raise SettingsError(msg, hint="Give --data DIR, or --table.")
    return data


def _record(work: "StudyRun") -> dict[str, Any]:
    from engines.train import study_table

    return study_table.record(work.study, work.rows())


def _show(cases: Sequence[CaseResult], work: "StudyRun") -> None:
    """Print the table on stdout, and what needs attention on stderr."""
    from engines.train import study_text

    rows = work.rows()
    costs = console.out().width >= WIDE
    told = study_text.narrow_grid(work.study, rows, costs=costs)
    render.table(*told, whole=True)
    for remark in study_text.remarks(rows):
        render.warning(remark)
    render.closing_table(cases, rows=0)
