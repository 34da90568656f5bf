"""Resampling between grids that share their axes, one small matrix per axis.

Because both grids run along the same axes, three-dimensional interpolation is the
product of three one-dimensional ones. Going to larger voxels, the kernel is
widened to the new voxel size, so that nothing is skipped between samples. The matrices
are sparse, each voxel having few neighbours, and their sums run in the order of the
voxels, whatever the number of threads.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from engines.geometry import Grid

SLAB_VOXELS = 1 << 23
"""Voxels held as float32 at a time, 32 MiB."""


CUBIC = -0.75
"""Sharpness of the cubic kernel, the value that image libraries use."""

Floats = NDArray[np.float32]
Weigh = Callable[[NDArray[np.float64], int], Floats]


def linear(voxels: NDArray[Any], source: Grid, target: Grid) -> Floats:
    """Interpolate masks, or probabilities, (I, J, K), from ``source`` to ``target``.

    Beyond the outermost voxel centres the outermost value is repeated.

    Raises:
        ValueError: the grids do not run along the same axes.
    """
    return _separable(voxels, source, target, _linear_weights)


def share(mask: NDArray[np.bool_], source: Grid, target: Grid) -> Floats:
    """Interpolate a mask (I, J, K) as ``linear`` does, about what it marks alone."""
    found = np.zeros(target.shape, np.float32)
    if not mask.any():
        return found
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    weights = [
        weight[:, side]
        for weight, side in zip(matrices(source, target), box, strict=True)
    ]
    reached = [np.flatnonzero(weight.sum(axis=1) > 0) for weight in weights]
    if any(not len(rows) for rows in reached):
        return found
    there = tuple(slice(int(rows[0]), int(rows[-1]) + 1) for rows in reached)
    first, second, third = (w[rows] for w, rows in zip(weights, there, strict=True))
    found[there] = _product(mask[box], first, second, third)
    return found


def cubic(voxels: NDArray[Any], source: Grid, target: Grid) -> Floats:
    """Interpolate a scan (I, J, K) from ``source`` to ``target``.

    Along axes that get smaller voxels by cubic convolution (Keys 1981), which blurs
    thick slices less; along the others as ``linear`` does. Beyond the outermost
    voxel centres the outermost value is repeated.

    Raises:
        ValueError: the grids do not run along the same axes.
    """
    return _separable(voxels, source, target, _cubic_weights)


def _separable(
    voxels: NDArray[Any], source: Grid, target: Grid, weigh: Weigh
) -> Floats:
    return _product(voxels, *matrices(source, target, weigh))


def _product(
    voxels: NDArray[Any], first: Floats, second: Floats, third: Floats
) -> Floats:
    """Interpolate (I, J, K) along one axis after the other.

    The third one comes last, along which the voxels of most scans lie farthest apart,
    so that slabs across it are read in one go. The order does not depend on how the
    voxels lie in memory, nor then do the sums: a scan gives the same values to the last
    bit from whatever file.

    Args:
        voxels: (I, J, K).
        first: (I', I) weights; ``second`` and ``third`` likewise.
    """
    along, across, slow = (sparse.csr_array(w) for w in (first, second, third))
    lying = voxels.transpose()
    between = np.empty((len(lying), first.shape[0], second.shape[0]), np.float32)
    step = max(1, SLAB_VOXELS // max(1, lying.shape[1] * lying.shape[2]))
    for start in range(0, len(lying), step):
        slab = np.ascontiguousarray(lying[start : start + step], np.float32)
        for plane, target in zip(slab, between[start:], strict=False):
            target[:] = along @ np.ascontiguousarray((across @ plane).T)
    flat = slow @ between.reshape(len(lying), -1)
    found: Floats = flat.reshape(third.shape[0], *between.shape[1:])
    return found.transpose(1, 2, 0)


def nearest(voxels: NDArray[Any], source: Grid, target: Grid) -> NDArray[Any]:
    """Take for each voxel of ``target`` the value of the nearest one of ``source``.

    Raises:
        ValueError: the grids do not run along the same axes.
    """
    picked = voxels
    for axis, place in enumerate(positions(source, target)):
        index = np.clip(np.floor(place + 0.5).astype(int), 0, source.shape[axis] - 1)
        picked = np.take(picked, index, axis=axis)
    return picked


def _linear_weights(place: NDArray[np.float64], size: int) -> Floats:
    step = float(place[1] - place[0]) if len(place) > 1 else 1.0
    width = max(1.0, step)
    inside = np.clip(place, 0, size - 1)
    apart = np.abs(inside[:, None] - np.arange(size)[None, :])
    return _summing_to_one(np.clip(1 - apart / width, 0, None))


def matrices(
    source: Grid, target: Grid, weigh: Weigh = _linear_weights
) -> tuple[Floats, Floats, Floats]:
    """Return per axis the (target, source) weights of interpolation."""
    first, second, third = (
        weigh(place, n)
        for place, n in zip(positions(source, target), source.shape, strict=True)
    )
    return first, second, third


def positions(source: Grid, target: Grid) -> list[NDArray[np.float64]]:
    """Return per axis where each target voxel lies, in source voxel indices.

    Raises:
        ValueError: the grids do not run along the same axes.
    """
    between = np.linalg.inv(source.affine) @ target.affine
    steps = np.diag(between[:3, :3])
    if np.abs(between[:3, :3] - np.diag(steps)).max() > 1e-4 or (steps <= 0).any():
        msg = "the grids do not run along the same axes"
        raise ValueError(msg)
    return [
        np.arange(n) * step + shift
        for n, step, shift in zip(target.shape, steps, between[:3, 3], strict=True)
    ]


def _cubic_weights(place: NDArray[np.float64], size: int) -> Floats:
    if len(place) < 2 or place[1] - place[0] >= 1 or size < 2:
        return _linear_weights(place, size)
    inside = np.clip(place, 0, size - 1)
    first = np.floor(inside).astype(int)
    weight = np.zeros((len(place), size))
    for offset in range(-1, 3):
        x = np.abs(inside - (first + offset))
        near = (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
        far = CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
        share = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
        at = np.clip(first + offset, 0, size - 1)
        np.add.at(weight, (np.arange(len(place)), at), share)
    return _summing_to_one(weight)


def _summing_to_one(weight: NDArray[np.float64]) -> Floats:
    shares = weight / weight.sum(axis=1, keepdims=True)
    rounded: Floats = shares.astype(np.float32)
    return rounded
