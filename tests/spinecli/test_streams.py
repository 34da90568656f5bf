"""What becomes of a run where its output cannot go, or memory ends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engines.results import CaseResult, Problem
from engines.runlog import RunLog
from spinecli import render

ROOT = Path(__file__).parents[2]
SPINE = f"{sys.executable} -m spinecli"
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def shell(line: str) -> tuple[int, str]:
    """Run a line; return the exit status of its first program, and stderr."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env=ENV,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words", ["models", "models --json", "--help", "engine list --json"]
)
def test_a_full_disk_is_said_in_the_last_lines(words: str) -> None:
    status, said = shell(f"{SPINE} {words} > /dev/full")
    assert status == 1
    assert "Traceback" not in said
    assert "error: cannot write the results to stdout: No space left on device" in said


@pytest.mark.parametrize("words", ["models --json", "--help", "models"])
def test_a_closed_pipe_ends_as_shells_expect(words: str) -> None:
    """The reader is gone before anything is written."""
    status, said = shell(f"{SPINE} {words} | (exec 0<&-; sleep 0.1)")
    assert status == 141
    assert said == ""


def test_too_little_memory_is_said() -> None:
    status, said = shell(f"ulimit -v 400000; {SPINE} bench")
    assert status == 1
    assert re.search(r"error: not enough memory \(.*\)\nhint: Raise the limit", said)
    assert "Traceback" not in said


def test_a_fault_of_a_case_keeps_its_traceback_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        {}["x"]
    except KeyError as error:
        problem = Problem.of(error)
    case = CaseResult("a", "/in/a", "failed", error=problem)
    log = RunLog(tmp_path, {})
    log.add(case)
    log.finish()
    (kept,) = json.loads((tmp_path / "spine-run.json").read_text())["cases"]
    assert "KeyError: 'x'" in kept["error"]["traceback"]
    assert "test_streams.py" in kept["error"]["traceback"]
    assert "traceback" not in case.as_json()["error"]
    for wanted in (False, True):
        render.show_tracebacks(wanted)
        try:
            with (
                pytest.raises(render.typer.Exit),
                render.command("segment", as_json=False) as run,
            ):
                run.add(case)
        finally:
            render.show_tracebacks(False)
        assert ("test_streams.py" in capsys.readouterr().err) is wanted


def test_debug_is_an_option_of_the_program() -> None:
    status, said = shell(f"{SPINE} --debug models nothing")
    assert status == 2
    assert "no model is called 'nothing'" in said
