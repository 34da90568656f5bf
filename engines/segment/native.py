"""From probabilities on the recipe's grid to labels on the scan's own grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from engines.arrays import Array, beside, namespace, to_numpy
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
    weights: tuple[Array, Array, Array]

    def part(self, share: Array, rows: slice) -> tuple[slice, Array]:
        """Interpolate a class's ``share`` (R, A, S) to those of ``rows`` it reaches.

        Returns:
            which rows of the target they are, and their values, (rows, J, K) of its
            own box.
        """
        first, second, third = self.weights
        start = max(rows.start, self.there[0].start)
        stop = min(rows.stop, self.there[0].stop)
        if start >= stop:
            return slice(start, start), share[:0, :0, :0]
        xp = namespace(share)
        own = first[start - self.there[0].start : stop - self.there[0].start]
        (used,) = xp.nonzero(xp.sum(own, axis=0) > 0)
        low, high = int(used[0]), int(used[-1]) + 1
        cropped = share[self.here][low:high]
        between = second @ (cropped @ third.T)
        flat = own[:, low:high] @ xp.reshape(between, (high - low, -1))
        shape = (stop - start, *between.shape[1:])
        return slice(start, stop), xp.reshape(flat, shape)


def labels(
    probability: Array, source: Grid, target: Grid, *, mark_uncertain: bool = False
) -> NDArray[np.uint8]:
    """Return the winning class of each voxel of ``target``.

    Probabilities are interpolated before the winner is chosen, slab by slab and each
    class only where it is, so they are never held for a whole scan at its own
    resolution.

    Args:
        probability: (classes - 1, R, A, S) on ``source``, of any device; the
            background's share is what is missing to 1.
        target: a grid along the same axes.
        mark_uncertain: label voxels between ``SURE`` as ``UNCERTAIN``.

    Returns:
        (I, J, K) of ``target``, uint8 class indices.
    """
    found = np.zeros(target.shape, np.uint8)
    xp, place_of = namespace(probability), device(probability)
    somewhere = xp.sum(probability, axis=0) > NOTHING
    matrices = [beside(m, probability) for m in resample.matrices(source, target)]
    reaches = [
        _reach((probability[n] > 0) & somewhere, matrices)
        for n in range(probability.shape[0])
    ]
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
        total = xp.zeros(shape, dtype=probability.dtype, device=place_of)
        best = xp.zeros(shape, dtype=probability.dtype, device=place_of)
        winner = xp.zeros(shape, dtype=xp.uint8, device=place_of)
        for index, reach in enumerate(reaches):
            if reach is None:
                continue
            own, part = reach.part(probability[index], rows)
            place = (
                _within(own, rows),
                _within(reach.there[1], columns),
                _within(reach.there[2], depth),
            )
            if part.shape[0]:
                total[place] += part
                winner[place][part > best[place]] = index + 1
                best[place] = xp.maximum(best[place], part)
        winner[best <= 1 - total] = 0
        if mark_uncertain:
            winner[(total > SURE[0]) & (total < SURE[1])] = UNCERTAIN
        found[rows, columns, depth] = to_numpy(winner)
    return found


def _reach(inside: Array, matrices: Sequence[Array]) -> _Reach | None:
    """Return where a class is and what it reaches; None if it is nowhere."""
    xp = namespace(inside)
    here, there, weights = [], [], []
    for axis, matrix in enumerate(matrices):
        others = tuple(a for a in range(3) if a != axis)
        (held,) = xp.nonzero(xp.any(inside, axis=others))
        if not held.shape[0]:
            return None
        box = slice(int(held[0]), int(held[-1]) + 1)
        (reached,) = xp.nonzero(xp.sum(matrix[:, box], axis=1) > 0)
        if not reached.shape[0]:
            return None
        out = slice(int(reached[0]), int(reached[-1]) + 1)
        here.append(box)
        there.append(out)
        weights.append(xp.asarray(matrix[out, box], copy=True))
    return _Reach(
        (here[0], here[1], here[2]),
        (there[0], there[1], there[2]),
        (weights[0], weights[1], weights[2]),
    )


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
