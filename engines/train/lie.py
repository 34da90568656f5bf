"""How a slice lies in the body: where front, head and right side are in the image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Direction = tuple[float, float]
"""Parts of a unit vector of the body along an image's rows and columns."""

IN_PLANE = 0.7
"""A direction whose two parts are longer than this lies in the plane."""


@dataclass(frozen=True, slots=True)
class Lie:
    """Directions of the body in a slice.

    Attributes:
        right: to the patient's right.
        anterior: to the front.
        superior: to the head.
    """

    right: Direction
    anterior: Direction
    superior: Direction

    @property
    def upright(self) -> int | None:
        """Image axis nearest to feet-head, 0 or 1; None for an axial slice."""
        return _nearest(self.superior)

    @property
    def lateral(self) -> int:
        """Image axis nearest to right-left; that across the spine if there is none."""
        nearest = _nearest(self.right)
        return nearest if nearest is not None else 1 - (self.upright or 0)


AXIAL = Lie((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
"""Of an axial slice as it is cut, its rows along R and its columns along A."""


def of(axes: NDArray[np.float64], turns: int = 0) -> Lie:
    """Return how a slice lies.

    Args:
        axes: (3, 3), unit vectors of rows, columns and normal along RAS, as columns.
        turns: quarter turns that ``numpy.rot90`` gives the finished slice.
    """
    parts = [(float(row), float(column)) for row, column in axes[:, :2]]
    for _ in range(turns % 4):
        parts = [(-column, row) for row, column in parts]
    return Lie(*parts)


def along(shape: tuple[int, ...], way: Direction) -> NDArray[np.float32]:
    """Return how far each pixel (H, W) lies in a direction from the centre, pixels."""
    length = max(float(np.hypot(*way)), 1e-6)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down = (rows - (shape[0] - 1) / 2) * (way[0] / length)
    right = (columns - (shape[1] - 1) / 2) * (way[1] / length)
    distance: NDArray[np.float32] = (down + right).astype(np.float32)
    return distance


def shows(way: Direction) -> bool:
    """Say whether a direction lies in the plane."""
    return _nearest(way) is not None


def _nearest(way: Direction) -> int | None:
    if np.hypot(*way) < IN_PLANE:
        return None
    return int(np.argmax(np.abs(way)))
