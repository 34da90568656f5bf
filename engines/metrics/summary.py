"""Scores of a cohort: what to expect of the next case, and how sure that is.

The case is the unit: its labels are averaged first, then the cases. The interval is
the percentile bootstrap of the mean (Efron 1979), drawn over cases with a fixed
seed. A failed case, or one without any label, has no score and is not counted in
``n``. An infinite distance makes the mean infinite; the median and the quartiles stay
finite as long as fewer cases than that are infinite.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.labels import REGIONS
from engines.metrics.table import METRICS, Metric
from engines.results import CaseResult

DRAWS = 2000
SEED = 0
INTERVAL_PERCENT = (2.5, 97.5)
DRAWN_AT_ONCE = 1 << 22
"""Random numbers in memory at a time, however many cases there are."""

Rows = Sequence[Mapping[str, Any]]
Metrics = Mapping[str, Metric]


def cohort(
    cases: Iterable[CaseResult], metrics: Metrics = METRICS
) -> dict[str, dict[str, Any]]:
    """Return mean, sd, median, interval and n of every metric, over cases."""
    means = [means_of(case, metrics) for case in cases]
    scored = [mean for mean in means if mean]
    return {name: spread([mean[name] for mean in scored]) for name in metrics}


def by_label(
    cases: Iterable[CaseResult], metrics: Metrics = METRICS
) -> list[dict[str, Any]]:
    """Return the same for each label alone, over the cases that have it."""
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for case in cases:
        for row in case.details.get("labels", ()):
            rows.setdefault(row["label"], []).append(row)
    return [
        {"label": label, "name": found[0]["name"]}
        | {name: spread([row[name] for row in found]) for name in metrics}
        for label, found in sorted(rows.items())
    ]


def by_region(
    cases: Iterable[CaseResult], metrics: Metrics = METRICS
) -> list[dict[str, Any]]:
    """Return the same for each region of the spine, its labels averaged in a case."""
    means: dict[str, list[dict[str, float]]] = {region: [] for region in REGIONS}
    for case in cases:
        labels = case.details.get("labels", ())
        for region in REGIONS:
            own = [row for row in labels if row.get("region") == region]
            if own:
                means[region].append(_means(own, metrics))
    return [
        {"region": region}
        | {name: spread([mean[name] for mean in found]) for name in metrics}
        for region, found in means.items()
        if found
    ]


def means_of(case: CaseResult, metrics: Metrics = METRICS) -> dict[str, float]:
    """Return each metric averaged over the labels of a case; empty without labels."""
    labels = case.details.get("labels", ())
    return _means(labels, metrics) if labels else {}


def identification(cases: Iterable[CaseResult]) -> dict[str, Any] | None:
    """Return rate and error over all vertebrae of all cases; None without any."""
    found = [case.details["identification"] for case in cases if _identified(case)]
    vertebrae = sum(one["vertebrae"] for one in found)
    if not vertebrae:
        return None
    errors = [mm for one in found for mm in one["errors_mm"].values()]
    hits = sum(one["identified"] for one in found)
    return {
        "rate": hits / vertebrae,
        "mean_error_mm": statistics.fmean(errors) if errors else None,
        "identified": hits,
        "vertebrae": vertebrae,
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation, median, quartiles and interval of the mean.

    What the number of values does not allow is None: all without any, deviation
    and interval with one; so are both with an infinite value.
    """
    several = len(values) > 1
    finite = all(map(math.isfinite, values))
    array = np.asarray(values, float)
    return {
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if several and finite else None,
        "median": statistics.median(values) if values else None,
        "quartiles": quartiles(values) if values else None,
        "ci95": bootstrap(array) if several and finite else None,
        "n": len(values),
        "infinite": sum(not math.isfinite(value) for value in values),
    }


def quartiles(values: Sequence[float]) -> list[float]:
    """Return the first and third quartile, which are among the values."""
    low, high = np.percentile(np.asarray(values, float), (25, 75), method="nearest")
    return [float(low), float(high)]


def bootstrap(values: NDArray[np.float64]) -> list[float]:
    """Return the 95 % interval of the mean of ``values``."""
    random = np.random.default_rng(SEED)
    at_once = max(1, min(DRAWS, DRAWN_AT_ONCE // len(values)))
    means = []
    for start in range(0, DRAWS, at_once):
        count = min(at_once, DRAWS - start)
        drawn = random.integers(len(values), size=(count, len(values)))
        means.append(values[drawn].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), INTERVAL_PERCENT)
    return [float(low), float(high)]


def _means(rows: Rows, metrics: Metrics) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in metrics}


def _identified(case: CaseResult) -> bool:
    return case.details.get("identification") is not None
