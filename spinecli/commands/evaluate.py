"""``spine evaluate``."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engines.errors import SettingsError
from engines.labels import Scheme
from engines.results import CaseResult
from spinecli import options, progress, render, robustness_table

Predictions = Annotated[
    Path | None,
    typer.Argument(
        metavar="PREDS",
        help="Label map, or folder of them: what 'spine segment' wrote, or any other. "
        "With --robustness: scans.",
        exists=True,
        show_default=False,
    ),
]
Truth = Annotated[
    Path | None,
    typer.Argument(
        metavar="GT",
        help="Label map, or folder of them, that the predictions are scored against.",
        exists=True,
        show_default=False,
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        metavar="CSV",
        help="Table with the columns prediction and truth (and name), instead of PREDS "
        "and GT; paths count from its folder.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
Binary = Annotated[
    bool,
    typer.Option("--binary", help="Compare all labels above zero as one, the spine."),
]
SchemeOption = Annotated[
    Scheme | None,
    typer.Option(
        "--scheme",
        help="How vertebrae in the predictions are numbered; they are translated to "
        "VerSe ids. Without it ids are compared as they are.",
        show_default=False,
    ),
]
TruthScheme = Annotated[
    Scheme | None,
    typer.Option(
        "--truth-scheme",
        help="The same for the truth.",
        show_default=False,
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance-mm",
        min=0,
        metavar="MM",
        help="Surfaces this close agree, for the surface Dice (pixels with --slices).",
    ),
]
Resample = Annotated[
    bool,
    typer.Option(
        "--resample",
        help="Bring predictions on another grid to that of the truth, by the nearest "
        "label; recorded with each case.",
    ),
]
Slices = Annotated[
    bool,
    typer.Option(
        "--slices",
        help="Score each sagittal slice by itself, in pixels, and average them.",
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="OTHER_PREDS",
        help="Other predictions of the same cases: differences, Wilcoxon test, wins.",
        exists=True,
        show_default=False,
    ),
]
Scans = Annotated[
    Path | None,
    typer.Option(
        "--scans",
        metavar="DIR",
        help="Folder of the scans, as the background of pictures.",
        exists=True,
        file_okay=False,
        show_default=False,
    ),
]

Inner = Annotated[
    bool,
    typer.Option(
        "--inner",
        help="Score only between the first and the last labelled vertebra: voxels "
        "whose nearest vertebra of the truth is neither. For scans that show more "
        "vertebrae than were labelled. Labels of those two have no score of their own.",
    ),
]

NSD_TOLERANCE_MM = 1.0


def evaluate(
    predictions: Predictions = None,
    truth: Truth = None,
    output: options.OptionalOutput = None,
    *,
    pairs: Pairs = None,
    binary: Binary = False,
    scheme: SchemeOption = None,
    truth_scheme: TruthScheme = None,
    tolerance_mm: Tolerance = NSD_TOLERANCE_MM,
    resample: Resample = False,
    slices: Slices = False,
    compare: Compare = None,
    scans: Scans = None,
    inner: Inner = False,
    robustness: robustness_table.Robustness = False,
    model: robustness_table.Model = "unet-r34",
    only: robustness_table.Only = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Score the label maps in PREDS against those in GT, case by case.

    Files belong together when their names agree up to _ct, _mr, _seg-.. and _msk; a
    folder with one file per structure (vertebrae_L1.nii.gz ...) counts as one map.
    With --output the folder gets index.html, a page to look through with pictures of
    the worst cases; evaluation.csv, one row per case and label; evaluation.json with
    everything; and summary.json as nnU-Net writes it.

    What is not there counts. A missing prediction, or a label that one side lacks,
    scores 0 and lies infinitely far away ("inf"); it is never dropped. A label that
    neither side has is not scored. An infinite distance makes the mean infinite;
    median and quartiles tell of the others. The mean of a case is over its labels,
    that of the cohort over cases. A failed case has no score and is named.

    Maps on different grids are refused unless --resample. Values with fractions are
    refused. Labels that are none of the scheme are left out and told. Surface
    distances are those of marching-cubes surface elements, weighted by their area;
    HD is the maximum, HD95 the larger 95th percentile of both directions, ASSD the
    mean over both surfaces, NSD the share of both within the tolerance. A vertebra
    is identified when its predicted centre lies within 20 mm of the true one and no
    other true centre lies closer (sacrum and coccyx are left out); centres are those
    of _ctd.json files where both sides have them, else centres of mass. Vertebrae
    match whatever their names when their IoU is above one half (panoptic quality).

    With --robustness the first argument is scans. Each is segmented as it is and in
    altered forms, all labels count as spine, and the table has a row per alteration:
    median and worst Dice over the scans, that of the scans as they are, the fall (the
    median of what each scan lost) and whether it exceeds 0.03. A narrow field of view
    (90 mm, box or circle), slices of 5 mm, sharp and soft kernels, noise of 60 HU,
    streaks of starved rays and of metal (screws, a cage), contrast agent, other orders
    of the voxel axes, which must give the same mask, and voxels of 0.5 to 4 mm. Where
    the grid changes, the mask is scored on it, against the nearest label of the truth;
    the mask of the scan as it is is scored on the same voxels. Implants and vessels are
    drawn where the truth says; the same --seed draws the same. --output gets
    robustness.csv and robustness.json.
    """
    command = shlex.join(["spine", *sys.argv[1:]])
    with render.command("evaluate", as_json=as_json) as run:
        if robustness:
            others = {
                "--pairs": pairs,
                "--binary": binary,
                "--scheme": scheme,
                "--tolerance-mm": tolerance_mm != NSD_TOLERANCE_MM,
                "--truth-scheme": truth_scheme,
                "--resample": resample,
                "--slices": slices,
                "--compare": compare,
                "--scans": scans,
            }
            given = robustness_table.both(predictions, truth, others)
            from engines.robustness.robustness import RobustnessSettings

            how = RobustnessSettings(
                model=model,
                only=tuple(only or ()),
                inner=inner,
                seed=seed,
                device=device,
            )
            robustness_table.run(run, *given, how, output, command)
            return
        if only:
            raise SettingsError(
                "--only chooses alterations", hint="Add --robustness, or leave it out."
            )
        from engines.metrics.evaluate import EvaluateSettings
        from engines.metrics.maps import MapSettings
        from engines.report.evaluation import EvaluateRun, inputs_of

        maps = MapSettings(
            binary=binary,
            scheme=scheme,
            truth_scheme=truth_scheme,
            resample=resample,
            inner=inner,
        )
        settings = EvaluateSettings(maps=maps, tolerance=tolerance_mm, slices=slices)
        work = EvaluateRun(
            inputs_of(predictions, truth, pairs),
            settings,
            output,
            compare=compare,
            scans=scans,
            command=command,
        )
        run.table = lambda cases: _show(cases, work.report())
        run.describe(work.report)
        with progress.batch() as bar:
            bar.expect(work.count)
            for result in work.results(bar.stage):
                run.add(result)
                bar.finished(result)
        run.warnings += work.notes
        if output is not None and not as_json:
            render.say(f"results: {output / 'index.html'}")


