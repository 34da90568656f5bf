"""Golden probes are made from packaged scans, and kept for files without."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.labels import SPINE_CLASSES
from engines.networks import probes, shelf
from engines.networks.manifest import (
    Manifest,
    Model,
    load_model,
    open_model,
    save_model,
)
from engines.networks.probes import Probe
from engines.preprocess.recipe import RECIPES
from engines.runtimes import cache
from engines.segment import golden
from engines.volume import Volume

SHIPPED = sorted(path.stem for path in shelf.SHIPPED.glob("*.safetensors"))
VIEWS = ("axial", "sagittal", "coronal")

pytestmark = pytest.mark.usefixtures("one_thread")


class Threshold(torch.nn.Module):
    """Marks what is brighter than 0.4, the surer the brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        apart = 10 * (image - 0.4)
        return torch.cat([-apart, apart], dim=1)


def a_model(architecture: str = "unet-r34", **changes: Any) -> Model:
    values: dict[str, Any] = {
        "name": "small",
        "architecture": architecture,
        "classes": SPINE_CLASSES,
        "modality": "ct",
        "views": VIEWS,
        "recipe": RECIPES["spine-ct"],
        "patch": 32,
    }
    return Model(Manifest(**values | changes), Threshold(), "0" * 64, Path("m"))


def assert_same(found: Any, wanted: Any) -> None:
    assert probes.encode(found) == probes.encode(wanted)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_carries_probes_with_bone_of_every_scan(name: str) -> None:
    found = shelf.open(name).probes
    assert probes.summary(found)["scans"] == 3
    assert 3 <= probes.summary(found)["inputs"] <= 18
    foreground = {
        sample
        for probe in found
        for sample, labels in zip(probe.samples, probe.labels, strict=True)
        if (labels > 0).sum() >= 50
    }
    assert len(foreground) == 3
    assert len(probes.encode(found)) < 1 << 20


@pytest.mark.parametrize("name", SHIPPED)
def test_probes_of_a_shipped_model_are_what_its_network_gives(name: str) -> None:
    """On another processor a few pixels at a border may go the other side."""
    model = shelf.load(name)
    for probe in model.probes:
        with torch.inference_mode():
            given = model.network(torch.from_numpy(probe.images)).softmax(dim=1)
        two = given.topk(2, dim=1)
        same = two.indices[:, 0].numpy() == probe.labels
        assert same.mean() > 0.9999
        assert (probe.margins[~same] <= 1).all()
        margins = 255 * (two.values[:, 0] - two.values[:, 1]).numpy()
        assert np.abs(margins - probe.margins).max() < 2


def test_the_regions_of_the_spine_are_all_in_the_probes_of_the_default() -> None:
    model = shelf.open(shelf.DEFAULT_MODEL)
    counts = sum(np.bincount(p.labels.ravel(), minlength=5) for p in model.probes)
    assert counts.min() > 500


def test_slices_are_of_every_view_and_every_scan() -> None:
    found = golden.make(a_model())
    assert [probe.dimensions for probe in found] == [2, 2, 2]
    assert probes.summary(found) == {"inputs": 12, "scans": 3}
    for probe in found:
        assert set(probe.samples) == set(golden.SAMPLES["ct"])
        assert max(probe.images.shape[2:]) <= golden.MOST_EDGE
        assert all(side % 32 == 0 for side in probe.images.shape[2:])
        bone = probe.labels > 0
        assert (bone.sum(axis=(1, 2)) > 20).all()


def test_labels_and_margins_are_those_of_the_rounded_images() -> None:
    for probe in golden.make(a_model()):
        half = probe.images.astype(np.float16)
        np.testing.assert_array_equal(half.astype(np.float32), probe.images)
        np.testing.assert_array_equal(probe.labels, probe.images[:, 0] > 0.4)
        margin = np.abs(np.tanh(10 * (probe.images[:, 0].astype(np.float64) - 0.4)))
        assert np.abs(probe.margins - 255 * margin).max() < 0.51


def test_two_makes_give_the_same_bytes() -> None:
    first = golden.make(a_model())
    golden._samples.cache_clear()
    assert_same(golden.make(a_model()), first)


def test_slices_are_cut_about_the_bone() -> None:
    whole = golden.make(a_model(patch=160))
    small = golden.make(a_model(patch=32))
    for one, other in zip(whole, small, strict=True):
        assert other.images[0].size < one.images[0].size
        kept = (other.labels > 0).sum() / (one.labels > 0).sum()
        area = other.images[0].size / one.images[0].size
        assert kept > 1.2 * area


@pytest.mark.parametrize("patch", [0, 96, 200, 320])
def test_slices_are_of_the_patch_at_least(patch: int) -> None:
    for probe in golden.make(a_model(patch=patch)):
        assert min(probe.images.shape[2:]) >= patch
        assert max(probe.images.shape[2:]) <= max(patch + 31, golden.MOST_EDGE)


def test_a_network_of_one_size_gets_that() -> None:
    model = a_model("pspnet", recipe=RECIPES["linknet-2025"], patch=64)
    assert {p.images.shape[2:] for p in golden.make(model)} == {(256, 256)}


