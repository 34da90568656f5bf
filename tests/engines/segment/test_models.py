"""Each scan gets the model for what it is."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines import labels
from engines.errors import ModalityError, SettingsError
from engines.networks import catalog, shelf
from engines.networks.manifest import Manifest, save_model
from engines.preprocess.modality import recognise, require_known
from engines.preprocess.recipe import RECIPES
from engines.scans import find_scans
from engines.segment import models
from engines.segment.run import SegmentRun
from engines.segment.settings import SegmentSettings
from engines.volume import read_mask
from tests import phantoms

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of untrained small models for CT and for MR, in place of those shipped."""
    folder = tmp_path / "models"
    for kind, recipe in (("ct", "spine-ct"), ("mr", "lumbar-mr-2025")):
        torch.manual_seed(0)
        name = shelf.DEFAULTS[kind]
        spec = catalog.find("linknet-mobilenet-v2")
        manifest = Manifest(
            name=name,
            architecture=spec.name,
            classes=labels.SPINE_CLASSES,
            modality=kind,
            views=("sagittal",),
            patch=64,
            recipe=RECIPES[recipe],
            licence="none",
            training={},
        )
        network = spec.build(in_channels=1, classes=2)
        folder.mkdir(exist_ok=True)
        save_model(folder / f"{name}.safetensors", network, manifest)
    monkeypatch.setenv(shelf.VARIABLE, str(folder))
    return folder


def write(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([2, 2, 2, 1])), path)
    return path


def ct() -> NDArray[Any]:
    held = np.full((40, 40, 40), -1000, np.int16)
    held[6:34, 6:34] = -90
    held[12:28, 12:28] = 45
    held[17:23, 17:23] = 400
    return held


def mr(top: float = 900) -> NDArray[Any]:
    rng = np.random.default_rng(3)
    return rng.uniform(0, top, (40, 40, 40)).astype(
        np.uint16 if top > 255 else np.uint8
    )


def test_a_mixed_folder_gets_both(tmp_path: Path, both: Path) -> None:
    scans = tmp_path / "scans"
    write(scans / "one.nii.gz", ct())
    write(scans / "two_T2w.nii.gz", mr())

    run = SegmentRun([scans], tmp_path / "out", SegmentSettings(precision="float32"))
    results = {result.name: result for result in run.results()}

    told = {name: one.details["model"]["name"] for name, one in results.items()}
    assert told == {"one": shelf.DEFAULTS["ct"], "two_T2w": shelf.DEFAULTS["mr"]}
    counted = {one["modality"]: one["scans"] for one in run.facts()["models"]}
    assert counted == {"ct": 1, "mr": 1}
    record = json.loads((tmp_path / "out" / "spine-run.json").read_text())
    assert record["model"]["name"] == shelf.DEFAULT_MODEL

    again = SegmentRun([scans], tmp_path / "out", SegmentSettings(precision="float32"))
    assert [one.status for one in again.results()] == ["skipped", "skipped"]
    assert {m["modality"]: m["scans"] for m in again.facts()["models"]} == counted


def test_without_a_model_for_mr_it_is_refused(
    tmp_path: Path, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "DEFAULTS", {**shelf.DEFAULTS, "mr": "nobody-has-it"})
    scan = write(tmp_path / "two_mr.nii.gz", mr())

    run = SegmentRun([scan], tmp_path / "out", SegmentSettings())
    (result,) = run.results()

    assert result.status == "failed"
    assert result.error is not None
    assert "MR" in result.error.message
    assert "--model" in (result.error.hint or "")


def test_defaults_that_do_not_know_the_views_are_left_out(both: Path) -> None:
    assert list(models.pick(shelf.AUTO, "sagittal")) == ["ct", "mr"]
    with pytest.raises(SettingsError, match="axial"):
        models.pick(shelf.AUTO, "axial")


