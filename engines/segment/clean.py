"""Take islands away from the spine out of a probability map, and fill holes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

GAP_MM = 12.0
"""A component this close to the spine belongs to it: a disc space is narrower."""

LEAST_ML = 0.3
"""Components smaller than this are dropped wherever they lie."""

RIM = 2
"""Voxels about what is kept that stay as they are: finer grids look into them."""

_TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was taken out.

    Attributes:
        islands: number of components removed.
        largest_ml: volume of the largest of them.
    """

    islands: int
    largest_ml: float


def clean(
    probability: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> Cleaned:
    """Clean ``probability`` (classes - 1, R, A, S) in place.

    The largest component is the spine; whatever lies within ``GAP_MM`` of it, or of
    what was already added, and is not tiny, belongs to it too. Cavities that are
    closed on all sides are filled with the class around them.
    """
    spine = probability.sum(axis=0) > 0.5
    box = _around(spine, margin=2)
    if box is None:
        return Cleaned(0, 0.0)
    return _clean_box(probability[(slice(None), *box)], spine[box], spacing_mm)


def parts_of_spine(
    spine: NDArray[np.bool_], spacing_mm: tuple[float, ...], gap_mm: float
) -> tuple[NDArray[np.integer], NDArray[np.float64], set[int]]:
    """Tell the spine from islands.

    Args:
        spine: (R, A, S), not empty.
        gap_mm: a component this close to the largest one, or to another that
            belongs to it, belongs to it too.

    Returns:
        the components, numbered from 1; the volume in ml of each number; and the
        numbers of those that are the spine.
    """
    parts, count = ndimage.label(spine, _TOUCHING)
    counts = np.bincount(parts.ravel(), minlength=count + 1)
    sizes_ml = (counts * (float(np.prod(spacing_mm)) / 1000)).astype(np.float64)
    largest = int(sizes_ml[1:].argmax()) + 1
    boxes = ndimage.find_objects(parts)
    waiting = {i for i in range(1, len(sizes_ml)) if sizes_ml[i] >= LEAST_ML}
    beside: dict[int, set[int]] = {index: set() for index in waiting | {largest}}
    for index in waiting - {largest}:  # the others tell whom the largest is beside
        for other in _near(parts, boxes[index - 1], index, spacing_mm, gap_mm):
            if other in beside:
                beside[index].add(other)
                beside[other].add(index)
    kept: set[int] = set()
    latest = {largest}
    while latest:
        kept |= latest
        latest = {other for index in latest for other in beside[index]} - kept
    return parts, sizes_ml, kept


def _clean_box(
    probability: NDArray[np.float32],
    spine: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
) -> Cleaned:
    parts, sizes_ml, kept = parts_of_spine(spine, spacing_mm, GAP_MM)
    dropped = [i for i in range(1, len(sizes_ml)) if i not in kept]
    inside = np.isin(parts, sorted(kept))
    if dropped:
        near_kept = ndimage.maximum_filter(inside, 2 * RIM + 1)
        probability *= near_kept & ~np.isin(parts, dropped)
    _fill(probability, inside)
    largest = max((float(sizes_ml[i]) for i in dropped), default=0.0)
    return Cleaned(len(dropped), largest)


def _near(
    parts: NDArray[np.integer],
    box: tuple[slice, ...],
    index: int,
    spacing_mm: tuple[float, ...],
    gap_mm: float,
) -> set[int]:
    """Return the components with a voxel within ``gap_mm`` of component ``index``."""
    reach = [int(np.ceil(gap_mm / mm)) for mm in spacing_mm]
    around = parts[
        tuple(
            slice(max(0, side.start - far), side.stop + far)
            for side, far in zip(box, reach, strict=True)
        )
    ]
    apart = ndimage.distance_transform_edt(around != index, sampling=spacing_mm)
    return set(np.unique(around[apart <= gap_mm]).tolist()) - {0, index}


def _fill(probability: NDArray[np.float32], inside: NDArray[np.bool_]) -> None:
    holes = _holes(inside)
    box = _around(holes, margin=1)
    if box is None:
        return
    nearest = ndimage.distance_transform_edt(
        holes[box], return_distances=False, return_indices=True
    )
    part = probability[(slice(None), *box)]
    at = tuple(axis[holes[box]] for axis in nearest)
    part[:, holes[box]] = part[:, at[0], at[1], at[2]]


def _holes(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the cavities that are closed on all sides."""
    parts, count = ndimage.label(~inside)
    closed = np.ones(count + 1, bool)
    closed[0] = False
    for axis in range(3):
        for end in (0, -1):
            closed[np.take(parts, end, axis)] = False
    holes: NDArray[np.bool_] = closed[parts]
    return holes


def _around(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...] | None:
    """Return the box that holds ``mask`` and a margin, None if it is empty."""
    limits = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        held = np.flatnonzero(mask.any(axis=others))
        if not len(held):
            return None
        limits.append(slice(max(0, held[0] - margin), held[-1] + margin + 1))
    return tuple(limits)
