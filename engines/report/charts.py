"""Small drawings (SVG) of how values are distributed, in the colours of the page."""

import math
import statistics
from collections.abc import Sequence
from html import escape

from engines.metrics.summary import quartiles
from engines.report import ticks

WIDTH, HEIGHT, MARGIN = 320, 92, 14
BOX_Y, BOX_HEIGHT = 6, 18
DOTS_Y, DOTS_HEIGHT = 33, 30
ENDLESS = 44
"""Width of the place for infinite values, right of the axis."""

DOT, BOX = "light-dark(#1f5fbf,#8ab4f8)", "light-dark(#c9d8ef,#31486d)"
"""For light pages and for dark ones."""

LEGEND = (
    "A dot is a case, the box reaches from the first to the third quartile, and the "
    "line in it is the median."
)


def distribution(
    values: Sequence[float],
    title: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Return a box of median and quartiles over a dot for each case.

    Args:
        values: one per case; infinite ones lie beyond the end of the axis.
        title: what they are, for readers who cannot see the drawing.
        limits: of the axis, which ends at round values outside them; from the values
            if not given.
    """
    axis = _Axis(values, limits)
    told = f"{title}: {len(values)} cases"
    if values:
        median, (q1, q3) = statistics.median(values), quartiles(values)
        told += f", median {median:.4g}, quartiles {q1:.4g} and {q3:.4g}"
    if axis.infinite:
        told += f", {axis.infinite} infinite"
    drawn = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width={WIDTH} height={HEIGHT} role=img '
        f'aria-label="{escape(told)}" fill=currentColor stroke=currentColor '
        f"stroke-width=0 font-size=11><title>{escape(told)}</title>"
    ]
    if values:
        drawn += _box(axis.x(q1), axis.x(median), axis.x(q3))
        drawn += _dots(values, axis)
    return "".join([*drawn, *axis.drawn(), "</svg>"])


class _Axis:
    """Where a value lies.

    Attributes:
        infinite: number of values beyond the end of the axis.
    """

    def __init__(
        self, values: Sequence[float], limits: tuple[float, float] | None
    ) -> None:
        finite = [value for value in values if math.isfinite(value)]
        self.infinite = len(values) - len(finite)
        self.low, self.high = ticks.widened(*(limits or _limits(finite)))
        self.end = WIDTH - MARGIN - (ENDLESS if self.infinite else 0)

    def x(self, value: float) -> float:
        if math.isinf(value) and value > 0:
            return WIDTH - MARGIN - ENDLESS / 4
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return round(MARGIN + share * (self.end - MARGIN), 1)

    def drawn(self) -> list[str]:
        y = DOTS_Y + DOTS_HEIGHT + 8
        parts = [
            f"<line x1={MARGIN} x2={self.end} y1={y} y2={y} stroke-width=1 "
            "opacity=.6 />"
        ]
        for value in ticks.marks(self.low, self.high):
            x = self.x(value)
            parts.append(
                f"<line x1={x} x2={x} y1={y} y2={y + 4} stroke-width=1 opacity=.6 />"
                f"<text x={x} y={y + 16} text-anchor=middle>{ticks.label(value)}</text>"
            )
        if self.infinite:
            x = self.x(math.inf)
            parts.append(
                f"<text x={x} y={y + 16} text-anchor=middle>∞ ({self.infinite})</text>"
            )
        return parts


def _limits(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(0.0, *values), max(0.0, *values)
    return (low, high) if high > low else (low, low + 1)


def _box(left: float, middle: float, right: float) -> list[str]:
    return [
        f"<rect x={left} y={BOX_Y} width={max(1.0, round(right - left, 1))} "
        f'height={BOX_HEIGHT} style="fill:{BOX}" />',
        f"<rect x={round(middle - 1, 1)} y={BOX_Y - 2} width=2 "
        f"height={BOX_HEIGHT + 4} />",
    ]


def _dots(values: Sequence[float], axis: _Axis) -> list[str]:
    """Return a dot per value; the height only keeps them apart."""
    return [
        f"<circle cx={axis.x(value)} "
        f"cy={round(DOTS_Y + DOTS_HEIGHT * ((index * 0.618034) % 1), 1)} r=3 "
        f'opacity=.7 style="fill:{DOT}" />'
        for index, value in enumerate(values)
    ]
