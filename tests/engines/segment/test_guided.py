"""A model finds the spine, and a second one tells which vertebra is which."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines import labels
from engines.errors import ModelFileError, SettingsError, UnknownModelError
from engines.networks import catalog, shelf
from engines.networks.manifest import Manifest, save_model
from engines.preprocess.recipe import RECIPES, Recipe
from engines.results import CaseResult
from engines.segment import levels, models
from engines.segment.run import SegmentRun
from engines.segment.settings import SegmentSettings
from engines.volume import Volume
from tests.engines.segment.test_levels import MM, REGIONS, Ids, opinion, spine, upwards

DATA = Path(__file__).parents[2] / "data"
SCAN = DATA / "tsexample_ct.nii.gz"
CHEST = upwards("T10", "T3")


def coarse(ids: Ids, sure: float, every: int = 2) -> levels.Opinion:
    """Return what a network on voxels ``every`` times as large says of ``ids``."""
    seen = ids[::every, ::every, ::every]
    channels = max(labels.VERTEBRA_CLASSES.values())
    told = np.zeros((channels, *seen.shape), np.float32)
    for level in levels.LADDER:
        channel = labels.class_of(level.id, labels.VERTEBRA_CLASSES) - 1
        right = seen == level.id
        told[channel] = sure * right + (1 - sure) / len(levels.LADDER)
    return levels.Opinion(told, np.diag([1 / every, 1 / every, 1 / every, 1]))


def of_chest(ids: Ids) -> NDArray[np.float32]:
    """Return region probabilities that call all of ``ids`` thoracic."""
    told = np.zeros((4, *ids.shape), np.float32)
    told[labels.class_of(labels.BY_NAME["T5"].id, REGIONS) - 1] = ids > 0
    return told


def test_a_second_opinion_numbers_a_spine_of_one_region() -> None:
    ids = spine(CHEST)

    alone = levels.vertebrae(ids > 0, of_chest(ids), REGIONS, MM)
    told = levels.vertebrae(
        ids > 0, of_chest(ids), REGIONS, MM, second=coarse(ids, 0.5)
    )

    assert (alone == ids)[ids > 0].mean() < 0.3
    assert (told == ids)[ids > 0].mean() > 0.9


def test_an_opinion_that_knows_nothing_changes_nothing() -> None:
    ids = spine(upwards("L4", "T5"))
    said = opinion(ids, 2, 0.7)

    alone = levels.vertebrae(ids > 0, said, REGIONS, MM)
    told = levels.vertebrae(ids > 0, said, REGIONS, MM, second=coarse(ids, 0.0))

    assert (alone == told).all()


def test_a_region_that_is_seen_outvotes_a_second_opinion() -> None:
    """Where it is wrong by one vertebra, weakly, the borders of regions decide."""
    ids = spine(upwards("sacrum", "T8"))
    wrong = np.where((ids > 0) & (ids < 25), ids - 1, ids).astype(np.uint8)

    told = levels.vertebrae(
        ids > 0, opinion(ids, 1, 0.8), REGIONS, MM, second=coarse(wrong, 0.1)
    )

    assert (told == ids)[ids > 0].mean() > 0.85


def test_an_opinion_is_read_at_the_place_it_is_of() -> None:
    ids = spine(CHEST)
    box = (slice(4, 20), slice(8, 40), slice(10, 60))
    voxels = np.argwhere(ids[box] == labels.BY_NAME["T6"].id)

    told = coarse(ids, 1.0).within(box).told(voxels)

    best = np.array([level.id for level in levels.LADDER])[told.argmax(axis=0)]
    assert (best == labels.BY_NAME["T6"].id).mean() > 0.9
    np.testing.assert_allclose(np.exp(told).sum(axis=0), 1, atol=1e-3)


def test_what_no_voxel_is_named_is_any_vertebra() -> None:
    nothing = levels.Opinion(np.zeros((28, 4, 4, 4), np.float32), np.eye(4))

    told = nothing.told(np.array([[1, 2, 3]]))

    np.testing.assert_allclose(told, np.log(1 / len(levels.LADDER)), atol=1e-6)


@pytest.fixture
def shelved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of untrained models: 'finder' of regions, and 'namer' guided by it."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv(shelf.VARIABLE, str(folder))
    torch.manual_seed(0)
    finder = catalog.find("linknet-mobilenet-v2")
    manifest = Manifest(
        "finder",
        finder.name,
        labels.REGION_CLASSES,
        "ct",
        ("sagittal",),
        replace(RECIPES["spine-ct"], spacing_mm=3.0),
        64,
    )
    network = finder.build(in_channels=1, classes=5)
    save_model(folder / "finder.safetensors", network, manifest)
    namer(folder)
    return folder


def namer(folder: Path, guide: str = "finder", classes: str = "vertebrae") -> Path:
    spec, chosen = catalog.find("mru-net-3d"), labels.CLASS_SETS[classes]
    recipe = Recipe("r", spacing_mm=6.0, normalisation="zero-one")
    manifest = Manifest(
        "namer", spec.name, chosen, "ct", spec.views, recipe, 32, guide=guide
    )
    path = folder / "namer.safetensors"
    save_model(
        path, spec.build(in_channels=1, classes=1 + max(chosen.values())), manifest
    )
    return path


def segmented(model: str, output: Path, **settings: bool) -> CaseResult:
    asked = SegmentSettings(model=model, precision="float32", **settings)
    (result,) = SegmentRun([SCAN], output, asked).results()
    return result


def test_the_guide_finds_the_spine_and_the_guided_one_numbers_it(
    tmp_path: Path, shelved: Path
) -> None:
    found = segmented("finder", tmp_path / "regions")
    named = segmented("namer", tmp_path / "named")

    assert found.status == named.status == "done"
    spine_alone = Volume.read(Path(found.outputs["spine"])).voxels > 0
    spine_named = Volume.read(Path(named.outputs["spine"])).voxels > 0
    ids = Volume.read(Path(named.outputs["vertebrae"])).voxels
    assert spine_alone.any()
    overlap = (spine_alone & spine_named).sum() / (spine_alone | spine_named).sum()
    assert overlap > 0.98
    assert ((ids > 0) == spine_named).all()
    assert set(np.unique(ids)) - {0} <= {level.id for level in levels.LADDER}
    assert named.details["model"]["name"] == "namer"
    assert named.details["model"]["guide_name"] == "finder"


def test_the_shipped_model_names_the_sample(tmp_path: Path) -> None:
    result = segmented("mru-net-3d", tmp_path)

    ids = Volume.read(Path(result.outputs["vertebrae"])).voxels
    truth = Volume.read(DATA / "tsexample_seg-vert_msk.nii.gz").voxels
    both = (ids > 0) & (truth > 0)
    assert not result.warnings
    assert (ids == truth)[both].mean() > 0.9
    assert set(np.unique(ids)) >= {0, 19, 20, 21, 22, 23, 24, 26}


def test_names_in_a_scan_of_one_region_are_warned_of(tmp_path: Path) -> None:
    asked = SegmentSettings(model="mru-net-3d", precision="float32")
    scan = DATA / "tptbox_ct.nii.gz"
    (result,) = SegmentRun([scan], tmp_path, asked).results()

    assert result.status == "done"
    assert [note.code for note in result.warnings] == ["names_unsure"]
    assert "only lumbar vertebrae are in view" in result.warnings[0].message


def test_thin_scans_and_scans_without_a_spine_are_done(tmp_path: Path) -> None:
    """Six slices are one voxel of the network's; water holds no spine."""
    whole = nib.load(SCAN)
    scans = tmp_path / "scans"
    scans.mkdir()
    nib.save(whole.slicer[:, :, 50:56], scans / "thin_ct.nii.gz")
    water = np.full((40, 40, 40), 10, np.int16)
    water[:6] = -1000
    nib.save(nib.Nifti1Image(water, np.diag([3, 3, 3, 1])), scans / "water_ct.nii.gz")
    asked = SegmentSettings(model="mru-net-3d", precision="float32")

    thin, water_done = SegmentRun([scans], tmp_path / "out", asked).results()

    assert (thin.status, water_done.status) == ("done", "done")
    assert "empty_mask" in [note.code for note in water_done.warnings]
    assert not Volume.read(Path(water_done.outputs["vertebrae"])).voxels.any()


