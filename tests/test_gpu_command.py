"""``.ci/gpu``: what it does where there is no GPU, and how it writes its table."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.benchmarks import gpu
from tests.benchmarks.gpu import Part, Row

ROOT = Path(__file__).parents[1]


def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = gpu.TABLE.read_bytes()
    assert gpu.main() == 0
    assert "there is no GPU here" in capsys.readouterr().out
    assert gpu.TABLE.read_bytes() == before


def test_the_script_is_a_shell_script() -> None:
    done = subprocess.run(["bash", "-n", str(ROOT / ".ci" / "gpu")], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("code", "outcome", "told"),
    [
        ("print('7')", "passed", "7"),
        ("import sys; sys.exit('it broke')", "FAILED", "it broke"),
        ("import time; time.sleep(60)", "FAILED", "took longer than 6 s"),
    ],
)
def test_a_part_leaves_its_row_whatever_becomes_of_it(
    code: str, outcome: str, told: str
) -> None:
    part = Part("x", ["-c", code], 6, str.strip)
    row = gpu.run(part, time.monotonic() + 100)
    assert (row.outcome, row.told) == (outcome, told)


def test_no_part_begins_when_the_time_is_over() -> None:
    part = Part("x", ["-c", "print(1)"], 60, str.strip)
    assert gpu.run(part, time.monotonic()).outcome == "not run"


def test_two_gpus_train_together_too(tmp_path: Path) -> None:
    one, two = ([p.name for p in gpu.parts(n, tmp_path)] for n in (1, 2))
    assert set(two) - set(one) == {"two training steps on two GPUs, over NCCL"}
    assert sum(p.limit_s for p in gpu.parts(1, tmp_path)) < 600


def test_the_table_names_the_card() -> None:
    text = gpu.page("1 x Some Card", [Row("a", "passed", 3.2, "x | y")])
    assert "- card: 1 x Some Card" in text
    assert "| a | passed | 3 | x / y |" in text


def test_every_part_can_be_started() -> None:
    """The words of each command are those that the program takes."""
    from typer.testing import CliRunner

    from spinecli.app import app

    for part in gpu.parts(2, Path("x")):
        if "spinecli" in part.command:
            words = list(part.command[list(part.command).index("spinecli") + 1 :])
            done = CliRunner().invoke(app, [words[0], "--help"])
            known = done.output
            for word in words[1:]:
                if word.startswith("--"):
                    assert word in known, (part.name, word)
    assert sys.executable
