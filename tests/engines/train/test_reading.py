"""A training reads scans as ``spine segment`` does, or says why it does not."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from engines.errors import IntensityError, ModalityError
from engines.preprocess.tree import PrepareRun, PrepareSettings
from engines.train import data, feeder, sampling
from engines.train.settings import Source
from tests.engines.train.test_training import DATA, TINY

MR = replace(TINY, recipe="lumbar-mr-2025", size=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one scan and its mask."""
    made = tmp_path / "data"
    made.mkdir()
    for name in ("tptbox_ct", "tptbox_seg-vert_msk"):
        shutil.copy(DATA / f"{name}.nii.gz", made)
    return made


def changed(path: Path, edit: object) -> None:
    held = nib.load(path)
    voxels = edit(np.asarray(held.dataobj, np.float32))  # type: ignore[operator]
    nib.save(nib.Nifti1Image(voxels, held.affine), path)


def subject(folder: Path, settings: data.TrainSettings = TINY) -> data.Subject:
    (pair,) = data.find_pairs(folder, settings)
    return data.load(pair, settings)


@pytest.mark.parametrize("recipe", ["spine-ct", "linknet-2025"])
def test_a_prepared_scan_is_seen_as_the_scan_that_it_was(
    recipe: str, folder: Path, tmp_path: Path
) -> None:
    """Normalised to 0..1 it would be taken for a scan of 0 to 1 HU, all alike."""
    from engines.preprocess.recipe import RECIPES

    out = tmp_path / "prepared"
    list(PrepareRun(folder, out, PrepareSettings(recipe=RECIPES[recipe])).results())
    again = tmp_path / "again"
    again.mkdir()
    for path in out.rglob("*.nii.gz"):
        shutil.copy(path, again)
    settings = replace(TINY, recipe=recipe)
    seen = []
    for where in (folder, again):
        one = subject(where, settings)
        pose = sampling.straight(one, "sagittal", 0.5)
        image, _ = sampling.cut(one, pose, 64)
        assert image is not None
        seen.append(feeder.prepared(image, one, settings.prepared_by))
    first, second = (image[8:-8, 8:-8] for image in seen)
    assert first.std() > 0.05
    assert second.std() == pytest.approx(first.std(), rel=0.1)
    assert abs(first.mean() - second.mean()) < 0.03


def test_voxels_that_are_no_numbers_are_refused(folder: Path) -> None:
    def spoiled(voxels: np.ndarray) -> np.ndarray:
        voxels[3, 3, 3] = np.nan
        return voxels

    changed(folder / "tptbox_ct.nii.gz", spoiled)
    with pytest.raises(IntensityError, match=r"tptbox_ct.*1 of \d+ voxels are NaN"):
        subject(folder)


def test_mr_is_not_learnt_as_ct(folder: Path) -> None:
    """Without a word it became a model for CT."""
    changed(
        folder / "tptbox_ct.nii.gz",
        lambda voxels: np.clip(voxels + 300, 0, 900) / 900 * 255,
    )
    (folder / "tptbox_ct.nii.gz").rename(folder / "tptbox_mr.nii.gz")
    with pytest.raises(ModalityError, match=r"tptbox_mr.*CT is needed") as refused:
        subject(folder)
    assert "--recipe" in refused.value.hint
    assert subject(folder, MR).image is not None


def test_ct_is_not_learnt_as_mr(folder: Path) -> None:
    with pytest.raises(ModalityError, match=r"tptbox_ct.*MR is needed"):
        subject(folder, MR)


def test_bone_alone_is_not_asked_for_soft_tissue(folder: Path) -> None:
    changed(
        folder / "tptbox_ct.nii.gz",
        lambda voxels: np.where(voxels < 200, 0, voxels),
    )
    settings = replace(TINY, sources=(Source(path=".", kind="bone", part="train"),))
    assert subject(folder, settings).image is not None
    with pytest.raises(ModalityError):
        subject(folder)
