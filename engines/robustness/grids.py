"""Alterations of where the voxels lie: field of view, slices, spacing, axes."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engines import geometry
from engines.errors import InapplicableError
from engines.geometry import Grid
from engines.preprocess import resample
from engines.preprocess.orient import reorient
from engines.robustness.subject import (
    AIR_HU,
    LEFT_OUT,
    Subject,
)

FIELD_MM = 90.0
"""Edge or diameter of the narrow fields; spine protocols reconstruct 80 to 200 mm."""

SLICE_MM = 5.0
"""Thickness of the slices that most hospitals store."""

MOST_VOXELS = 300_000_000
"""Of a finer grid; larger ones would need more memory than they tell."""


def box(subject: Subject, rng: Generator) -> Subject:
    """Cut the scan to a box about the spine; only what is left is scored."""
    del rng
    middle = _middle(subject)
    grid = subject.scan.grid
    spans = []
    for axis in (0, 1):
        count = round(FIELD_MM / grid.spacing_mm[axis])
        start = max(0, min(middle[axis] - count // 2, grid.shape[axis] - count))
        spans.append(slice(start, min(grid.shape[axis], start + count)))
    cut = (spans[0], spans[1], slice(None))
    hu = subject.scan.voxels[cut]
    if hu.shape == grid.shape:
        raise _narrow_already()
    affine = grid.affine.copy()
    corner = [spans[0].start, spans[1].start, 0]
    affine[:3, 3] += affine[:3, :3] @ corner
    left = Grid((hu.shape[0], hu.shape[1], hu.shape[2]), affine)
    return subject.moved(hu, subject.marks.voxels[cut], left)


def circle(subject: Subject, rng: Generator) -> Subject:
    """Put air outside a circle about the spine; only what is inside is scored."""
    del rng
    middle = _middle(subject)
    grid = subject.scan.grid
    across, deep = (
        (np.arange(grid.shape[axis]) - middle[axis]) * grid.spacing_mm[axis]
        for axis in (0, 1)
    )
    outside = np.hypot(across[:, None], deep[None]) > FIELD_MM / 2
    if not outside.any():
        raise _narrow_already()
    hu = np.where(outside[..., None], AIR_HU, subject.scan.voxels)
    left_out = outside[..., None] * np.uint8(LEFT_OUT)
    return subject.moved(hu, subject.marks.voxels | left_out, grid)


def thick(subject: Subject, rng: Generator) -> Subject:
    """Average axial planes to slices of 5 mm; scored on those.

    A slice is the mean of the planes in it, each by the share of it that lies
    inside. Its truth is that of the plane nearest to its middle: the network is asked
    for no more than the slices can show.

    Raises:
        InapplicableError: the slices are as thick already.
    """
    del rng
    grid = subject.scan.grid
    step_mm = grid.spacing_mm[2]
    if step_mm > 0.8 * SLICE_MM:
        msg = f"its slices are {step_mm:g} mm thick already"
        raise InapplicableError(msg)
    count = max(2, int(grid.shape[2] * step_mm / SLICE_MM))
    size = grid.spacing_mm[0], grid.spacing_mm[1], SLICE_MM
    shape = grid.shape[0], grid.shape[1], count
    coarse = geometry.sharing_centre(grid, shape, size)
    middles = resample.positions(grid, coarse)[2]
    weights = _shares(middles, SLICE_MM / step_mm, grid.shape[2])
    hu = subject.scan.voxels.astype(np.float32) @ weights.T
    marks = resample.nearest(subject.marks.voxels, grid, coarse)
    return subject.moved(hu, marks, coarse)


def spaced(subject: Subject, size_mm: float) -> Subject:
    """Resample the scan to cubes of ``size_mm``; scored on those.

    Its truth is that of the nearest voxel: on the scan's own grid the score would be
    that of the resampling as well.

    Raises:
        InapplicableError: it has such voxels already, or would have too many.
    """
    grid = subject.scan.grid
    if np.allclose(grid.spacing_mm, size_mm, atol=0.02):
        msg = f"its voxels are {size_mm:g} mm already"
        raise InapplicableError(msg)
    target = geometry.resampled(grid, (size_mm, size_mm, size_mm))
    voxels = int(np.prod(target.shape))
    if voxels > MOST_VOXELS:
        msg = f"it would have {voxels / 1e6:.0f} million voxels"
        raise InapplicableError(msg)
    return subject.on_grid(target)


def turned(subject: Subject, axes: str) -> Subject:
    """Store the voxels in another order, along ``axes``, with the affine to match.

    Nothing is interpolated, so the mask has to be the same, brought back.
    """
    scan, marks = reorient(subject.scan, axes), reorient(subject.marks, axes)
    stored = scan.with_voxels(np.ascontiguousarray(scan.voxels))
    return Subject(stored, marks, subject.levels_mm)


def _middle(subject: Subject) -> tuple[int, int]:
    """Return the voxel about which the spine lies, along R and A."""
    across, deep, _ = np.nonzero(subject.spine)
    return round(float(across.mean())), round(float(deep.mean()))


def _narrow_already() -> InapplicableError:
    msg = f"its field of view is no wider than {FIELD_MM:g} mm already"
    return InapplicableError(msg)


def _shares(
    middles: NDArray[np.float64], width: float, count: int
) -> NDArray[np.float32]:
    """Return (slices, planes), the share of each plane in each slice's mean.

    Args:
        middles: of the slices, in planes.
        width: of a slice, in planes.
        count: of the planes.
    """
    low, high = middles[:, None] - width / 2, middles[:, None] + width / 2
    planes = np.arange(count)[None]
    inside = np.minimum(high, planes + 0.5) - np.maximum(low, planes - 0.5)
    inside = np.clip(inside, 0, None)
    shares: NDArray[np.float32] = (inside / inside.sum(axis=1, keepdims=True)).astype(
        np.float32
    )
    return shares
