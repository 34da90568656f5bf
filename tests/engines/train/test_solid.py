"""Cubes drawn around masks: bone where the mask is, ribs and hips where they belong."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.train import solid
from engines.train.synthesis import Regions

SIZE, STEP_MM = 40, 3.0
SEEDS = range(4)
Ids = NDArray[np.uint8]


@pytest.fixture
def target() -> Ids:
    """A column: sacrum, lumbar, thoracic as regions, 13 voxels each."""
    ids = np.zeros((SIZE,) * 3, np.uint8)
    for index, region in enumerate((4, 3, 2)):
        ids[16:24, 14:22, 13 * index : 13 * index + 12] = region
    return ids


def drawn(target: Ids, seed: int, *, told: bool = True) -> NDArray[np.float32]:
    regions = Regions(target == 2, target == 4) if told else None
    rng = np.random.default_rng(seed)
    return solid.scan_of(target > 0, target, regions, STEP_MM, rng)


@pytest.mark.parametrize("seed", SEEDS)
def test_bone_is_brighter_than_what_is_around(target: Ids, seed: int) -> None:
    hu = drawn(target, seed, told=False)
    ring = np.zeros_like(target, bool)
    ring[12:28, 10:26] = True

    assert hu.shape == target.shape
    assert hu.dtype == np.float32
    assert np.isfinite(hu).all()
    assert hu[target > 0].mean() > hu[ring & (target == 0)].mean() + 50


def test_the_same_seed_draws_the_same(target: Ids) -> None:
    np.testing.assert_array_equal(drawn(target, 1), drawn(target, 1))
    assert (drawn(target, 1) != drawn(target, 2)).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_ribs_leave_the_chest_alone_and_hips_the_sacrum(target: Ids, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ribs = solid._ribs(np.where(target == 2, target, 0), STEP_MM, rng)
    hips = solid._hips(target == 4, STEP_MM, rng)

    assert ribs.any()
    assert not ribs[:, :, :6].any()
    assert hips.any()
    assert not hips[:, :, 30:].any()
    sides = np.flatnonzero(hips.any(axis=(1, 2)))
    assert sides.min() < 16
    assert sides.max() > 23
    assert not hips[17:23].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_bone_that_is_there_stays(target: Ids, seed: int) -> None:
    bone = np.where(target > 0, 600, 0).astype(np.float32)

    hu = solid.around_bone(bone, target > 0, np.random.default_rng(seed))

    np.testing.assert_allclose(hu[target > 0], 600, atol=1)
    assert hu[target == 0].min() < 0


def test_a_cube_without_spine_is_drawn_too() -> None:
    empty = np.zeros((16,) * 3, np.uint8)
    hu = solid.scan_of(empty > 0, empty, None, STEP_MM, np.random.default_rng(0))

    assert np.isfinite(hu).all()
    assert hu.std() > 0
