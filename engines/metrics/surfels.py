"""How large the piece of surface between eight voxels is, or of contour between four.

Source: marching cubes (Lorensen and Cline 1987). Neighbouring voxels that are inside
or outside a mask have one of 256 patterns; each has a few triangles between the
midpoints of the cube's edges. The pattern with more than half inside is that with
inside and outside exchanged, so that a mask and its complement have the same surface.
This is the definition of a surface that "Deep learning to achieve clinically
applicable segmentation of head and neck anatomy" (Nikolov et al. 2018) scores with.
"""

import numpy as np
from numpy.typing import NDArray

CORNERS_3D = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]], np.uint8)
"""Bit of each corner of the cube, by its place along (I, J, K)."""

CORNERS_2D = np.array([[8, 4], [2, 1]], np.uint8)
"""The same for the four corners of a square."""

_TRIANGLES = (
    "",
    "004 004",
    "022 022",
    "022 022 022 022",
    "040 040",
    "111",
    "111 022 022",
    "111 111",
    "111 111 111",
    "111 111 111 111",
    "202 202",
    "202 202 111",
    "202 202 202 202",
    "220 220",
    "220 220 111",
    "220 220 220 220",
    "222 111 004",
    "222 111 040",
    "222 111 111 004",
    "222 111 111 040",
    "222 222 111 111",
    "333 202 111 022",
    "333 220 111 022",
    "333 220 202 111",
    "400 222 111",
    "400 222 111 111",
    "400 400",
)
"""Sets of triangles. Each has the areas, in eighths of a voxel's faces, that it shows
along I, J and K."""

_PATTERNS = (
    "0 5 5 13 5 10 7 24 5 7 10 24 13 24 24 26 5 2 7 17 7 16 8 20 7 6 11 21 14 22 25 "
    "24 5 7 2 17 7 11 6 21 7 8 16 20 14 25 22 24 13 17 17 4 14 23 19 17 14 19 23 17 "
    "15 14 14 13 5 7 7 14 2 16 6 22 7 8 11 25 17 20 21 24 10 16 11 23 16 1 18 16 11 "
    "18 12 11 23 16 11 10 7 8 6 19 6 18 3 6 8 9 18 8 19 8 6 7 24 20 21 17 22 16 6 2 "
    "25 8 11 7 14 7 7 5 "
)
"""Set of triangles of patterns 0 to 127; pattern 255 - n has that of n."""


def areas_mm2(spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the area of the surface in each of the 256 patterns of eight voxels."""
    i, j, k = spacing_mm
    faces = np.array([j * k, i * k, i * j]) / 8
    sets = [
        sum(
            float(np.linalg.norm(np.array([int(n) for n in triangle]) * faces))
            for triangle in triangles.split()
        )
        for triangles in _TRIANGLES
    ]
    half = np.array([sets[int(number)] for number in _PATTERNS.split()])
    return np.concatenate([half, half[::-1]])


def lengths_mm(spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Return the length of the contour in each of the 16 patterns of four pixels."""
    i, j = spacing_mm
    corner = float(np.hypot(i, j)) / 2
    straight = {0b1100: j, 0b0011: j, 0b1010: i, 0b0101: i}
    diagonal = {0b1001: 2 * corner, 0b0110: 2 * corner}
    lengths = np.full(16, corner)
    lengths[[0, 15]] = 0
    for pattern, length in (straight | diagonal).items():
        lengths[pattern] = length
    return lengths
