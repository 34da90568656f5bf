"""The record of a run survives, and decides what may be skipped."""

import csv
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from engines.report import run_page
from engines.results import CaseResult, Note, Problem
from engines.runlog import RunLog

MADE = {"input_sha256": "a", "model_sha256": "b"}


def done(folder: Path, name: str) -> CaseResult:
    path = folder / f"{name}.nii.gz"
    path.write_bytes(b"mask")
    return CaseResult(
        name,
        f"/in/{name}",
        "done",
        {"spine": str(path)},
        {"read": 1.25, "write": 0.5},
        (Note("w", "look here"),),
        details={"made_from": MADE},
    )


def a_job(folder: Path, name: str) -> None:
    log = RunLog(folder, {"command": name})
    for case in range(8):
        log.add(done(folder, f"{name}{case}"))
        time.sleep(0.005)
    log.finish()


def test_records_of_earlier_runs_stay(tmp_path: Path) -> None:
    first = RunLog(tmp_path, {"command": "one"})
    first.add(done(tmp_path, "a"))
    second = RunLog(tmp_path, {"command": "two"})
    second.add(done(tmp_path, "b"))
    second.finish(seconds=3)
    record = json.loads((tmp_path / "spine-run.json").read_text())
    assert [case["name"] for case in record["cases"]] == ["a", "b"]
    assert (record["command"], record["seconds"]) == ("two", 3)


def test_runs_at_the_same_time_keep_each_other_s_cases(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, get_context("spawn")) as jobs:
        assert [*jobs.map(a_job, [tmp_path] * 3, "abc")] == [None] * 3
    record = json.loads((tmp_path / "spine-run.json").read_text())
    expected = [f"{job}{case}" for job in "abc" for case in range(8)]
    assert [case["name"] for case in record["cases"]] == expected
    with (tmp_path / "spine-run.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == expected


def test_only_the_very_same_making_is_skipped(tmp_path: Path) -> None:
    log = RunLog(tmp_path, {})
    log.add(done(tmp_path, "a"))
    again = RunLog(tmp_path, {})
    assert again.made_by("a", MADE) is not None
    assert again.made_by("a", {**MADE, "model_sha256": "other"}) is None
    assert again.made_by("b", MADE) is None
    (tmp_path / "a.nii.gz").unlink()
    assert again.made_by("a", MADE) is None


def test_failed_cases_are_never_skipped(tmp_path: Path) -> None:
    failed = CaseResult(
        "a", "/in/a", "failed", error=Problem("x", "y"), details={"made_from": MADE}
    )
    RunLog(tmp_path, {}).add(failed)
    assert RunLog(tmp_path, {}).made_by("a", MADE) is None


def test_a_damaged_record_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "spine-run.json").write_text('{"cases": [')
    log = RunLog(tmp_path, {})
    assert log.made_by("a", MADE) is None
    log.add(done(tmp_path, "a"))
    assert json.loads((tmp_path / "spine-run.json").read_text())["cases"]


def test_table_says_what_the_record_says(tmp_path: Path) -> None:
    log = RunLog(tmp_path, {})
    log.add(done(tmp_path, "a"))
    log.add(CaseResult("b", "/in/b", "failed", error=Problem("code", "why", "do this")))
    log.finish()
    with (tmp_path / "spine-run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["name"], r["status"], r["seconds"]) for r in rows] == [
        ("a", "done", "1.75"),
        ("b", "failed", "0"),
    ]
    assert rows[0]["warnings"] == "look here"
    assert (rows[1]["error"], rows[1]["hint"]) == ("code", "do this")


STRANGE = (
    None, 7, "x", [], {}, {"name": None}, {"name": ""}, {"name": "a", "input": 3},
    {"name": "a", "input": "x", "status": "fine"},
    {"name": "a", "input": "x", "status": "done", "outputs": []},
    {"name": "a", "input": "x", "status": "done", "outputs": {"spine": 4}},
    {"name": "a", "input": "x", "status": "done", "outputs": {"spine": "/etc/passwd"}},
    {"name": "a", "input": "x", "status": "done", "outputs": {"spine": "../x"}},
    {"name": "a", "input": "x", "status": "done", "seconds": {"read": "long"}},
    {"name": "a", "input": "x", "status": "done", "seconds": [1]},
    {"name": "a", "input": "x", "status": "done", "warnings": ["w"]},
    {"name": "a", "input": "x", "status": "done", "warnings": [{"code": "w"}]},
    {"name": "a", "input": "x", "status": "done",
     "warnings": [{"code": "w", "message": "m", "more": 1}]},
    {"name": "a", "input": "x", "status": "failed", "error": "e"},
    {"name": "a", "input": "x", "status": "failed", "error": {"code": "e"}},
)  # fmt: skip


@pytest.mark.parametrize("case", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_case_is_one_that_is_not_done(case: object, tmp_path: Path) -> None:
    """It neither crashes a run nor stays in its record; the sound ones do."""
    kept = {
        "name": "b", "input": "x", "status": "failed", "outputs": {}, "seconds": {},
        "warnings": [], "error": {"code": "c", "message": "m", "hint": ""},
    }  # fmt: skip
    path = tmp_path / "spine-run.json"
    path.write_text(json.dumps({"cases": [case, kept]}))
    log = RunLog(tmp_path, {})
    assert log.made_by("a", MADE) is None
    log.add(done(tmp_path, "c"))
    names = [found["name"] for found in log.finish()]
    assert names == ["b", "c"]
    page = run_page.html(tmp_path, "t", [], log.finish())
    assert "b" in page


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"cases": 3}', '{"cases": {"a": 1}}', "[" * 100_000, "\0"],
    ids=range(8),
)
def test_a_record_that_is_none_is_begun_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "spine-run.json").write_text(text)
    log = RunLog(tmp_path, {})
    assert log.made_by("a", MADE) is None
    log.add(done(tmp_path, "a"))
    assert [case["name"] for case in log.finish()] == ["a"]
    assert RunLog(tmp_path, {}).made_by("a", MADE) is not None


@pytest.mark.parametrize("content", [b"", b"mas", b"maks"])
def test_an_output_that_is_not_what_was_written_is_made_again(
    content: bytes, tmp_path: Path
) -> None:
    log = RunLog(tmp_path, {})
    log.add(done(tmp_path, "a"))
    log.finish()
    again = RunLog(tmp_path, {})
    record = again.made_by("a", MADE)
    assert record is not None
    again.add(again.skipped(record, "/in/a", ("made_from",)))
    assert RunLog(tmp_path, {}).made_by("a", MADE) is not None
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert RunLog(tmp_path, {}).made_by("a", MADE) is None
