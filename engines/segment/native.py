"""From probabilities on the recipe's grid to labels on the scan's own grid."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from array_api_compat import device, is_numpy_array
from numpy.typing import NDArray

from engines.arrays import Array, beside, namespace, to_numpy
from engines.geometry import Grid
from engines.preprocess import resample

SLAB_VOXELS = 1 << 21
"""Voxels of the scan's grid whose probabilities are held at a time."""

THREADS = 2
"""Slabs that are interpolated at the same time on a CPU."""

UNCERTAIN = 255
"""Label of voxels that training is not to score."""

SURE = (0.15, 0.85)
"""Between these a foreground probability counts as uncertain."""

NOTHING = 0.02
"""Where every class is below this, no voxel can win; such margins are cut off."""


@dataclass(frozen=True, slots=True)
class _Taps:
    """What an axis is interpolated from: a few voxels for each of the target.

    Attributes:
        index: (taps, n), voxels of the source.
        weight: (taps, n).
        growth: voxels of the target for each of the source.
    """

    index: Array
    weight: Array
    growth: float

    def rows(self, part: slice) -> tuple["_Taps", slice]:
        """Return those of a part of the target, and what of the source they need."""
        index = self.index[:, part]
        low, high = int(index.min()), int(index.max()) + 1
        return _Taps(index - low, self.weight[:, part], self.growth), slice(low, high)

    def along(self, values: Array, axis: int) -> Array:
        """Return ``values`` (R, A, S) interpolated along an axis."""
        xp = namespace(values)
        shape = tuple(-1 if a == axis else 1 for a in range(3))
        total = None
        for index, weight in zip(self.index, self.weight, strict=True):
            part = xp.take(values, index, axis=axis)
            part *= xp.reshape(weight, shape)
            if total is None:
                total = part
            else:
                total += part
        return total


@dataclass(frozen=True, slots=True)
class _Reach:
    """A class's own box, and what it is interpolated to.

    Attributes:
        here: the box on the source, where the class is at all.
        there: the box on the target that it reaches.
        taps: per axis, from voxels of ``here`` to those of ``there``.
    """

    here: tuple[slice, slice, slice]
    there: tuple[slice, slice, slice]
    taps: tuple[_Taps, _Taps, _Taps]

    def part(self, share: Array, rows: slice) -> tuple[slice, Array]:
        """Interpolate a class's ``share`` (R, A, S) to those of ``rows`` it reaches.

        The axis that loses most voxels comes first, so that the others have less to do.

        Returns:
            which rows of the target they are, and their values, (rows, J, K) of its
            own box.
        """
        start = max(rows.start, self.there[0].start)
        stop = min(rows.stop, self.there[0].stop)
        if start >= stop:
            return slice(start, start), share[:0, :0, :0]
        first = self.there[0].start
        own, needed = self.taps[0].rows(slice(start - first, stop - first))
        taps = (own, *self.taps[1:])
        values = namespace(share).asarray(share[self.here][needed], copy=True)
        for axis in sorted(range(3), key=lambda axis: taps[axis].growth):
            values = taps[axis].along(values, axis)
        return slice(start, stop), values


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
    xp = namespace(probability)
    somewhere = xp.sum(probability, axis=0) > NOTHING
    matrices = resample.matrices(source, target)
    reaches = [
        _reach(to_numpy((probability[n] > 0) & somewhere), matrices, probability)
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
    slab = max(1, SLAB_VOXELS // max(1, _length(columns) * _length(depth)))
    starts = range(around[0].start, around[0].stop, slab)
    parts = [slice(start, min(start + slab, around[0].stop)) for start in starts]

    def fill(rows: slice) -> None:
        winner = _winner(
            probability,
            reaches,
            (rows, columns, depth),
            mark_uncertain=mark_uncertain,
        )
        found[rows, columns, depth] = to_numpy(winner)

    with ThreadPoolExecutor(THREADS if is_numpy_array(probability) else 1) as pool:
        list(pool.map(fill, parts))
    return found


def _winner(
    probability: Array,
    reaches: Sequence[_Reach | None],
    box: tuple[slice, slice, slice],
    *,
    mark_uncertain: bool,
) -> Array:
    """Return the winning class of each voxel in a box of the target."""
    xp, where = namespace(probability), device(probability)
    rows, columns, depth = box
    shape = tuple(map(_length, box))
    total = xp.zeros(shape, dtype=probability.dtype, device=where)
    best = xp.zeros(shape, dtype=probability.dtype, device=where)
    winner = xp.zeros(shape, dtype=xp.uint8, device=where)
    for index, reach in enumerate(reaches):
        if reach is None:
            continue
        own, part = reach.part(probability[index], rows)
        if not part.shape[0]:
            continue
        place = (
            _within(own, rows),
            _within(reach.there[1], columns),
            _within(reach.there[2], depth),
        )
        total[place] += part
        winner[place][part > best[place]] = index + 1
        best[place] = xp.maximum(best[place], part)
    winner[best <= 1 - total] = 0
    if mark_uncertain:
        winner[(total > SURE[0]) & (total < SURE[1])] = UNCERTAIN
    return winner


def _reach(
    inside: NDArray[np.bool_], matrices: Sequence[NDArray[np.float32]], like: Array
) -> _Reach | None:
    """Return where a class is and what it reaches; None if it is nowhere.

    Args:
        inside: (R, A, S), where it is.
        matrices: per axis, (target, source) weights.
        like: an array on the device that interpolates.
    """
    here, there, taps = [], [], []
    for axis, matrix in enumerate(matrices):
        others = tuple(a for a in range(3) if a != axis)
        held = np.flatnonzero(inside.any(axis=others))
        if not len(held):
            return None
        box = slice(int(held[0]), int(held[-1]) + 1)
        reached = np.flatnonzero(matrix[:, box].sum(axis=1) > 0)
        if not len(reached):
            return None
        out = slice(int(reached[0]), int(reached[-1]) + 1)
        here.append(box)
        there.append(out)
        taps.append(_taps(matrix[out, box], like))
    return _Reach(
        (here[0], here[1], here[2]),
        (there[0], there[1], there[2]),
        (taps[0], taps[1], taps[2]),
    )


def _taps(matrix: NDArray[np.float32], like: Array) -> _Taps:
    """Return the weights of a matrix (target, source), whose rows are mostly zeros."""
    used = matrix > 0
    count = int(used.sum(axis=1).max())
    first = np.minimum(used.argmax(axis=1), matrix.shape[1] - count)
    index = first + np.arange(count)[:, None]
    weight = matrix[np.arange(len(matrix)), index]
    growth = matrix.shape[0] / matrix.shape[1]
    return _Taps(beside(index, like), beside(weight, like), growth)


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _length(side: slice) -> int:
    length: int = side.stop - side.start
    return length
