"""Affines, orientations and grids. World space is RAS, in mm.

An affine maps voxel indices (I, J, K) at voxel centres, counted from 0, to world
coordinates. A grid resampled here keeps the axes of its source, so going from one
to the other is separable: one small matrix per axis.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from engines.errors import GeometryError

Affine = NDArray[np.float64]

SHEAR_TOLERANCE = 2e-3
"""Largest cosine between two voxel axes that still counts as a right angle."""

GRID_TOLERANCE_MM = 1e-3
"""Two grids are the same when no corner differs by more than this."""

DISAGREEMENT_VOXELS = 0.5
"""sform and qform disagree when they move a corner by more than this."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the voxels of an image are.

    Attributes:
        shape: voxels along (I, J, K).
        affine: (4, 4), voxel index to RAS mm.
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (I, J, K)."""
        return spacing_mm(self.affine)

    @property
    def axes(self) -> str:
        """Direction in which each index grows, as in ``"RAS"`` or ``"PIR"``."""
        return axis_codes(self.affine)

    def corners_mm(self) -> NDArray[np.float64]:
        """Return the world coordinates of the eight corner voxels, (8, 3)."""
        ends = [(0, n - 1) for n in self.shape]
        index = np.array(np.meshgrid(*ends)).reshape(3, -1)
        return corners_at(self.affine, index)

    def matches(self, other: "Grid") -> bool:
        """Say whether both grids have the same voxels at the same places."""
        return self.shape == other.shape and bool(
            np.abs(self.corners_mm() - other.corners_mm()).max() <= GRID_TOLERANCE_MM
        )


def corners_at(affine: Affine, index: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the world coordinates (N, 3) of voxel indices (3, N)."""
    moved: NDArray[np.float64] = (affine[:3, :3] @ index).T + affine[:3, 3]
    return moved


def spacing_mm(affine: Affine) -> tuple[float, float, float]:
    """Return the voxel size along (I, J, K)."""
    i, j, k = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    return float(i), float(j), float(k)


def axis_codes(affine: Affine) -> str:
    """Return the closest anatomical direction of each axis, as in ``"LAS"``."""
    return "".join(nib.orientations.aff2axcodes(affine))


def check_affine(affine: Affine) -> None:
    """Refuse an affine that no orthogonal grid of voxels can have.

    Raises:
        GeometryError: values that are not finite, a voxel size of zero, or axes
            that are not at right angles.
    """
    if not np.isfinite(affine).all():
        msg = "the affine holds values that are not finite"
        raise GeometryError(msg)
    sizes = np.array(spacing_mm(affine))
    if (sizes <= 0).any():
        msg = f"the voxel size is {_numbers(sizes)} mm; each must be above zero"
        raise GeometryError(msg)
    unit = affine[:3, :3] / sizes
    cosines = np.abs(unit.T @ unit - np.eye(3))
    if cosines.max() > SHEAR_TOLERANCE:
        angle_deg = float(np.degrees(np.arcsin(min(1.0, cosines.max()))))
        msg = f"the voxel axes are sheared by {angle_deg:.2f} degrees (gantry tilt?)"
        raise GeometryError(
            msg, hint="Resample the scan to a grid with right angles first."
        )


def disagreement_voxels(
    shape: tuple[int, int, int], first: Affine, second: Affine
) -> float:
    """Return how far two affines put a corner apart, in voxels of ``first``."""
    a, b = Grid(shape, first), Grid(shape, second)
    apart = np.linalg.norm(a.corners_mm() - b.corners_mm(), axis=1).max()
    smallest = min(a.spacing_mm)
    return float(apart / smallest) if smallest > 0 else float("inf")


def resampled(grid: Grid, target_mm: tuple[float, float, float]) -> Grid:
    """Return the grid with voxels of ``target_mm`` along the axes of ``grid``.

    Both grids share their centre, so a flipped image gives the flipped grid.
    """
    sizes = zip(grid.shape, grid.spacing_mm, target_mm, strict=True)
    shape = tuple(max(1, round(n * mm / new)) for n, mm, new in sizes)
    return sharing_centre(grid, (shape[0], shape[1], shape[2]), target_mm)


def resized(grid: Grid, shape: tuple[int, int, int]) -> Grid:
    """Return the grid that covers the same field of view with ``shape`` voxels."""
    sizes = zip(grid.shape, grid.spacing_mm, shape, strict=True)
    i, j, k = (n * mm / new for n, mm, new in sizes)
    return sharing_centre(grid, shape, (i, j, k))


def sharing_centre(
    grid: Grid, shape: tuple[int, int, int], target_mm: tuple[float, float, float]
) -> Grid:
    """Return a grid of other voxels about the same centre, along the same axes."""
    zoom = np.array(target_mm) / np.array(grid.spacing_mm)
    affine = grid.affine.copy()
    affine[:3, :3] = grid.affine[:3, :3] * zoom
    centre = (np.array(grid.shape) - 1) / 2
    new_centre = (np.array(shape) - 1) / 2
    affine[:3, 3] += grid.affine[:3, :3] @ centre - affine[:3, :3] @ new_centre
    return Grid(shape, affine)


def cropped(grid: Grid, box: tuple[slice, slice, slice]) -> Grid:
    """Return the part of ``grid`` that ``box`` picks, with no steps in it."""
    ends = [side.indices(n) for side, n in zip(box, grid.shape, strict=True)]
    i, j, k = (max(0, stop - start) for start, stop, _ in ends)
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ np.array([start for start, _, _ in ends])
    return Grid((i, j, k), affine)


def _numbers(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:g}" for value in values)
