"""Take islands away from the spine out of a probability map, and fill holes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

GAP_MM = 12.0
"""A component this close to the spine belongs to it: a disc space is narrower."""

LEAST_ML = 0.3
"""Components smaller than this are dropped wherever they lie."""

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


def clean(probability: Tensor, spacing_mm: tuple[float, float, float]) -> Cleaned:
    """Clean ``probability`` (classes - 1, R, A, S) in place.

    The largest component is the spine; whatever lies within ``GAP_MM`` of it, or of
    what was already added, and is not tiny, belongs to it too. Cavities that are
    closed on all sides are filled with the class around them.
    """
    spine = (probability.sum(dim=0) > 0.5).numpy()
    parts, count = ndimage.label(spine, _TOUCHING)
    if count == 0:
        return Cleaned(0, 0.0)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    counts = np.bincount(parts.ravel(), minlength=count + 1)
    sizes_ml = counts.astype(np.float64) * voxel_ml
    kept = _belonging(parts, sizes_ml, spacing_mm)
    dropped = [i for i in range(1, count + 1) if i not in kept]
    inside = np.isin(parts, sorted(kept))
    if dropped:
        near_kept = ndimage.binary_dilation(inside, _TOUCHING, iterations=2)
        probability *= torch.from_numpy(near_kept & ~np.isin(parts, dropped))
    _fill(probability, inside)
    largest = max((float(sizes_ml[i]) for i in dropped), default=0.0)
    return Cleaned(len(dropped), largest)


def _belonging(
    parts: NDArray[np.integer],
    sizes_ml: NDArray[np.float64],
    spacing_mm: tuple[float, float, float],
) -> set[int]:
    kept = {int(sizes_ml[1:].argmax()) + 1}
    boxes = ndimage.find_objects(parts)
    waiting = {i for i in range(1, len(sizes_ml)) if sizes_ml[i] >= LEAST_ML} - kept
    latest = kept
    while latest:
        near = set()
        for index in latest:
            near |= _near(parts, boxes[index - 1], index, spacing_mm) & waiting
        kept |= near
        waiting -= near
        latest = near
    return kept


def _near(
    parts: NDArray[np.integer],
    box: tuple[slice, ...],
    index: int,
    spacing_mm: tuple[float, float, float],
) -> set[int]:
    """Return the components with a voxel within ``GAP_MM`` of component ``index``."""
    wide = tuple(
        slice(max(0, s.start - reach), s.stop + reach)
        for s, reach in zip(
            box, [int(np.ceil(GAP_MM / mm)) for mm in spacing_mm], strict=True
        )
    )
    around = parts[wide]
    apart = ndimage.distance_transform_edt(around != index, sampling=spacing_mm)
    return set(np.unique(around[apart <= GAP_MM]).tolist()) - {0, index}


def _fill(probability: Tensor, inside: NDArray[np.bool_]) -> None:
    holes = ndimage.binary_fill_holes(inside) & ~inside
    if not holes.any():
        return
    nearest = ndimage.distance_transform_edt(
        ~inside, return_distances=False, return_indices=True
    )
    at = tuple(torch.from_numpy(axis[holes]).long() for axis in nearest)
    probability[:, torch.from_numpy(holes)] = probability[:, at[0], at[1], at[2]]
