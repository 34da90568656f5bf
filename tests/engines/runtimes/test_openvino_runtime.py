"""OpenVINO labels as torch does, from the cache too, and tells nobody of it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from engines.errors import BackendError, SettingsError
from engines.labels import SPINE_CLASSES
from engines.networks import catalog, shelf
from engines.networks.manifest import Manifest, Model, load_model, save_model
from engines.preprocess.recipe import RECIPES
from engines.runtimes import backends, engine
from engines.runtimes.openvino_runtime import TELEMETRY, doubled, split
from engines.runtimes.plan import Wanted
from engines.runtimes.torch_runtime import TorchRuntime

CPU = torch.device("cpu")
ROW = backends.find("openvino")
ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(ROW.missing() is not None, reason="openvino is not installed"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def untrained(name: str, folder: Path) -> Model:
    torch.manual_seed(0)
    spec = catalog.find(name)
    recipe = RECIPES[spec.recipe]
    manifest = Manifest(
        "m", name, SPINE_CLASSES, recipe.modality, spec.views, recipe, patch=32
    )
    path = folder / "m.safetensors"
    save_model(path, spec.build(in_channels=1, classes=2).eval(), manifest)
    return load_model(path)


@pytest.mark.parametrize(
    "name", ["unet-r34", "deeplabv3plus", "inception-dual-unet", "mru-net-3d"]
)
def test_float32_agrees_at_other_sizes_too(name: str, tmp_path: Path) -> None:
    model = untrained(name, tmp_path)
    runtime = ROW.load(model, CPU, "float32")
    reference = TorchRuntime(model, CPU, "float32")
    edge = model.stride * max(1, 32 // model.stride)
    sizes = [(edge,) * model.dimensions]
    if model.dimensions == 2:
        sizes.append((edge + model.stride, edge + 2 * model.stride))
    for count, size in enumerate(sizes, start=1):
        slices = torch.randn(count, 1, *size)
        found = runtime.predict(slices)
        assert found.dtype == torch.float32
        expected = reference.predict(slices)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_it_is_converted_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shelf.load(shelf.DEFAULT_MODEL)
    slices = torch.randn(1, 1, 64, 96)
    first = ROW.load(model, CPU, "float32").predict(slices)
    (kept,) = cache.glob("*.engine")
    before = kept.read_bytes()
    monkeypatch.setattr("engines.runtimes.openvino_runtime.made", None)
    again = ROW.load(model, CPU, "float32").predict(slices)
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert kept.read_bytes() == before


def test_a_damaged_engine_is_made_again(cache: Path) -> None:
    model = shelf.load(shelf.DEFAULT_MODEL)
    ROW.load(model, CPU, "float32")
    (kept,) = cache.glob("*.engine")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    ROW.load(model, CPU, "float32").predict(torch.randn(1, 1, 64, 64))
    # The library numbers layers anew, so that names in it may be longer or shorter.
    assert abs(kept.stat().st_size - len(whole)) < len(whole) // 100
    with zipfile.ZipFile(kept) as made:
        assert made.testzip() is None


def test_two_channels_hold_what_bfloat16_loses() -> None:
    image = torch.randn(1, 1, 64, 64) * 3
    parts = split(image)
    torch.testing.assert_close(parts.sum(dim=1, keepdim=True), image, atol=0, rtol=0)
    assert torch.equal(parts[:, 0], parts[:, 0].bfloat16().float())
    assert float(parts[:, 1].abs().max()) < 0.01 * float(image.abs().max())
    network = shelf.load(shelf.DEFAULT_MODEL).network
    double = doubled(network, image)
    assert double is not None
    with torch.inference_mode():
        found, expected = double(parts), network(image)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_network_that_looks_at_its_image_twice_is_left_as_it_is() -> None:
    class Skipping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.conv(image), image[:, :1]], dim=1)

    assert doubled(Skipping(), torch.randn(1, 1, 8, 8)) is None


def test_int8_needs_slices_and_computes_on_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    model = untrained("inception-dual-unet", tmp_path)
    with pytest.raises(BackendError, match="calibrated"):
        ROW.load(model, CPU, "int8")
    slices = torch.randn(2, 1, 32, 32)
    found = ROW.load(model, CPU, "int8", [slices]).predict(slices)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 32, 32))
    assert capsys.readouterr().out == ""


def test_engines_are_built_listed_and_inspected_ahead() -> None:
    built = engine.build("unet-r34", "openvino")
    assert built.fresh
    assert built.entry.key.precision == "bfloat16"
    assert not engine.build("unet-r34", "openvino").fresh
    ((kept,), _) = engine.inspect("unet-r34-openvino")
    record = kept.as_json(whole=True)
    assert record["settings"] == {"two_channels": True}
    assert len(record["layers"]) > 30
    with pytest.raises(SettingsError, match="float16"):
        engine.build("unet-r34", "openvino", Wanted("float16"))


def test_nothing_is_told_to_its_makers() -> None:
    """The package that reports cannot be imported where OpenVINO converts."""
    code = f"""
import sys, torch
from engines.networks import shelf
from engines.runtimes import backends
model = shelf.load("inception-dual-unet")
backends.find("openvino").load(model, torch.device("cpu"), "float32")
assert "openvino" in sys.modules
assert sys.modules[{TELEMETRY!r}] is None
assert not [name for name in sys.modules if name.startswith({TELEMETRY + "."!r})]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
