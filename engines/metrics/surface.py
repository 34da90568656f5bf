"""Distances between the surfaces of two masks, in mm.

Source: Nikolov et al., "Deep learning to achieve clinically applicable segmentation
of head and neck anatomy", arXiv:1809.04430, whose definition is followed to the last
digit: a surface element lies between voxels that are inside and outside, its size is
that of the marching-cubes triangles there, and its distance is that to the nearest
element of the other surface. Departures: the Hausdorff distance is the plain maximum;
and a mask without voxels is infinitely far from one that has some, never nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from engines.metrics import surfels

REACH = 2
"""Voxels around a surface element that are looked at before a search tree is built."""

HD95 = 0.95
"""Share of a surface that lies within the robust Hausdorff distance."""


@dataclass(frozen=True, slots=True)
class Side:
    """One surface as seen from the other.

    Attributes:
        distances: (N,) of each element to the nearest of the other surface, in mm
            (pixels for contours in pixels), growing.
        sizes: (N,) of the elements, in mm² (mm, or pixels, for a contour).
    """

    distances: NDArray[np.float64]
    sizes: NDArray[np.float64]

    @property
    def size(self) -> float:
        """Size of the whole surface."""
        return float(self.sizes.sum())

    @property
    def mean(self) -> float:
        """Average distance over the surface; infinite if nothing is there to reach."""
        total = self.size
        return float(self.distances @ self.sizes) / total if total else math.inf

    @property
    def largest(self) -> float:
        """Largest distance."""
        return float(self.distances[-1]) if self.distances.size else math.inf

    def percentile(self, share: float) -> float:
        """Return within which distance ``share`` of the surface lies."""
        if not self.distances.size:
            return math.inf
        reached = np.cumsum(self.sizes) / np.sum(self.sizes)
        place = int(np.searchsorted(reached, share))
        return float(self.distances[min(place, self.distances.size - 1)])

    def within(self, tolerance: float) -> float:
        """Return the size of what lies within ``tolerance`` of the other surface."""
        return float(self.sizes[self.distances <= tolerance].sum())


@dataclass(frozen=True, slots=True)
class Distances:
    """Both surfaces of a pair of masks.

    Attributes:
        truth: surface of the truth, with distances to the prediction.
        prediction: surface of the prediction, with distances to the truth.
    """

    truth: Side
    prediction: Side


def distances(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: tuple[float, ...],
) -> Distances:
    """Measure how far two surfaces lie apart.

    Args:
        prediction: (I, J, K), or (I, J) for contours.
        truth: the same shape.
        spacing: of voxels, in mm, as many as there are axes.

    Returns:
        Distances; infinite on the one side whose other mask is empty.
    """
    sizes = _sizes(spacing)
    codes = _codes(truth), _codes(prediction)
    borders = [_is_border(code, len(sizes)) for code in codes]
    places = [np.flatnonzero(border) for border in borders]
    points = [_points(place, codes[0].shape) for place in places]
    sides = []
    for own, other in ((0, 1), (1, 0)):
        apart = np.zeros(len(places[own]))
        away = ~borders[other].ravel()[places[own]]
        if away.any():
            near = _close(points[own][away], borders[other], spacing)
            far = np.isinf(near)
            near[far] = _nearest(points[own][away][far], points[other], spacing)
            apart[away] = near
        sides.append(_side(apart, sizes[codes[own].ravel()[places[own]]]))
    return Distances(*sides)


def hausdorff(pair: Distances) -> float:
    """Return the largest distance of either surface to the other."""
    return max(pair.truth.largest, pair.prediction.largest)


def hausdorff_95(pair: Distances) -> float:
    """Return within which distance 95 % of each surface lie of the other."""
    return max(pair.truth.percentile(HD95), pair.prediction.percentile(HD95))


def average(pair: Distances) -> float:
    """Return the average symmetric surface distance: over both surfaces together."""
    total = pair.truth.size + pair.prediction.size
    weighted = (_sum(pair.truth), _sum(pair.prediction))
    return sum(weighted) / total if total else math.inf


def surface_dice(pair: Distances, tolerance: float) -> float:
    """Return the share of both surfaces within ``tolerance`` of each other, 0 to 1."""
    total = pair.truth.size + pair.prediction.size
    near = pair.truth.within(tolerance) + pair.prediction.within(tolerance)
    return near / total if total else 0.0


def _sum(side: Side) -> float:
    return float(side.distances @ side.sizes)


def _sizes(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    if len(spacing) == 2:
        return surfels.lengths_mm((spacing[0], spacing[1]))
    i, j, k = spacing
    return surfels.areas_mm2((i, j, k))


def _codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the pattern between neighbouring voxels, one more along each axis."""
    corners = surfels.CORNERS_3D if mask.ndim == 3 else surfels.CORNERS_2D
    codes = np.zeros([count + 1 for count in mask.shape], np.uint8)
    inside = mask.view(np.uint8)
    for corner in np.ndindex(corners.shape):
        places = zip(corner, mask.shape, strict=True)
        seen = tuple(slice(1 - at, 1 - at + count) for at, count in places)
        codes[seen] += inside * corners[corner]
    return codes