@pytest.mark.parametrize(
    ("name", "header", "values", "found"),
    [
        ("a/scan", "", ct(), "ct"),
        ("a/scan", "", mr(), "unknown"),
        ("a/scan_mr", "", mr(), "mr"),
        ("a/scan", "", mr(200), "unknown"),
        ("a/lumbar01_mr", "", mr(200), "mr"),
        ("sub-1_T2w", "", mr(200), "mr"),
        ("mr_of_someone", "", mr(200), "unknown"),
        ("lumbar01_mr", "", ct(), "ct"),
        ("scan", "MR", mr(200), "mr"),
        ("scan", "CT", mr(), "ct"),
        ("scan", "PT", mr(), "unknown"),
        ("scan_ct", "", mr(), "unknown"),
        ("scan", "", phantoms.ct_values() + 8192, "ct"),
        ("scan_mr", "", phantoms.ct_values() + 8192, "mr"),
        ("scan", "", ct().clip(0), "unknown"),
    ],
)
def test_headers_then_values_then_names(
    name: str, header: str, values: NDArray[Any], found: str
) -> None:
    assert recognise(phantoms.volume(values), name, header) == found


def test_force_takes_the_first_where_none_fits(tmp_path: Path, both: Path) -> None:
    scan = write(tmp_path / "scan.nii.gz", mr(200))
    (found,) = find_scans([scan])
    held = models.pick(shelf.AUTO, None)
    known = {kind: one.manifest.modality for kind, one in held.items()}
    assert known == {"ct": "ct", "mr": "mr"}

    chosen = models.for_scan(held, found, phantoms.volume(mr(200)), force=True)
    assert chosen.manifest.modality == "ct"
    chosen = models.for_scan(held, found, phantoms.volume(mr()), told="mr")
    assert chosen.manifest.modality == "mr"


def test_modality_that_the_user_says_decides(tmp_path: Path, both: Path) -> None:
    scan = write(tmp_path / "scan.nii.gz", mr())
    for said, expected in ((None, "failed"), ("mr", "done"), ("ct", "failed")):
        asked = SegmentSettings(precision="float32", modality=said)
        (case,) = SegmentRun([scan], tmp_path / f"out{said}", asked).results()
        assert case.status == expected
        if case.error is not None:
            assert case.error.code == "modality"
        else:
            assert case.details["model"]["name"] == shelf.DEFAULTS["mr"]


def test_what_cannot_be_told_is_refused_with_its_values() -> None:
    with pytest.raises(ModalityError, match="values from 0 to") as caught:
        require_known(phantoms.volume(mr(200)), "scan", "", ("ct", "mr"))

    assert "NAME_mr" in (caught.value.hint or "")


def test_sidecars_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii.gz", mr(200))
    (found,) = find_scans([path])
    assert models.header_modality(found) == ""

    path.with_name("x.json").write_text('{"Modality": "MR"}')
    assert models.header_modality(found) == "MR"

    path.with_name("x.json").write_text("[1]")
    assert models.header_modality(found) == ""


def test_vertebrae_are_counted_where_regions_are_told(tmp_path: Path) -> None:
    asked = SegmentSettings(model="unet-r34", precision="float32", vertebrae=True)
    (case,) = SegmentRun(
        [DATA / "tsexample_ct.nii.gz"], tmp_path / "out", asked
    ).results()
    named = read_mask(Path(case.outputs["vertebrae"]))
    truth = read_mask(DATA / "tsexample_seg-vert_msk.nii.gz").voxels
    both = (truth > 0) & (named.voxels > 0)
    assert (named.voxels == truth)[both].mean() > 0.9
    assert named.provenance["labels"]["24"] == "L5"
    spine = read_mask(Path(case.outputs["spine"]))
    assert np.array_equal(spine.voxels, named.voxels > 0)
    assert spine.provenance["labels"] == {"1": "spine"}


def test_vertebrae_cannot_be_counted_without_regions(tmp_path: Path) -> None:
    asked = SegmentSettings(model="inception-dual-unet", vertebrae=True)
    with pytest.raises(SettingsError, match="does not tell vertebrae, nor regions"):
        SegmentRun([DATA / "tsexample_ct.nii.gz"], tmp_path / "out", asked)
