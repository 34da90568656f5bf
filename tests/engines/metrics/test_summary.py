"""Cohorts whose answers can be worked out with a pencil."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from engines.metrics import summary
from engines.metrics.table import METRICS
from engines.results import CaseResult


def case(name: str, **dice_of: float) -> CaseResult:
    """Return a case whose every metric is the number given for the label."""
    labels: list[dict[str, Any]] = [
        {"label": int(key[1:]), "name": key} | dict.fromkeys(METRICS, value)
        for key, value in dice_of.items()
    ]
    return CaseResult(name, name, "done", details={"labels": labels})


def test_labels_are_averaged_before_cases() -> None:
    cases = [case("a", L1=0.2, L2=0.4, L3=0.6), case("b", L1=1.0)]

    told = summary.cohort(cases)["dice"]

    assert (told["mean"], told["median"], told["n"]) == pytest.approx((0.7, 0.7, 2))
    assert told["sd"] == pytest.approx(0.6 / math.sqrt(2))


def test_each_label_alone() -> None:
    first, second = summary.by_label([case("a", L2=0.5), case("b", L1=1.0, L2=0.7)])

    assert (first["label"], first["name"], first["dice"]["n"]) == (1, "L1", 1)
    assert (second["label"], second["dice"]["n"]) == (2, 2)
    assert second["dice"]["mean"] == pytest.approx(0.6)


def test_cases_without_scores_are_not_counted() -> None:
    failed = CaseResult("c", "c", "failed")
    empty = CaseResult("d", "d", "done", details={"labels": []})

    assert summary.cohort([case("a", L1=0.5), failed, empty])["iou"]["n"] == 1


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], {"mean": None, "sd": None, "median": None, "ci95": None, "n": 0}),
        ([0.25], {"mean": 0.25, "sd": None, "median": 0.25, "ci95": None, "n": 1}),
        ([0.5, 0.5], {"mean": 0.5, "sd": 0, "median": 0.5, "ci95": [0.5, 0.5], "n": 2}),
    ],
)
def test_what_the_number_of_cases_does_not_allow_is_none(
    values: list[float], wanted: dict[str, Any]
) -> None:
    assert summary.spread(values) == wanted


def test_interval_agrees_with_scipy_and_is_the_same_every_time() -> None:
    values = np.random.default_rng(3).beta(8, 2, 40)

    low, high = summary.spread(values.tolist())["ci95"]

    oracle = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.003)
    assert low < values.mean() < high
    assert summary.spread(values.tolist())["ci95"] == [low, high]
