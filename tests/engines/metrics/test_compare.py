"""Two sets of predictions: differences, wins and Wilcoxon's test against SciPy."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from engines.metrics.compare import FEWEST, compare
from engines.metrics.table import METRICS
from engines.results import CaseResult

OURS = [0.91, 0.82, 0.95, 0.70, 0.88, 0.93, 0.79]
THEIRS = [0.90, 0.85, 0.90, 0.60, 0.80, 0.93, 0.75]


def cases(values: Sequence[float | None]) -> list[CaseResult]:
    """Return cases a, b, .. whose every metric has the value; None is a failed one."""
    return [
        CaseResult(name, name, "failed")
        if value is None
        else CaseResult(name, name, "done", details={"labels": [_label(value)]})
        for name, value in zip("abcdefghijklm", values, strict=False)
    ]


def _label(value: float) -> dict[str, Any]:
    return {"label": 1, "name": "C1", **dict.fromkeys(METRICS, value)}


def row(
    ours: Sequence[float | None], theirs: Sequence[float | None], name: str = "dice"
) -> dict[str, Any]:
    found: dict[str, Any] = compare(cases(ours), cases(theirs))[name]
    return found


def test_every_metric_is_compared() -> None:
    assert list(compare(cases(OURS), cases(THEIRS))) == list(METRICS)


def test_differences_are_these_minus_the_others() -> None:
    told = row(OURS, THEIRS)

    apart = np.array(OURS) - np.array(THEIRS)
    assert told["difference"] == pytest.approx(apart.mean())
    assert told["ci95"][0] < told["difference"] < told["ci95"][1]
    assert (told["wins"], told["losses"], told["ties"], told["n"]) == (5, 1, 1, 7)
    assert told["cases"][1] == {"name": "b", "these": 0.82, "others": 0.85}


def test_exchanged_sets_exchange_wins_and_losses() -> None:
    told, turned = row(OURS, THEIRS), row(THEIRS, OURS)

    assert turned["difference"] == pytest.approx(-told["difference"])
    assert (turned["wins"], turned["losses"]) == (told["losses"], told["wins"])
    assert turned["p"] == pytest.approx(told["p"])


def test_p_is_scipy_s_without_ties() -> None:
    moved = [a - b for a, b in zip(OURS, THEIRS, strict=True) if a != b]

    assert row(OURS, THEIRS)["p"] == pytest.approx(stats.wilcoxon(moved).pvalue)


def test_p_by_pencil() -> None:
    # All five differences have one sign: 2 of 2^5 sign patterns are that extreme.
    told = row([0.9, 0.8, 0.7, 0.6, 0.5], [0.8, 0.65, 0.5, 0.35, 0.2])

    assert told["p"] == pytest.approx(2 / 2**5)


def test_too_few_differences_have_no_p() -> None:
    few = FEWEST - 1

    assert row(OURS[:few], THEIRS[:few])["p"] is None
    assert row([0.5] * 9, [0.5] * 9)["p"] is None
    assert row([0.5] * 9, [0.5] * 9)["ties"] == 9


def test_rounding_is_a_tie() -> None:
    assert row([0.1 + 0.2], [0.3])["ties"] == 1


def test_smaller_distances_win() -> None:
    told = row([1.0, 4.0], [2.0, 3.5], "hd95_mm")

    assert (told["wins"], told["losses"]) == (1, 1)
    assert told["difference"] == pytest.approx(-0.25)


def test_volume_differences_win_by_being_near_zero() -> None:
    told = row([-1.0, 3.0, 2.0], [2.0, -1.0, -2.0], "volume_difference_ml")

    assert (told["wins"], told["losses"], told["ties"]) == (1, 1, 1)


def test_an_infinite_distance_loses_and_leaves_no_difference() -> None:
    told = row([1.0, math.inf, math.inf], [math.inf, 2.0, math.inf], "hd_mm")

    assert (told["wins"], told["losses"], told["ties"]) == (1, 1, 1)
    assert (told["difference"], told["ci95"], told["p"]) == (None, None, None)
    assert told["n"] == 3


def test_equally_infinite_distances_do_not_hide_the_others() -> None:
    told = row([math.inf, *OURS], [math.inf, *THEIRS], "hd_mm")

    assert told["ties"] == 2
    assert told["difference"] == pytest.approx(sum(OURS) / 8 - sum(THEIRS) / 8)


def test_one_case_has_no_interval() -> None:
    told = row([0.5], [0.25])

    assert (told["difference"], told["ci95"], told["n"]) == (0.25, None, 1)


def test_nothing_in_common_is_no_difference() -> None:
    told = row([], [0.5])

    assert (told["difference"], told["n"], told["cases"]) == (None, 0, [])


def test_only_cases_that_both_scored_are_compared() -> None:
    told = row([0.5, None, 0.7], [0.4, 0.6, None])

    assert [case["name"] for case in told["cases"]] == ["a"]
    assert told["n"] == 1


def test_the_order_of_cases_does_not_matter() -> None:
    ours, theirs = cases(OURS), cases(THEIRS)

    assert compare(ours, theirs[::-1]) == compare(ours, theirs)
