"""Vertebrae of a drawn spine are parted at its discs and come out in order."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import labels
from engines.segment import levels

MM = (3.0, 3.0, 3.0)
REGIONS = labels.REGION_CLASSES
Ids = NDArray[np.uint8]


def spine(names: list[str], size: float = 1.0) -> Ids:
    """Return (R, A, S) VerSe ids of a bent column from foot to head, with arches."""
    length = {level.id: level.length_mm * size for level in levels.LADDER}
    ends = np.cumsum([length[labels.BY_NAME[name].id] for name in names]) / MM[2]
    column = np.zeros((24, 44, int(ends[-1]) + 2), np.uint8)
    start = 1
    for name, end in zip(names, ends, strict=True):
        vertebra, stop = labels.BY_NAME[name].id, int(end)
        for level in range(start, stop - 1):
            front = 24 + round(5 * np.sin(level / 40))
            column[7:17, front : front + 9, level] = vertebra
            column[11:13, front - 12 : front - 8, level] = vertebra
        waist = (start + stop) // 2
        column[8:16:7, front - 9 : front, waist - 1 : waist + 1] = vertebra
        column[11:13, front - 12 : front - 8, stop - 1] = vertebra
        start = stop + 1
    return column


def opinion(ids: Ids, seed: int, sure: float) -> NDArray[np.float32]:
    """Return region probabilities (4, R, A, S) that pieces of the spine get wrong."""
    rng = np.random.default_rng(seed)
    told = np.zeros((4, *ids.shape), np.float32)
    for vertebra in np.unique(ids[ids > 0]).tolist():
        right = labels.class_of(vertebra, REGIONS) - 1
        where = ids == vertebra
        share = rng.dirichlet(np.ones(4)) * (1 - sure)
        share[right] += sure
        told[:, where] = share.astype(np.float32)[:, None]
    return told


def upwards(first: str, last: str) -> list[str]:
    ladder = [labels.VERTEBRAE[level.id].name for level in levels.LADDER]
    return ladder[ladder.index(first) : ladder.index(last) + 1]


@pytest.mark.parametrize("size", [0.85, 1.0, 1.12])
@pytest.mark.parametrize(
    ("first", "last"), [("sacrum", "C1"), ("sacrum", "T9"), ("L3", "T4"), ("T5", "C3")]
)
def test_levels_are_found_by_their_regions(first: str, last: str, size: float) -> None:
    ids = spine(upwards(first, last), size)

    found = levels.vertebrae(ids > 0, opinion(ids, 1, 0.5), REGIONS, MM)

    assert not found[ids == 0].any()
    assert (found == ids)[ids > 0].mean() > 0.85
    assert set(np.unique(found)) <= {0, *np.unique(ids).tolist()}


@pytest.mark.parametrize("seed", range(5))
def test_a_region_that_the_network_half_denies_is_counted_out(seed: int) -> None:
    ids = spine(upwards("sacrum", "T8"))
    told = opinion(ids, seed, 0.6)
    wrong = (ids == 20) | (ids == 21)
    told[REGIONS["lumbar"] - 1, wrong] = 0.4
    told[REGIONS["thoracic"] - 1, wrong] = 0.6

    levels.settle(told, REGIONS, MM)

    truth = np.vectorize(lambda v: labels.class_of(v, REGIONS) if v else 0)(ids)
    settled = told.argmax(axis=0) + 1
    assert (settled == truth)[ids > 0].mean() > 0.97


def test_what_a_voxel_has_in_all_stays() -> None:
    ids = spine(upwards("sacrum", "T11"))
    told = 0.9 * opinion(ids, 3, 0.3) + 0.002
    whole = told.sum(axis=0)

    levels.settle(told, REGIONS, MM)

    np.testing.assert_allclose(told.sum(axis=0), whole)
    assert ((told[:, ids > 0] > 0).sum(axis=0) == 1).all()


def test_vertebrae_get_their_own_channels() -> None:
    ids = spine(upwards("sacrum", "T10"))
    classes = labels.VERTEBRA_CLASSES
    told = np.zeros((len(classes) - 1, *ids.shape), np.float32)
    for vertebra in np.unique(ids[ids > 0]).tolist():
        where = ids == vertebra
        told[vertebra - 1, where] = 0.45
        told[vertebra - 2, where] = 0.35

    levels.settle(told, classes, MM)

    settled = told.argmax(axis=0) + 1
    assert (settled == ids)[ids > 0].mean() > 0.9


def test_endplates_part_what_the_network_runs_together() -> None:
    """Discs that are marked as bone show by the bright plates beside them."""
    ids = spine(upwards("sacrum", "T7"))
    filled, levels_up = ids.copy(), ids.shape[2]
    hu = np.full(ids.shape, 150, np.float32)
    for level in range(1, levels_up - 1):
        if not filled[:, 20:, level].any():
            filled[:, :, level] = filled[:, :, level - 1]
            hu[:, :, level - 1 : level + 2] = 350
    told = opinion(filled, 2, 0.5)

    blind = levels.vertebrae(filled > 0, told, REGIONS, MM)
    seeing = levels.vertebrae(filled > 0, told, REGIONS, MM, hu)

    right = [(found == ids)[ids > 0].mean() for found in (blind, seeing)]
    assert right[1] > 0.9
    assert right[1] > right[0]


@pytest.mark.parametrize("shape", [(3, 3, 1), (1, 1, 1), (4, 4, 4)])
def test_scraps_of_bone_are_no_trouble(shape: tuple[int, int, int]) -> None:
    told = np.full((4, *shape), 0.24, np.float32)

    levels.settle(told, REGIONS, MM)

    assert (told.max(axis=0) > 0.9).all()


def test_nothing_stays_nothing() -> None:
    empty = np.zeros((4, 5, 6, 7), np.float32)

    levels.settle(empty, REGIONS, MM)

    assert not empty.any()


def test_regions_are_counted_into_vertebrae() -> None:
    ids = spine(upwards("sacrum", "T11"))
    told = 0.9 * opinion(ids, 3, 0.5)
    given = told.copy()

    named = levels.settle(told, REGIONS, MM, into=labels.VERTEBRA_CLASSES)

    assert named.shape == (max(labels.VERTEBRA_CLASSES.values()), *ids.shape)
    assert ((named.argmax(axis=0) + 1) == ids)[ids > 0].mean() > 0.85
    np.testing.assert_allclose(named.sum(axis=0), told.sum(axis=0))
    np.testing.assert_allclose(told, given)


def test_nothing_is_counted_where_there_is_no_spine() -> None:
    told = np.zeros((4, 5, 6, 7), np.float32)

    named = levels.settle(told, REGIONS, MM, into=labels.VERTEBRA_CLASSES)

    assert named.shape == (28, 5, 6, 7)
    assert not named.any()
