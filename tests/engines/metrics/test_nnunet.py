"""``summary.json`` as programs that read nnU-Net's expect it."""

import json
from typing import Any

import pytest

from engines.metrics.nnunet import summary_of
from engines.results import CaseResult

KEYS = {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"}


def case(name: str, **counts: tuple[int, int, int]) -> CaseResult:
    """Return a case with (both, prediction, truth) of 100 voxels for each label lN."""
    told = {
        label.removeprefix("l"): {
            "both": both,
            "prediction": prediction,
            "truth": truth,
            "voxels": 100,
        }
        for label, (both, prediction, truth) in counts.items()
    }
    details = {"counts": told, "prediction": f"p/{name}.nii", "truth": f"t/{name}.nii"}
    return CaseResult(name, name, "done", details=details)


def record(*cases: CaseResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(summary_of(cases))
    return found


def test_values_by_pencil() -> None:
    (row,) = record(case("a", l20=(6, 8, 10)))["metric_per_case"]

    assert row == {
        "metrics": {
            "20": {
                "Dice": pytest.approx(12 / 18),
                "IoU": 6 / 12,
                "TP": 6,
                "FP": 2,
                "FN": 4,
                "TN": 88,
                "n_pred": 8,
                "n_ref": 10,
            }
        },
        "prediction_file": "p/a.nii",
        "reference_file": "t/a.nii",
    }


def test_means_are_over_cases_and_then_over_labels() -> None:
    told = record(case("a", l20=(5, 5, 5), l21=(0, 0, 8)), case("b", l20=(0, 5, 5)))

    assert list(told) == ["foreground_mean", "mean", "metric_per_case"]
    assert set(told["foreground_mean"]) == KEYS
    assert set(told["mean"]) == {"20", "21"}
    assert told["mean"]["20"]["Dice"] == 0.5
    assert told["mean"]["20"]["n_ref"] == 5
    assert told["mean"]["21"]["Dice"] == 0
    assert told["foreground_mean"]["Dice"] == 0.25


def test_a_failed_case_has_no_row() -> None:
    told = record(CaseResult("b", "b", "failed"), case("a", l1=(1, 1, 1)))

    assert [row["reference_file"] for row in told["metric_per_case"]] == ["t/a.nii"]


def test_nothing_scored_is_still_the_layout() -> None:
    assert record() == {"foreground_mean": {}, "mean": {}, "metric_per_case": []}
