"""Score two label maps: every label's voxels counted once, its surfaces measured.

Labels are measured side by side, each within the box that holds it in either map, so
that time and memory follow the spine and not the field of view.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.metrics import surface
from engines.metrics.overlap import Overlap, overlaps
from engines.metrics.surface import Distances

THREADS = max(1, min(8, os.cpu_count() or 1))
"""Labels that are measured at the same time."""

TOLERANCE_MM = 1.0
"""How far apart surfaces may lie and still agree, unless told otherwise."""

Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """All that is known of one label.

    Attributes:
        counts: of its voxels.
        distances: of its surfaces; infinite where one map lacks the label.
        voxel: volume of a voxel in mm³, or 1 for pixels.
        tolerance: for the surface Dice, in mm or pixels.
    """

    counts: Overlap
    distances: Distances
    voxel: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Maps:
    """Two label maps, cut to the box that holds all labels of both.

    Attributes:
        prediction: (I, J, K) integers, 0 the background; (I, J) for a slice.
        truth: the same shape.
        spacing_mm: of the voxels; 1 along each axis for pixels.
        voxels: of the whole grid, for what counts the background.
    """

    prediction: NDArray[Any]
    truth: NDArray[Any]
    spacing_mm: tuple[float, ...]
    voxels: int


def cut(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: tuple[float, float, float],
) -> tuple[Maps, tuple[int, ...]]:
    """Return copies of both maps without the background around them, and their corner.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        msg = f"shapes differ: {prediction.shape} and {truth.shape}"
        raise ValueError(msg)
    boxes = [box for box in (_filled(prediction), _filled(truth)) if box is not None]
    box = _around(boxes) if boxes else (slice(0, 1),) * 3
    order: Literal["C", "F"] = "F" if truth.flags.f_contiguous else "C"
    inner = prediction[box].copy(order), truth[box].copy(order)
    corner = tuple(along.start for along in box)
    return Maps(*inner, spacing_mm, int(truth.size)), corner


def slices_of(
    maps: Maps, axis: int, shape: tuple[int, ...] | None = None
) -> Iterator[Maps]:
    """Yield the slices along ``axis`` in which either map has a label, in pixels.

    Args:
        maps: cut out of a larger grid.
        axis: that slices are numbered along.
        shape: of the larger grid; that of the maps if there is none.
    """
    shape = shape or maps.truth.shape
    pixels = int(np.prod(shape)) // shape[axis]
    for place in range(maps.truth.shape[axis]):
        pair = maps.prediction.take(place, axis), maps.truth.take(place, axis)
        if pair[0].any() or pair[1].any():
            yield Maps(*pair, (1.0, 1.0), pixels)


def scores(maps: Maps, tolerance_mm: float = TOLERANCE_MM) -> list[Scored]:
    """Return the scores of every label in either map, by label.

    Raises:
        MaskError: values that cannot be label ids.
    """
    counted = overlaps(maps.prediction, maps.truth, voxels=maps.voxels)
    boxes = _boxes(maps)
    voxel = float(np.prod(maps.spacing_mm))

    def measure(counts: Overlap) -> Scored:
        box = boxes[counts.label]
        pair = surface.distances(
            maps.prediction[box] == counts.label,
            maps.truth[box] == counts.label,
            maps.spacing_mm,
        )
        return Scored(counts, pair, voxel, tolerance_mm)

    with ThreadPoolExecutor(THREADS, "measure") as pool:
        return list(pool.map(measure, counted))


def _filled(labels: NDArray[Any]) -> Box | None:
    """Return the box that holds all labels, None without any."""
    box = []
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        seen = np.flatnonzero(labels.any(axis=others))
        if not seen.size:
            return None
        box.append(slice(int(seen[0]), int(seen[-1]) + 1))
    return tuple(box)


def _boxes(maps: Maps) -> dict[int, Box]:
    """Return label -> the box that holds it in both maps."""
    found: dict[int, list[Box]] = {}
    for labels in (maps.prediction, maps.truth):
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            if box is not None:
                found.setdefault(label, []).append(box)
    return {label: _around(boxes) for label, boxes in found.items()}


def _around(boxes: Sequence[Box]) -> Box:
    return tuple(
        slice(min(s.start for s in along), max(s.stop for s in along))
        for along in zip(*boxes, strict=True)
    )
