"""Places of parallel slices on an even grid, as far as their headers round."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

PLACE_TOLERANCE_MM = 0.1
"""How far a slice may lie from its place in an even stack, whatever its header."""

PLACE_TOLERANCE_STEPS = 0.2
"""The same in slice steps, so that no tolerance hides a missing slice."""

ROUNDING_STEPS = 0.22
"""Headers that round more coarsely, in slice steps, prove no grid."""

SINGLE_PART = 3
"""One of so many steps, at least, leads to the next place of the grid."""

MAX_PLACES = 10_000
"""A grid of more slices than any scan has comes from a damaged header."""

_SLACK = 1 + 1e-6
_TINY_MM = 1e-9

Heights = NDArray[np.float64]


def places_of(heights_mm: Heights, rounding_mm: float = 0.0) -> NDArray[np.int64]:
    """Return the place of each slice on an even grid, empty if there is none.

    The mean step is tried first. Otherwise slices are missing between others, and the
    step is close to the smallest one; a third of the steps must be single ones, since
    a few odd slices prove no finer grid.

    Args:
        heights_mm: (K,), growing.
        rounding_mm: how far the header may round each of them.
    """
    if len(heights_mm) < 2:
        return np.zeros(len(heights_mm), np.int64)
    for last in _candidates(np.diff(heights_mm), rounding_mm):
        places = _placed(heights_mm, last, rounding_mm)
        if places.size:
            return places
    return np.empty(0, np.int64)


def is_even(heights_mm: Heights, rounding_mm: float = 0.0) -> bool:
    """Say whether slices lie on an even grid without gaps."""
    places = places_of(heights_mm, rounding_mm)
    return places.size > 1 and int(places[-1]) == places.size - 1


def off_grid_mm(heights_mm: Heights, places: NDArray[np.int64]) -> float:
    """Return how far slices lie off the grid through the first and the last."""
    rise = heights_mm - heights_mm[0]
    return float(np.abs(rise - places * (rise[-1] / places[-1])).max())


def loose_mm(step_mm: float) -> float:
    """Return the tolerance that holds for every header."""
    return min(PLACE_TOLERANCE_MM, PLACE_TOLERANCE_STEPS * step_mm)


def _candidates(steps_mm: Heights, rounding_mm: float) -> Iterator[int]:
    """Yield numbers of the last place to try, the widest step first."""
    smallest = float(steps_mm.min())
    if smallest <= 0:
        return
    yield steps_mm.size
    rise, off = float(steps_mm.sum()), max(rounding_mm, loose_mm(smallest))
    low = max(steps_mm.size + 1, int(rise / (smallest + 2 * off)))
    high = int(rise / max(smallest - 2 * off, smallest / 2)) + 1
    if rise <= MAX_PLACES * smallest:
        yield from range(low, high + 1)


def _placed(heights_mm: Heights, last: int, rounding_mm: float) -> NDArray[np.int64]:
    """Return places from 0 to ``last``, empty where slices do not lie at them."""
    rise = heights_mm - heights_mm[0]
    step_mm = float(rise[-1]) / last
    places: NDArray[np.int64] = np.rint(rise / step_mm).astype(np.int64)
    apart = np.diff(places)
    usual = SINGLE_PART * int((apart == 1).sum()) >= apart.size
    if usual and bool((apart > 0).all()):
        off_mm = float(np.abs(rise - places * step_mm).max())
        if off_mm <= loose_mm(step_mm):
            return places
        rounded = rounding_mm <= ROUNDING_STEPS * step_mm
        if rounded and off_mm <= 2 * rounding_mm * _SLACK + _TINY_MM:
            best_mm = _narrowest_mm(places.astype(np.float64), rise) / 2
            if best_mm <= rounding_mm * _SLACK + _TINY_MM:
                return places
    return np.empty(0, np.int64)


def _narrowest_mm(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the height of the lowest strip between two parallels that holds points.

    One of its two lines lies along an edge of the points' convex hull.
    """
    edges = [*pairwise(_hull(x, y)), *pairwise(_hull(x, -y))]
    slopes = [(y[b] - y[a]) / (x[b] - x[a]) for a, b in edges]
    return min(float(np.ptp(y - slope * x)) for slope in slopes)


def _hull(x: NDArray[np.float64], y: NDArray[np.float64]) -> Sequence[int]:
    """Return the points of the lower hull; ``x`` grows."""
    kept: list[int] = []
    for new in range(len(x)):
        while len(kept) > 1:
            one, two = kept[-2], kept[-1]
            before = (x[two] - x[one]) * (y[new] - y[one])
            if (y[two] - y[one]) * (x[new] - x[one]) < before:
                break
            kept.pop()
        kept.append(new)
    return kept
