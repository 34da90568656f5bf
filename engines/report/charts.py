"""Small drawings (SVG) of how values are distributed, in the colours of the page."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, MARGIN = 320, 92, 14
BOX_Y, BOX_HEIGHT = 14, 18
DOTS_Y, DOTS_HEIGHT = 40, 26
TICKS = 4


def distribution(
    values: Sequence[float],
    title: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Return a box of median and quartiles over a dot for each case.

    Args:
        values: one per case; infinite ones are counted at the right, not drawn.
        title: what they are, for readers who cannot see the drawing.
        limits: of the axis; from the values if not given.
    """
    finite = np.array([value for value in values if math.isfinite(value)])
    infinite = len(values) - len(finite)
    low, high = limits or _limits(finite)
    told = f"{title}: {len(values)} cases"
    if finite.size:
        q1, median, q3 = np.percentile(finite, (25, 50, 75))
        told += f", median {median:.4g}, quartiles {q1:.4g} and {q3:.4g}"
    if infinite:
        told += f", {infinite} infinite"
    drawn = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width={WIDTH} height={HEIGHT} role=img '
        f'aria-label="{escape(told)}" fill=currentColor stroke=currentColor '
        "stroke-width=0 font-size=10>"
    ]
    if finite.size:
        drawn += _box(float(q1), float(median), float(q3), low, high)
        drawn += _dots(finite, low, high)
    drawn += _axis(low, high)
    if infinite:
        drawn.append(
            f"<text x={WIDTH - MARGIN} y={DOTS_Y - 2} text-anchor=end>"
            f"∞ x {infinite}</text>"
        )
    return "".join([*drawn, "</svg>"])


def _limits(values: np.ndarray) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = min(0.0, float(values.min())), float(values.max())
    return (low, high) if high > low else (low, low + 1)


def _x(value: float, low: float, high: float) -> float:
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)


def _box(q1: float, median: float, q3: float, low: float, high: float) -> list[str]:
    left, middle, right = (_x(value, low, high) for value in (q1, median, q3))
    return [
        f"<rect x={left} y={BOX_Y} width={max(1.0, round(right - left, 1))} "
        f"height={BOX_HEIGHT} opacity=.25 />",
        f"<rect x={round(middle - 1, 1)} y={BOX_Y} width=2 height={BOX_HEIGHT} />",
    ]


def _dots(values: np.ndarray, low: float, high: float) -> list[str]:
    """Return a dot per value; the height only keeps them apart."""
    return [
        f"<circle cx={_x(float(value), low, high)} "
        f"cy={round(DOTS_Y + DOTS_HEIGHT * ((index * 0.618034) % 1), 1)} r=2 "
        "opacity=.55 />"
        for index, value in enumerate(values)
    ]


def _axis(low: float, high: float) -> list[str]:
    y = DOTS_Y + DOTS_HEIGHT + 6
    line = (
        f"<line x1={MARGIN} x2={WIDTH - MARGIN} y1={y} y2={y} stroke-width=1 "
        "opacity=.4 />"
    )
    marks = []
    for index in range(TICKS + 1):
        value = low + (high - low) * index / TICKS
        marks.append(
            f"<text x={_x(value, low, high)} y={y + 13} text-anchor=middle "
            f"opacity=.8>{value:.3g}</text>"
        )
    return [line, *marks]
