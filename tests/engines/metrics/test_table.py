"""The rows of the metrics, and one tidy row per case and label."""

import csv
import io
import math
from collections.abc import Mapping

import numpy as np
import pytest

from engines.metrics import score, table
from engines.metrics.score import Maps, Scored
from engines.metrics.table import METRICS, METRICS_2D, Metric
from engines.results import CaseResult, Problem

SPACING_MM = (0.7, 1.1, 2.5)
CONTRACT = (
    "dice",
    "iou",
    "precision",
    "recall",
    "f1",
    "accuracy",
    "hd_mm",
    "hd95_mm",
    "assd_mm",
    "nsd",
    "volume_difference_ml",
)


def bars() -> list[Scored]:
    """Return L1, predicted one voxel too long, and L2, which is not predicted."""
    truth = np.zeros((6, 5, 4), np.uint8)
    truth[1:3, 1, 1] = 20
    truth[3:5, 3, 2] = 21
    prediction = np.where(truth == 20, 20, 0)
    prediction[3, 1, 1] = 20
    return score.scores(Maps(prediction, truth, SPACING_MM, truth.size))


LONG, LOST = (
    table.score([one], name) for one, name in zip(bars(), ("L1", "L2"), strict=True)
)


def rows(*cases: CaseResult) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.as_csv(cases))))


@pytest.mark.parametrize("metrics", [METRICS, METRICS_2D])
def test_every_row_of_the_metrics_has_its_own_name(
    metrics: Mapping[str, Metric],
) -> None:
    assert [metric.name for metric in metrics.values()] == list(metrics)
    assert len({metric.title for metric in metrics.values()}) == len(metrics)


def test_millimetres_and_pixels_are_never_mixed() -> None:
    assert set(CONTRACT) <= set(METRICS)
    assert not [name for name in METRICS if name.endswith("_px")]
    assert not [name for name in METRICS_2D if name.endswith(("_mm", "_ml"))]
    assert set(table.SHOWN) <= set(METRICS)
    assert set(table.SHOWN_2D) <= set(METRICS_2D)


def test_score_holds_what_the_contract_promises() -> None:
    assert list(LONG) == ["label", "name", *METRICS, "present"]
    assert (LONG["label"], LONG["name"], LONG["present"]) == (20, "L1", "both")
    assert (LONG["dice"], LONG["precision"], LONG["recall"]) == (0.8, 2 / 3, 1)
    assert LONG["hd_mm"] == pytest.approx(0.7)
    assert LONG["volume_difference_ml"] == pytest.approx(0.7 * 1.1 * 2.5 / 1000)


def test_a_label_that_one_map_lacks_has_the_worst_of_every_metric() -> None:
    assert (LOST["present"], LOST["dice"]) == ("truth", 0.0)
    for name, metric in METRICS.items():
        if name not in ("accuracy", "specificity", "volume_difference_ml"):
            assert LOST[name] == metric.worst, name
    assert LOST["volume_difference_ml"] == pytest.approx(-2 * 0.7 * 1.1 * 2.5 / 1000)


@pytest.mark.parametrize("name", METRICS)
def test_the_worst_value_is_never_the_better_one(name: str) -> None:
    metric = METRICS[name]
    wanted = {"high": 0.0, "low": math.inf, "zero": 0.0}
    assert metric.worst == wanted[metric.better]


def test_a_label_in_several_slices_has_the_mean_over_them() -> None:
    told = table.score(bars(), "any")

    assert told["dice"] == pytest.approx((0.8 + 0) / 2)
    assert told["hd_mm"] == math.inf
    assert told["present"] == "both"
    assert table.score(bars()[1:] * 2, "any")["present"] == "truth"


def test_the_terminal_shows_only_metrics_that_were_computed() -> None:
    assert list(table.shown(METRICS)) == list(table.SHOWN)
    assert list(table.shown(METRICS_2D)) == [
        "dice",
        "iou",
        "precision",
        "recall",
        "hd_px",
        "assd_px",
        "nsd",
    ]


def test_one_row_per_case_and_label() -> None:
    case = CaseResult("a, b", "p.nii", "done", details={"labels": [LONG, LOST]})

    first, second = rows(case)

    assert tuple(first) == (*table.ABOUT, *METRICS, "error")
    assert (first["case"], first["label"], first["name"]) == ("a, b", "20", "L1")
    assert (first["dice"], first["precision"]) == ("0.800000", "0.666667")
    assert (second["label"], second["present"]) == ("21", "truth")
    assert (second["dice"], second["hd_mm"], second["nsd"]) == (
        "0.000000",
        "inf",
        "0.000000",
    )


def test_a_failed_case_has_a_row_that_says_why() -> None:
    why = Problem("mask", "on different grids")

    (row,) = rows(CaseResult("a", "p.nii", "failed", error=why))

    assert (row["status"], row["error"], row["dice"]) == ("failed", why.message, "")
