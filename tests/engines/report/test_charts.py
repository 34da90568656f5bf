"""Drawings of a distribution: round marks, and the figures of the tables."""

import math
import re

import pytest

from engines.report import charts, ticks


def marks(drawing: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", drawing)


@pytest.mark.parametrize(
    ("values", "limits", "told"),
    [
        ([0.5, 0.9], (0, 1), "0 0.2 0.4 0.6 0.8 1"),
        ([19.2119, 1.5], None, "0 5 10 15 20"),
        ([3.64, 0.2], None, "0 1 2 3 4"),
        ([-0.3, 0.4], None, "-0.4 -0.2 0 0.2 0.4"),
        ([-5.0, -3.0], None, "-5 -4 -3 -2 -1 0"),
        ([1234.0], None, "0 500 1,000 1,500"),
        ([0.72, 0.91], (0.7, 1.0), "0.7 0.8 0.9 1"),
        ([0.0, 0.0], None, "0 0.2 0.4 0.6 0.8 1"),
        ([2e-5], None, "0 5e-06 1e-05 1.5e-05 2e-05"),
        ([], None, "0 0.2 0.4 0.6 0.8 1"),
    ],
)
def test_marks_are_round(
    values: list[float], limits: tuple[float, float] | None, told: str
) -> None:
    assert marks(charts.distribution(values, "x", limits)) == told.split()


def test_infinite_values_lie_beyond_the_axis_and_count_for_the_box() -> None:
    drawn = charts.distribution([1.0, 2.0, math.inf, math.inf, math.inf], "HD")

    assert "median inf, quartiles 2 and inf, 3 infinite" in drawn
    assert marks(drawn) == ["0", "0.5", "1", "1.5", "2", "∞ (3)"]
    places = [float(x) for x in re.findall(r"<circle cx=([\d.]+)", drawn)]
    assert places[0] < places[1] < places[2] == places[3] < charts.WIDTH
    ends = re.search(r"<line x1=14 x2=([\d.]+)", drawn)
    assert ends is not None
    assert places[1] == float(ends[1])


@pytest.mark.parametrize("high", [1e-9, 0.3, 1, 7, 99.99, 1e6, 3.3e12])
def test_an_axis_has_a_few_marks_and_holds_its_values(high: float) -> None:
    low, end = ticks.widened(0, high)

    found = ticks.marks(low, end)
    assert 3 <= len(found) <= 7
    assert (found[0], found[-1]) == (low, end) == (0, end)
    assert end >= high
