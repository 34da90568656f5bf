"""From probabilities on the recipe's grid to labels on the scan's own grid."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.geometry import Grid
from engines.preprocess import resample

SLAB_VOXELS = 1 << 23
"""Voxels of the scan's grid whose probabilities are held at a time, per class."""

UNCERTAIN = 255
"""Label of voxels that training is not to score."""

SURE = (0.15, 0.85)
"""Between these a foreground probability counts as uncertain."""

NOTHING = 0.02
"""Where every class is below this, no voxel can win; such margins are cut off."""


def labels(
    probability: Tensor, source: Grid, target: Grid, *, mark_uncertain: bool = False
) -> NDArray[np.uint8]:
    """Return the winning class of each voxel of ``target``.

    Probabilities are interpolated before the winner is chosen, slab by slab, so
    they are never held for a whole scan at its own resolution.

    Args:
        probability: (classes - 1, R, A, S) on ``source``; the background's share
            is what is missing to 1.
        target: a grid along the same axes.
        mark_uncertain: label voxels between ``SURE`` as ``UNCERTAIN``.

    Returns:
        (I, J, K) of ``target``, uint8 class indices.
    """
    found = np.zeros(target.shape, np.uint8)
    inside = probability.sum(dim=0) > NOTHING
    if not inside.any():
        return found
    here, there, weights = [], [], []
    for axis, matrix in enumerate(resample.matrices(source, target)):
        others = [a for a in range(3) if a != axis]
        held = torch.nonzero(inside.any(dim=others[1]).any(dim=others[0])).ravel()
        box = slice(int(held[0]), int(held[-1]) + 1)
        reached = torch.nonzero(matrix[:, box].sum(dim=1) > 0).ravel()
        out = slice(int(reached[0]), int(reached[-1]) + 1) if len(reached) else slice(0)
        here.append(box)
        there.append(out)
        weights.append(matrix[out, box])
    first, second, third = weights
    cropped = probability[:, here[0], here[1], here[2]]
    slab = max(1, SLAB_VOXELS // max(1, second.shape[0] * third.shape[0]))
    view = found[there[0], there[1], there[2]]
    for start in range(0, first.shape[0], slab):
        rows = first[start : start + slab]
        part = torch.einsum("xi,cijk->cxjk", rows, cropped)
        part = second @ (part @ third.T)
        view[start : start + slab] = _winner(part, mark_uncertain=mark_uncertain)
    return found


def _winner(part: Tensor, *, mark_uncertain: bool) -> NDArray[np.uint8]:
    best, index = part.max(dim=0)
    foreground = part.sum(dim=0)
    winner = ((index + 1) * (best > 1 - foreground)).byte()
    if mark_uncertain:
        winner[(foreground > SURE[0]) & (foreground < SURE[1])] = UNCERTAIN
    labels: NDArray[np.uint8] = winner.numpy()
    return labels
