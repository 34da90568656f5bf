"""Two label maps scored: what is cut, measured and counted."""

import math
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import MaskError
from engines.metrics import score, surface
from engines.metrics.score import Maps

SPACING_MM = (0.7, 1.1, 2.5)
SHAPE = (9, 8, 7)


def blank(dtype: Any = np.uint8) -> NDArray[Any]:
    return np.zeros(SHAPE, dtype)


def pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return L1 moved by a voxel along J, and L3 that only the truth has."""
    prediction, truth = blank(), blank()
    truth[2:5, 3:5, 2:4] = 20
    prediction[2:5, 4:6, 2:4] = 20
    truth[6, 3, 5] = 22
    return prediction, truth


def scored(prediction: NDArray[Any], truth: NDArray[Any]) -> list[score.Scored]:
    maps, _ = score.cut(prediction, truth, SPACING_MM)
    return score.scores(maps, 1.0)


def test_the_box_holds_all_labels_of_both_maps() -> None:
    prediction, truth = pair()

    maps, corner = score.cut(prediction, truth, SPACING_MM)

    assert corner == (2, 3, 2)
    assert maps.truth.shape == maps.prediction.shape == (5, 3, 4)
    assert (maps.voxels, maps.spacing_mm) == (math.prod(SHAPE), SPACING_MM)
    box = (slice(2, 7), slice(3, 6), slice(2, 6))
    np.testing.assert_array_equal(maps.prediction, prediction[box])
    np.testing.assert_array_equal(maps.truth, truth[box])


def test_two_empty_maps_leave_nothing_to_score() -> None:
    maps, _ = score.cut(blank(), blank(), SPACING_MM)

    assert score.scores(maps) == []


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: \(9, 8, 7\) and \(9, 7, 8\)"):
        score.cut(blank(), np.zeros((9, 7, 8), np.uint8), SPACING_MM)


def test_intensities_are_refused() -> None:
    scan = np.full(SHAPE, 1400, np.int16)

    with pytest.raises(MaskError, match="the truth holds values from 1400 to 1400"):
        scored(blank(np.int16), scan)


def test_every_label_is_measured_on_its_own() -> None:
    moved, lost = scored(*pair())

    assert (moved.counts.label, lost.counts.label) == (20, 22)
    assert (moved.counts.both, moved.counts.truth) == (6, 12)
    assert surface.hausdorff(moved.distances) == pytest.approx(1.1)
    assert surface.hausdorff(lost.distances) == math.inf
    assert moved.voxel == pytest.approx(0.7 * 1.1 * 2.5)
    assert moved.tolerance == 1.0
    assert moved.counts.voxels == math.prod(SHAPE)


def test_what_lies_around_changes_no_score() -> None:
    prediction, truth = pair()
    around = [np.pad(one, ((3, 1), (0, 5), (2, 2))) for one in (prediction, truth)]
    alone = [np.where(one == 20, one, 0) for one in (prediction, truth)]

    for other in (around, alone):
        assert _distances(scored(*other)[:1]) == _distances(
            scored(prediction, truth)[:1]
        )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["u1", "<i2", ">i2", "<i4", "<u8", "<i8"])
def test_type_and_order_in_memory_change_no_score(order: Any, kind: str) -> None:
    plain = pair()

    found = scored(*(one.astype(kind, order=order) for one in plain))

    assert [one.counts for one in found] == [one.counts for one in scored(*plain)]
    assert _distances(found) == _distances(scored(*plain))


def test_the_number_of_threads_changes_no_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = np.random.default_rng(0).integers(0, 12, (2, *SHAPE)).astype(np.uint8)
    many = scored(drawn[0], drawn[1])

    monkeypatch.setattr(score, "THREADS", 1)

    assert _distances(scored(drawn[0], drawn[1])) == _distances(many)


@pytest.mark.parametrize(("axis", "count"), [(0, 4), (1, 3), (2, 3)])
def test_slices_without_labels_are_left_out(axis: int, count: int) -> None:
    maps, _ = score.cut(*pair(), SPACING_MM)

    slices = list(score.slices_of(maps, axis))

    assert len(slices) == count
    assert {one.spacing_mm for one in slices} == {(1.0, 1.0)}
    assert {one.truth.ndim for one in slices} == {2}


def test_a_slice_is_measured_in_pixels() -> None:
    maps, _ = score.cut(*pair(), SPACING_MM)

    (moved,) = score.scores(next(score.slices_of(maps, 0)))

    assert surface.hausdorff(moved.distances) == 1
    assert moved.voxel == 1


def test_memory_follows_the_labels_and_not_the_field_of_view() -> None:
    small, large = (_peak_bytes(size) for size in (64, 160))

    assert large - small < 8 * 64**3  # the larger grid has 3.8 million voxels more


def _peak_bytes(size: int) -> int:
    truth = np.zeros((size,) * 3, np.uint8)
    truth[20:40, 20:40, 20:40] = 1
    tracemalloc.start()
    try:
        maps, _ = score.cut(truth, truth, (1.0, 1.0, 1.0))
        score.scores(maps)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _distances(found: Sequence[score.Scored]) -> list[tuple[list[float], ...]]:
    return [
        (
            one.distances.truth.distances.tolist(),
            one.distances.prediction.sizes.tolist(),
        )
        for one in found
    ]


def test_a_map_of_its_own_values_is_left_as_it_was() -> None:
    prediction, truth = pair()
    before = prediction.copy(), truth.copy()

    scored(prediction, truth)

    np.testing.assert_array_equal(prediction, before[0])
    np.testing.assert_array_equal(truth, before[1])


def test_maps_know_their_own_grid() -> None:
    maps = Maps(*pair(), SPACING_MM, 10_000)

    assert {one.counts.voxels for one in score.scores(maps)} == {10_000}
