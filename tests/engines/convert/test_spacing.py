"""Slices lie on an even grid as far as their headers round, and gaps stay gaps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.convert import spacing
from engines.convert.assemble import assemble
from engines.convert.checks import findings_of
from engines.convert.stack import height_rounding_mm
from tests import dicom_phantoms as made

ROUNDED = [
    (0.625, 2),
    (0.3125, 3),
    (0.3125, 2),
    (0.3125, 1),
    (0.667, 2),
    (0.4, 1),
    (1.25, 1),
    (0.75, 1),
    (3.75, 1),
    (3.75, 0),
    (2.5, 0),
    (0.009, 4),
]
STARTS = (-100, -37.3333, 12.345)


def heights(step: float, digits: int, count: int, start: float) -> NDArray[np.float64]:
    return np.array([round(start + step * n, digits) for n in range(count)])


def found(
    slices: Sequence[float], digits: int, turned_deg: float = 0
) -> list[tuple[str, bool]]:
    """Return the findings about slices whose headers round their positions."""
    angle = np.radians(turned_deg)
    down = [0, float(np.cos(angle)), float(np.sin(angle))]
    normal = np.cross([1, 0, 0], down)
    datasets = []
    for number, height in enumerate(slices):
        dataset = made.slice_of(number, ImageOrientationPatient=[1, 0, 0, *down])
        place = np.array([-10.0, -20.0, 0]) + normal * height
        written = [f"{mm:.{digits}f}" for mm in place]
        dataset.ImagePositionPatient = written
        datasets.append(dataset)
    (stack,) = made.stacks_in(datasets)
    return [(one.code, one.fatal) for one in findings_of(stack)]


@pytest.mark.parametrize(("step", "digits"), ROUNDED)
@pytest.mark.parametrize("count", [3, 12, 70, 200, 700])
def test_rounded_heights_are_even(step: float, digits: int, count: int) -> None:
    for start in STARTS:
        rounded = heights(step, digits, count, start)
        places = spacing.places_of(rounded, 0.5 * 10.0**-digits)

        assert places.tolist() == list(range(count))


@pytest.mark.parametrize(("step", "digits"), ROUNDED)
@pytest.mark.parametrize("count", [12, 70, 200])
def test_missing_slices_among_rounded_heights_are_found(
    step: float, digits: int, count: int
) -> None:
    last = count - 2
    for lost in ([1], [last], [count // 2], [1, 2], [last - 1, last], [1, last]):
        kept = np.delete(np.arange(count), lost)
        for start in STARTS:
            rounded = heights(step, digits, count, start)[kept]
            places = spacing.places_of(rounded, 0.5 * 10.0**-digits)

            assert places.tolist() == kept.tolist()


@pytest.mark.parametrize(
    "odd",
    [
        [0, 2.5, 5, 7.9, 10, 12.5, 15],
        [0, 2.5, 5, 7.5, 10, 12.5, 13.75],
        [1.25, 2.5, 5, 7.5, 10, 12.5, 15],
        [1.25, 2.5, 5, 7.5, 10, 12.5, 15, 17.5, 18.75],
        [0, 2.5, 5, 8.5, 11, 13.5, 16],
    ],
)
def test_odd_slices_make_no_grid(odd: list[float]) -> None:
    assert spacing.places_of(np.array(odd), 0.05).size == 0
    assert not spacing.is_even(np.array(odd), 0.05)


def test_rounding_coarser_than_the_step_proves_nothing() -> None:
    assert spacing.places_of(np.array([0.0, 1, 3, 4, 5, 7]), 0.5).tolist() == [
        *(0, 1, 3, 4, 5, 7),
    ]


@pytest.mark.parametrize(("step", "digits"), [(0.625, 2), (1.25, 1), (0.3125, 3)])
@pytest.mark.parametrize("turned_deg", [0, 17, -40])
def test_rounded_series_is_even_and_its_gap_a_gap(
    step: float, digits: int, turned_deg: float
) -> None:
    every = [step * number - 31.7 for number in range(90)]
    gap = [*every[:88], every[89]]

    assert not any(fatal for _, fatal in found(every, digits, turned_deg))
    assert [code for code, fatal in found(gap, digits, turned_deg) if fatal] == [
        "series_gap"
    ]


def test_coarse_rounding_is_told() -> None:
    told = found([2.5 * number for number in range(12)], 0)

    assert ("rounded_positions", False) in told
    assert not any(fatal for _, fatal in told)


def test_finest_number_shows_how_headers_round() -> None:
    slices = [made.slice_of(n, z_mm=round(100 + 0.625 * n, 2)) for n in range(12)]
    (stack,) = made.stacks_in(slices)

    assert height_rounding_mm(stack.volumes[0]) == pytest.approx(0.005)


def test_rounded_series_is_converted(tmp_path: Path) -> None:
    heights_mm = [round(-100 + 0.625 * number, 2) for number in range(80)]
    slices = [made.slice_of(n, z_mm=height) for n, height in enumerate(heights_mm)]
    read = assemble(made.stack_of(made.write_slices(tmp_path, slices)))

    np.testing.assert_array_equal(read.voxels, made.hu_of(range(80)))
    assert read.grid.spacing_mm == pytest.approx((0.7, 0.7, 0.625), abs=1e-4)
    assert read.warnings == ()


def test_duplicates_among_rounded_slices_are_found(tmp_path: Path) -> None:
    heights_mm = [round(0.625 * number, 2) for number in range(40)]
    slices = [made.slice_of(n, z_mm=height) for n, height in enumerate(heights_mm)]
    twice = made.slice_of(7, z_mm=heights_mm[7], SOPInstanceUID="1.2.99")
    stack = made.stack_of(made.write_slices(tmp_path, [*slices, twice]))

    assert [note.code for note in assemble(stack).warnings] == ["duplicate_slices"]