def test_cubes_are_of_the_edge_that_the_network_takes() -> None:
    model = a_model("mru-net-3d", recipe=RECIPES["mru-net-cubes"], patch=40)
    (probe,) = golden.make(model)
    assert probe.images.shape == (3, 1, 48, 48, 48)
    assert probe.samples == golden.SAMPLES["ct"]
    assert (probe.labels.sum(axis=(1, 2, 3)) > 20).all()


def test_large_cubes_do_not_make_a_file_a_good_deal_larger() -> None:
    model = a_model("mru-net-3d", recipe=RECIPES["mru-net-cubes"], patch=96)
    assert len(probes.encode(golden.make(model))) < 2 << 20


def test_the_phantoms_are_for_mr() -> None:
    model = a_model(
        "unet", modality="mr", recipe=RECIPES["lumbar-mr-2025"], views=("sagittal",)
    )
    (probe,) = golden.make(model)
    assert set(probe.samples) == set(golden.SAMPLES["mr"])
    assert len(probe) >= 9


@pytest.mark.parametrize("spacing_mm", [0.2, 20.0])
def test_a_fine_or_coarse_recipe_takes_no_more_memory(spacing_mm: float) -> None:
    recipe = replace(RECIPES["spine-ct"], spacing_mm=spacing_mm)
    golden._samples.cache_clear()
    held = golden._samples("ct", recipe)
    golden._samples.cache_clear()
    assert all(s.prepared.values.size <= 1.1 * golden.MOST_VOXELS for s in held)
    assert all((s.prepared.hu > 200).any() for s in held)


def test_a_network_that_gives_no_numbers_gets_probes_all_the_same() -> None:
    model = a_model(views=("axial",))
    model.network.forward = lambda image: torch.cat([image, image], 1) * torch.nan
    (probe,) = golden.make(model)
    assert not probe.margins.any()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model file without probes."""
    model = shelf.load("mru-net-3d")
    path = tmp_path / "small.safetensors"
    save_model(path, model.network, model.manifest)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that probes are kept in."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "probes"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """Return the models that probes were made of."""
    seen: list[Model] = []
    make = golden.make

    def counting(model: Model) -> tuple[Probe, ...]:
        seen.append(model)
        return make(model)

    monkeypatch.setattr(golden, "make", counting)
    return seen


def test_a_finished_file_gets_its_probes_once(bare: Path, made: list[Model]) -> None:
    golden.complete(bare)
    content = bare.read_bytes()
    assert_same(open_model(bare).probes, golden.make(load_model(bare)))
    made.clear()
    golden.complete(bare)
    assert bare.read_bytes() == content
    assert not made


def test_probes_of_the_file_come_first(folder: Path, made: list[Model]) -> None:
    model = shelf.open("mru-net-3d")
    assert golden.of(model) is model.probes
    assert not made
    assert not folder.exists()


def test_those_of_a_file_without_are_made_once(
    bare: Path, folder: Path, made: list[Model]
) -> None:
    first = golden.of(open_model(bare))
    assert_same(golden.of(open_model(bare)), first)
    assert len(made) == 1
    assert [path.stem for path in folder.iterdir()] == [open_model(bare).sha256]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other"])
def test_what_is_damaged_in_the_folder_is_made_again(
    damage: str, bare: Path, folder: Path, made: list[Model]
) -> None:
    first = golden.of(open_model(bare))
    (kept,) = folder.iterdir()
    content = kept.read_bytes()
    if damage == "other":  # whole, but of a network for slices
        golden._keep(kept, golden.make(a_model()))
        made.clear()
    else:
        flipped = content[:200] + bytes([content[200] ^ 1]) + content[201:]
        kept.write_bytes({"flipped": flipped, "cut": content[:-5]}.get(damage, b""))
        made.clear()
    assert_same(golden.of(open_model(bare)), first)
    assert len(made) == 1
    assert kept.read_bytes() == content


def test_a_folder_that_takes_nothing_is_no_error(
    bare: Path, folder: Path, made: list[Model]
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder would be")
    assert probes.summary(golden.of(open_model(bare)))["scans"] == 3
    assert len(made) == 1


def test_no_home_to_keep_them_in_is_no_error(
    bare: Path, made: list[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        msg = "no home"
        raise RuntimeError(msg)

    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setattr(cache, "_platform_folder", homeless)
    assert golden.of(open_model(bare))
    assert len(made) == 1


def test_the_packaged_scans_are_small_and_named_in_their_notes() -> None:
    notes = (golden.FOLDER / "README.md").read_text()
    files = sorted(golden.FOLDER.glob("*.nii.gz"))
    names = [path.name.removesuffix(".nii.gz") for path in files]
    assert sorted(name for group in golden.SAMPLES.values() for name in group) == names
    for path, name in zip(files, names, strict=True):
        assert path.stat().st_size < 300_000
        assert f"`{name}`" in notes
        scan = Volume.read(path)
        assert scan.voxels.dtype == np.int16
        assert scan.header is not None
        assert not bytes(scan.header["descrip"]).strip(b"\0")
