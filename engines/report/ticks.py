"""Round marks of an axis."""

import math

MOST = 5
"""Intervals between the marks of an axis, about so many."""

CLOSE = 1e-9
"""Share of an interval within which a value counts as a mark."""


def interval(low: float, high: float, least: float = 0.0) -> float:
    """Return the distance of two marks: 1, 2 or 5 times a power of ten.

    Args:
        low: first value.
        high: last value, above ``low``.
        least: smallest distance that makes sense, 1 for what is counted.
    """
    rough = (high - low) / MOST
    power = 10.0 ** math.floor(math.log10(rough))
    steps = (1, 2, 5, 10)
    step = next(step for step in steps if rough <= step * power * (1 + CLOSE))
    return max(least, step * power)


def marks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Return the round values between ``low`` and ``high``."""
    step = interval(low, high, least)
    first, last = math.ceil(low / step - CLOSE), math.floor(high / step + CLOSE)
    return [_exact(place, step) for place in range(first, last + 1)]


def widened(low: float, high: float) -> tuple[float, float]:
    """Return the next round values outside ``low`` and ``high``."""
    step = interval(low, high)
    first, last = math.floor(low / step + CLOSE), math.ceil(high / step - CLOSE)
    return _exact(first, step), _exact(last, step)


def label(value: float) -> str:
    """Return a mark in figures: ``0``, ``0.2``, ``20,000``."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e9 else f"{value:g}"


def _exact(place: int, step: float) -> float:
    """Return a multiple of ``step`` without the noise of its last digits."""
    return float(f"{place * step:.10g}")