def _is_border(codes: NDArray[np.uint8], patterns: int) -> NDArray[np.bool_]:
    """Say where a pattern is neither all outside nor all inside."""
    border: NDArray[np.bool_] = (codes - np.uint8(1)) < patterns - 2
    return border


def _points(places: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the indices (N, axes) of places in a flat array."""
    return np.stack(np.unravel_index(places, shape), axis=1)


def _close(
    points: NDArray[np.intp], border: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return distances of ``points`` to elements a few voxels away, infinite if none.

    Most of two similar surfaces lie so close that looking around each point, from
    near to far, is faster than a search tree. Only offsets are tried that are nearer
    than any that is not.
    """
    steps, lengths = _offsets(spacing)
    wide = np.pad(border, REACH)
    strides = np.array(
        [int(np.prod(wide.shape[axis + 1 :])) for axis in range(wide.ndim)]
    )
    places, jumps = (points + REACH) @ strides, steps @ strides
    seen = wide.ravel()
    apart = np.full(len(points), math.inf)
    left = np.arange(len(points))
    for jump, length in zip(jumps, lengths, strict=True):
        hit = seen[places[left] + jump]
        apart[left[hit]] = length
        left = left[~hit]
        if not left.size:
            break
    return apart


def _offsets(
    spacing: tuple[float, ...],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return steps (N, axes) to voxels around one, and their lengths, growing."""
    along = np.arange(-REACH, REACH + 1)
    steps = np.stack(np.meshgrid(*[along] * len(spacing)), axis=-1)
    steps = steps.reshape(-1, len(spacing))
    lengths = _lengths(steps, spacing)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] < (REACH + 1) * min(spacing)]
    return steps[order], lengths[order]


def _lengths(
    steps: NDArray[np.intp], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return how long steps of whole voxels are.

    From whole voxels, so that a distance that equals the tolerance does so wherever
    it lies.
    """
    return np.asarray(np.sqrt(((steps * np.array(spacing)) ** 2).sum(axis=1)), float)


def _nearest(
    points: NDArray[np.intp], others: NDArray[np.intp], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return how far each of ``points`` lies from the nearest of ``others``."""
    if not len(others):
        return np.full(len(points), math.inf)
    sizes = np.array(spacing)
    tree = KDTree(others * sizes, balanced_tree=False, compact_nodes=False)
    nearest = np.asarray(tree.query(points * sizes)[1])
    return _lengths(points - others[nearest], spacing)


def _side(apart: NDArray[np.float64], sizes: NDArray[np.float64]) -> Side:
    order = np.lexsort((sizes, apart))
    return Side(apart[order], sizes[order])
