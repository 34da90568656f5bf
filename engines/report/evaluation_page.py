"""``index.html`` of an evaluation: the worst cases first, with pictures of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines import __version__
from engines.metrics import summary
from engines.metrics.table import Metric, shown
from engines.report import charts, page
from engines.report.page import Column, Entry, Page, Picture
from engines.results import CaseResult

SHARES = ("dice", "iou", "precision", "recall", "nsd")
"""Metrics between 0 and 1, drawn on an axis of that length."""

LAYOUT = "truth and prediction from the side, then from the front"


def html(
    cases: Sequence[CaseResult],
    report: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    pictures: Mapping[str, bytes],
    command: str,
) -> str:
    """Return the page.

    Args:
        cases: all of them, in any order.
        report: of the cohort.
        metrics: that were computed.
        pictures: name of a case -> PNG, of the worst.
        command: as the user typed it.
    """
    told = shown(metrics)
    means = {case.name: summary.means_of(case, metrics) for case in cases}
    worst = sorted(cases, key=lambda case: _rank(case, means[case.name]))
    return page.html(
        Page(
            "Spine evaluation",
            _facts(cases, report, command),
            (
                Column("case", "Case"),
                Column("status", "Status", "status"),
                *(Column(n, m.title, "number") for n, m in metrics.items()),
            ),
            [_entry(case, means[case.name], metrics) for case in worst],
            [_chart(metric, means) for metric in told.values()] if cases else (),
            [
                _picture(case, means[case.name], pictures)
                for case in worst
                if case.name in pictures
            ],
            f"Worst cases: {LAYOUT}",
            _tables(report, told),
        )
    )


def _rank(case: CaseResult, means: Mapping[str, float]) -> tuple[float, str]:
    """Return a key that puts failed cases first, then those with the lowest Dice."""
    return (means["dice"] if means else -1.0), case.name


def _facts(
    cases: Sequence[CaseResult], report: Mapping[str, Any], command: str
) -> list[str]:
    dice = report["cohort"]["dice"]
    told = [f"{len(cases)} cases, {dice['n']} scored"]
    if dice["mean"] is not None:
        interval = dice["ci95"]
        around = (
            ""
            if interval is None
            else f" (95 % {interval[0]:.4f} to {interval[1]:.4f})"
        )
        told.append(f"Dice {dice['mean']:.4f} on average{around}")
    found = report["identification"]
    if found is not None:
        told.append(
            f"{found['identified']} of {found['vertebrae']} vertebrae identified "
            f"({found['rate']:.1%})"
        )
    told.append(
        f"spine {__version__}: {command}" if command else f"spine {__version__}"
    )
    return told


def _entry(
    case: CaseResult, means: Mapping[str, float], metrics: Mapping[str, Metric]
) -> Entry:
    notes = [note.message for note in case.warnings]
    if case.error is not None:
        notes += [case.error.message, case.error.hint]
    cells = {"case": case.name, "status": case.status, **means}
    labels = case.details.get("labels", ())
    if not labels:
        return Entry(cells, [note for note in notes if note])
    headings = ("Label", "Name", "In", *(m.title for m in metrics.values()))
    rows = [
        (row["label"], row["name"], row["present"], *(row[name] for name in metrics))
        for row in labels
    ]
    return Entry(cells, notes, (headings, rows))


def _chart(metric: Metric, means: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    values = [mean[metric.name] for mean in means.values() if mean]
    limits = (0.0, 1.0) if metric.name in SHARES else None
    return metric.title, charts.distribution(values, metric.title, limits)


def _picture(
    case: CaseResult, means: Mapping[str, float], pictures: Mapping[str, bytes]
) -> Picture:
    return Picture(
        pictures[case.name],
        f"{case.name}: {LAYOUT}",
        caption=f"{case.name}: Dice {means['dice']:.4f}",
    )


def _tables(
    report: Mapping[str, Any], metrics: Mapping[str, Metric]
) -> list[tuple[str, Sequence[str], Sequence[Sequence[Any]]]]:
    titles = [metric.title for metric in metrics.values()]
    cohort = report["cohort"]
    found: list[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = [
        (
            "Cohort",
            ("", *titles),
            [
                (what, *(cohort[name][what] for name in metrics))
                for what in ("mean", "sd", "median", "n", "infinite")
            ],
        )
    ]
    for what, key in (("region", "region"), ("label", "name")):
        rows = [
            (row[key], row["dice"]["n"], *(row[name]["mean"] for name in metrics))
            for row in report[f"by_{what}"]
        ]
        if len(rows) > 1:
            found.append((f"Mean by {what}", (what, "cases", *titles), rows))
    if report.get("comparison"):
        found.append(_comparison(report["comparison"], metrics))
    return found


def _comparison(
    compared: Mapping[str, Any], metrics: Mapping[str, Metric]
) -> tuple[str, Sequence[str], Sequence[Sequence[Any]]]:
    headings = ("", "difference", "95 % from", "to", "p", "wins", "losses", "ties")
    rows: list[Sequence[Any]] = [
        (
            metric.title,
            compared[name]["difference"],
            *(compared[name]["ci95"] or (None, None)),
            *(compared[name][key] for key in ("p", "wins", "losses", "ties")),
        )
        for name, metric in metrics.items()
    ]
    return "These minus the other predictions", headings, rows
