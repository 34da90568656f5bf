"""The charts of ``spine bench``: a slice by backend, and a scan by stage."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from engines.report import figures

Row = Mapping[str, Any]

WIDTH_INCHES, DPI = 10.0, 120
ROW_INCHES, FRAME_INCHES = 0.36, 1.1
"""Height of a bar, and of title and axis around the bars of a chart."""

COLOURS = {
    "torch": "tab:orange",
    "openvino": "tab:blue",
    "tensorrt": "tab:green",
    "tensorrt-rtx": "tab:olive",
}
STAGES = (
    "#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756",
    "#72b7b2", "#eeca3b", "#9d755d", "#ff9da6", "#bab0ac",
)  # fmt: skip
ELSEWHERE, OTHER = "start and end", "0.82"
TITLES = {"segment": "spine segment", "plain": "the plain way"}
LEGEND_COLUMNS = 6
ROOM = 1.6
"""The axis is longer than the longest bar by this, for what stands behind it."""


def draw(record: Row) -> bytes:
    """Return a PNG, 1200 pixels wide, of a benchmark's record.

    Args:
        record: as ``bench.json`` has it, with one measurement or more; a backend
            that failed has words in place of its bar.
    """
    rows: list[Row] = record["measurements"]
    networks = [row for row in rows if row["kind"] == "network"]
    wholes = [r for r in rows if r["kind"] in TITLES and r["status"] == "done"]
    charts = [part for part in (networks, wholes) if part]
    heights = [FRAME_INCHES + ROW_INCHES * len(part) for part in charts]
    below = 2 * ROW_INCHES * bool(wholes)  # the names of the stages
    size = (WIDTH_INCHES, sum(heights) + below)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_machine(record), fontsize=10, color="0.35")
    axes = figure.subplots(len(charts), 1, height_ratios=heights, squeeze=False)
    for (place,), part in zip(axes, charts, strict=True):
        if part is networks:
            _networks(place, part)
        else:
            _wholes(place, part)
            handles, names = place.get_legend_handles_labels()
            figure.legend(
                handles,
                names,
                loc="outside lower center",
                ncols=LEGEND_COLUMNS,
                fontsize=9,
                frameon=False,
            )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def _machine(record: Row) -> str:
    machine = record["machine"]
    where = machine["gpu"] or machine["cpu"] or machine["system"]
    names = ", ".join(scan["name"] for scan in record["scans"][:3])
    more = f" and {len(record['scans']) - 3} more" * (len(record["scans"]) > 3)
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    told = f"{where}, {threads}; scan: {names}{more}"
    return told + " (a phantom)" * bool(record["synthetic"])


def _networks(axes: Axes, rows: Sequence[Row]) -> None:
    models = list(dict.fromkeys(row["model"] for row in rows))
    longest = max((row.get("ms_per_slice", 0.0) for row in rows), default=0.0) or 1.0
    gap = longest * 0.012
    for place, row in enumerate(rows):
        if row["status"] != "done":
            told = "not installed" if row["status"] == "skipped" else "failed"
            axes.text(gap, place, told, va="center", fontsize=9, color="0.45")
            continue
        ms, share = row["ms_per_slice"], row["share_of_ceiling"]
        colour = COLOURS.get(row["backend"], "0.5")
        pale = 0.55 if row["model"] != models[0] else 0.9
        axes.barh(place, ms, color=colour, alpha=pale, height=0.7)
        told = f"{ms:.3g} ms"
        if share is not None:
            at_best = ms * share
            axes.plot([at_best] * 2, [place - 0.35, place + 0.35], color="0.1", lw=1.6)
            of = f"{row['ceiling_precision']} " * row["ceiling_stands_in"]
            told += f", {share:.0%} of the {of}ceiling"
        if row["gate"] is not None and not row["gate"]["passed"]:
            told += ", labels differ"
        axes.text(ms + gap, place, told, va="center", fontsize=9)
    names = [f"{row['backend']} {row['precision']}" for row in rows]
    if len(models) > 1:
        names = [f"{row['model']}  {n}" for row, n in zip(rows, names, strict=True)]
    _frame(axes, names, longest)
    axes.set_xlabel("ms a slice; marks: as fast as a large matrix product")
    axes.set_title(f"The network: {' and '.join(models)}", fontsize=11, loc="left")


def _wholes(axes: Axes, rows: Sequence[Row]) -> None:
    stages = list(dict.fromkeys(name for row in rows for name in row["stages"]))
    colours = {n: STAGES[i % len(STAGES)] for i, n in enumerate(stages)}
    longest = max(_length(row) for row in rows)
    seen: set[str] = set()
    for place, row in enumerate(rows):
        start = 0.0
        parts = {**row["stages"], ELSEWHERE: row["elsewhere_seconds"]}
        for name, seconds in parts.items():
            axes.barh(
                place,
                seconds,
                left=start,
                height=0.7,
                color=colours.get(name, OTHER),
                edgecolor="white",
                linewidth=0.6,
                label="_" if name in seen else name,
            )
            seen.add(name)
            start += seconds
        told = f"{row['wall_seconds']:.3g} s"
        if row["overlapped_seconds"] > 0:
            told += f" ({row['overlapped_seconds']:.3g} s overlapped)"
        if row["peak_memory_bytes"] is not None:
            told += f", {row['peak_memory_bytes'] / 2**30:.2g} GiB"
        axes.text(start + longest * 0.012, place, told, va="center", fontsize=9)
    _frame(axes, [TITLES[row["kind"]] for row in rows], longest)
    axes.set_xlabel("seconds")
    axes.set_title("A whole run, by stage", fontsize=11, loc="left")


def _length(row: Row) -> float:
    return float(row["stage_seconds"] + row["elsewhere_seconds"])


def _frame(axes: Axes, names: Sequence[str], longest: float) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, longest * ROOM)
    figures.round_marks(axes, "x")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
