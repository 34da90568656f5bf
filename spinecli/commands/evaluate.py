"""``spine evaluate``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from engines.results import CaseResult
from spinecli import options, progress, render

Predictions = Annotated[
    Path,
    typer.Argument(
        metavar="PREDS",
        help="Label map, or folder of them: what 'spine segment' wrote, or any other.",
        exists=True,
        show_default=False,
    ),
]
Truth = Annotated[
    Path,
    typer.Argument(
        metavar="GT",
        help="Label map, or folder of them, that the predictions are scored against.",
        exists=True,
        show_default=False,
    ),
]
Binary = Annotated[
    bool,
    typer.Option("--binary", help="Compare all labels above zero as one, the spine."),
]


def evaluate(
    predictions: Predictions,
    truth: Truth,
    output: options.OptionalOutput = None,
    *,
    binary: Binary = False,
    as_json: options.AsJson = False,
) -> None:
    """Score the label maps in PREDS against those in GT, case by case.

    Files belong together when their names agree up to _ct, _mr, _seg-.. and _msk.
    With --output the folder gets evaluation.csv, one row per case and label, and
    evaluation.json with the whole cohort: mean, standard deviation, median and a
    bootstrapped 95 % interval over cases.

    A missing prediction, or a label that one side lacks, scores 0; a label that
    neither side has is not scored. Maps on different grids are refused.
    """
    with render.command("evaluate", as_json=as_json) as run:
        from engines.files import require_writable
        from engines.metrics import evaluate as engine
        from engines.metrics.pairs import find_pairs

        if output is not None:
            require_writable(output)
        cases: list[CaseResult] = []
        run.table = _show
        run.describe(lambda: engine.report(cases))
        with progress.batch() as bar:
            pairs, notes = find_pairs(predictions, truth)
            run.warnings += notes
            bar.expect(len(pairs))
            for result in engine.evaluate(pairs, binary=binary, told=bar.stage):
                cases.append(result)
                run.add(result)
                bar.finished(result)
        if output is not None:
            engine.write_report(output, cases)


def _show(cases: Sequence[CaseResult]) -> None:
    """Print the scores on stdout, and what needs attention on stderr."""
    from engines.metrics import summary
    from engines.metrics.table import METRICS

    titles = [metric.title for metric in METRICS.values()]
    rows = [_row(case.name, summary.means_of(case)) for case in cases]
    over = summary.cohort(cases)
    rows += [
        _row(f"({what} of cases)", {name: over[name][what] for name in METRICS})
        for what in ("mean", "sd", "median")
    ]
    render.table(["case", *titles], rows)
    labels = summary.by_label(cases)
    if len(labels) > 1:
        means = [{name: row[name]["mean"] for name in METRICS} for row in labels]
        named = zip(labels, means, strict=True)
        render.table(["label", *titles], [_row(row["name"], m) for row, m in named])
    if over["dice"]["ci95"] is not None:
        low, high = over["dice"]["ci95"]
        count = over["dice"]["n"]
        render.say(f"Dice: 95 % interval {low:.4f} to {high:.4f} over {count} cases")
    render.closing_table(cases, rows=0)


def _row(name: str, values: Mapping[str, float | None]) -> list[str]:
    from engines.metrics.table import METRICS

    numbers = [values.get(metric) for metric in METRICS]
    return [name, *("" if n is None else f"{n:.4f}" for n in numbers)]
