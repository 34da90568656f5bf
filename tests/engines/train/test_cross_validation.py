"""Each labelled subject is left out once, and measured by a model that never saw it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import SettingsError, TrainingError
from engines.networks import catalog
from engines.networks.manifest import load_model, save_model
from engines.networks.probes import summary
from engines.train import cross_validation, loop
from engines.train.cross_validation import Fold, fold_of
from engines.train.settings import Source, TrainSettings
from tests import phantoms

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shape = (24, 20, 16)
    for name in ("a", "b"):
        values = phantoms.volume(phantoms.ct_values(shape), spacing_mm=(3, 3, 3))
        levels = (1 + np.arange(shape[2]) // 4)[None, None]
        mask = (phantoms.spine(shape) * (19 + levels)).astype(np.uint8)
        phantoms.write_nifti(folder / f"{name}_ct.nii.gz", values)
        truth = values.with_voxels(mask)
        phantoms.write_nifti(folder / f"{name}_seg-vert_msk.nii.gz", truth)
    return folder


def settings(**changes: Any) -> TrainSettings:
    kept: dict[str, Any] = {
        "name": "tiny",
        "network": "linknet-mobilenet-v2",
        "steps": 2,
        "batch": 2,
        "patches": (64,),
        "views": ("axial",),
        "precision": "float32",
        "sources": (Source(path=".", part="train"),),
    }
    return TrainSettings(**(kept | changes))


def test_every_subject_is_left_out_once(scans: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    events = list(cross_validation.train(settings(), scans, run))

    folds = [event for event in events if isinstance(event, Fold)]
    assert [fold.held_out for fold in folds] == ["a", "b"]
    assert all(fold.inner for fold in folds)
    for name, other in (("a", "b"), ("b", "a")):
        dealt = json.loads((run / f"without-{name}" / "split.json").read_text())
        assert (dealt["train"], dealt["val"], dealt["test"]) == ([other], [], [name])
    told = cross_validation.read(run / cross_validation.FOLDS)
    assert told["mean"] == pytest.approx(np.mean([fold.dice for fold in folds]), 1e-3)
    assert told["lowest"] <= told["mean"] <= told["highest"]

    model = run / "without-a" / "tiny.safetensors"
    before = load_model(model)
    cross_validation.record(model, told)
    held = load_model(model)
    assert held.manifest.training == before.manifest.training | {
        "cross_validation": told
    }
    assert summary(held.probes)["scans"] == 3


def test_one_subject_cannot_be_left_out(scans: Path, tmp_path: Path) -> None:
    (scans / "b_ct.nii.gz").unlink()

    with pytest.raises(TrainingError, match="two labelled subjects"):
        list(cross_validation.train(settings(), scans, tmp_path / "run"))


def test_of_a_parent_the_shape_is_taken_alone(scans: Path, tmp_path: Path) -> None:
    """A parent may have seen the scan that is left out."""
    (event,) = (e for e in loop.train(settings(), scans, tmp_path / "p") if e.model)
    assert event.model is not None
    parent = load_model(event.model)
    for value in parent.network.parameters():
        value.data.fill_(7.0)
    save_model(event.model, parent.network, parent.manifest)

    fresh = settings(parent=str(event.model), fresh=True)
    network = loop._network(fresh)

    plain = catalog.find("linknet-mobilenet-v2").build(in_channels=1, classes=2)
    assert {n: v.shape for n, v in network.state_dict().items()} == {
        n: v.shape for n, v in plain.state_dict().items()
    }
    assert not any((value == 7.0).all() for value in network.parameters())


def test_what_was_not_found_is_infinitely_far_in_valid_json(tmp_path: Path) -> None:
    lost = Fold("a", 0.0, 0.0, 0.0, float("inf"), 3, inner=True)

    told = cross_validation.summary([lost, lost])

    assert told["folds"][0]["hd95_mm"] == "inf"
    json.dumps(told, allow_nan=False)


def test_folds_over_several_processes_are_refused(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(SettingsError, match="one process"):
        list(cross_validation.train(settings(), scans, tmp_path / "run"))


def test_folds_are_scored_between_the_ends() -> None:
    truth = np.zeros((6, 6, 30), np.uint8)
    for index in range(5):
        truth[2:4, 2:4, 6 * index : 6 * index + 5] = 20 + index
    found = (truth > 0).astype(np.uint8)
    found[:, :, :3] = 1
    volume = phantoms.volume(truth)

    fold = fold_of("x", volume.with_voxels(found), volume, 9)
    assert (fold.dice, fold.precision, fold.recall, fold.hd95_mm) == (1, 1, 1, 0)

    nothing = fold_of("x", volume.with_voxels(found * 0), volume, 9)
    assert (nothing.dice, nothing.hd95_mm) == (0, float("inf"))
