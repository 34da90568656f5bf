"""Training on a real crop: it learns, resumes to the same weights, and refuses."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from engines.errors import MaskError, SettingsError, TrainingError
from engines.networks.manifest import load_model
from engines.networks.probes import encode, summary
from engines.train import data, feeder, loop, sampling
from engines.train.losses import IGNORED
from engines.train.settings import Augment, Source, TrainSettings

DATA = Path(__file__).parents[2] / "data"
TINY = TrainSettings(
    sources=(Source(path=".", part="train"),),
    steps=4,
    batch=1,
    patches=(64,),
    warmup_steps=1,
    validate_every=2,
    checkpoint_every=2,
    precision="float32",
    seed=3,
)


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("tptbox_ct", "tptbox_seg-vert_msk"):
        shutil.copy(DATA / f"{name}.nii.gz", folder)
    return folder


def loss_of(events: list[loop.Event]) -> float:
    return events[-1].loss


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).network.state_dict()


@pytest.mark.parametrize("network", ["unet-r34", "inception-dual-unet"])
def test_a_killed_run_resumes_to_the_same_weights(
    network: str, crop: Path, tmp_path: Path
) -> None:
    """Also with dropout and a second output, which the other network has."""
    settings = replace(TINY, network=network)
    whole = list(loop.train(settings, crop, tmp_path / "whole"))
    interrupted = loop.train(settings, crop, tmp_path / "parts")
    assert next(interrupted).step == 2
    interrupted.close()
    (part,) = (tmp_path / "parts").glob("*.safetensors")
    assert load_model(part).probes == ()
    rest = list(loop.train(settings, crop, tmp_path / "parts"))
    assert [event.step for event in rest] == [4]
    first, second = whole[-1].model, rest[-1].model
    assert first is not None
    assert second is not None
    resumed = weights(second)
    for name, value in weights(first).items():
        torch.testing.assert_close(resumed[name], value, msg=name)
    assert summary(load_model(first).probes) == {"inputs": 12, "scans": 3}
    assert encode(load_model(second).probes) == encode(load_model(first).probes)
    assert (tmp_path / "parts" / "curve.csv").read_text().count("\n") == 3


def test_weights_are_those_that_bfloat16_holds_where_that_is_asked(
    crop: Path, tmp_path: Path
) -> None:
    for wanted in (False, True):
        settings = replace(TINY, steps=2, bfloat16_weights=wanted)
        event = list(loop.train(settings, crop, tmp_path / str(wanted)))[-1]
        assert event.model is not None
        held = [value for value in weights(event.model).values() if value.dim() == 4]
        exact = [torch.equal(value, value.bfloat16().float()) for value in held]
        assert len(held) > 30
        assert all(exact) is wanted


def test_the_second_output_s_weight_changes_the_training(
    crop: Path, tmp_path: Path
) -> None:
    told = []
    for weight in (0.0, 1.0):
        settings = replace(
            TINY, network="inception-dual-unet", steps=1, second_output_weight=weight
        )
        told.append(loss_of(list(loop.train(settings, crop, tmp_path / str(weight)))))
    assert told[1] > 1.2 * told[0]


def test_a_run_folder_of_other_settings_is_refused(crop: Path, tmp_path: Path) -> None:
    list(loop.train(replace(TINY, steps=2), crop, tmp_path / "run"))
    with pytest.raises(SettingsError, match="other settings"):
        list(loop.train(replace(TINY, steps=2, batch=2), crop, tmp_path / "run"))


def test_the_model_tells_what_it_was_made_from(crop: Path, tmp_path: Path) -> None:
    (*_, last) = loop.train(
        replace(TINY, steps=2), crop, tmp_path / "run", command="spine train x"
    )
    assert last.model is not None
    manifest = load_model(last.model).manifest
    assert manifest.training["command"] == "spine train x"
    assert manifest.training["train"] == ["tptbox"]
    assert manifest.training["settings"]["seed"] == 3


def test_no_data_is_an_error_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="no image with a mask"):
        next(loop.train(TINY, tmp_path / "empty", tmp_path / "run"))
    with pytest.raises(TrainingError, match="there is no folder"):
        next(loop.train(TINY, tmp_path / "none", tmp_path / "run"))


def test_a_mask_of_another_grid_is_refused(crop: Path) -> None:
    path = crop / "tptbox_seg-vert_msk.nii.gz"
    held = nib.load(path)
    moved = held.affine.copy()
    moved[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(held.dataobj), moved), path)
    (pair,) = data.find_pairs(crop, TINY)
    with pytest.raises(MaskError, match="does not lie on the grid"):
        data.load(pair, TINY)


def test_an_id_outside_the_scheme_is_refused(crop: Path) -> None:
    source = Source(path=".", scheme="binary", part="train")
    settings = replace(TINY, sources=(source,))
    (pair,) = data.find_pairs(crop, settings)
    with pytest.raises(MaskError, match="in the scheme 'binary'"):
        data.load(pair, settings)


def test_straight_slices_hold_the_scan_s_own_values() -> None:
    settings = replace(TINY, sources=(Source(path=".", part="train"),))
    pairs = {p.name: p for p in data.find_pairs(DATA, settings)}
    subject = data.load(pairs["tptbox"], settings)
    assert subject.image is not None
    pose = sampling.straight(subject, "sagittal", 0.5)
    image, target = sampling.cut(subject, pose, 31)
    assert image is not None
    low, high = subject.bone.min(axis=0), subject.bone.max(axis=0)
    i = round((low[0] + high[0]) / 2)
    middle = (low + high) / 2
    rows = np.arange(31) - 15 + middle[1]
    columns = np.arange(31) - 15 + middle[2]
    whole = np.allclose(middle[1:], np.rint(middle[1:]))
    expected = subject.image.numpy()[i] + data.AIR_HU
    if whole:
        inner = expected[np.ix_(rows.astype(int), columns.astype(int))]
        np.testing.assert_allclose(image, inner, atol=1e-2)
    assert np.isin(target, [0, 1]).all()
    assert target.any()


@pytest.mark.parametrize("name", ["linknet-2025", "deeplab-unet-2025"])
def test_slices_are_prepared_as_segment_prepares_scans(name: str) -> None:
    """A slice through a voxel centre of a recipe's grid, against the whole scan."""
    from engines.preprocess.recipe import RECIPES
    from engines.segment.inference import prepare
    from engines.volume import Volume

    settings = replace(TINY, recipe=name)
    pairs = {p.name: p for p in data.find_pairs(DATA, settings)}
    subject = data.load(pairs["tptbox"], settings)
    whole = prepare(Volume.read(DATA / "tptbox_ct.nii.gz"), RECIPES[name])
    np.testing.assert_allclose(subject.seen_mm, whole.grid.spacing_mm)
    pose = replace(
        sampling.straight(subject, "axial", 0.5),
        centre_mm=(np.array(subject.shape) - 1) / 2 * subject.spacing_mm,
    )
    image, _ = sampling.cut(subject, pose, 128)
    assert image is not None
    cut = feeder.prepared(image, subject, RECIPES[name])
    middle = whole.values.shape[2] // 2
    seen = whole.values[64:-64, 64:-64, middle]
    assert np.corrcoef(cut.ravel(), seen.ravel())[0, 1] > 0.98
    assert abs(float(cut.mean() - seen.mean())) < 0.02


