"""The report of a pruning: what was lost for what was won, and where it was taken.

``report.csv`` has a row for every network, ``report.png`` the curves and the bars,
``report.html`` both with the table, in one file.
"""

import io
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from engines import __version__
from engines.files import write_bytes, write_text
from engines.report import figures, page
from engines.report.page import Column, Entry, Page, Picture
from engines.tables import TableWriter

COLUMNS = (
    "criterion",
    "seed",
    "round",
    "left",
    "parameters",
    "gflop",
    "size_bytes",
    "ms",
    "speedup",
    "dice_cut",
    "dice",
)
MEASURES = (
    ("parameters", "million weights", 1e-6),
    ("gflop", "GFLOP of a slice", 1.0),
    ("size_bytes", "MB of the file", 1e-6),
    ("ms", "ms of a slice", 1.0),
)
COLOURS = {
    "gradient": "tab:blue",
    "random": "tab:gray",
    "magnitude": "tab:orange",
    "taylor": "tab:green",
}
CURVES = "What was lost against weights, operations, size and time; a dot is a seed"
LAYERS = "Per layer: how much its filters matter, and what is left"
DPI = 110
Points = Sequence[Mapping[str, Any]]
"""Records of networks; the first is the model as it was given."""


def write(folder: Path, points: Points, facts: Sequence[str]) -> None:
    """Write report.csv, report.png, layers.png and report.html into ``folder``.

    Args:
        folder: of the pruning.
        points: as ``Point.as_json`` gives them, the model as given first.
        facts: short sentences for the page.
    """
    rows = [_row(point, points[0]) for point in points]
    write_text(folder / "report.csv", TableWriter(COLUMNS).text(rows))
    curves, layers = _curves(rows), _layers(points)
    write_bytes(folder / "report.png", curves)
    write_bytes(folder / "layers.png", layers)
    told = [*facts, verdict(rows), f"spine {__version__}"]
    shown = Page(
        "Pruning",
        [fact for fact in told if fact],
        _table_columns(),
        [_entry(row) for row in rows],
        gallery=[
            Picture(curves, _curves_in_words(rows), caption=CURVES),
            Picture(layers, LAYERS, caption=LAYERS),
        ],
        gallery_title="Lost and won",
        gallery_rem=36,
        entries_title="Networks",
    )
    write_text(folder / "report.html", page.html(shown))


def verdict(rows: Points) -> str:
    """Return in one sentence whether gradient beat random in the last round."""
    last = max(row["round"] for row in rows)
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["round"] == last and row["dice"] is not None:
            found[row["criterion"]].append(row["dice"])
    ours, chance = found["gradient"], found["random"]
    if not ours or not chance:
        return ""
    lead = statistics.mean(ours) - statistics.mean(chance)
    told = f"Gradient {_spread(ours)}, random {_spread(chance)}: "
    seeds = min(len(ours), len(chance))
    if seeds < 2:
        return told + f"a lead of {lead:+.4f} with one seed, which decides nothing."
    spread = max(max(held) - min(held) for held in (ours, chance))
    if lead > spread:
        return told + (
            f"gradient leads by {lead:.4f}, more than the {spread:.4f} that "
            f"{seeds} seeds differ by."
        )
    return told + (
        f"gradient does not beat random by more than seeds differ ({lead:+.4f} "
        f"against {spread:.4f} with {seeds} seeds)."
    )


def _spread(values: Sequence[float]) -> str:
    told = f"{statistics.mean(values):.4f}"
    return told if len(values) < 2 else f"{told} ± {statistics.stdev(values):.4f}"


def _row(point: Mapping[str, Any], dense: Mapping[str, Any]) -> dict[str, Any]:
    faster = None
    if point["ms"] and dense["ms"]:
        faster = dense["ms"] / point["ms"]
    return {**point, "speedup": faster}


def _ways(rows: Points) -> dict[str, list[list[Mapping[str, Any]]]]:
    """Return criterion -> the way of each seed, from the model as it was given."""
    held: dict[str, dict[int, list[Mapping[str, Any]]]] = defaultdict(dict)
    for row in rows[1:]:
        held[row["criterion"]].setdefault(row["seed"], [rows[0]]).append(row)
    return {criterion: list(ways.values()) for criterion, ways in held.items()}


