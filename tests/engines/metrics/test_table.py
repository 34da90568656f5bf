"""One tidy row per case and label."""

import csv
import io

from engines.metrics import table
from engines.metrics.overlap import Overlap
from engines.metrics.table import COLUMNS, METRICS
from engines.results import CaseResult, Problem

HALF = table.score(Overlap(20, both=1, prediction=3, truth=1, voxels=8), "L1")
LOST = table.score(Overlap(21, both=0, prediction=0, truth=2, voxels=8), "L2")


def rows(*cases: CaseResult) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.as_csv(cases))))


def test_every_row_of_the_metrics_has_its_own_name() -> None:
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_score_holds_what_the_contract_promises() -> None:
    assert list(HALF) == ["label", "name", *METRICS, "present"]
    assert (HALF["dice"], HALF["precision"]) == (0.5, 1 / 3)
    assert (LOST["present"], LOST["dice"]) == ("truth", 0.0)


def test_one_row_per_case_and_label() -> None:
    case = CaseResult("a, b", "p.nii", "done", details={"labels": [HALF, LOST]})

    first, second = rows(case)

    assert tuple(first) == COLUMNS
    assert (first["case"], first["label"], first["name"]) == ("a, b", "20", "L1")
    assert (first["dice"], first["precision"]) == ("0.500000", "0.333333")
    assert (second["label"], second["present"]) == ("21", "truth")


def test_a_failed_case_has_a_row_that_says_why() -> None:
    why = Problem("mask", "on different grids")

    (row,) = rows(CaseResult("a", "p.nii", "failed", error=why))

    assert (row["status"], row["error"], row["dice"]) == ("failed", why.message, "")