def test_another_guide_makes_another_result(tmp_path: Path, shelved: Path) -> None:
    output = tmp_path / "out"
    assert segmented("namer", output).status == "done"
    assert segmented("namer", output).status == "skipped"
    torch.manual_seed(1)
    manifest = models.read_manifest(shelved / "finder.safetensors")
    spec = catalog.find(manifest.architecture)
    network = spec.build(in_channels=1, classes=5)
    save_model(shelved / "finder.safetensors", network, manifest)

    assert segmented("namer", output).status == "done"


def test_views_are_those_of_the_guide(tmp_path: Path, shelved: Path) -> None:
    manifest = models.read_manifest(shelved / "finder.safetensors")
    spec = catalog.find(manifest.architecture)
    network = spec.build(in_channels=1, classes=5)
    three = replace(manifest, views=("axial", "sagittal"))
    save_model(shelved / "finder.safetensors", network, three)

    (one,) = models.pick("namer", "axial").values()

    assert one.first.views == ("axial",)
    assert one.views == catalog.find("mru-net-3d").views


def test_a_damaged_guide_is_told_before_the_first_scan(
    tmp_path: Path, shelved: Path
) -> None:
    path = shelved / "finder.safetensors"
    held = bytearray(path.read_bytes())
    held[-40] ^= 0xFF
    path.write_bytes(held)

    with pytest.raises(ModelFileError, match="damaged"):
        segmented("namer", tmp_path / "out")


@pytest.mark.parametrize(
    ("guide", "classes"),
    [
        ("namer", "vertebrae"),
        ("finder", "regions"),
        ("inception-dual-unet", "vertebrae"),
    ],
)
def test_a_guide_that_makes_no_sense_is_refused(
    tmp_path: Path, shelved: Path, guide: str, classes: str
) -> None:
    namer(shelved, guide, classes)

    with pytest.raises(SettingsError, match=f"namer cannot be guided by {guide}"):
        segmented("namer", tmp_path / "out")


def test_a_guide_that_is_not_there_is_named(tmp_path: Path, shelved: Path) -> None:
    namer(shelved, "nobody")

    with pytest.raises(UnknownModelError, match="nobody"):
        segmented("namer", tmp_path / "out")