def _curves(rows: Points) -> bytes:
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    key = "dice" if rows[0]["dice"] is not None else ""
    what = "validation Dice (slices)" if key else "share of filters left"
    figure.suptitle(f"{what[0].upper()}{what[1:]} against what the network costs")
    for axes, (measure, title, scale) in zip(
        figure.subplots(2, 2).flat, MEASURES, strict=True
    ):
        _draw_curve(axes, rows, measure, scale, key)
        axes.set(xlabel=title, xlim=(0, None))
        axes.set_ylabel(what)
        figures.round_marks(axes)
        axes.grid(alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=max(1, len(names)))
    return _png(figure)


def _draw_curve(axes: Axes, rows: Points, measure: str, scale: float, key: str) -> None:
    """Draw every seed as dots and the mean of a criterion as a line."""
    value = key or "left"
    for criterion, ways in _ways(rows).items():
        colour = COLOURS.get(criterion, "tab:red")
        for way in ways:
            x = [point[measure] * scale for point in way]
            axes.plot(x, [p[value] for p in way], "o", color=colour, ms=4, alpha=0.5)
        columns = list(zip(*ways, strict=True))
        x = [statistics.mean(p[measure] for p in held) * scale for held in columns]
        y = [statistics.mean(p[value] for p in held) for held in columns]
        axes.plot(x, y, "-", color=colour, label=criterion)
    dense = rows[0]
    axes.plot([dense[measure] * scale], [dense[value]], "k*", ms=10, label="as given")


def _layers(points: Points) -> bytes:
    """Draw what is left of every layer, and how much its filters matter."""
    way = [p for p in points[1:] if p["criterion"] == points[1]["criterion"]]
    way = [p for p in way if p["seed"] == way[0]["seed"]]
    scores, kept = way[0]["scores"], way[-1]["kept"]
    names = list(kept)
    figure = Figure(figsize=(10, max(3.0, 0.22 * len(names) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(names))
    colour = COLOURS.get(way[0]["criterion"], "tab:red")
    means = [statistics.mean(scores[n]) if scores.get(n) else 0.0 for n in names]
    left.barh(places, means, color=colour)
    left.set_xlabel(f"mean score of its filters ({way[0]['criterion']})")
    if max(means) > 0 and min(means) > 0 and max(means) > 100 * min(means):
        left.set_xscale("log")
    right.barh(places, [1.0] * len(names), color="0.9")
    right.barh(places, [kept[n] for n in names], color=colour)
    right.set(xlabel="share of its filters that is left", xlim=(0, 1))
    left.set_yticks(places, names, fontsize=7)
    left.invert_yaxis()
    figure.suptitle("Layers: how much their filters matter, and what is left of them")
    for axes in (left, right):
        figures.round_marks(axes, "x")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def _curves_in_words(rows: Points) -> str:
    told = [
        f"{row['criterion'] or 'as given'} {row['gflop']:.2f} GFLOP, "
        f"Dice {row['dice']:.4f}"
        for row in rows
        if row["dice"] is not None
    ]
    return "Dice against weights, operations, size and time: " + "; ".join(told)


def _table_columns() -> list[Column]:
    return [
        Column("criterion", "Criterion", "name"),
        Column("seed", "Seed", "number", 0),
        Column("round", "Round", "number", 0),
        Column("left", "Filters left", "number", 3),
        Column("parameters", "M weights", "number", 2),
        Column("gflop", "GFLOP", "number", 2),
        Column("size", "MB", "number", 1),
        Column("ms", "ms a slice", "number", 1),
        Column("speedup", "Times as fast", "number", 2),
        Column("dice_cut", "Dice before fine-tuning", "number", 4),
        Column("dice", "Dice", "number", 4),
    ]


def _entry(row: Mapping[str, Any]) -> Entry:
    cells = {name: row[name] for name in COLUMNS}
    cells["criterion"] = row["criterion"] or "as given"
    cells["parameters"] = row["parameters"] / 1e6
    cells["size"] = row["size_bytes"] / 1e6
    return Entry(cells)
