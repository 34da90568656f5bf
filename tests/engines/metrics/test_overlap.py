"""Counts and ratios: by pencil, by brute force, and by SimpleITK's own filter."""

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from engines.errors import MaskError
from engines.metrics import overlap
from engines.metrics.overlap import Overlap, confusion, overlaps

SHAPE = (5, 3, 2)


def blank() -> NDArray[np.uint8]:
    return np.zeros(SHAPE, np.uint8)


FORMULAS = {
    formula.__name__: formula
    for formula in (
        overlap.dice,
        overlap.iou,
        overlap.precision,
        overlap.recall,
        overlap.f1,
        overlap.accuracy,
        overlap.specificity,
    )
}


def scores(counts: Overlap) -> dict[str, float]:
    return {name: formula(counts) for name, formula in FORMULAS.items()}


def test_two_bars_that_share_two_voxels() -> None:
    prediction, truth = blank(), blank()
    prediction[0:3, 1, 0] = 20
    truth[1:5, 1, 0] = 20

    (counts,) = overlaps(prediction, truth)

    assert counts == Overlap(label=20, both=2, prediction=3, truth=4, voxels=30)
    assert counts.present == "both"
    assert scores(counts) == pytest.approx(
        {
            "dice": 4 / 7,
            "iou": 2 / 5,
            "precision": 2 / 3,
            "recall": 2 / 4,
            "f1": 4 / 7,
            "accuracy": 27 / 30,
            "specificity": 25 / 26,
        }
    )


def test_a_label_that_one_map_lacks_scores_zero() -> None:
    prediction, truth = blank(), blank()
    prediction[0, 0, :] = 3
    truth[4, :, 1] = 5

    only_predicted, only_true = overlaps(prediction, truth)

    assert (only_predicted.label, only_predicted.present) == (3, "prediction")
    assert (only_true.label, only_true.present) == (5, "truth")
    for counts, wrong in ((only_predicted, 2), (only_true, 3)):
        told = scores(counts)
        assert told.pop("accuracy") == pytest.approx((30 - wrong) / 30)
        right = 1 - counts.prediction / (30 - counts.truth)
        assert told.pop("specificity") == pytest.approx(right)
        assert set(told.values()) == {0.0}


def test_a_label_that_neither_map_has_is_not_scored() -> None:
    truth = blank()
    truth[2, 2, 1] = 7

    assert [counts.label for counts in overlaps(truth, truth)] == [7]
    assert overlaps(blank(), blank()) == []


@pytest.mark.parametrize("name", FORMULAS)
def test_every_ratio_is_one_for_a_perfect_label(name: str) -> None:
    truth = blank()
    truth[1:3] = 2

    (counts,) = overlaps(truth, truth)

    assert FORMULAS[name](counts) == 1.0


def test_what_was_cut_away_counts_as_right_background() -> None:
    truth = blank()
    truth[1:3] = 2

    (counts,) = overlaps(blank(), truth, voxels=300)

    assert counts.voxels == 300
    assert overlap.accuracy(counts) == pytest.approx(288 / 300)
    assert overlap.specificity(counts) == 1


def test_a_label_that_fills_the_grid_leaves_nothing_to_be_specific_about() -> None:
    full = np.ones(SHAPE, np.uint8)

    (counts,) = overlaps(full, full)

    assert (overlap.accuracy(counts), overlap.specificity(counts)) == (1, 0)


INTEGERS = [
    np.dtype(order + kind)
    for kind in ("i2", "u2", "i4", "u4", "i8", "u8")
    for order in "<>"
] + [np.dtype("u1"), np.dtype("i1")]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_type_of_integers_is_counted_alike(dtype: np.dtype[Any]) -> None:
    drawn = np.random.default_rng(2).integers(0, 4, (2, *SHAPE)).astype(np.uint8)
    typed = drawn.astype(dtype)

    assert overlaps(typed[0], drawn[1]) == overlaps(drawn[0], drawn[1])
    assert overlaps(drawn[0], typed[1]) == overlaps(drawn[0], drawn[1])


def test_blocks_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng(0).integers(0, 4, (2, 3, 4, 7))
    whole = confusion(drawn[0], drawn[1])

    monkeypatch.setattr(overlap, "BLOCK_VOXELS", 30)

    np.testing.assert_array_equal(confusion(drawn[0], drawn[1]), whole)


def test_the_order_in_memory_does_not_matter() -> None:
    drawn = np.random.default_rng(1).integers(0, 4, (2, *SHAPE)).astype(np.int16)
    as_read = np.asfortranarray(drawn[0])

    np.testing.assert_array_equal(
        confusion(as_read, drawn[1]), confusion(drawn[0], drawn[1])
    )


@pytest.mark.parametrize("value", [-1, 1024, 30000])
def test_intensities_are_no_labels(value: int) -> None:
    scan = np.full(SHAPE, value, np.int16)

    with pytest.raises(MaskError, match=rf"truth holds values from {value} to {value}"):
        overlaps(blank(), scan)
    with pytest.raises(MaskError, match=rf"prediction holds values from {value} to"):
        overlaps(scan, blank())


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: \(5, 3, 2\) and \(5, 2, 3\)"):
        overlaps(blank(), np.zeros((5, 2, 3), np.uint8))


label_maps = arrays.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))


@given(label_maps, label_maps)
@settings(max_examples=60)
def test_counts_agree_with_brute_force(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> None:
    wanted = []
    pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
    for label in (1, 2, 3):
        predicted = sum(p == label for p, _ in pairs)
        true = sum(t == label for _, t in pairs)
        both = sum(p == label == t for p, t in pairs)
        if predicted or true:
            wanted.append(Overlap(label, both, predicted, true, len(pairs)))

    assert overlaps(prediction, truth) == wanted


@given(label_maps, label_maps)
@settings(max_examples=40)
def test_ratios_agree_with_simpleitk(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> None:
    for counts in overlaps(prediction, truth):
        oracle = _itk(prediction, truth, counts.label)
        assert overlap.dice(counts) == pytest.approx(oracle.GetDiceCoefficient())
        assert overlap.iou(counts) == pytest.approx(oracle.GetJaccardCoefficient())
        if counts.prediction:
            wanted = 1 - oracle.GetFalseDiscoveryRate()
            assert overlap.precision(counts) == pytest.approx(wanted)
        if counts.truth:
            wanted = 1 - oracle.GetFalseNegativeError()
            assert overlap.recall(counts) == pytest.approx(wanted)
        assert overlap.f1(counts) == pytest.approx(overlap.dice(counts))
        # ITK's volume similarity is 2 (prediction - truth) / (prediction + truth).
        total = counts.prediction + counts.truth
        wanted = 2 * (counts.prediction - counts.truth) / total
        assert oracle.GetVolumeSimilarity() == pytest.approx(wanted)


def _itk(prediction: NDArray[Any], truth: NDArray[Any], label: int) -> Any:
    oracle = sitk.LabelOverlapMeasuresImageFilter()
    masks = [
        sitk.GetImageFromArray((voxels == label).astype(np.uint8))
        for voxels in (prediction, truth)
    ]
    oracle.Execute(*masks)
    return oracle
