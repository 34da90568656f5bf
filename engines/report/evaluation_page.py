"""``index.html`` of an evaluation: the worst cases first, with pictures of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines import __version__
from engines.metrics import summary
from engines.metrics.table import Metric, shown
from engines.report import charts, page
from engines.report.page import Alarm, Column, Entry, Page, Picture, number
from engines.results import CaseResult

SHARES = ("dice", "iou", "precision", "recall", "nsd")
"""Metrics between 0 and 1, drawn on an axis of that length."""

LAYOUT = "truth and prediction from the side, then from the front"

MISSING, EMPTY, UNSCORED = "no prediction", "empty prediction", "no score"
ALARMING = ("failed", MISSING, EMPTY)
"""Standings of cases that come first, in this order."""

Scores = Mapping[str, Mapping[str, float]]
Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]


def standing(case: CaseResult) -> str:
    """Return the status of a case, or why its scores are the worst there are."""
    codes = {note.code for note in case.warnings}
    if case.status != "done":
        return case.status
    if not case.details.get("labels"):
        return UNSCORED
    if "missing_prediction" in codes:
        return MISSING
    return EMPTY if "empty_prediction" in codes else case.status


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
    first = shown(metrics)
    means = {case.name: summary.means_of(case, metrics) for case in cases}
    scored = any(means.values())
    worst = sorted(cases, key=lambda case: _rank(case, means[case.name]))
    ordered = {**first, **metrics}
    return page.html(
        Page(
            "Spine evaluation",
            _facts(cases, report, command),
            (
                Column("case", "Case"),
                Column("status", "Status", "status"),
                *(
                    Column(n, m.title, "number", m.digits, more=n not in first)
                    for n, m in ordered.items()
                    if scored
                ),
            ),
            [_entry(case, means[case.name], ordered) for case in worst],
            [_chart(metric, means) for metric in first.values()] if scored else (),
            [
                _picture(case, means[case.name], pictures)
                for case in worst
                if case.name in pictures
            ],
            f"Worst cases: {LAYOUT}",
            _tables(report, first) if scored else (),
            charts_legend=charts.LEGEND,
            alarms=_alarms(cases),
        )
    )


def _rank(case: CaseResult, means: Mapping[str, float]) -> tuple[int, float, str]:
    """Return a key: failed, without prediction, empty, then by Dice, the lowest first.

    Those where there was nothing to score come last.
    """
    place = standing(case)
    severity = ALARMING.index(place) if place in ALARMING else len(ALARMING)
    return severity, (means["dice"] if means else 2.0), case.name


def _alarms(cases: Sequence[CaseResult]) -> list[str]:
    found = [
        page.listed(what, [case.name for case in cases if standing(case) == place])
        for what, place in (
            ("failed", "failed"),
            ("without a prediction", MISSING),
            ("with an empty prediction", EMPTY),
        )
    ]
    return [alarm for alarm in found if alarm]


def _facts(
    cases: Sequence[CaseResult], report: Mapping[str, Any], command: str
) -> list[str]:
    dice = report["cohort"]["dice"]
    facts = [f"{len(cases)} cases, {dice['n']} scored"]
    if dice["mean"] is not None:
        interval = f" (95 % {_range(dice['ci95'], 4)})" if dice["ci95"] else ""
        facts.append(
            f"Dice {dice['mean']:.4f} on average{interval}, median "
            f"{dice['median']:.4f} (quartiles {_range(dice['quartiles'], 4)})"
        )
    found = report["identification"]
    if found is not None:
        facts.append(
            f"{found['identified']} of {found['vertebrae']} vertebrae identified "
            f"({found['rate']:.1%})"
        )
    facts.append(
        f"spine {__version__}: {command}" if command else f"spine {__version__}"
    )
    return facts


def _range(ends: Sequence[float] | None, digits: int) -> str:
    return "" if ends is None else " to ".join(number(end, digits) for end in ends)


def _entry(
    case: CaseResult, means: Mapping[str, float], metrics: Mapping[str, Metric]
) -> Entry:
    notes = [case.error.message, case.error.hint] if case.error is not None else []
    notes = [note for note in notes if note]
    notes += [note.message for note in case.warnings]
    place = standing(case)
    cells = {"case": case.name, "status": place, **means}
    alarm: Alarm = "warned" if case.warnings else ""
    if place in ALARMING:
        alarm = "failed"
    labels = case.details.get("labels", ())
    if not labels:
        return Entry(cells, notes, alarm=alarm)
    headings = ("Label", "Name", "In", *(m.title for m in metrics.values()))
    rows = [
        (
            row["label"],
            row["name"],
            row["present"],
            *(number(row[name], metric.digits) for name, metric in metrics.items()),
        )
        for row in labels
    ]
    return Entry(cells, notes, (headings, rows), alarm=alarm)


def _chart(metric: Metric, means: Scores) -> tuple[str, str]:
    values = [mean[metric.name] for mean in means.values() if mean]
    limits = (0.0, 1.0) if metric.name in SHARES else None
    return metric.title, charts.distribution(values, metric.title, limits)


def _picture(
    case: CaseResult, means: Mapping[str, float], pictures: Mapping[str, bytes]
) -> Picture:
    place = standing(case)
    why = f" ({place})" if place in ALARMING else ""
    return Picture(
        pictures[case.name],
        f"{case.name}: {LAYOUT}",
        caption=f"{case.name}: Dice {means['dice']:.4f}{why}",
    )


def _tables(report: Mapping[str, Any], metrics: Mapping[str, Metric]) -> list[Table]:
    found = [_cohort(report["cohort"], metrics)]
    titles = [metric.title for metric in metrics.values()]
    for what, key in (("region", "region"), ("label", "name")):
        rows = [
            (
                row[key],
                row["dice"]["n"],
                *(number(row[n]["mean"], m.digits) for n, m in metrics.items()),
            )
            for row in report[f"by_{what}"]
        ]
        if len(rows) > 1:
            found.append((f"Mean by {what}", (what, "cases", *titles), rows))
    if report.get("comparison"):
        found.append(_comparison(report["comparison"], metrics))
    return found


def _cohort(cohort: Mapping[str, Any], metrics: Mapping[str, Metric]) -> Table:
    headings = [
        "Over cases", "mean", "95 % interval", "sd", "median", "quartiles", "cases",
    ]  # fmt: skip
    rows = [
        [
            metric.title,
            number(told["mean"], metric.digits),
            _range(told["ci95"], metric.digits),
            number(told["sd"], metric.digits),
            number(told["median"], metric.digits),
            _range(told["quartiles"], metric.digits),
            told["n"],
        ]
        for metric, told in ((metric, cohort[name]) for name, metric in metrics.items())
    ]
    infinite = [cohort[name]["infinite"] for name in metrics]
    if any(infinite):
        headings.append("infinite")
        rows = [[*row, count] for row, count in zip(rows, infinite, strict=True)]
    return "Cohort", headings, rows


def _comparison(compared: Mapping[str, Any], metrics: Mapping[str, Metric]) -> Table:
    headings = ("", "difference", "95 % interval", "p", "wins", "losses", "ties")
    rows = [
        (
            metric.title,
            _signed(compared[name]["difference"], metric.digits),
            " to ".join(
                _signed(end, metric.digits) for end in compared[name]["ci95"] or ()
            ),
            "" if compared[name]["p"] is None else f"{compared[name]['p']:.3g}",
            *(compared[name][key] for key in ("wins", "losses", "ties")),
        )
        for name, metric in metrics.items()
    ]
    return "These minus the other predictions", headings, rows


def _signed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:+.{digits}f}"
