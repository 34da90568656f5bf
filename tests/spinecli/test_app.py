"""The program as a whole: quick to start, clear about usage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines import __version__
from spinecli.app import app
from spinecli.status import MEANINGS

ROOT = Path(__file__).parents[2]
COMMANDS = ["segment", "preprocess", "train", "evaluate", "models", "bench", "doctor"]
ENGINE = [f"engine {word}" for word in ("build", "list", "inspect", "clear")]
HEAVY = ["torch", "numpy", "nibabel", "SimpleITK", "pydicom", "scipy", "matplotlib"]
PROBE = f"""
import sys
from spinecli.app import main
try:
    main()
finally:
    print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def spine(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("command", ["", *COMMANDS, "engine", *ENGINE[:1]])
def test_help_loads_no_scientific_library(command: str) -> None:
    done = spine(*command.split(), "--help")

    assert done.returncode == 0
    assert "Usage: " in done.stdout
    assert done.stderr.split() == []


def test_the_probe_sees_what_a_command_loads() -> None:
    done = spine("models", "--json")

    assert "numpy" in done.stderr.split()


@pytest.mark.parametrize("name", [*COMMANDS, "engine", *ENGINE])
def test_help_of_each_command_tells_the_exit_statuses(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})

    assert done.exit_code == 0
    for status, meaning in MEANINGS.items():
        assert f"{status.value} {meaning}" in done.stdout


def test_help_names_every_command() -> None:
    done = CliRunner().invoke(app, ["--help"])

    assert done.exit_code == 0
    assert [name for name in COMMANDS if name not in done.stdout] == []
    assert "--install-completion" in done.stdout


def test_version() -> None:
    done = CliRunner().invoke(app, ["--version"])

    assert (done.exit_code, done.stdout) == (0, f"spine {__version__}\n")


def test_no_arguments_is_help_and_a_usage_error() -> None:
    done = CliRunner().invoke(app, [])

    assert done.exit_code == 2
    assert "Commands" in done.output


@pytest.mark.parametrize("arguments", [["--nope"], ["nope"], ["doctor", "--nope"]])
def test_unknown_words_are_usage_errors(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert "nope" in done.stderr


@pytest.mark.parametrize("name", [*COMMANDS, *ENGINE])
def test_usage_errors_speak_json_too(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--json", "--nope"])

    record = json.loads(done.stdout)
    assert done.exit_code == record["exit_status"] == 2
    assert (record["command"], record["status"]) == (name, "failed")
    assert record["error"]["code"] == "usage"
    assert "--nope" in record["error"]["message"]
    assert record["error"]["hint"] == f"See 'spine {name} --help'."


def test_a_misspelt_command_speaks_json_too() -> None:
    done = CliRunner().invoke(app, ["docter", "--json"])

    record = json.loads(done.stdout)
    assert (done.exit_code, record["command"]) == (2, "spine")
    assert "Did you mean 'doctor'" in record["error"]["message"]