SPREAD: Mapping[str, tuple[str, int | None]] = {
    "(mean of cases)": ("mean", None),
    "(95 % from)": ("ci95", 0),
    "(95 % to)": ("ci95", 1),
    "(sd of cases)": ("sd", None),
    "(1st quartile)": ("quartiles", 0),
    "(median of cases)": ("median", None),
    "(3rd quartile)": ("quartiles", 1),
}
"""Lines below the cases -> key of the cohort, and place where that holds two values."""


def _show(cases: Sequence[CaseResult], report: Mapping[str, Any]) -> None:
    """Print the scores on stdout, and what needs attention on stderr."""
    if report["cohort"]["dice"]["n"]:
        _show_scores(cases, report)
    render.closing_table(cases, rows=0)


def _show_scores(cases: Sequence[CaseResult], report: Mapping[str, Any]) -> None:
    from engines.metrics import summary
    from engines.metrics.table import shown
    from engines.report.evaluation_page import standing

    metrics = shown(report["cohort"])
    titles = [metric.title for metric in metrics.values()]
    cohort = report["cohort"]
    rows = []
    for case in cases:
        place = standing(case)
        name = case.name if place == "done" else f"{case.name} ({place})"
        rows.append(_row(name, summary.means_of(case, metrics), metrics))
    render.table(["case", *titles], [*rows, *_spread_rows(cohort, metrics)])
    for what, key in (("region", "region"), ("label", "name")):
        found = report[f"by_{what}"]
        if len(found) > 1:
            means = [{n: row[n]["mean"] for n in metrics} for row in found]
            named = zip(found, means, strict=True)
            told = [_row(row[key], mean, metrics) for row, mean in named]
            render.table([what, *titles], told)
    _say_interval(cohort["dice"])
    _say_identification(report["identification"])
    _show_comparison(report.get("comparison"), metrics)


def _spread_rows(
    cohort: Mapping[str, Any], metrics: Mapping[str, Any]
) -> list[list[str]]:
    """Return the lines below the cases, without those that no metric has."""
    rows = []
    for title, (key, place) in SPREAD.items():
        values = {name: cohort[name][key] for name in metrics}
        if place is not None:
            values = {n: None if v is None else v[place] for n, v in values.items()}
        rows.append(_row(title, values, metrics))
    return [row for row in rows if any(row[1:])]


def _say_interval(dice: Mapping[str, Any]) -> None:
    if dice["ci95"] is not None:
        low, high = dice["ci95"]
        count = dice["n"]
        render.say(f"Dice: 95 % interval {low:.4f} to {high:.4f} over {count} cases")


def _say_identification(found: Mapping[str, Any] | None) -> None:
    if found is None:
        return
    error = found["mean_error_mm"]
    off = "" if error is None else f", centres off by {error:.2f} mm on average"
    render.say(
        f"identified: {found['identified']} of {found['vertebrae']} vertebrae "
        f"({found['rate']:.1%}){off}"
    )


def _show_comparison(
    compared: Mapping[str, Any] | None, metrics: Mapping[str, Any]
) -> None:
    if compared is None:
        return
    rows = [
        [metric.title, *_compared_cells(compared[name])]
        for name, metric in metrics.items()
    ]
    headings = ("metric", "difference", "95 % interval", "p", "wins", "losses", "ties")
    render.table(headings, rows, whole=True)


def _compared_cells(row: Mapping[str, Any]) -> list[str]:
    difference, interval, p = row["difference"], row["ci95"], row["p"]
    return [
        "" if difference is None else f"{difference:+.4f}",
        "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
        "" if p is None else f"{p:.3g}",
        *(str(row[key]) for key in ("wins", "losses", "ties")),
    ]


def _row(
    name: str, values: Mapping[str, float | None], metrics: Mapping[str, Any]
) -> list[str]:
    numbers = [values.get(metric) for metric in metrics]
    return [name, *("" if n is None else f"{n:.4f}" for n in numbers)]
