"""Vertebrae as objects, whatever their names: found, missed, split and merged.

Source: panoptic quality (Kirillov et al. 2019, arXiv:1801.00868): a predicted and a
true object match when their IoU is above one half, which no two pairs can share. PQ
is SQ, the mean IoU of the matches, times RQ, the F1 score of finding objects.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.labels import BACKGROUND
from engines.metrics.overlap import confusion

MATCH_IOU = 0.5
"""Above this the objects are the same."""

PART = 0.2
"""Share of a true object that a predicted one must hold to be told as a part."""


@dataclass(frozen=True, slots=True)
class Instances:
    """How the objects of two maps belong together.

    Attributes:
        found: matched pairs (label of the truth, label of the prediction).
        ious: of the matched pairs.
        missed: true objects without a match.
        invented: predicted objects without a match.
        split: true objects of which several predicted ones hold a part each.
        merged: predicted objects that hold a part of several true ones each.
    """

    found: tuple[tuple[int, int], ...]
    ious: tuple[float, ...]
    missed: tuple[int, ...]
    invented: tuple[int, ...]
    split: tuple[int, ...]
    merged: tuple[int, ...]

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matches, 0 without any."""
        return float(np.mean(self.ious)) if self.ious else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: F1 score of finding objects."""
        wrong = len(self.missed) + len(self.invented)
        total = 2 * len(self.found) + wrong
        return 2 * len(self.found) / total if total else 0.0

    @property
    def pq(self) -> float:
        """Panoptic quality."""
        return self.sq * self.rq

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        return {
            "pq": self.pq,
            "sq": self.sq,
            "rq": self.rq,
            "found": len(self.found),
            "missed": list(self.missed),
            "invented": list(self.invented),
            "split": list(self.split),
            "merged": list(self.merged),
        }


def match(prediction: NDArray[Any], truth: NDArray[Any]) -> Instances:
    """Match the objects of two label maps, each label an object.

    Args:
        prediction: (I, J, K) integers, 0 the background.
        truth: the same shape.

    Raises:
        MaskError: values that cannot be label ids.
    """
    table = confusion(prediction, truth)
    predicted, true = table.sum(axis=1), table.sum(axis=0)
    table = table.copy()
    table[BACKGROUND, :] = table[:, BACKGROUND] = 0
    joint = predicted[:, None] + true[None, :] - table
    iou = np.divide(table, joint, out=np.zeros(table.shape), where=joint > 0)
    pairs = np.argwhere(iou > MATCH_IOU)
    found = tuple((int(t), int(p)) for p, t in sorted(map(tuple, pairs), key=_second))
    labels = [np.flatnonzero(counts) for counts in (true, predicted)]
    true_labels, predicted_labels = (set(one.tolist()) - {BACKGROUND} for one in labels)
    parts = table >= np.maximum(PART * true[None, :], 1)
    return Instances(
        found,
        tuple(float(iou[p, t]) for t, p in found),
        tuple(sorted(true_labels - {t for t, _ in found})),
        tuple(sorted(predicted_labels - {p for _, p in found})),
        tuple(np.flatnonzero(parts.sum(axis=0) > 1).tolist()),
        tuple(np.flatnonzero(parts.sum(axis=1) > 1).tolist()),
    )


def _second(pair: tuple[int, int]) -> tuple[int, int]:
    return pair[1], pair[0]
