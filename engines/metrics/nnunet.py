"""The ``summary.json`` that nnU-Net's evaluation writes, for programs that read it.

Departure: a label that one map lacks scores 0, where nnU-Net may leave it out.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from engines.results import CaseResult

KEYS = ("Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref")


def summary_of(cases: Sequence[CaseResult]) -> str:
    """Return the file's text; failed cases have no scores to put in it."""
    rows = [_case(case) for case in cases if case.status == "done"]
    by_label: defaultdict[str, list[Mapping[str, float]]] = defaultdict(list)
    for row in rows:
        for label, metrics in row["metrics"].items():
            by_label[label].append(metrics)
    mean = {label: _mean(found) for label, found in by_label.items()}
    record = {
        "foreground_mean": _mean([*mean.values()]) if mean else {},
        "mean": mean,
        "metric_per_case": rows,
    }
    return json.dumps(record, indent=4, sort_keys=True) + "\n"


def _case(case: CaseResult) -> dict[str, Any]:
    return {
        "metrics": {
            label: _metrics(counts) for label, counts in case.details["counts"].items()
        },
        "prediction_file": case.details["prediction"],
        "reference_file": case.details["truth"],
    }


def _metrics(counts: Mapping[str, int]) -> dict[str, float]:
    both, predicted, true = counts["both"], counts["prediction"], counts["truth"]
    return {
        "Dice": 2 * both / (predicted + true),
        "IoU": both / (predicted + true - both),
        "TP": both,
        "FP": predicted - both,
        "FN": true - both,
        "TN": counts["voxels"] - predicted - true + both,
        "n_pred": predicted,
        "n_ref": true,
    }


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in found) for key in KEYS}
