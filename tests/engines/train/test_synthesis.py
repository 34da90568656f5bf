"""Drawn slices look like CT where it matters, and never touch the target."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from engines.train import agent, anatomy, synthesis
from engines.train.lie import AXIAL, Lie

Mask = NDArray[np.bool_]
SEEDS = range(6)


def drawn(mask: Mask, lie: Lie, seed: int) -> tuple[Any, Any]:
    return synthesis.scan_of(mask, np.random.default_rng(seed), lie)


def test_same_seed_same_slice(spine: Mask, lie: Lie) -> None:
    first, second = drawn(spine, lie, 3), drawn(spine, lie, 3)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], drawn(spine, lie, 4)[0])


def test_values_are_those_of_ct(spine: Mask, lie: Lie) -> None:
    for seed in SEEDS:
        hu, unsure = drawn(spine, lie, seed)
        assert hu.dtype == np.float32
        assert np.isfinite(hu).all()
        assert hu.min() > -1300
        assert hu.max() < 2500
        assert not (unsure & spine).any()


def test_cortex_is_denser_than_what_lies_around(spine: Mask, lie: Lie) -> None:
    rim = spine & ~ndimage.binary_erosion(spine)
    beside = ndimage.binary_dilation(spine, iterations=4) & ~spine
    for seed in SEEDS:
        hu, unsure = drawn(spine, lie, seed)
        assert hu[rim].mean() > np.median(hu[beside & ~unsure]) + 30


def test_an_empty_mask_is_a_slice_without_a_spine(lie: Lie) -> None:
    empty = np.zeros((64, 80), bool)
    hu, unsure = drawn(empty, lie, 0)
    assert hu.shape == empty.shape
    assert not unsure.any()


def test_real_bone_stays_what_it_is(spine: Mask, lie: Lie) -> None:
    bone = np.where(spine, np.float32(640), np.float32(0))
    for seed in SEEDS:
        hu = synthesis.around_bone(bone, spine, np.random.default_rng(seed), lie)
        np.testing.assert_allclose(hu[spine], 640, atol=1)


def test_a_canal_is_found_where_bone_encloses_it(spine: Mask, lie: Lie) -> None:
    discs, canal = anatomy.gaps(spine, np.random.default_rng(0), lie)
    assert canal.any()
    assert not ((discs | canal) & spine).any()
    if lie is AXIAL:
        assert canal[48, 36]
        assert canal.sum() == 10 * 14
    else:
        assert discs[55, 38]
        assert not canal[55, 38]


def test_ribs_start_at_the_edge_of_the_mask(spine: Mask, lie: Lie) -> None:
    apart = ndimage.distance_transform_edt(~spine).astype(np.float32)
    nearest = []
    for seed in range(12):
        hu = np.zeros(spine.shape, np.float32)
        anatomy.ribs(hu, spine, apart, np.random.default_rng(seed), lie)
        if hu.any():
            nearest.append(apart[(hu > 100) & ~spine].min())
    if lie.right == (0.0, 0.0):
        assert not nearest
    else:
        assert min(nearest) == 1
        assert max(nearest) <= 3


def test_hips_leave_a_joint_beside_the_spine(spine: Mask, lie: Lie) -> None:
    apart = ndimage.distance_transform_edt(~spine).astype(np.float32)
    for seed in SEEDS:
        hu = np.zeros(spine.shape, np.float32)
        anatomy.hips(hu, spine, apart, np.random.default_rng(seed), lie)
        assert not hu[spine].any()
        assert hu.any() == (lie.right != (0.0, 0.0))


def test_bridges_join_bodies_and_are_told(spine: Mask, lie: Lie) -> None:
    discs, _ = anatomy.gaps(spine, np.random.default_rng(0), lie)
    found = []
    for seed in SEEDS:
        hu = np.zeros(spine.shape, np.float32)
        rng = np.random.default_rng(seed)
        bridge = anatomy.bridges(hu, discs, spine, rng, lie)
        assert not (bridge & ~discs).any()
        assert bridge.any() == (hu > 120).any()
        found.append(bridge.any())
    assert any(found) == discs.any()


def test_contrast_agent_spares_the_spine_and_may_touch_it(
    hu: NDArray[np.float32], spine: Mask, lie: Lie
) -> None:
    touching = 0
    rim = ndimage.binary_dilation(spine) & ~spine
    for seed in range(12):
        given = agent.given(hu, spine, np.random.default_rng(seed), lie)
        assert np.array_equal(given[spine], hu[spine])
        assert np.array_equal(given[hu < -900], hu[hu < -900])
        assert given.max() <= 1500
        touching += bool((given[rim] > 150).any())
    assert touching


@pytest.mark.parametrize("seed", SEEDS)
def test_gas_lies_above_fluid(seed: int) -> None:
    hu = np.full((96, 96), np.float32(40))
    free = np.ones(hu.shape, bool)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        filled = hu.copy()
        agent.bowel(filled, free, rng, AXIAL)
        gas, fluid = filled < -700, filled > 140
        if gas.any() and fluid.any():
            # AXIAL's columns run to the front, where gas gathers
            assert np.nonzero(gas)[1].min() >= np.nonzero(fluid)[1].max() - 1
