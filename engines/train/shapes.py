"""Shapes drawn into slices as signed distances: below 0 inside, in pixels."""

from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engines.train.lie import Direction

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = NDArray[np.float64]
"""Row and column."""


def capsule(shape: tuple[int, ...], start: Point, end: Point, radius: float) -> Image:
    """Return the distance of each pixel (H, W) to a rounded bar."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down = rows.astype(np.float32) - np.float32(start[0])
    right = columns.astype(np.float32) - np.float32(start[1])
    way = (end - start).astype(np.float32)
    length = np.float32(max(float(way @ way), 1e-6))
    share = np.clip((down * way[0] + right * way[1]) / length, 0, 1)
    distance: Image = np.hypot(down - share * way[0], right - share * way[1])
    distance -= np.float32(radius)
    return distance


def tube(
    shape: tuple[int, ...], points: tuple[Point, Point, Point], radius: float
) -> Image:
    """Return the distance to a curved bar, a parabola from the first to the last."""
    first, middle, last = points
    share = np.linspace(0, 1, 7)[:, None]
    knots = (1 - share) ** 2 * first + 2 * share * (1 - share) * middle
    knots = knots + share**2 * last
    parts = [capsule(shape, start, end, radius) for start, end in pairwise(knots)]
    return union(parts)


def ellipse(
    shape: tuple[int, ...], centre: Point, radii: tuple[float, float], angle: float
) -> Image:
    """Return about the distance of each pixel to an ellipse."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down, right = rows - centre[0], columns - centre[1]
    along = (down * np.cos(angle) + right * np.sin(angle)) / radii[0]
    across = (right * np.cos(angle) - down * np.sin(angle)) / radii[1]
    share = np.hypot(along, across)
    slope = np.hypot(along / radii[0], across / radii[1])  # of share, times share
    distance: Image = (share * (share - 1) / (slope + 1e-6)).astype(np.float32)
    return distance


def union(parts: list[Image]) -> Image:
    """Return the distance to the nearest of several shapes."""
    nearest: Image = np.minimum.reduce(parts)
    return nearest


def inside(distance: Image) -> Image:
    """Return how much of each pixel is inside a shape."""
    share: Image = np.clip(0.5 - distance, 0, 1)
    return share


def pixel(mask: Mask, rng: Generator) -> Point:
    """Return a random pixel of a mask that is not empty."""
    found = np.flatnonzero(mask)
    place = int(found[rng.integers(len(found))])
    return np.array(divmod(place, mask.shape[1]), float)


def way(direction: Direction, rng: Generator | None = None) -> Point:
    """Return a unit vector along a direction, turned by a few degrees with ``rng``."""
    angle = np.arctan2(direction[1], direction[0])
    if rng is not None:
        angle += rng.normal(0, 0.12)
    return np.array([np.cos(angle), np.sin(angle)])
