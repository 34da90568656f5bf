"""What a study found so far, gathered from the results in its folder.

``result.json`` in the folder of each training says that it ended, and how. A result
that was made with other settings than the study has now does not count.
"""

import csv
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import __version__
from engines.train.loop import CURVE
from engines.train.measures import MEASURES
from engines.train.study import Configuration, Study
from engines.train.study_marks import fingerprint

RUNS = "runs"
RESULT = "result.json"
COSTS = ("parameters", "gflop_per_slice", "seconds_per_slice", "training_seconds")

Points = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration and the results of its trainings.

    Attributes:
        results: records of those that ended well, by seed.
        failed: records of those that did not.
        outdated: seeds whose results were made with other settings.
        seeds: how many trainings there should be.
    """

    configuration: Configuration
    results: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, Any], ...]
    outdated: tuple[int, ...]
    seeds: int

    @property
    def status(self) -> str:
        """How far it is, in a word."""
        if len(self.results) == self.seeds:
            return "done"
        return "failed" if self.failed else ("partial" if self.results else "open")

    @property
    def finished(self) -> str:
        """How many trainings there are to the mean, as in ``1 of 3 seeds``."""
        ended = f"{len(self.results)} of {self.seeds}"
        unit = "seed" if self.seeds == 1 else "seeds"
        lost = f", {len(self.failed)} failed" if self.failed else ""
        return f"{ended} {unit}{lost}"

    def values(self, metric: str) -> list[float]:
        """Return a metric of each training that ended well."""
        return [float(result["metrics"][metric]) for result in self.results]

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over trainings."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def sd(self, metric: str) -> float | None:
        """Return the standard deviation over trainings, None of fewer than two."""
        values = self.values(metric)
        if len(values) < 2 or not all(map(math.isfinite, values)):
            return None
        return statistics.stdev(values)

    def cost(self, name: str) -> float | None:
        """Return one of ``COSTS``, the median over trainings."""
        values = [cost_of(result, name) for result in self.results]
        return statistics.median(values) if values else None


def cost_of(result: Mapping[str, Any], name: str) -> float:
    """Return one of ``COSTS`` of a result."""
    held = result[name]
    return float(held["total"] if name == "parameters" else held)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the record of a training that ended, None where there is none."""
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def gather(study: Study, output: Path) -> list[Row]:
    """Return a row for each configuration, in the order of the study."""
    return [_row(study, one, output) for one in study.configurations]


def best(rows: Sequence[Row], metric: str) -> set[int]:
    """Return which rows have the best mean as far as it is shown; none of one row."""
    measure = MEASURES[metric]
    means = {i: row.mean(metric) for i, row in enumerate(rows)}
    shown = {i: round(m, measure.digits) for i, m in means.items() if m is not None}
    if len(shown) < 2:
        return set()
    choose = max if measure.better == "high" else min
    wanted = choose(shown.values())
    return {i for i, value in shown.items() if value == wanted}


def record(study: Study, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the study as study.json and ``--json`` have it."""
    marked = {metric: best(rows, metric) for metric in study.metrics}
    return {
        "title": study.title,
        "notes": study.notes,
        "published": study.published,
        "version": __version__,
        "metrics": list(study.metrics),
        "seeds": list(study.seeds),
        "headings": list(study.headings),
        "table": [
            _line(row, {m for m, places in marked.items() if place in places}, study)
            for place, row in enumerate(rows)
        ],
    }


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a record with numbers that are not finite as text, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def scored(rows: Sequence[Row]) -> str:
    """Return what was scored, in a sentence; empty when nothing was."""
    told = {
        (result["scored"]["part"], result["scored"]["cases"], result["device"])
        for row in rows
        for result in row.results
    }
    each = [
        f"{cases} held-out scans of the part {part!r}, on {device}"
        for part, cases, device in sorted(told)
    ]
    return f"Scored: {'; '.join(each)}." if each else ""


def read_curve(path: Path) -> list[dict[str, str]]:
    """Return the rows of a training's curve; none where there is no file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def course(row: Row, output: Path, column: str) -> Points:
    """Return a column of the curves by step, the mean of the trainings that ended."""
    curves = [
        {int(line["step"]): float(line[column]) for line in lines if line[column]}
        for lines in (
            read_curve(output / RUNS / str(result["name"]) / CURVE)
            for result in row.results
        )
    ]
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    return [(step, statistics.fmean(c[step] for c in curves)) for step in shared]


def _row(study: Study, one: Configuration, output: Path) -> Row:
    found = dict(_results(study, one, output))
    current = {
        seed: result
        for seed, result in found.items()
        if result["settings_sha256"] == fingerprint(one.of_seed(seed))
    }
    return Row(
        one,
        tuple(r for r in current.values() if r["status"] == "done"),
        tuple(r for r in current.values() if r["status"] == "failed"),
        tuple(seed for seed in found if seed not in current),
        len(study.seeds),
    )


def _results(
    study: Study, one: Configuration, output: Path
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for seed in study.seeds:
        result = read_result(output / RUNS / one.run_name(seed))
        if result is not None:
            yield seed, result


def _line(row: Row, leads: set[str], study: Study) -> dict[str, Any]:
    one = row.configuration
    shown = dict.fromkeys([*study.metrics, *one.published])
    return {
        "name": one.name,
        "labels": list(one.labels),
        "status": row.status,
        "finished": row.finished,
        "metrics": {
            metric: {
                "mean": row.mean(metric),
                "sd": row.sd(metric),
                "best": metric in leads,
                "published": one.published.get(metric),
            }
            for metric in shown
        },
        **{name: row.cost(name) for name in COSTS},
        "runs": [_run(result) for result in (*row.results, *row.failed)],
    }


def _run(result: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("name", "seed", "status", "metrics", "training_seconds", "steps", "error")
    return {key: result[key] for key in keys if key in result}
