"""Resampling agrees with SciPy, with straight lines, and with its mirror image."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from engines import geometry
from engines.geometry import Grid
from engines.preprocess import orient, resample
from engines.volume import Volume
from tests import phantoms

AXES = st.sampled_from(phantoms.ORIENTATIONS)
FINER_MM = st.tuples(st.floats(0.3, 0.7), st.floats(0.4, 1.1), st.floats(0.5, 2.5))
ANY_MM = st.tuples(*[st.floats(0.4, 4)] * 3)


def noise(seed: int = 0) -> Volume:
    values = np.random.default_rng(seed).normal(0, 300, phantoms.SHAPE)
    return phantoms.volume(values.astype(np.float32), turned_deg=(7, -4, 11))


@given(FINER_MM)
def test_finer_grid_agrees_with_scipy(target_mm: tuple[float, float, float]) -> None:
    scan = noise()
    grid = geometry.resampled(scan.grid, target_mm)
    made = resample.linear(scan.voxels, scan.grid, grid)

    index = np.indices(grid.shape).reshape(3, -1)
    world = grid.affine[:3, :3] @ index + grid.affine[:3, 3:]
    place = np.linalg.inv(scan.grid.affine) @ np.vstack(
        [world, np.ones(index.shape[1])]
    )
    wanted = ndimage.map_coordinates(scan.voxels, place[:3], order=1, mode="nearest")
    np.testing.assert_allclose(made.ravel(), wanted, atol=0.02)


@given(AXES, ANY_MM)
def test_straight_line_stays_straight_inside(
    axes: str, target_mm: tuple[float, float, float]
) -> None:
    shape = (21, 17, 13)
    grid = Grid(shape, phantoms.affine(axes, (0.7, 0.9, 1.3), (5, 3, -8)))
    target = geometry.resampled(grid, target_mm)
    made = resample.linear(_ramp(grid), grid, target)

    inner = np.ones(target.shape, bool)
    for axis, place in enumerate(resample.positions(grid, target)):
        reach = max(1.0, target.spacing_mm[axis] / grid.spacing_mm[axis])
        inside = (place >= reach - 1) & (place <= shape[axis] - reach)
        inner &= np.moveaxis(inside.reshape(-1, 1, 1), 0, axis)
    wanted = _ramp(target)
    if (np.array(target_mm) <= grid.spacing_mm).all():
        np.testing.assert_allclose(made[inner], wanted[inner], atol=0.01)
    else:  # a wide kernel between voxels is not quite even on both sides
        np.testing.assert_allclose(made[inner], wanted[inner], atol=2.0)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_straight_line_stays_straight_at_whole_factors(factor: int) -> None:
    grid = Grid((24, 24, 24), phantoms.affine("RAS", (1, 1, 1)))
    target = geometry.resampled(grid, (factor,) * 3)
    made = resample.linear(_ramp(grid), grid, target)

    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(made[inner], _ramp(target)[inner], atol=0.01)


@given(ANY_MM, st.sampled_from(phantoms.ORIENTATIONS))
def test_flips_and_swaps_of_axes_commute(
    target_mm: tuple[float, float, float], codes: str
) -> None:
    scan = noise()
    turned = orient.reorient(scan, codes)
    order = [next(i for i in range(3) if _same(scan, turned, i, k)) for k in range(3)]
    target = geometry.resampled(scan.grid, target_mm)
    made = resample.linear(scan.voxels, scan.grid, target)
    first = orient.reorient(Volume(made, target), codes).voxels

    i, j, k = (target_mm[axis] for axis in order)
    other = geometry.resampled(turned.grid, (i, j, k))
    then = resample.linear(turned.voxels, turned.grid, other)
    np.testing.assert_allclose(then, first, atol=0.01)


@pytest.mark.parametrize("codes", ["LPS", "RIA", "ARS", "PIR", "ILA", "SPL"])
def test_values_do_not_depend_on_how_voxels_lie(codes: str) -> None:
    """To the last bit: networks in half precision would tell others apart."""
    scan = orient.reorient(noise())
    stored = orient.reorient(scan, codes)
    apart = stored.with_voxels(np.asfortranarray(stored.voxels))
    back = orient.reorient(apart)
    for resampled in (resample.linear, resample.cubic):
        target = geometry.resampled(scan.grid, (1.7, 0.6, 2.2))
        expected = resampled(scan.voxels, scan.grid, target)
        found = resampled(back.voxels, scan.grid, target)
        np.testing.assert_array_equal(found, expected)


def test_same_grid_gives_the_same_values() -> None:
    scan = noise()

    np.testing.assert_allclose(
        resample.linear(scan.voxels, scan.grid, scan.grid), scan.voxels, atol=1e-3
    )
    same = resample.nearest(scan.voxels, scan.grid, scan.grid)
    np.testing.assert_array_equal(same, scan.voxels)


@given(ANY_MM)
def test_nearest_takes_the_nearest_voxel(
    target_mm: tuple[float, float, float],
) -> None:
    scan = phantoms.volume(axes="PIR", turned_deg=(7, -4, 11))
    target = geometry.resampled(scan.grid, target_mm)
    made = resample.nearest(scan.voxels, scan.grid, target)

    centres = _world(scan.grid)
    for world, value in zip(_world(target), made.ravel(), strict=True):
        far = np.linalg.norm(centres - world, axis=1)
        assert far[scan.voxels.ravel().tolist().index(value)] <= far.min() + 1e-6


def test_going_coarser_skips_no_voxel() -> None:
    grid = Grid((16, 1, 1), phantoms.affine("RAS", (1, 1, 1)))
    target = geometry.resampled(grid, (4, 1, 1))

    for place in range(1, 15):
        single = np.zeros(grid.shape, np.float32)
        single[place] = 1
        assert resample.linear(single, grid, target).sum() > 0.05


def test_large_scan_in_slabs_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = noise()
    target = geometry.resampled(scan.grid, (1, 1, 1))
    at_once = resample.linear(scan.voxels, scan.grid, target)
    monkeypatch.setattr(resample, "SLAB_VOXELS", 40)

    in_slabs = resample.linear(scan.voxels, scan.grid, target)
    np.testing.assert_allclose(in_slabs, at_once, rtol=1e-6, atol=1e-3)


def test_other_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not run along the same axes"):
        resample.linear(
            phantoms.volume().voxels,
            phantoms.volume().grid,
            phantoms.volume(axes="ARS").grid,
        )


def _world(grid: Grid) -> NDArray[np.float64]:
    index = np.indices(grid.shape).reshape(3, -1)
    placed: NDArray[np.float64] = (grid.affine[:3, :3] @ index).T + grid.affine[:3, 3]
    return placed


def _ramp(grid: Grid) -> NDArray[Any]:
    return (_world(grid) @ [3.0, -5.0, 2.0] - 1000).reshape(grid.shape)


def _same(scan: Volume, turned: Volume, before: int, after: int) -> bool:
    one, other = scan.grid.affine[:3, before], turned.grid.affine[:3, after]
    return bool(np.allclose(np.abs(one), np.abs(other)))


def test_cubic_is_what_torch_calls_bicubic() -> None:
    source = Grid((9, 7, 8), np.diag([3.0, 3.0, 3.0, 1.0]))
    target = geometry.resized(source, (18, 14, 8))
    values = np.random.default_rng(2).normal(size=source.shape).astype(np.float32)

    found = resample.cubic(values, source, target)

    planes = torch.from_numpy(values).movedim(2, 0)[:, None]
    expected = torch.nn.functional.interpolate(
        planes, (18, 14), mode="bicubic", align_corners=False
    )
    inner = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(
        found[inner], expected[:, 0].movedim(0, 2).numpy()[inner], atol=1e-5
    )


def test_cubic_averages_where_voxels_grow() -> None:
    source = Grid((20, 20, 20), np.eye(4))
    target = geometry.resampled(source, (2.0, 2.5, 4.0))
    values = np.random.default_rng(3).normal(size=source.shape)

    np.testing.assert_allclose(
        resample.cubic(values, source, target), resample.linear(values, source, target)
    )


def test_cubic_keeps_a_constant_up_to_the_edge() -> None:
    source = Grid((5, 6, 7), np.diag([4.0, 3.0, 2.0, 1.0]))
    target = geometry.resampled(source, (1.0, 1.0, 1.0))

    found = resample.cubic(np.full(source.shape, 7), source, target)

    np.testing.assert_allclose(found, 7, rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_masks_are_resampled_about_what_they_mark(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((14, 11, 9), bool)
    if seed:
        mask[tuple(slice(a, a + 4) for a in rng.integers(0, 8, 3))] = True
        mask &= rng.random(mask.shape) < 0.7
    source = Grid(mask.shape, np.diag([1.0, 1.5, 2.0, 1.0]))
    size = rng.uniform(0.6, 3.0, 3)
    target = Grid((9, 8, 7), np.diag([*size, 1.0]))

    found = resample.share(mask, source, target)

    whole = resample.linear(mask, source, target)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    assert found.any() == whole.any()
