"""Two sets of predictions on the same cases: which is better, and how sure that is.

Source: Wilcoxon signed-rank test (Wilcoxon 1945) on the differences of the cases'
means, and the percentile bootstrap of their mean. Cases that only one set has are
counted as in any evaluation (a missing prediction scores worst) and never dropped.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.metrics import summary
from engines.metrics.table import METRICS, Metric
from engines.results import CaseResult

FEWEST = 5
"""Of fewer differences no test can be significant; none is made."""

SAME = 1e-12
"""Smaller differences are ties."""


def compare(
    cases: Sequence[CaseResult],
    others: Sequence[CaseResult],
    metrics: Mapping[str, Metric] = METRICS,
) -> dict[str, Any]:
    """Compare the scores of two evaluations against the same truth, by case.

    Returns:
        Metric -> difference of means (these minus others) with its 95 % interval,
        p-value, how many cases win, lose and tie, and each case's values. What
        infinite distances do not allow is None. What is best at 0 is compared by its
        size, whatever its sign.
    """
    ours = {case.name: summary.means_of(case, metrics) for case in cases}
    theirs = {case.name: summary.means_of(case, metrics) for case in others}
    both = [name for name in ours if ours[name] and theirs.get(name)]
    return {
        name: _row(metric, [(c, ours[c][name], theirs[c][name]) for c in both])
        for name, metric in metrics.items()
    }


def _row(metric: Metric, values: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    if metric.better == "zero":
        values = [(name, abs(own), abs(other)) for name, own, other in values]
    gains = [_gain(metric, own, other) for _, own, other in values]
    apart = np.array([own - other for _, own, other in values if own != other])
    equal = len(values) - len(apart)
    finite = bool(np.isfinite(apart).all())
    differences = np.concatenate([apart, np.zeros(equal)])
    usable = finite and len(values) > 1
    return {
        "difference": float(differences.mean()) if finite and len(values) else None,
        "ci95": summary.bootstrap(differences) if usable else None,
        "p": _wilcoxon(differences) if usable else None,
        "wins": sum(gain > SAME for gain in gains),
        "losses": sum(gain < -SAME for gain in gains),
        "ties": sum(abs(gain) <= SAME for gain in gains),
        "n": len(values),
        "cases": [
            {"name": name, "these": own, "others": other} for name, own, other in values
        ],
    }


def _gain(metric: Metric, own: float, other: float) -> float:
    """Return by how much ``own`` is better."""
    if own == other:
        return 0.0
    return own - other if metric.better == "high" else other - own


def _wilcoxon(differences: NDArray[np.float64]) -> float | None:
    from scipy import stats  # slow to import, and seldom needed

    moved = differences[np.abs(differences) > SAME]
    if len(moved) < FEWEST:
        return None
    p = float(stats.wilcoxon(moved).pvalue)
    return p if math.isfinite(p) else None
