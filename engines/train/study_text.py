"""The tables of a study as files: CSV, Markdown, JSON and a page."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from engines.files import write_json, write_text
from engines.report import study_page
from engines.report.lines import Line
from engines.tables import defused
from engines.train import study_table
from engines.train.measures import MEASURES
from engines.train.study import Published, Study
from engines.train.study_table import COSTS, Row

TABLES = ("study.csv", "study.md", "study.json", "index.html")
COST_TITLES = ("parameters (M)", "GFLOP", "ms a slice", "trained")
MILLION, MS = 1e6, 1e3


def write(study: Study, output: Path) -> list[Row]:
    """Write the tables of what is in the folder, and return their rows.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = study_table.gather(study, output)
    record = study_table.plain(study_table.record(study, rows))
    write_text(output / "study.csv", as_csv(study, rows))
    write_text(output / "study.md", as_markdown(study, rows))
    write_json(output / "study.json", record)
    curves = {
        column: [
            Line(row.configuration.labels, study_table.course(row, output, column))
            for row in rows
            if row.results
        ]
        for column in ("loss", "val_dice")
    }
    facts = [study_table.scored(rows)]
    write_text(output / "index.html", study_page.html(record, curves, facts))
    return rows


def as_csv(study: Study, rows: Sequence[Row]) -> str:
    """Return a line per training and metric, and per training and cost."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["configuration", *study.headings, "seed", "metric", "value"])
    for row in rows:
        about = [row.configuration.name, *row.configuration.labels]
        for result in row.results:
            values = [(m, float(result["metrics"][m])) for m in MEASURES]
            values += [(name, study_table.cost_of(result, name)) for name in COSTS]
            for value in values:
                cells = [*about, result["seed"], *value]
                writer.writerow([defused(cell) for cell in cells])
    return text.getvalue()


def as_markdown(study: Study, rows: Sequence[Row]) -> str:
    """Return the study's table, with its notes before and what failed behind it."""
    headings, cells = grid(study, rows)
    told = [study.notes, study_table.scored(rows), _published(study)]
    right = ["---"] * len(study.headings)
    right += ["--:"] * (len(headings) - len(study.headings))
    table = [_bar(line) for line in (headings, right, *_emphasised(study, rows, cells))]
    parts = [
        f"# {study.title}",
        *(text for text in told if text),
        "\n".join(table),
        *remarks(rows),
    ]
    return "\n\n".join(parts) + "\n"


def grid(study: Study, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the table; published figures in parentheses."""
    known = _figured(rows)
    told = [
        MEASURES[metric].title + (" (published)" if metric in known else "")
        for metric in study.metrics
    ]
    return [*study.headings, *told, *COST_TITLES], [_cells(study, row) for row in rows]


def narrow_grid(
    study: Study, rows: Sequence[Row], *, costs: bool
) -> tuple[list[str], list[list[str]]]:
    """Return the same for a terminal: published figures below, in lines of their own.

    Args:
        study: whose table it is.
        rows: of it.
        costs: whether there is room for them.
    """
    lines = []
    for row in rows:
        one, cells = row.configuration, _cells(study, row, beside=False)
        first = len(study.headings)
        last = -1 if costs else first + len(study.metrics)
        lines.append([one.name, *cells[first:last], _count(row)])
        figures = [_figure(one.published.get(m), m) for m in study.metrics]
        if any(figures):
            beside = len(lines[-1]) - len(figures) - 1
            lines.append(["  published", *figures, *[""] * beside])
    titles = [MEASURES[metric].title for metric in study.metrics]
    more = ("M", "GFLOP", "ms") if costs else ()
    return [", ".join(study.headings), *titles, *more, "seeds"], lines


def remarks(rows: Sequence[Row]) -> list[str]:
    """Return what failed and what is outdated, a sentence each."""
    told = [
        f"{row.configuration.name}, seed {result['seed']} failed: "
        f"{result['error']['message']}"
        for row in rows
        for result in row.failed
    ]
    old = [
        f"{row.configuration.name}, seed {seed}"
        for row in rows
        for seed in row.outdated
    ]
    if old:
        told.append(f"Made with other settings and left out: {'; '.join(old)}.")
    return told


def _count(row: Row) -> str:
    return f"{len(row.results)} of {row.seeds}"


def _figured(rows: Sequence[Row]) -> set[str]:
    return {metric for row in rows for metric in row.configuration.published}


def _cells(study: Study, row: Row, *, beside: bool = True) -> list[str]:
    """Return the cells of a line, with or without the published figures."""
    published = row.configuration.published if beside else {}
    costs = (
        _number(row.cost("parameters"), 2, MILLION),
        _number(row.cost("gflop_per_slice"), 2),
        _number(row.cost("seconds_per_slice"), 1, 1 / MS),
    )
    return [
        *row.configuration.labels,
        *(_cell(row, metric, published.get(metric)) for metric in study.metrics),
        *costs,
        row.finished,
    ]


def _cell(row: Row, metric: str, published: Published | None) -> str:
    digits = MEASURES[metric].digits
    told = _number(row.mean(metric), digits)
    spread = row.sd(metric)
    if spread is not None:
        told += f" ± {spread:.{digits}f}"
    figure = _figure(published, metric)
    return f"{told} ({figure})".strip() if figure else told


def _figure(published: Published | None, metric: str) -> str:
    if isinstance(published, str):
        return published
    return _number(published, MEASURES[metric].digits)


def _number(value: float | None, digits: int, unit: float = 1.0) -> str:
    if value is None:
        return ""
    return "∞" if math.isinf(value) else f"{value / unit:.{digits}f}"


def _emphasised(
    study: Study, rows: Sequence[Row], cells: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Return the cells with the best of each metric in bold."""
    bold = [list(line) for line in cells]
    for column, metric in enumerate(study.metrics, start=len(study.headings)):
        for place in study_table.best(rows, metric):
            told, gap, figure = bold[place][column].partition(" (")
            bold[place][column] = f"**{told}**{gap}{figure}"
    return bold


def _bar(cells: Sequence[str]) -> str:
    safe = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(safe)} |"


def _published(study: Study) -> str:
    return f"Published: {study.published}" if study.published else ""
