"""``spine study`` from the shell: tables, records and exit statuses."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from engines.train import loop, losses
from spinecli.app import app

DATA = Path(__file__).parents[1] / "data"
STUDY = """
title = "Two losses"
metrics = ["dice"]

[base]
views = ["sagittal"]
steps = 1
batch = 1
patches = [64]
precision = "float32"

[[base.source]]
path = "train"
part = "train"

[[base.source]]
path = "test"
part = "test"

[[axis]]
name = "Loss"
key = "loss"
values = ["dice", "bce"]

[[figure]]
labels = ["dice"]
dice = 0.9375
"""


def spine(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name, part in (("tptbox", "train"), ("tsexample", "test")):
        (folder / part).mkdir(parents=True)
        for kind in ("ct", "seg-vert_msk"):
            shutil.copy(DATA / f"{name}_{kind}.nii.gz", folder / part)
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def burst(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The second configuration's loss is no number."""
    usual = losses.make

    def make(settings: Any) -> losses.Loss:
        loss = usual(settings)
        share = float("nan") if settings.loss == "bce" else 1.0
        return lambda logits, target: loss(logits, target) * share

    monkeypatch.setattr(loop.losses, "make", make)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two small networks, perhaps beside other work
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("burst")
def test_a_study_with_a_failure_ends_in_tables_and_status_3(
    study: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = spine(
        "study", study, "--data", scans, "-o", out, "--drop-models", "--device", "cpu"
    )
    assert done.exit_code == 3, done.stderr
    assert "[1/2] dice, seed 0: done" in done.stderr
    assert "[2/2] bce, seed 0: failed: the loss is nan at step 1" in done.stderr
    assert "1 done, 1 failed" in done.stderr
    assert "0.9375" in done.stdout
    assert "1 of 1" in done.stdout
    assert not list(out.rglob("*.safetensors"))

    again = spine(
        "study", study, "--data", scans, "-o", out, "--only", "DICE", "--json"
    )
    assert again.exit_code == 0, again.stderr
    record = json.loads(again.stdout)
    assert record["command"] == "study"
    assert "cases" not in record
    (run,) = record["runs"]
    assert (run["name"], run["labels"], run["seed"], run["status"]) == (
        "dice, seed 0",
        ["dice"],
        0,
        "skipped",
    )
    assert 0 <= run["metrics"]["dice"] <= 1
    assert [line["finished"] for line in record["table"]] == [
        "1 of 1 seed",
        "0 of 1 seed, 1 failed",
    ]
    assert record["table"][0]["metrics"]["dice"]["mean"] == run["metrics"]["dice"]

    table = spine("study", study, "-o", out, "--table")
    assert table.exit_code == 3
    assert table.stdout == done.stdout


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        ((), 2, "there is no data folder"),
        (("--data", "."), 1, "there is no folder"),
        (("--table",), 1, "no training of this study has ended"),
        (("--data", ".", "--only", "hinge"), 2, "no configuration has 'hinge'"),
        (("--data", "nowhere"), 2, "does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused(
    options: tuple[str, ...],
    status: int,
    told: str,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = spine("study", study, "-o", tmp_path / "out", *options)
    assert result.exit_code == status
    assert told in " ".join(result.stderr.replace("│", " ").split())


def test_a_study_that_is_not_there_is_refused_with_a_list(tmp_path: Path) -> None:
    result = spine("study", "no-such", "--data", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "there is no study no-such" in result.stderr
    assert "mr-ablation" in result.stderr
