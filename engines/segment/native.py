"""From probabilities on the recipe's grid to labels on the scan's own grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.geometry import Grid
from engines.preprocess import resample

SLAB_VOXELS = 1 << 22
"""Voxels of the scan's grid whose probabilities are held at a time."""

UNCERTAIN = 255
"""Label of voxels that training is not to score."""

SURE = (0.15, 0.85)
"""Between these a foreground probability counts as uncertain."""

NOTHING = 0.02
"""Where every class is below this, no voxel can win; such margins are cut off."""


@dataclass(frozen=True, slots=True)
class _Reach:
    """A class's own box, and what it is interpolated to.

    Attributes:
        here: the box on the source, where the class is at all.
        there: the box on the target that it reaches.
        weights: per axis, (there, here).
    """

    here: tuple[slice, slice, slice]
    there: tuple[slice, slice, slice]
    weights: tuple[Tensor, Tensor, Tensor]

    def part(self, share: Tensor, rows: slice) -> tuple[slice, Tensor]:
        """Interpolate a class's ``share`` (R, A, S) to those of ``rows`` it reaches.

        Returns:
            which rows of the target they are, and their values, (rows, J, K) of its
            own box.
        """
        first, second, third = self.weights
        start = max(rows.start, self.there[0].start)
        stop = min(rows.stop, self.there[0].stop)
        if start >= stop:
            return slice(start, start), share.new_empty((0, 0, 0))
        own = first[start - self.there[0].start : stop - self.there[0].start]
        used = torch.nonzero(own.sum(dim=0) > 0).ravel()
        low, high = int(used[0]), int(used[-1]) + 1
        cropped = share[self.here][low:high]
        between = second @ (cropped @ third.T)
        flat = own[:, low:high] @ between.reshape(high - low, -1)
        return slice(start, stop), flat.reshape(stop - start, *between.shape[1:])


def labels(
    probability: Tensor, source: Grid, target: Grid, *, mark_uncertain: bool = False
) -> NDArray[np.uint8]:
    """Return the winning class of each voxel of ``target``.

    Probabilities are interpolated before the winner is chosen, slab by slab and each
    class only where it is, so they are never held for a whole scan at its own
    resolution.

    Args:
        probability: (classes - 1, R, A, S) on ``source``, on any device; the
            background's share is what is missing to 1.
        target: a grid along the same axes.
        mark_uncertain: label voxels between ``SURE`` as ``UNCERTAIN``.

    Returns:
        (I, J, K) of ``target``, uint8 class indices.
    """
    found = np.zeros(target.shape, np.uint8)
    somewhere = probability.sum(dim=0) > NOTHING
    matrices = [m.to(probability.device) for m in resample.matrices(source, target)]
    reaches = [_reach((one > 0) & somewhere, matrices) for one in probability]
    reached = [reach for reach in reaches if reach is not None]
    if not reached:
        return found
    around = [
        slice(
            min(reach.there[axis].start for reach in reached),
            max(reach.there[axis].stop for reach in reached),
        )
        for axis in range(3)
    ]
    _, columns, depth = around
    wide, deep = columns.stop - columns.start, depth.stop - depth.start
    slab = max(1, SLAB_VOXELS // max(1, wide * deep))
    for start in range(around[0].start, around[0].stop, slab):
        rows = slice(start, min(start + slab, around[0].stop))
        shape = (rows.stop - rows.start, wide, deep)
        total, best = probability.new_zeros((2, *shape)).unbind()
        winner = torch.zeros(shape, dtype=torch.uint8, device=probability.device)
        for index, (share, reach) in enumerate(zip(probability, reaches, strict=True)):
            if reach is None:
                continue
            own, part = reach.part(share, rows)
            place = (
                _within(own, rows),
                _within(reach.there[1], columns),
                _within(reach.there[2], depth),
            )
            if len(part):
                total[place] += part
                better = part > best[place]
                winner[place].masked_fill_(better, index + 1)
                torch.maximum(best[place], part, out=best[place])
        winner.mul_(best > 1 - total)
        if mark_uncertain:
            winner[(total > SURE[0]) & (total < SURE[1])] = UNCERTAIN
        found[rows, columns, depth] = winner.cpu().numpy()
    return found


def _reach(inside: Tensor, matrices: Sequence[Tensor]) -> _Reach | None:
    """Return where a class is and what it reaches; None if it is nowhere."""
    here, there, weights = [], [], []
    for axis, matrix in enumerate(matrices):
        others = [a for a in range(3) if a != axis]
        held = torch.nonzero(inside.any(dim=others[1]).any(dim=others[0])).ravel()
        if not len(held):
            return None
        box = slice(int(held[0]), int(held[-1]) + 1)
        reached = torch.nonzero(matrix[:, box].sum(dim=1) > 0).ravel()
        if not len(reached):
            return None
        out = slice(int(reached[0]), int(reached[-1]) + 1)
        here.append(box)
        there.append(out)
        weights.append(matrix[out, box].contiguous())
    return _Reach(
        (here[0], here[1], here[2]),
        (there[0], there[1], there[2]),
        (weights[0], weights[1], weights[2]),
    )


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
