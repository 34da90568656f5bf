"""Courses in a drawing: every line can be told from every other."""

import math
import re
from xml.etree import ElementTree

import pytest

from engines.report import lines
from engines.report.lines import Line

FALL = [(0, 2.0), (50, 1.0), (100, 0.5)]


def parsed(drawing: str) -> ElementTree.Element:
    """Return the drawing, whose attributes HTML takes without quotes."""
    return ElementTree.fromstring(re.sub(r"=([^\s\"/>]+)", r'="\1"', drawing))  # noqa: S314


def looks(drawing: str) -> list[tuple[str, str]]:
    return [
        (line.attrib["style"], line.attrib.get("stroke-dasharray", ""))
        for line in parsed(drawing).iter("polyline")
    ]


@pytest.mark.parametrize(
    "labels",
    [
        [(a, b) for a in "ABCDE" for b in "wxyz"],
        [(str(number),) for number in range(48)],
        [(str(number), other) for number in range(9) for other in "xy"],
    ],
)
def test_lines_differ_in_colour_or_dashes(labels: list[tuple[str, ...]]) -> None:
    drawn = looks(lines.drawn([Line(one, FALL) for one in labels], "Loss"))

    assert len(set(drawn)) == len(labels)


def test_the_first_label_decides_the_colour_and_the_others_the_dashes() -> None:
    grid = [Line((a, b), FALL) for a in "AB" for b in "xy"]

    (ax, ay, bx, by) = looks(lines.drawn(grid, "Loss"))

    assert ax[0] == ay[0] != bx[0] == by[0]
    assert ax[1] == bx[1] != ay[1] == by[1]


def test_the_legend_names_every_line_and_the_axis_ends_above_them() -> None:
    names = ("U-Net", "<odd> & long")
    drawn = lines.drawn([Line((one,), FALL) for one in names], "Loss")

    told = [text.text for text in parsed(drawn).iter("text")]
    assert set(names) <= set(told)
    assert {"0", "2", "100", "step"} <= set(told)


def test_places_are_in_proportion() -> None:
    drawn = lines.drawn([Line(("a",), FALL)], "Loss", top=2.0)

    (line,) = parsed(drawn).iter("polyline")
    places = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    right = lines.WIDTH - lines.RIGHT
    assert [x for x, _ in places] == [lines.LEFT, (lines.LEFT + right) / 2, right]
    height = lines.HEIGHT - lines.TOP - lines.BOTTOM
    assert [y for _, y in places] == [10.0, 10 + height / 2, 10 + height * 0.75]


@pytest.mark.parametrize(
    ("last", "highest", "steps", "values"),
    [
        (2200, 1.7, "0 500 1,000 1,500 2,000", "0 0.5 1 1.5 2"),
        (3, 0.037, "0 1 2 3", "0 0.01 0.02 0.03 0.04"),
        (0, 0.0, "0 1", "0 0.2 0.4 0.6 0.8 1"),
        (50_000, 730.0, "0 10,000 20,000 30,000 40,000 50,000", "0 200 400 600 800"),
    ],
)
def test_marks_are_round(last: int, highest: float, steps: str, values: str) -> None:
    drawn = lines.drawn([Line(("a",), [(0, highest), (last, 0.0)])], "Loss")

    marks = list(parsed(drawn).iter("text"))
    across = [m.text for m in marks if m.attrib["text-anchor"] == "middle"]
    up = [m.text for m in marks if m.attrib["text-anchor"] == "end"]
    assert across == [*steps.split(), "step"]
    assert up == values.split()


def test_what_is_no_number_is_left_out() -> None:
    points = [(0, 1.0), (5, math.inf), (10, math.nan), (20, 0.5)]

    (line,) = parsed(lines.drawn([Line(("a",), points)], "Loss")).iter("polyline")

    assert len(line.attrib["points"].split()) == 2
    assert lines.drawn([Line(("a",), ())], "Loss") == ""
