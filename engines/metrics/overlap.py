"""How much two label maps overlap, counted in one pass over both.

Source: the confusion matrix of voxels; Dice 1945 and Jaccard 1912 for the two
ratios named after them. Departure: a ratio whose denominator is empty is 0 instead
of undefined, so a label that one map misses lowers every mean it belongs to. A
label that neither map has is not scored at all.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import MaskError
from engines.labels import BACKGROUND

LARGEST_LABEL = 1023
"""Labels above this are taken for intensities, not for ids."""

BLOCK_VOXELS = 1 << 22
"""Voxels that are counted at once, which bounds the memory it takes."""

Present = Literal["both", "truth", "prediction"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Voxel counts of one label.

    Attributes:
        both: voxels that carry the label in both maps.
        prediction: voxels that carry it in the prediction.
        truth: voxels that carry it in the truth.
        voxels: all voxels of the grid.
    """

    label: int
    both: int
    prediction: int
    truth: int
    voxels: int

    @property
    def present(self) -> Present:
        """Which of the maps has the label."""
        if self.prediction and self.truth:
            return "both"
        return "truth" if self.truth else "prediction"


def dice(counts: Overlap) -> float:
    """Return twice the common voxels over the voxels of both, 0 to 1."""
    return _ratio(2 * counts.both, counts.prediction + counts.truth)


def iou(counts: Overlap) -> float:
    """Return the common voxels over those of either map, 0 to 1."""
    return _ratio(counts.both, counts.prediction + counts.truth - counts.both)


def precision(counts: Overlap) -> float:
    """Return which share of the predicted voxels is right; 0 if there are none."""
    return _ratio(counts.both, counts.prediction)


def recall(counts: Overlap) -> float:
    """Return which share of the true voxels was found; 0 if there are none."""
    return _ratio(counts.both, counts.truth)


def f1(counts: Overlap) -> float:
    """Return the harmonic mean of precision and recall, which equals Dice."""
    p, r = precision(counts), recall(counts)
    return 2 * p * r / (p + r) if p + r else 0.0


def accuracy(counts: Overlap) -> float:
    """Return which share of all voxels is right, with or without the label."""
    wrong = counts.prediction + counts.truth - 2 * counts.both
    return _ratio(counts.voxels - wrong, counts.voxels)


def specificity(counts: Overlap) -> float:
    """Return which share of the voxels without the label is right."""
    negative = counts.voxels - counts.truth
    return _ratio(negative - (counts.prediction - counts.both), negative)


def overlaps(
    prediction: NDArray[Any], truth: NDArray[Any], *, voxels: int | None = None
) -> list[Overlap]:
    """Return the counts of every label in either map, by label, background left out.

    Args:
        prediction: (I, J, K) integers, 0 the background.
        truth: (I, J, K) integers.
        voxels: of the whole grid, where both maps were cut out of a larger one.

    Raises:
        ValueError: the shapes differ.
        MaskError: values that cannot be label ids.
    """
    if prediction.shape != truth.shape:
        msg = f"shapes differ: {prediction.shape} and {truth.shape}"
        raise ValueError(msg)
    table = confusion(prediction, truth)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    total = int(rows.sum()) if voxels is None else voxels
    labels = np.flatnonzero(rows + columns)
    return [
        Overlap(
            int(label),
            int(table[label, label]),
            int(rows[label]),
            int(columns[label]),
            total,
        )
        for label in labels
        if label != BACKGROUND
    ]


def confusion(prediction: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.int64]:
    """Return how often each pair of labels meets, (labels, labels).

    Rows are labels of the prediction, columns those of the truth, both from 0 to
    the largest in either map.

    Raises:
        MaskError: values that cannot be label ids.
    """
    count = 1 + max(_largest(prediction, "prediction"), _largest(truth, "truth"))
    pairs = np.zeros(count * count, np.int64)
    planes = max(1, BLOCK_VOXELS // max(1, prediction[..., 0].size))
    order: Literal["C", "F"] = "F" if prediction.flags.f_contiguous else "C"
    for start in range(0, prediction.shape[-1], planes):
        block = slice(start, start + planes)
        joint = prediction[..., block].ravel(order=order).astype(np.int32)
        joint *= count
        joint += truth[..., block].ravel(order=order).astype(np.int32, copy=False)
        pairs += np.bincount(joint, minlength=count * count)
    return pairs.reshape(count, count)


def _largest(labels: NDArray[Any], which: str) -> int:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > LARGEST_LABEL:
        msg = (
            f"the {which} holds values from {low} to {high}; "
            f"label ids are between 0 and {LARGEST_LABEL}"
        )
        raise MaskError(msg, hint="Give label maps, not scans.")
    return high


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
