"""Grids keep their field of view, and impossible affines are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import geometry
from engines.errors import GeometryError
from engines.geometry import Grid
from tests.phantoms import ORIENTATIONS, SHAPE, SPACING_MM, affine

AXES = st.sampled_from(ORIENTATIONS)
ANGLES = st.tuples(*[st.floats(-25, 25)] * 3)


@given(AXES, ANGLES)
def test_spacing_does_not_depend_on_direction(
    axes: str, turned_deg: tuple[float, ...]
) -> None:
    grid = Grid(SHAPE, affine(axes, turned_deg=turned_deg))

    assert grid.spacing_mm == pytest.approx(SPACING_MM)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_axes_are_named_by_where_they_run(axes: str) -> None:
    assert Grid(SHAPE, affine(axes)).axes == axes


def test_corners_are_voxel_centres() -> None:
    grid = Grid((2, 1, 3), affine("RAS", (1, 2, 4), origin_mm=(10, 20, 30)))

    assert sorted(map(tuple, np.unique(grid.corners_mm(), axis=0))) == [
        (10, 20, 30),
        (10, 20, 38),
        (11, 20, 30),
        (11, 20, 38),
    ]


@given(AXES, ANGLES, st.floats(0.4, 6))
def test_resampled_grid_shares_the_centre(
    axes: str, turned_deg: tuple[float, ...], target_mm: float
) -> None:
    grid = Grid(SHAPE, affine(axes, turned_deg=turned_deg))
    new = geometry.resampled(grid, (target_mm,) * 3)

    np.testing.assert_allclose(
        new.corners_mm().mean(axis=0), grid.corners_mm().mean(axis=0), atol=1e-9
    )
    assert new.spacing_mm == pytest.approx((target_mm,) * 3)
    for n, mm, count in zip(grid.shape, grid.spacing_mm, new.shape, strict=True):
        assert count == max(1, round(n * mm / target_mm))


@given(AXES, st.tuples(*[st.integers(1, 40)] * 3))
def test_resized_grid_covers_the_same_field(
    axes: str, shape: tuple[int, int, int]
) -> None:
    grid = Grid(SHAPE, affine(axes, turned_deg=(3, -8, 12)))
    new = geometry.resized(grid, shape)

    sides_mm = np.multiply(new.shape, new.spacing_mm)
    np.testing.assert_allclose(sides_mm, np.multiply(grid.shape, grid.spacing_mm))
    first_edge = grid.affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(new.affine @ [-0.5, -0.5, -0.5, 1], first_edge)


def test_grids_match_within_a_micrometre_but_not_a_tenth_of_a_millimetre() -> None:
    grid = Grid(SHAPE, affine())
    near, far = affine(), affine()
    near[0, 3] += 1e-6
    far[0, 3] += 0.1

    assert grid.matches(Grid(SHAPE, near))
    assert not grid.matches(Grid(SHAPE, far))
    assert not grid.matches(Grid((7, 6, 4), affine()))


def test_disagreement_is_counted_in_the_smallest_voxel() -> None:
    moved = affine()
    moved[2, 3] += 1.4

    assert geometry.disagreement_voxels(SHAPE, affine(), moved) == pytest.approx(2)


def test_shear_is_refused_in_degrees() -> None:
    sheared = affine("RAS", (1, 1, 1))
    sheared[1, 2] = np.tan(np.radians(18))

    with pytest.raises(GeometryError, match=r"sheared by 18\.00 degrees"):
        geometry.check_affine(sheared)


def test_zero_voxel_size_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"0\.7 x 0 x 2\.5 mm; each must be above"):
        geometry.check_affine(affine("RAS", (0.7, 0, 2.5)))


def test_affine_that_is_not_finite_is_refused() -> None:
    broken = affine()
    broken[0, 0] = np.nan

    with pytest.raises(GeometryError, match="not finite"):
        geometry.check_affine(broken)


def test_rounding_of_direction_cosines_is_no_shear() -> None:
    geometry.check_affine(np.round(affine("PIR", turned_deg=(4, 11, -7)), 3))
