"""Areas of surface elements: by pencil, and against DeepMind's lookup tables."""

import math

import numpy as np
import pytest

from engines.metrics import surfels
from tests import surface_oracle

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 1.1, 2.5), (3.0, 0.2, 0.9), (1e-3, 40.0, 7.0)]


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_all_256_areas_are_those_of_the_tables(
    spacing_mm: tuple[float, float, float],
) -> None:
    found = surfels.areas_mm2(spacing_mm)

    assert found.shape == (256,)
    np.testing.assert_allclose(
        found, surface_oracle.areas_mm2(spacing_mm), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("spacing_mm", [spacing[:2] for spacing in SPACINGS])
def test_all_16_lengths_are_those_of_the_tables(
    spacing_mm: tuple[float, float],
) -> None:
    found = surfels.lengths_mm(spacing_mm)

    assert found.shape == (16,)
    np.testing.assert_allclose(
        found, surface_oracle.lengths_mm(spacing_mm), rtol=1e-12, atol=0
    )


def test_corners_have_the_bits_of_the_tables() -> None:
    cube, square = surface_oracle.corners()

    np.testing.assert_array_equal(surfels.CORNERS_3D, cube)
    np.testing.assert_array_equal(surfels.CORNERS_2D, square)


def test_a_mask_and_its_complement_have_the_same_surface() -> None:
    areas, lengths = surfels.areas_mm2((0.7, 1.1, 2.5)), surfels.lengths_mm((0.7, 2.5))

    np.testing.assert_array_equal(areas, areas[::-1])
    np.testing.assert_array_equal(lengths, lengths[::-1])


def test_only_all_inside_and_all_outside_have_no_surface() -> None:
    assert np.flatnonzero(surfels.areas_mm2((1, 2, 3)) == 0).tolist() == [0, 255]
    assert np.flatnonzero(surfels.lengths_mm((1, 2)) == 0).tolist() == [0, 15]


def test_a_cut_corner_and_flat_walls_by_pencil() -> None:
    areas = surfels.areas_mm2((2.0, 3.0, 5.0))

    halves = [int(surfels.CORNERS_3D.take(1, axis).sum(dtype=int)) for axis in range(3)]
    corner = math.hypot(15, 10, 6) / 8  # a triangle between the middles of three edges
    assert [areas[half] for half in halves] == pytest.approx([15, 10, 6])
    assert [areas[1 << bit] for bit in range(8)] == pytest.approx([corner] * 8)


def test_contours_by_pencil() -> None:
    lengths = surfels.lengths_mm((3.0, 4.0))

    below, right = (int(surfels.CORNERS_2D.take(1, axis).sum()) for axis in range(2))
    assert (lengths[below], lengths[right]) == (4, 3)
    assert [lengths[1 << bit] for bit in range(4)] == [2.5] * 4
    assert (lengths[0b1001], lengths[0b0110]) == (5, 5)
