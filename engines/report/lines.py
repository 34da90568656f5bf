"""A drawing (SVG) of several courses over the steps of a training.

Lines are told apart by colour for the first label and by dashes for the others, with
a legend; the colours have one shade for light pages and one for dark ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from engines.report import ticks

COLOURS = (
    ("#1f5fbf", "#8ab4f8"),
    ("#c2410c", "#fb923c"),
    ("#15803d", "#4ade80"),
    ("#a21caf", "#e879f9"),
    ("#4b5563", "#cbd5e1"),
    ("#0e7490", "#22d3ee"),
    ("#a16207", "#facc15"),
    ("#be123c", "#fb7185"),
)
"""For light pages and for dark ones."""

DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 6", "1 2 6 2")
WIDTH, HEIGHT = 620, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 24, 10, 38
LEGEND_LINE = 16
SAMPLE = 30
LETTER = 5.6
"""Width of an average letter of the legend."""


@dataclass(frozen=True, slots=True)
class Line:
    """One course.

    Attributes:
        labels: what it is; the first one decides its colour.
        points: step and value, by step.
    """

    labels: tuple[str, ...]
    points: Sequence[tuple[int, float]]


def drawn(lines: Sequence[Line], title: str, top: float | None = None) -> str:
    """Return the drawing, or an empty text where no line has points.

    Args:
        lines: at most ``len(COLOURS) * len(DASHES)`` that can be told apart.
        title: what the values are.
        top: end of the axis of values, which begins at 0; from the values if not
            given.
    """
    styles = _styles(lines)
    shown = [
        (line, style) for line, style in zip(lines, styles, strict=True) if line.points
    ]
    if not shown:
        return ""
    points = [point for line, _ in shown for point in line.points]
    last = max(step for step, _ in points)
    values = [value for _, value in points if math.isfinite(value)]
    _, high = ticks.widened(0.0, top or max((v for v in values if v > 0), default=1.0))
    columns = _columns([line for line, _ in shown])
    height = HEIGHT + LEGEND_LINE * math.ceil(len(shown) / columns)
    names = ", ".join(_name(line) for line, _ in shown)
    return "".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {height}" width={WIDTH} height={height} '
            f'role=img aria-label="{escape(f"{title} by step: {names}")}" '
            "fill=none font-size=11 stroke-linejoin=round>",
            *_axes(last, high),
            *(_path(line, style, last, high) for line, style in shown),
            *_legend(shown, columns),
            "</svg>",
        ]
    )


def _styles(lines: Sequence[Line]) -> list[str]:
    """Return colour and dashes of each line as attributes."""
    firsts = list(dict.fromkeys(line.labels[0] for line in lines))
    others = list(dict.fromkeys(line.labels[1:] for line in lines))
    fits = len(firsts) <= len(COLOURS) and len(others) <= len(DASHES)
    styles = []
    for place, line in enumerate(lines):
        colour, dash = place % len(COLOURS), place // len(COLOURS) % len(DASHES)
        if fits:
            colour, dash = firsts.index(line.labels[0]), others.index(line.labels[1:])
        light, dark = COLOURS[colour]
        dashes = f' stroke-dasharray="{DASHES[dash]}"' if DASHES[dash] else ""
        styles.append(f'style="stroke:light-dark({light},{dark})"{dashes}')
    return styles


def _place(step: float, value: float, last: int, high: float) -> tuple[float, float]:
    x = LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, last)
    share = min(1.0, max(0.0, value / high))
    y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)
    return round(x, 1), round(y, 1)


def _path(line: Line, style: str, last: int, high: float) -> str:
    places = [
        _place(step, value, last, high)
        for step, value in line.points
        if math.isfinite(value)
    ]
    told = f"<title>{escape(_name(line))}</title>"
    if len(places) == 1:
        x, y = places[0]
        return f"<circle cx={x} cy={y} r=3 stroke-width=2 {style}>{told}</circle>"
    course = " ".join(f"{x},{y}" for x, y in places)
    return f'<polyline points="{course}" stroke-width=2 {style}>{told}</polyline>'


def _axes(last: int, high: float) -> list[str]:
    parts = []
    for value in ticks.marks(0, high):
        _, y = _place(0, value, last, high)
        parts += [
            f"<line x1={LEFT} x2={WIDTH - RIGHT} y1={y} y2={y} stroke=currentColor "
            f"opacity={'.15' if value else '.5'} />",
            _text(LEFT - 6, y + 4, "end", ticks.label(value)),
        ]
    for step in ticks.marks(0, max(1, last), least=1):
        x, bottom = _place(step, 0, last, high)
        parts += [
            f"<line x1={x} x2={x} y1={bottom} y2={bottom + 4} stroke=currentColor "
            "opacity=.5 />",
            _text(x, bottom + 16, "middle", ticks.label(step)),
        ]
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    return [*parts, _text(middle, HEIGHT - 4, "middle", "step")]


def _columns(lines: Sequence[Line]) -> int:
    longest = max(len(_name(line)) for line in lines) * LETTER + SAMPLE + 18
    return max(1, min(4, int(WIDTH / longest)))


def _legend(shown: Sequence[tuple[Line, str]], columns: int) -> list[str]:
    parts = []
    rows = math.ceil(len(shown) / columns)
    for place, (line, style) in enumerate(shown):
        column, row = divmod(place, rows)
        x, y = column * WIDTH / columns, HEIGHT + LEGEND_LINE * row + 8
        parts += [
            f"<line x1={x:.0f} x2={x + SAMPLE:.0f} y1={y} y2={y} stroke-width=2 "
            f"{style} />",
            _text(x + SAMPLE + 6, y + 4, "start", _name(line)),
        ]
    return parts


def _text(x: float, y: float, anchor: str, told: str) -> str:
    return (
        f"<text x={x:.1f} y={y:.1f} text-anchor={anchor} fill=currentColor>"
        f"{escape(told)}</text>"
    )


def _name(line: Line) -> str:
    return ", ".join(line.labels)
