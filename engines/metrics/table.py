"""The metrics, one row each, and the tidy table of all scores.

To add a metric: write its formula, add a row, run the tests.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from engines.metrics import overlap, surface
from engines.metrics.overlap import Overlap
from engines.metrics.score import Scored
from engines.metrics.surface import Distances
from engines.results import CaseResult
from engines.tables import TableWriter

Better = Literal["high", "low", "zero"]
"""Which of two values is the better one: the larger, the smaller, the nearer to 0."""

Unit = Literal["mm", "px"]

MM3_PER_ML = 1000.0


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: key in JSON and CSV, title for human eyes, formula.

    Attributes:
        worst: value of a label that one map lacks.
    """

    name: str
    title: str
    of: Callable[[Scored], float]
    better: Better = "high"
    worst: float = 0.0

    @property
    def digits(self) -> int:
        """Digits after the point that make sense to people: fewer for mm and ml."""
        return 4 if math.isfinite(self.worst) and self.better == "high" else 2


def _counted(formula: Callable[[Overlap], float]) -> Callable[[Scored], float]:
    return lambda scored: formula(scored.counts)


def _measured(formula: Callable[[Distances], float]) -> Callable[[Scored], float]:
    return lambda scored: formula(scored.distances)


def _surface_dice(scored: Scored) -> float:
    return surface.surface_dice(scored.distances, scored.tolerance)


def _volume_ml(scored: Scored) -> float:
    more = scored.counts.prediction - scored.counts.truth
    return more * scored.voxel / MM3_PER_ML


def _area_px(scored: Scored) -> float:
    return float(scored.counts.prediction - scored.counts.truth)


def _rows(unit: Unit) -> tuple[Metric, ...]:
    def far(name: str, title: str, formula: Callable[[Distances], float]) -> Metric:
        named = f"{name}_{unit}", f"{title} {unit}"
        return Metric(*named, _measured(formula), "low", math.inf)

    size = (
        Metric("volume_difference_ml", "volume +ml", _volume_ml, "zero")
        if unit == "mm"
        else Metric("area_difference_px", "area +px", _area_px, "zero")
    )
    return (
        Metric("dice", "Dice", _counted(overlap.dice)),
        Metric("iou", "IoU", _counted(overlap.iou)),
        Metric("precision", "precision", _counted(overlap.precision)),
        Metric("recall", "recall", _counted(overlap.recall)),
        Metric("f1", "F1", _counted(overlap.f1)),
        Metric("accuracy", "accuracy", _counted(overlap.accuracy)),
        Metric("specificity", "specificity", _counted(overlap.specificity)),
        far("hd", "HD", surface.hausdorff),
        far("hd95", "HD95", surface.hausdorff_95),
        far("assd", "ASSD", surface.average),
        far("msd_prediction", "MSD pred", lambda pair: pair.prediction.mean),
        far("msd_truth", "MSD truth", lambda pair: pair.truth.mean),
        Metric("nsd", "NSD", _surface_dice),
        size,
    )


def _by_name(rows: Iterable[Metric]) -> Mapping[str, Metric]:
    return MappingProxyType({metric.name: metric for metric in rows})


METRICS = _by_name(_rows("mm"))
METRICS_2D = _by_name(_rows("px"))
"""The same for slices, with distances in pixels."""

SHOWN = ("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd")
SHOWN_2D = ("dice", "iou", "precision", "recall", "hd_px", "assd_px", "nsd")
"""Those that the table in the terminal shows; files hold all."""


def shown(names: Iterable[str]) -> dict[str, Metric]:
    """Return the metrics among ``names`` that the terminal shows."""
    every = {**METRICS, **METRICS_2D}
    wanted = {*SHOWN, *SHOWN_2D}
    return {name: every[name] for name in names if name in wanted}


ABOUT = ("case", "status", "label", "name", "region", "present")
DECIMALS = 6
"""Of scores in the CSV file; the JSON file has them in full."""


def score(
    scored: Sequence[Scored], name: str, metrics: Mapping[str, Metric] = METRICS
) -> dict[str, Any]:
    """Return the record of one label: id, name, every metric, where it is present.

    Args:
        scored: the label in the volume, or in each slice; metrics are averaged.
        name: of the label.
        metrics: rows of the table.
    """
    values = {
        key: statistics.fmean(metric.of(one) for one in scored)
        for key, metric in metrics.items()
    }
    label = scored[0].counts.label
    return {"label": label, "name": name, **values, "present": _present(scored)}


def as_csv(cases: Iterable[CaseResult], metrics: Mapping[str, Metric] = METRICS) -> str:
    """Return one row per case and label; a case without scores has a single row."""
    table = TableWriter((*ABOUT, *metrics, "error"))
    for case in cases:
        about = {"case": case.name, "status": case.status}
        if case.error is not None:
            about["error"] = case.error.message
        for label in case.details.get("labels") or [{}]:
            table.add(about | {k: _cell(v) for k, v in label.items()})
    return table.text()


def _present(scored: Sequence[Scored]) -> overlap.Present:
    kinds = {one.counts.present for one in scored}
    return kinds.pop() if len(kinds) == 1 else "both"


def _cell(value: Any) -> Any:  # noqa: ANN401
    return f"{value:.{DECIMALS}f}" if isinstance(value, float) else value
