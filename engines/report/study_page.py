"""``index.html`` of a study: its table, sortable, and the courses of its trainings."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines.report import lines, page
from engines.report.lines import Line
from engines.report.page import Alarm, Column, Entry, Kind, Page
from engines.train.measures import MEASURES

MILLION, MS = 1e6, 1e3


def html(
    study: Mapping[str, Any], curves: Mapping[str, Sequence[Line]], facts: Sequence[str]
) -> str:
    """Return the page.

    Args:
        study: as study.json has it.
        curves: ``loss`` and ``val_dice`` -> the course of each configuration.
        facts: more of them.
    """
    several = len(study["seeds"]) > 1
    return page.html(
        Page(
            study["title"],
            _facts(study, facts),
            _columns(study, several=several),
            [_entry(study, line) for line in study["table"]],
            _charts(curves),
            entries_title="Configurations",
        )
    )


def _facts(study: Mapping[str, Any], more: Sequence[str]) -> list[str]:
    table = study["table"]
    ended = sum(run["status"] == "done" for line in table for run in line["runs"])
    due = len(table) * len(study["seeds"])
    published = study["published"]
    told = [
        f"{ended} of {due} trainings finished",
        study["notes"],
        *more,
        f"Published: {published}" if published else "",
        f"spine {study['version']}",
    ]
    return [" ".join(fact.split()) for fact in told if fact]


def _columns(study: Mapping[str, Any], *, several: bool) -> list[Column]:
    columns = [
        Column(f"label{place}", heading, "name")
        for place, heading in enumerate(study["headings"])
    ]
    columns += [Column("status", "Status", "status"), Column("finished", "Trained")]
    for metric in study["metrics"]:
        measure = MEASURES[metric]
        columns.append(Column(metric, measure.title, "number", measure.digits))
        if several:
            columns.append(Column(f"{metric} sd", "± sd", "number", measure.digits))
        figures = _figures(study, metric)
        if figures:
            plain = all(not isinstance(figure, str) for figure in figures)
            kind: Kind = "number" if plain else "text"
            columns.append(
                Column(f"{metric} published", "published", kind, measure.digits)
            )
    return [
        *columns,
        Column("parameters", "Parameters (M)", "number", 2),
        Column("gflop", "GFLOP", "number", 2),
        Column("ms", "ms a slice", "number", 1),
    ]


def _figures(study: Mapping[str, Any], metric: str) -> list[float | str]:
    told = [line["metrics"][metric]["published"] for line in study["table"]]
    return [figure for figure in told if figure is not None]


def _entry(study: Mapping[str, Any], line: Mapping[str, Any]) -> Entry:
    cells: dict[str, Any] = {
        f"label{place}": label for place, label in enumerate(line["labels"])
    }
    finished = line["finished"].replace(" ", "\N{NO-BREAK SPACE}")
    cells |= {"status": line["status"], "finished": finished}
    for metric, held in line["metrics"].items():
        cells[metric] = _read(held["mean"])
        cells[f"{metric} sd"] = _read(held["sd"])
        cells[f"{metric} published"] = held["published"]
    cells |= {
        "parameters": _scaled(line["parameters"], 1 / MILLION),
        "gflop": line["gflop_per_slice"],
        "ms": _scaled(line["seconds_per_slice"], MS),
    }
    leads = frozenset(m for m, held in line["metrics"].items() if held["best"])
    notes = [
        f"seed {run['seed']}: {run['error']['message']}"
        for run in line["runs"]
        if run["status"] == "failed"
    ]
    alarm: Alarm = "failed" if line["status"] == "failed" else ""
    if notes and not alarm:
        alarm = "warned"
    return Entry(cells, notes, _details(study, line), best=leads, alarm=alarm)


def _details(
    study: Mapping[str, Any], line: Mapping[str, Any]
) -> tuple[Sequence[str], Sequence[Sequence[Any]]] | None:
    ended = [run for run in line["runs"] if run["status"] == "done"]
    if not ended:
        return None
    titles = [MEASURES[metric].title for metric in study["metrics"]]
    rows = [
        (
            run["seed"],
            *(_read(run["metrics"][metric]) for metric in study["metrics"]),
            run["steps"],
            round(run["training_seconds"]),
        )
        for run in ended
    ]
    return ("Seed", *titles, "Steps", "Seconds"), rows


def _charts(curves: Mapping[str, Sequence[Line]]) -> list[tuple[str, str]]:
    drawings = (
        ("Training loss by step; losses of different kinds are not comparable", "loss"),
        ("Validation Dice by step", "val_dice"),
    )
    found = [
        (title, lines.drawn(curves[key], title, 1.0 if key == "val_dice" else None))
        for title, key in drawings
    ]
    return [(title, drawing) for title, drawing in found if drawing]


def _read(value: float | str | None) -> float | None:
    """Return a number that may be text, as infinite ones are in JSON."""
    return None if value is None else float(value)


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by