def test_a_slice_follows_its_seed_alone() -> None:
    settings = replace(TINY, augment=Augment(p_crop=1.0))
    pairs = {p.name: p for p in data.find_pairs(DATA, settings)}
    subject = data.load(pairs["tptbox"], settings)
    first, again, other = (
        feeder.example(subject, settings, 64, np.random.default_rng(seed))
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert (first[1] == IGNORED).any()


def test_synthetic_slices_show_bone_where_the_mask_is(tmp_path: Path) -> None:
    shutil.copy(DATA / "tptbox_seg-vert_msk.nii.gz", tmp_path)
    settings = replace(
        TINY,
        sources=(Source(path=".", kind="labels", part="train"),),
        augment=Augment(p_crop=0, p_noise=0, p_floor=0),
    )
    (pair,) = data.find_pairs(tmp_path, settings)
    subject = data.load(pair, settings)
    brighter = 0
    for seed in range(20):
        image, target = feeder.example(
            subject, settings, 64, np.random.default_rng(seed)
        )
        assert image.min() >= 0
        assert image.max() <= 1
        if (target == 1).sum() > 50:
            brighter += image[target == 1].mean() > image[target == 0].mean()
    assert brighter >= 5


def test_unlabelled_ends_are_not_scored(tmp_path: Path) -> None:
    mask = np.zeros((30, 8, 8), np.uint8)
    for start, label in ((2, 20), (12, 21), (22, 22)):
        mask[start : start + 6, 2:6, 2:6] = label
    nib.save(
        nib.Nifti1Image(mask, np.diag([2, 2, 2, 1])), tmp_path / "a_seg-vert_msk.nii.gz"
    )
    source = Source(path=".", kind="labels", part="train", unlabelled_ends=True)
    settings = replace(TINY, sources=(source,))
    (pair,) = data.find_pairs(tmp_path, settings)
    subject = data.load(pair, settings)
    ignored = subject.share_of(IGNORED)
    assert subject.values == (1, IGNORED)
    assert ignored.sum(axis=(1, 2))[[0, 29]].min() > 0
    assert ignored[12:18].sum() == 0


def test_split_is_by_subject_and_seed() -> None:
    pairs = [
        data.Pair(f"sub-{i:02d}_ses-{part}", Source(path="."), None, Path("x"))
        for i in range(10)
        for part in ("a", "b")
    ]
    dealt = data.split_pairs(pairs, "80/10/10", seed=4)
    assert {part: len(found) for part, found in dealt.items()} == {
        "train": 16,
        "val": 2,
        "test": 2,
    }
    subjects = [{p.subject for p in found} for found in dealt.values()]
    assert not subjects[0] & subjects[1]
    assert not subjects[0] & subjects[2]
    assert data.split_pairs(pairs[::-1], "80/10/10", seed=4)["val"][0].subject == (
        dealt["val"][0].subject
    )
