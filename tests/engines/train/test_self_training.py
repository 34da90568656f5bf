"""Masks that a network made: which are judged good, and training on them in rounds."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.errors import SettingsError, TrainingError, UnknownModelError
from engines.geometry import Grid
from engines.networks import shelf
from engines.networks.manifest import load_model, record_metrics
from engines.networks.probes import summary
from engines.train import judge, loop, preview, self_training
from engines.train.losses import IGNORED
from engines.train.settings import Source, TrainSettings
from engines.volume import Volume, read_mask

DATA = Path(__file__).parents[2] / "data"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def scan() -> Volume:
    return Volume.read(DATA / "tsexample_ct.nii.gz")


@pytest.fixture
def mask() -> Volume:
    return read_mask(DATA / "tsexample_seg-vert_msk.nii.gz")


def test_a_mask_by_hand_is_good(scan: Volume, mask: Volume) -> None:
    found = judge.judge(scan, mask)
    assert found.good
    assert found.against == ()
    voxel_ml = np.prod(mask.grid.spacing_mm) / 1000
    expected = np.count_nonzero(mask.voxels) * voxel_ml
    assert found.volume_ml == pytest.approx(expected, rel=0.1)
    assert 100 < found.inside_hu < 400
    assert found.contrast_hu > 80
    assert found.main > 0.95
    height = mask.grid.shape[2] * mask.grid.spacing_mm[2]
    assert found.trusted_mm == pytest.approx(height, abs=4)
    kept = judge.trusted(mask, found).voxels
    assert np.array_equal(kept, mask.voxels > 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("empty", "0 ml of spine"),
        ("speck", "ml of spine"),
        ("soft", "denser than around"),
        ("pieces", "hang together"),
        ("unsure", "as much unsure"),
        ("short", "below the top of the scan"),
    ],
)
def test_what_speaks_against_a_mask(
    change: str, said: str, scan: Volume, mask: Volume
) -> None:
    spine = (mask.voxels > 0).astype(np.uint8)
    up = np.argmax(np.abs(mask.grid.affine[2, :3]))
    spine = np.moveaxis(spine, up, 2)
    upwards = mask.grid.affine[2, up] > 0
    if not upwards:
        spine = spine[:, :, ::-1]
    planes = np.flatnonzero(spine.any(axis=(0, 1)))
    if change == "empty":
        spine[:] = 0
    elif change == "speck":
        spine[:, :, planes[0] + 2 :] = 0
    elif change == "soft":
        spine = np.roll(spine, 14, axis=1)
    elif change == "pieces":
        spine[:, :, planes[len(planes) // 2] - 4 : planes[len(planes) // 2] + 4] = 0
    elif change == "unsure":
        shifts = [(step, axis) for step in (-9, -6, -3, 3, 6, 9) for axis in (0, 1)]
        rolled = [np.roll(spine, step, axis=axis) for step, axis in shifts]
        grown = np.maximum.reduce(rolled)
        spine = np.where(spine, spine, grown * IGNORED).astype(np.uint8)
    else:
        spine[:, :, -round(50 / mask.grid.spacing_mm[2]) :] = 0
    if not upwards:
        spine = spine[:, :, ::-1]
    changed = mask.with_voxels(np.ascontiguousarray(np.moveaxis(spine, 2, up)))
    found = judge.judge(scan, changed)
    assert not found.good
    assert any(said in told for told in found.against), found.against


def drawn(voxels: NDArray[np.uint8]) -> tuple[Volume, Volume]:
    """Return a scan of bone where ``voxels`` of 2 mm are marked, and the marks."""
    grid = Grid(voxels.shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    scan = Volume(np.where(voxels, 300, 40).astype(np.int16), grid)
    return scan, Volume(voxels, grid)


def test_a_spine_that_narrows_is_trusted_up_to_there() -> None:
    """As where a network found arches and lost the bodies."""
    voxels = np.zeros((40, 40, 120), np.uint8)
    voxels[10:26, 8:30, :70] = 1
    voxels[14:20, 8:14, 70:] = 1
    scan, mask = drawn(voxels)
    found = judge.judge(scan, mask)
    assert found.good
    assert found.fall > judge.MOST_FALL
    assert 2 * 40 < found.trusted_mm < 2 * 70
    kept = judge.trusted(mask, found).voxels
    first = round(found.trusted_mm / 2)
    assert (kept[:, :, first:] == IGNORED).all()
    assert np.array_equal(kept[:, :, :first], voxels[:, :, :first])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for part in ("labelled", "unlabelled"):
        (root / part).mkdir(parents=True)
    for ending in ("ct", "seg-vert_msk"):
        shutil.copy(
            DATA / f"tptbox_{ending}.nii.gz", root / "labelled" / f"a_{ending}.nii.gz"
        )
    shutil.copy(DATA / "tptbox_ct.nii.gz", root / "unlabelled" / "b_ct.nii.gz")
    return root


BOTH = (
    Source(path="labelled", part="train"),
    Source(path="unlabelled", kind="unlabelled", part="train", origin="a crop"),
)
ROUNDS = TrainSettings(
    sources=BOTH,
    rounds=2,
    parent="unet-r34",
    classes="regions",
    steps=1,
    batch=1,
    patches=(64,),
    views=("sagittal",),
    warmup_steps=0,
    learning_rate=1e-6,
    validate_every=1,
    checkpoint_every=1,
    precision="float32",
)


def test_two_rounds(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    events = list(self_training.train(ROUNDS, folder, run))
    (labelled,) = [e for e in events if isinstance(e, self_training.Labelled)]
    assert (labelled.name, labelled.round, labelled.kept) == ("b_ct", 2, True)
    assert "kept" in labelled.line()
    first, second = (load_model(run / f"round-{n}/unet-r34.safetensors") for n in "12")
    assert first.manifest.training["train"] == ["a"]
    assert second.manifest.training["train"] == ["a", "b"]
    assert second.manifest.parent == {"name": "unet-r34", "sha256": first.sha256}
    last = load_model(run / "unet-r34.safetensors")
    assert summary(last.probes)["scans"] == 3
    told = last.manifest.training
    assert told["rounds"] == 2
    assert [one["name"] for one in told["labelled"]] == ["b_ct"]
    assert str(tmp_path) not in json.dumps(told)
    for name, value in last.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
    mask = read_mask(next((run / "round-2" / "labelled" / "0").glob("*.nii.gz")))
    assert set(np.unique(mask.voxels)) == {0, 1, IGNORED}


def test_slices_can_be_previewed_before(folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    preview.draw(ROUNDS, folder, sheet)
    assert sheet.stat().st_size > 1000


def test_what_is_finished_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    list(self_training.train(ROUNDS, folder, run))
    content = (run / "unet-r34.safetensors").read_bytes()
    stamps = [
        (run / f"round-{n}" / "unet-r34.safetensors").stat().st_mtime_ns for n in "12"
    ]
    (run / "unet-r34.safetensors").unlink()
    events = list(self_training.train(ROUNDS, folder, run))
    assert not [e for e in events if isinstance(e, loop.Event)]
    assert (run / "unet-r34.safetensors").read_bytes() == content
    assert stamps == [
        (run / f"round-{n}" / "unet-r34.safetensors").stat().st_mtime_ns for n in "12"
    ]


def test_without_a_good_mask_it_ends(folder: Path, tmp_path: Path) -> None:
    settings = replace(
        ROUNDS, parent="", network="linknet-mobilenet-v2", classes="spine"
    )
    with pytest.raises(TrainingError, match="no mask of the model of round 1"):
        list(self_training.train(settings, folder, tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "round-2" / "judged.json").read_text())
    assert [one["kept"] for one in record] == [False]
    assert record[0]["judgement"]["against"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 1}, "learns nothing from unlabelled"),
        ({"sources": BOTH[:1]}, "scans with labels and scans without"),
        ({"sources": BOTH[1:]}, "scans with labels and scans without"),
        ({"rounds": 0}, "at least 1"),
        (
            {"recipe": "lumbar-mr-2025", "network": "unet", "views": ("sagittal",)},
            "bone density",
        ),
        (
            {"sources": (replace(BOTH[0], labelled_by="unet-r34"), BOTH[1])},
            "labelled_by is for unlabelled scans, not for labelled",
        ),
        (
            {"rounds": 1, "sources": (replace(BOTH[1], labelled_by="unet-r34"),)},
            "unlabelled scans alone",
        ),
        ({"guide": "unet-r34"}, "a model of regions tells no vertebrae of its guide"),
    ],
)
def test_impossible_rounds_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(ROUNDS, **changes)


@pytest.fixture
def taught(folder: Path) -> Path:
    """Replace the scan that nobody labelled by one in which regions meet."""
    (folder / "unlabelled" / "b_ct.nii.gz").unlink()
    shutil.copy(DATA / "tsexample_ct.nii.gz", folder / "unlabelled" / "t_ct.nii.gz")
    return folder


TAUGHT = replace(
    ROUNDS,
    rounds=1,
    parent="",
    network="linknet-mobilenet-v2",
    classes="vertebrae",
    guide="unet-r34",
    sources=(BOTH[0], replace(BOTH[1], labelled_by="unet-r34")),
)


def test_another_model_names_vertebrae(
    taught: Path, tmp_path: Path, mask: Volume
) -> None:
    run = tmp_path / "run"
    events = list(self_training.train(TAUGHT, taught, run))
    (labelled,) = [e for e in events if isinstance(e, self_training.Labelled)]
    assert (labelled.name, labelled.round, labelled.kept) == ("t_ct", 1, True)
    (path,) = (run / "round-1" / "labelled").glob("0-*/*.nii.gz")
    assert path.name == "t_ct_seg-vert_msk.nii.gz"
    named = read_mask(path).voxels
    both = (mask.voxels > 0) & (named > 0) & (named != IGNORED)
    assert (named == mask.voxels)[both].mean() > 0.9
    manifest = load_model(run / f"{TAUGHT.name}.safetensors").manifest
    assert manifest.guide == "unet-r34"
    told = manifest.training
    assert told["train"] == ["a", "t"]
    assert [(o["name"], o["by"]) for o in told["labelled"]] == [("t_ct", "unet-r34")]


def test_labels_of_another_model_are_not_mixed_in(taught: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other.safetensors"
    list(self_training.train(TAUGHT, taught, run))
    shutil.copy(shelf.locate("unet-r34"), other)
    record_metrics(other, [])
    sources = (BOTH[0], replace(BOTH[1], labelled_by=str(other)))
    with pytest.raises(SettingsError, match="other settings"):
        list(self_training.train(replace(TAUGHT, sources=sources), taught, run))


def test_vertebrae_of_one_region_are_not_counted(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="no mask of the model unet-r34 can"):
        list(self_training.train(TAUGHT, folder, run))
    (record,) = json.loads((run / "round-1" / "judged.json").read_text())
    assert "from where regions meet" in record["error"]
    assert not list(run.rglob("labelled/0-*/*.nii.gz"))


def test_a_model_that_is_not_there_cannot_label(folder: Path, tmp_path: Path) -> None:
    sources = (BOTH[0], replace(BOTH[1], labelled_by="nobody"))
    with pytest.raises(UnknownModelError, match="nobody"):
        next(
            self_training.train(
                replace(TAUGHT, sources=sources), folder, tmp_path / "r"
            )
        )


def test_a_guide_that_is_not_there_is_told_first(taught: Path, tmp_path: Path) -> None:
    settings = replace(TAUGHT, guide="nobody", sources=BOTH[:1])
    with pytest.raises(UnknownModelError, match="nobody"):
        next(self_training.train(settings, taught, tmp_path / "r"))


def test_the_fall_from_the_sacrum_is_not_held_against_names() -> None:
    """The wide sacrum of a mask drawn with one, and the column above it."""
    voxels = np.zeros((40, 40, 120), np.uint8)
    voxels[2:38, 2:38, :40] = 26
    voxels[14:26, 10:28, 40:] = 24
    bone, mask = drawn(voxels)
    named = judge.judge(bone, mask)
    nameless = judge.judge(bone, mask.with_voxels((voxels > 0).astype(np.uint8)))
    assert nameless.fall > judge.MOST_FALL > named.fall
    assert named.trusted_mm == pytest.approx(240, abs=2)
    assert named.length_mm == nameless.length_mm + 240 - nameless.trusted_mm


def test_unlabelled_scans_that_are_not_there_are_refused_at_once(
    folder: Path, tmp_path: Path
) -> None:
    scan = folder / "unlabelled" / "b_ct.nii.gz"
    scan.rename(scan.with_name("b.nii.gz"))
    with pytest.raises(TrainingError, match="named for training") as caught:
        next(self_training.train(ROUNDS, folder, tmp_path / "run"))
    assert "NAME_ct.nii.gz" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_scan_without_its_name_is_left_out(folder: Path, tmp_path: Path) -> None:
    scan = folder / "unlabelled" / "b_ct.nii.gz"
    shutil.copy(scan, scan.with_name("c.nii.gz"))
    events = self_training.train(ROUNDS, folder, tmp_path / "run")
    labelled = [e for e in events if isinstance(e, self_training.Labelled)]
    assert {one.name: one.kept for one in labelled} == {"b_ct": True, "c": False}


def test_the_loop_itself_does_one_round(folder: Path, tmp_path: Path) -> None:
    for settings in (ROUNDS, TAUGHT):
        with pytest.raises(SettingsError, match="spine train alone"):
            next(loop.train(settings, folder, tmp_path / "run"))


def test_several_processes_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="one process"):
        next(self_training.train(ROUNDS, folder, tmp_path / "run"))
