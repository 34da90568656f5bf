"""What a checkpoint belongs to, and what is promised of going on from it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engines.errors import SettingsError, TrainingError
from engines.train import loop, losses
from engines.train.losses import IGNORED
from engines.train.settings import Source, TrainSettings, from_record
from tests.engines.train.test_training import DATA, TINY

SOLID = replace(
    TINY,
    name="cubes",
    network="mru-net-3d",
    classes="vertebrae",
    recipe="spine-ct",
    spacing_mm=8.0,
    loss="nested",
    batch=2,
    patches=(32,),
    augment=TINY.augment,
)

GO_ON = """
import json, sys
from pathlib import Path
from engines.train import loop
from engines.train.settings import from_record

record = json.loads(sys.stdin.read())
list(loop.train(from_record(record), Path(sys.argv[1]), Path(sys.argv[2])))
"""


def state(run: Path) -> dict[str, Tensor]:
    held = torch.load(run / loop.CHECKPOINT, weights_only=True)
    found: dict[str, Tensor] = held["network"] | {
        f"average {name}": value for name, value in held["average"].items()
    }
    return found


def record_of(settings: TrainSettings) -> dict[str, object]:
    record = json.loads(json.dumps(settings.as_json()))
    assert from_record(record) == settings
    return dict(record)


@pytest.mark.parametrize("settings", [TINY, SOLID], ids=["slices", "cubes"])
def test_a_training_goes_on_to_the_same_bits_in_another_process(
    settings: TrainSettings, tmp_path: Path
) -> None:
    """Whatever lay in the memory before: there it is filled with a pattern."""
    list(loop.train(settings, DATA, tmp_path / "whole"))
    parts = loop.train(settings, DATA, tmp_path / "parts")
    assert next(parts).step == 2
    parts.close()
    done = subprocess.run(
        [sys.executable, "-c", GO_ON, str(DATA), str(tmp_path / "parts")],
        input=json.dumps(record_of(settings)),
        env={**os.environ, "MALLOC_PERTURB_": "170"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole, resumed = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []


def test_a_checkpoint_says_which_settings_differ(tmp_path: Path) -> None:
    list(loop.train(replace(TINY, steps=2), DATA, tmp_path))
    with pytest.raises(
        SettingsError, match=r"other settings: steps was 2, now it is 4; batch was 1"
    ):
        list(loop.train(replace(TINY, batch=2), DATA, tmp_path))


def test_a_training_goes_on_in_another_precision(tmp_path: Path) -> None:
    begun = loop.train(TINY, DATA, tmp_path)
    assert next(begun).step == 2
    begun.close()
    rest = list(loop.train(replace(TINY, precision="auto"), DATA, tmp_path))
    assert [event.step for event in rest] == [4]


@pytest.mark.parametrize("name", list(losses.TABLE))
@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (1, 4, 8, 8, 8)])
def test_a_batch_without_a_known_voxel_teaches_nothing(
    name: str, shape: tuple[int, ...]
) -> None:
    """A mean over no voxels is 0/0."""
    loss = losses.make(replace(TINY, loss=name))
    logits = torch.randn(shape, requires_grad=True)
    target = torch.full((shape[0], *shape[2:]), IGNORED, dtype=torch.long)
    value = loss(logits, target)
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-6)
    value.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(shape))


def test_a_gradient_that_is_no_number_ends_before_it_spoils_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = losses.make

    def steep(settings: TrainSettings) -> losses.Loss:
        usual = made(settings)
        return lambda logits, target: (
            usual(logits, target) + ((logits - logits.detach()).abs().sqrt().sum())
        )

    monkeypatch.setattr(losses, "make", steep)
    with pytest.raises(TrainingError, match=r"the gradient is (nan|inf) at step 1"):
        list(loop.train(TINY, DATA, tmp_path))
    assert not (tmp_path / loop.CHECKPOINT).exists()


def test_cubes_are_learnt_in_float32_on_a_cpu_unless_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "cpu_has_bfloat16", lambda: True)
    low = []
    for settings, wanted in ((SOLID, "auto"), (TINY, "auto"), (SOLID, "bfloat16")):
        trainer = loop._Trainer(
            replace(settings, precision=wanted),
            loop._bare(settings),
            (),
            (),
            tmp_path,
            loop.Group(),
            "cpu",
            resume=False,
        )
        low.append(trainer._low())
    assert low == [False, True, True]


@pytest.mark.parametrize(
    ("changes", "words", "hint"),
    [
        (
            {"classes": "spine", "recipe": "spine-ct"},
            "it marks cervical, thoracic, lumbar, sacral, which cannot become spine",
            "--classes regions or vertebrae",
        ),
        (
            {"network": "linknet-34", "classes": "regions", "recipe": "spine-ct"},
            "its network is unet-r34, not linknet-34",
            "--network unet-r34",
        ),
        (
            {"classes": "regions", "recipe": "lumbar-mr-2025", "size": 64},
            "it is for CT, not MR",
            "--recipe spine-ct",
        ),
    ],
    ids=["classes", "network", "modality"],
)
def test_a_parent_that_does_not_fit_is_told_by_what_differs(
    changes: dict[str, object], words: str, hint: str
) -> None:
    record = {**record_of(TINY), "patches": [], **changes}
    record["sources"] = [{"path": ".", "part": "train"}]
    settings = from_record({**record, "parent": "unet-r34"})
    with pytest.raises(SettingsError, match=words) as refused:
        loop._network(settings)
    assert hint in refused.value.hint


def test_a_source_is_kept_in_the_record() -> None:
    assert record_of(replace(TINY, sources=(Source(path="x"),)))["sources"]
