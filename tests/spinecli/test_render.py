"""One JSON record on stdout however a command ends; text for people on stderr."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from engines import __version__
from engines.errors import DeviceError, OutputError, SettingsError
from engines.results import CaseResult, Note, Problem
from spinecli import render
from spinecli.render import Run

DONE = CaseResult("a", "a.nii", "done", seconds={"read": 1.25, "write": 0.5})
FAILED = CaseResult(
    "b[bold]", "b.nii", "failed", error=Problem("unreadable", "is empty", "Copy it.")
)
KEYS = ["command", "version", "status", "exit_status", "warnings", "error"]

Captured = pytest.CaptureFixture[str]


def ended(captured: Captured) -> tuple[Any, str]:
    """Return the record on stdout, which must be its only line, and stderr."""
    told = captured.readouterr()
    assert told.out.endswith("\n")
    (line,) = told.out.splitlines()
    return json.loads(line), told.err


def ran(body: Callable[[Run], object], *, as_json: bool = True) -> int:
    """Run ``body`` as that of a command and return the exit status."""
    try:
        with render.command("segment", as_json=as_json) as run:
            body(run)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def both(run: Run) -> None:
    run.add(DONE)
    run.add(FAILED)


def test_a_batch_that_went_well(capsys: Captured) -> None:
    with render.command("segment", as_json=True) as run:
        run.add(DONE)
        run.facts["backend"] = "torch"
        run.warnings.append(Note("slow", "no GPU"))

    record, err = ended(capsys)
    assert list(record) == [*KEYS, "cases", "backend"]
    assert record["command"] == "segment"
    assert record["version"] == __version__
    assert (record["status"], record["exit_status"]) == ("ok", 0)
    assert record["warnings"] == [{"code": "slow", "message": "no GPU"}]
    assert record["error"] is None
    assert record["cases"] == [DONE.as_json()]
    assert err == "warning: no GPU\n"


def test_a_batch_with_a_failed_case(capsys: Captured) -> None:
    status = ran(both)

    record, _ = ended(capsys)
    assert status == record["exit_status"] == 3
    assert (record["status"], record["error"]) == ("partial", None)
    assert record["cases"][1]["error"] == {
        "code": "unreadable",
        "message": "is empty",
        "hint": "Copy it.",
    }


@pytest.mark.parametrize(
    ("error", "number"), [(DeviceError("no cuda:1"), 1), (SettingsError("no view"), 2)]
)
def test_an_early_failure_still_speaks_json(
    capsys: Captured, error: DeviceError | SettingsError, number: int
) -> None:
    def body(_: Run) -> None:
        raise error

    status = ran(body)

    record, err = ended(capsys)
    assert status == record["exit_status"] == number
    assert (record["status"], record["cases"]) == ("failed", [])
    assert record["error"] == Problem.of(error).as_json()
    assert err.startswith(f"error: {error}\n")


def test_a_late_failure_keeps_the_cases_that_were_done(capsys: Captured) -> None:
    def body(run: Run) -> None:
        run.add(DONE)
        raise OutputError("disk is full")

    assert ran(body) == 1

    record, _ = ended(capsys)
    assert record["error"]["code"] == "output"
    assert [case["name"] for case in record["cases"]] == ["a"]


def test_ctrl_c_reports_what_was_finished(capsys: Captured) -> None:
    def body(run: Run) -> None:
        run.describe(lambda: {"backend": "torch"})
        run.add(DONE)
        raise KeyboardInterrupt

    status = ran(body)

    record, _ = ended(capsys)
    assert status == record["exit_status"] == 130
    assert (record["status"], record["error"]["code"]) == ("partial", "interrupted")
    assert record["backend"] == "torch"
    assert len(record["cases"]) == 1


def test_a_bug_keeps_its_traceback_and_speaks_json(capsys: Captured) -> None:
    def body(run: Run) -> None:
        run.add(DONE)
        raise ZeroDivisionError("by pencil")

    with pytest.raises(ZeroDivisionError, match="by pencil"):
        ran(body)

    record, _ = ended(capsys)
    assert (record["exit_status"], record["error"]["code"]) == (1, "bug")
    assert record["error"]["message"] == "ZeroDivisionError: by pencil"
    assert len(record["cases"]) == 1


def test_usage_errors_of_a_body_are_left_to_the_program(capsys: Captured) -> None:
    def body(_: Run) -> None:
        raise typer.BadParameter("not both")

    with pytest.raises(typer.BadParameter, match="not both"):
        ran(body)

    assert capsys.readouterr().out == ""


def test_nothing_to_do_is_no_success(capsys: Captured) -> None:
    assert ran(lambda run: None) == 1

    record, _ = ended(capsys)
    assert record["error"]["code"] == "nothing_done"


def test_a_command_without_cases(capsys: Captured) -> None:
    with render.command("models", as_json=True, cases=False) as run:
        run.facts["models"] = []

    record, _ = ended(capsys)
    assert list(record) == [*KEYS, "models"]
    assert record["exit_status"] == 0
    with pytest.raises(ValueError, match="models has no cases"):
        run.add(DONE)


def test_people_get_a_table_and_nothing_on_stdout(capsys: Captured) -> None:
    assert ran(both, as_json=False) == 3

    out, err = capsys.readouterr()
    assert out == ""
    lines = [line.split() for line in err.splitlines()]
    assert ["a", "done", "1.8"] in lines
    assert ["b[bold]", "failed", "is", "empty"] in lines
    assert ["Copy", "it."] in lines
    assert err.endswith("1 done, 1 failed\n")


def test_the_table_of_a_large_batch_names_what_needs_attention(
    capsys: Captured,
) -> None:
    warned = CaseResult("w", "w", "done", warnings=(Note("empty_mask", "no spine"),))
    many = [CaseResult(f"fine-{i}", "", "done") for i in range(render.TABLE_ROWS)]

    render.closing_table([*many, FAILED, warned])

    err = capsys.readouterr().err
    assert "fine-" not in err
    assert "b[bold]" in err
    assert "no spine" in err
    assert err.endswith("51 done, 1 failed\n")


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (float("inf"), "inf"),
        (-np.inf, "-inf"),
        (float("nan"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (Path("a") / "b", str(Path("a") / "b")),
        ((1, {"x": {2}}), [1, {"x": [2]}]),
        ({20: "L1"}, {"20": "L1"}),
        ("ä\udcff", "ä\udcff"),
    ],
)
def test_what_json_has_no_word_for(
    capsys: Captured, value: object, printed: object
) -> None:
    render.print_json({"value": value})

    record, _ = ended(capsys)
    assert record == {"value": printed}


def test_results_go_to_stdout(capsys: Captured) -> None:
    render.table(["case", "Dice"], [["[red]a", "0.5"]])

    out, err = capsys.readouterr()
    assert err == ""
    assert ["[red]a", "0.5"] in [line.split() for line in out.splitlines()]
