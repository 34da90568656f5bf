"""Several processes learn what one process learns."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engines.errors import SettingsError
from engines.train import distributed
from engines.train.feeder import Feeder
from engines.train.settings import Source, TrainSettings

DATA = Path(__file__).parents[2] / "data"
ROOT = Path(__file__).parents[3]

GRADIENTS = """
import sys, torch
from engines.train import distributed

torch.manual_seed(0)
network = torch.nn.Linear(3, 1)
images, wanted = torch.randn(4, 3), torch.randn(4, 1)
with distributed.joined(4, "cpu") as (group, device):
    share = slice(group.rank, None, group.ranks)
    learner = group.wrap(network, torch.device(device))
    loss = (learner(images[share]) - wanted[share]).square().mean()
    loss.backward()
    torch.save(network.weight.grad, f"{sys.argv[1]}/{group.rank}-{group.ranks}.pt")
    assert group.agreed(group.rank + 0.5) == 0.5
"""


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run two processes with torch's launcher."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, "--standalone", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    import torch

    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    alone = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert alone.returncode == 0
    done = launched(str(script), str(tmp_path))
    assert done.returncode == 0, done.stderr
    expected = torch.load(tmp_path / "0-1.pt")
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}-2.pt"), expected)


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("tptbox_ct", "tptbox_seg-vert_msk"):
        shutil.copy(DATA / f"{name}.nii.gz", folder)
    settings = tmp_path / "s.toml"
    settings.write_text('patches = [64]\n[[source]]\npath = "."\npart = "train"\n')
    options = ["--steps", "2", "--batch", "2", "--device", "cpu", "--json"]
    run = tmp_path / "run"
    command = ["-m", "spinecli", "train", "--data", str(folder), "-o", str(run)]
    done = launched(*command, "--settings", str(settings), *options)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["last"]["step"] == 2
    assert Path(told["last"]["model"]).is_file()
    assert len((run / "curve.csv").read_text().splitlines()) == 2


def test_a_batch_that_cannot_be_shared_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(SettingsError, match="a batch of 3 cannot be shared by 2"),
        distributed.joined(3, "cpu"),
    ):
        pass


def test_one_process_is_no_group() -> None:
    with distributed.joined(3, "cpu") as (group, device):
        assert (group.ranks, group.leads, device) == (1, True, "cpu")
        assert group.agreed(None) is None


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("patches", [(64, 128, 160), (64, 96, 256)])
def test_every_process_draws_as_much_of_every_batch(
    ranks: int, patches: tuple[int, ...]
) -> None:
    """Of large slices a batch has fewer than processes; gradients count alike."""
    settings = TrainSettings(batch=4, patches=patches, steps=40, sources=())
    subject = SimpleNamespace(source=Source(path="."))
    seen: set[int] = set()
    for step in range(settings.steps):
        counts = []
        for rank in range(ranks):
            feed = Feeder([subject], settings, step, rank, ranks)  # type: ignore[list-item]
            feed._draw = lambda *_: (np.zeros((2, 2)), np.zeros((2, 2)))  # type: ignore[method-assign,assignment]
            images, _ = feed._batch(step)
            counts.append(len(images))
        assert len(set(counts)) == 1
        assert counts[0] >= 1
        seen.add(counts[0])
    assert len(seen) > 1


def test_the_gpu_of_a_process_is_current_before_it_joins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NCCL sends objects by way of the current device, which is 0 everywhere else."""
    done: list[object] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda i: done.append(i))
    torch_side = distributed.distributed
    monkeypatch.setattr(torch_side, "init_process_group", done.append)
    monkeypatch.setattr(torch_side, "barrier", lambda: None)
    monkeypatch.setattr(torch_side, "destroy_process_group", lambda: None)
    sent = []

    def broadcast(told: list[object], src: int, device: torch.device) -> None:
        sent.append((told[0], src, str(device)))

    monkeypatch.setattr(torch_side, "broadcast_object_list", broadcast)
    with distributed.joined(4, "auto") as (group, device):
        assert device == "cuda:1"
        group.agreed(0.5)
    assert done == [1, "nccl"]
    assert sent == [(0.5, 0, "cuda:1")]
