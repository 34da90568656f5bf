"""Axes of single vertebrae, and boxes of voxels about them.

All arrays lie along RAS axes, all places are in mm from the first voxel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

REACH_MM = (38.0, 62.0, 30.0)
"""Half the box about a body that its vertebra is looked at in: right, anterior, up."""

Mask = NDArray[np.bool_]
Places = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frame:
    """Axes of one vertebra.

    Attributes:
        origin_mm: (3,), middle of its body.
        axes: (3, 3), unit vectors to its right, front and head, as columns.
    """

    origin_mm: Places
    axes: Places

    def inside(self, places_mm: Places) -> Places:
        """Return places (..., 3) along the frame's axes."""
        inside: Places = (places_mm - self.origin_mm) @ self.axes
        return inside

    def box(self, mask: Mask, spacing_mm: Places) -> Mask:
        """Return the mask about the frame's origin in steps of 1 mm."""
        sides = [np.arange(-far, far + 1) for far in REACH_MM]
        grid = np.stack(np.meshgrid(*sides, indexing="ij"))
        index = np.tensordot(self.axes, grid, axes=1)
        index += self.origin_mm[:, None, None, None]
        index /= spacing_mm[:, None, None, None]
        held = mask.view(np.uint8)
        taken = ndimage.map_coordinates(held, index, np.float32, order=1)
        solid: Mask = taken > 0.5
        return solid


def along(origin_mm: Places, front: Places, up: Places) -> Frame:
    """Return axes whose third is ``up``, and whose second points to ``front``."""
    up = up / np.linalg.norm(up)
    front = front - (front @ up) * up
    if np.linalg.norm(front) < 1:
        front = np.array([0.0, 1.0, 0.0]) - up[1] * up
    front = front / np.linalg.norm(front)
    return Frame(origin_mm, np.stack([np.cross(front, up), front, up], axis=1))


def padded(mask: Mask, margin: int) -> tuple[slice, slice, slice]:
    """Return the box that holds a mask which is not empty, and a margin."""
    limits = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        held = np.flatnonzero(mask.any(axis=others))
        stop = min(mask.shape[axis], int(held[-1]) + margin + 1)
        limits.append(slice(max(0, int(held[0]) - margin), stop))
    return limits[0], limits[1], limits[2]


def around(
    frame: Frame, shape: tuple[int, ...], mm: Places
) -> tuple[slice, slice, slice]:
    """Return the voxels that the frame's box may reach."""
    far = np.abs(frame.axes) @ np.array(REACH_MM)
    low = np.floor((frame.origin_mm - far) / mm).astype(int)
    high = np.ceil((frame.origin_mm + far) / mm).astype(int) + 1
    sides = zip(low, high, shape, strict=True)
    i, j, k = (slice(max(0, int(a)), max(0, min(n, int(b)))) for a, b, n in sides)
    return i, j, k


def places(box: tuple[slice, ...], mm: Places) -> Places:
    """Return the places (..., 3) of the voxels of a box, of size ``mm``."""
    sides = [np.arange(s.start, s.stop) * step for s, step in zip(box, mm, strict=True)]
    return np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
