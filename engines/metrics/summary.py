"""Scores of a cohort: what to expect of the next case, and how sure that is.

The case is the unit: its labels are averaged first, then the cases. The interval is
the percentile bootstrap of the mean (Efron 1979), drawn over cases with a fixed
seed. A failed case, or one without any label, has no score and is not counted in
``n``.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.metrics.table import METRICS
from engines.results import CaseResult

DRAWS = 2000
SEED = 0
INTERVAL_PERCENT = (2.5, 97.5)


def cohort(cases: Iterable[CaseResult]) -> dict[str, dict[str, Any]]:
    """Return mean, sd, median, interval and n of every metric, over cases."""
    means = [means_of(case) for case in cases]
    scored = [mean for mean in means if mean]
    return {name: spread([mean[name] for mean in scored]) for name in METRICS}


def by_label(cases: Iterable[CaseResult]) -> list[dict[str, Any]]:
    """Return the same for each label alone, over the cases that have it."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for case in cases:
        for row in case.details.get("labels", ()):
            rows.setdefault(row["label"], []).append(row)
    return [
        {"label": label, "name": found[0]["name"]}
        | {name: spread([row[name] for row in found]) for name in METRICS}
        for label, found in sorted(rows.items())
    ]


def means_of(case: CaseResult) -> dict[str, float]:
    """Return each metric averaged over the labels of a case; empty without labels."""
    labels = case.details.get("labels", ())
    if not labels:
        return {}
    return {name: statistics.fmean(row[name] for row in labels) for name in METRICS}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation, median and 95 % interval of the mean.

    What the number of values does not allow is None: all without any, deviation
    and interval with one.
    """
    several = len(values) > 1
    return {
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if several else None,
        "median": statistics.median(values) if values else None,
        "ci95": _bootstrap(np.asarray(values, float)) if several else None,
        "n": len(values),
    }


def _bootstrap(values: NDArray[np.float64]) -> list[float]:
    drawn = np.random.default_rng(SEED).choice(values, (DRAWS, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), INTERVAL_PERCENT)
    return [float(low), float(high)]
