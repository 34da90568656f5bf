"""The metrics, one row each, and the tidy table of all scores.

To add a metric: write its formula, add a row, run the tests.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from engines.metrics import overlap
from engines.metrics.overlap import Overlap
from engines.results import CaseResult


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: key in JSON and CSV, title for human eyes, formula."""

    name: str
    title: str
    of: Callable[[Overlap], float]


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("dice", "Dice", overlap.dice),
            Metric("iou", "IoU", overlap.iou),
            Metric("precision", "precision", overlap.precision),
            Metric("recall", "recall", overlap.recall),
            Metric("f1", "F1", overlap.f1),
            Metric("accuracy", "accuracy", overlap.accuracy),
        )
    }
)

COLUMNS = ("case", "status", "label", "name", "present", *METRICS, "error")
DECIMALS = 6
"""Of scores in the CSV file; the JSON file has them in full."""


def score(counts: Overlap, name: str) -> dict[str, Any]:
    """Return the record of one label: id, name, every metric, where it is present."""
    metrics = {key: metric.of(counts) for key, metric in METRICS.items()}
    return {"label": counts.label, "name": name, **metrics, "present": counts.present}


def as_csv(cases: Iterable[CaseResult]) -> str:
    """Return one row per case and label; a case without scores has a single row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        about = {"case": case.name, "status": case.status}
        if case.error is not None:
            about["error"] = case.error.message
        for label in case.details.get("labels") or [{}]:
            writer.writerow(about | {k: _cell(v) for k, v in label.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:  # noqa: ANN401
    return f"{value:.{DECIMALS}f}" if isinstance(value, float) else value
