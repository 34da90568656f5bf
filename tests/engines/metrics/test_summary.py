"""Cohorts whose answers can be worked out with a pencil."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


def test_each_region_alone_with_its_labels_averaged_in_a_case() -> None:
    whole = case("a", C1=0.2, C7=0.4, L1=1.0)
    for row, region in zip(
        whole.details["labels"], ("cervical", "cervical", "lumbar"), strict=True
    ):
        row["region"] = region
    other = case("b", L1=0.5)
    other.details["labels"][0]["region"] = "lumbar"
    unnamed = case("c", X9=0.1)

    cervical, lumbar = summary.by_region([whole, other, unnamed])

    assert (cervical["region"], cervical["dice"]["n"]) == ("cervical", 1)
    assert cervical["dice"]["mean"] == pytest.approx(0.3)
    assert (lumbar["region"], lumbar["dice"]["n"]) == ("lumbar", 2)
    assert lumbar["dice"]["mean"] == pytest.approx(0.75)


def test_identification_is_over_vertebrae_and_not_over_cases() -> None:
    def found(identified: int, vertebrae: int, **errors_mm: float) -> CaseResult:
        told = {
            "identified": identified,
            "vertebrae": vertebrae,
            "errors_mm": errors_mm,
        }
        return CaseResult("a", "a", "done", details={"identification": told})

    told = summary.identification(
        [
            found(1, 1, L1=2.0),
            found(0, 3, L2=30.0, L3=1.0),
            CaseResult("b", "b", "done"),
        ]
    )

    assert told == {
        "rate": 1 / 4,
        "mean_error_mm": 11.0,
        "identified": 1,
        "vertebrae": 4,
    }


def test_without_vertebrae_there_is_no_rate() -> None:
    none = {"identified": 0, "vertebrae": 0, "errors_mm": {}}
    case = CaseResult("a", "a", "done", details={"identification": none})

    assert summary.identification([case]) is None
    assert summary.identification([]) is None


def test_a_rate_without_any_predicted_centre_has_no_error() -> None:
    lost = {"identified": 0, "vertebrae": 2, "errors_mm": {}}

    told = summary.identification(
        [CaseResult("a", "a", "done", details={"identification": lost})]
    )

    assert told is not None
    assert (told["rate"], told["mean_error_mm"]) == (0, None)


NOTHING = dict.fromkeys(("mean", "sd", "median", "quartiles", "ci95"))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], NOTHING | {"n": 0}),
        ([0.25], NOTHING | {"mean": 0.25, "median": 0.25, "quartiles": [0.25] * 2}),
        (
            [0.5, 0.5],
            {
                "mean": 0.5,
                "sd": 0,
                "median": 0.5,
                "quartiles": [0.5, 0.5],
                "ci95": [0.5, 0.5],
            },
        ),
    ],
)
def test_what_the_number_of_cases_does_not_allow_is_none(
    values: list[float], wanted: dict[str, Any]
) -> None:
    assert summary.spread(values) == {"n": len(values), "infinite": 0} | wanted


def test_a_cohort_by_pencil() -> None:
    told = summary.spread([4.0, 1.0, 2.0, 3.0, 10.0])

    assert (told["mean"], told["median"], told["quartiles"]) == (4, 3, [2, 4])
    assert told["sd"] == pytest.approx(math.sqrt((0 + 9 + 4 + 1 + 36) / 4))


def test_infinite_distances_stay_in_the_mean_and_out_of_the_median() -> None:
    told = summary.spread([1.0, math.inf, 2.0, 3.0, 4.0])

    assert told == {
        "mean": math.inf,
        "sd": None,
        "median": 3.0,
        "quartiles": [2.0, 4.0],
        "ci95": None,
        "n": 5,
        "infinite": 1,
    }


def test_too_many_infinite_distances_reach_the_median() -> None:
    told = summary.spread([1.0, math.inf, math.inf])

    assert (told["median"], told["quartiles"][1]) == (math.inf, math.inf)
    assert summary.spread([math.inf] * 4)["quartiles"] == [math.inf, math.inf]


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40), st.integers(0, 5))
@settings(max_examples=100)
def test_quartiles_enclose_the_median_of_odd_cohorts_and_are_among_the_values(
    finite: list[float], lost: int
) -> None:
    values = [*finite, *[math.inf] * lost]
    low, high = summary.spread(values)["quartiles"]

    assert {low, high} <= set(values)
    assert low <= high


def test_interval_agrees_with_scipy_and_is_the_same_every_time() -> None:
    values = np.random.default_rng(3).beta(8, 2, 40)

    low, high = summary.spread(values.tolist())["ci95"]

    oracle = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.003)
    assert low < values.mean() < high
    assert summary.spread(values.tolist())["ci95"] == [low, high]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60))
@settings(max_examples=60)
def test_the_interval_contains_the_mean(values: list[float]) -> None:
    told = summary.spread(values)

    low, high = told["ci95"]
    assert low - 1e-12 <= told["mean"] <= high + 1e-12


@pytest.mark.parametrize("at_once", [1, 7, 1000, 64_000])
def test_the_interval_does_not_depend_on_how_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    values = np.random.default_rng(5).random(32)
    whole = summary.bootstrap(values)

    monkeypatch.setattr(summary, "DRAWN_AT_ONCE", at_once)

    assert summary.bootstrap(values) == whole
