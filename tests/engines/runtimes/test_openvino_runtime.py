"""OpenVINO labels as torch does, from the cache too, and tells nobody of it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import BackendError, SettingsError
from engines.labels import SPINE_CLASSES
from engines.networks import catalog, shelf
from engines.networks.manifest import (
    Manifest,
    Model,
    load_model,
    open_model,
    save_model,
)
from engines.networks.probes import Probe
from engines.preprocess.recipe import RECIPES
from engines.runtimes import backends, engine
from engines.runtimes.devices import CPU
from engines.runtimes.openvino_convert import doubled
from engines.runtimes.openvino_library import TELEMETRY
from engines.runtimes.openvino_runtime import rounded_to_bfloat16, split
from engines.runtimes.plan import Wanted
from engines.runtimes.torch_runtime import TorchRuntime
from tests.engines.runtimes.test_gate import probes_of

Floats = NDArray[np.float32]

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


def noise(*shape: int) -> Floats:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


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
        slices = torch.randn(count, 1, *size).numpy()
        found = runtime.predict(slices)
        assert found.dtype == np.float32
        expected = reference.predict(slices)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_a_network_that_was_built_in_inference_mode_is_converted(
    tmp_path: Path,
) -> None:
    untrained("inception-dual-unet", tmp_path)
    model = open_model(tmp_path / "m.safetensors")
    with torch.inference_mode():
        assert model.network
    for precision in ("bfloat16", "float32"):
        found = ROW.load(model, CPU, precision).predict(noise(1, 1, 32, 32))
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-4)


def test_it_is_converted_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shelf.load(shelf.DEFAULT_MODEL)
    slices = noise(1, 1, 64, 96)
    first = ROW.load(model, CPU, "float32").predict(slices)
    (kept,) = cache.glob("*.engine")
    before = kept.read_bytes()
    monkeypatch.setattr("engines.runtimes.openvino_convert.converted", None)
    again = ROW.load(model, CPU, "float32").predict(slices)
    np.testing.assert_array_equal(again, first)
    assert kept.read_bytes() == before


def test_a_damaged_engine_is_made_again(cache: Path) -> None:
    model = shelf.load(shelf.DEFAULT_MODEL)
    ROW.load(model, CPU, "float32")
    (kept,) = cache.glob("*.engine")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    ROW.load(model, CPU, "float32").predict(noise(1, 1, 64, 64))
    # The library numbers layers anew, so that names in it may be longer or shorter.
    assert abs(kept.stat().st_size - len(whole)) < len(whole) // 100
    with zipfile.ZipFile(kept) as made:
        assert made.testzip() is None


def bfloat16_of_torch(values: Floats) -> Floats:
    rounded: Floats = torch.from_numpy(values).bfloat16().float().numpy()
    return rounded


def test_rounding_is_that_of_torch_bit_for_bit() -> None:
    """Every upper half with the lower halves about a tie, both signs, no number too."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper[:, None] | lower).view(np.float32)
    found, expected = rounded_to_bfloat16(values), bfloat16_of_torch(values)
    numbers = ~np.isnan(values)
    assert not numbers.all()
    np.testing.assert_array_equal(
        found[numbers].view(np.uint32), expected[numbers].view(np.uint32)
    )
    assert np.isnan(found[~numbers]).all()
    assert np.isnan(expected[~numbers]).all()


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (0.0, 0.0),
        (-0.0, -0.0),
        (1 + 2**-8, 1.0),  # half way, and 1 is even
        (1 + 3 * 2**-8, 1 + 2**-6),  # half way again, and the upper is even
        (-1 - 2**-8, -1.0),
        (1 + 2**-8 + 2**-20, 1 + 2**-7),
        (3.4e38, np.inf),
        (1e-45, 0.0),
    ],
)
def test_ties_go_to_the_even_neighbour(value: float, rounded: float) -> None:
    values = np.full((1, 1, 1, 2), value, np.float32)
    expected = np.full_like(values, rounded)
    assert rounded_to_bfloat16(values).tobytes() == expected.tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8))
def test_split_is_what_torch_would_give(numbers: list[float]) -> None:
    image = np.array(numbers, np.float32).reshape(1, 1, 1, -1)
    held = torch.from_numpy(image)
    coarse = held.bfloat16().float()
    expected = torch.cat([coarse, held - coarse], dim=1).numpy()
    np.testing.assert_array_equal(split(image), expected)


def test_two_channels_hold_what_bfloat16_loses() -> None:
    image = noise(1, 1, 64, 64) * 3
    parts = split(image.swapaxes(2, 3)).swapaxes(2, 3)
    np.testing.assert_array_equal(parts.sum(axis=1, keepdims=True), image)
    np.testing.assert_array_equal(parts[:, 0], rounded_to_bfloat16(parts[:, 0]))
    assert float(np.abs(parts[:, 1]).max()) < 0.01 * float(np.abs(image).max())
    network = shelf.load(shelf.DEFAULT_MODEL).network
    double = doubled(network, torch.from_numpy(image))
    assert double is not None
    with torch.inference_mode():
        found = double(torch.from_numpy(np.ascontiguousarray(parts)))
        expected = network(torch.from_numpy(image))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_network_that_looks_at_its_image_twice_is_left_as_it_is() -> None:
    class Skipping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.conv(image), image[:, :1]], dim=1)

    assert doubled(Skipping(), torch.randn(1, 1, 8, 8)) is None


def test_int8_needs_probes_and_is_calibrated_on_them(
    cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    model = untrained("inception-dual-unet", tmp_path)
    with pytest.raises(BackendError, match="calibrated on the golden probes"):
        ROW.load(model, CPU, "int8")
    probes = probes_of(model, noise(2, 1, 32, 32))
    found = ROW.load(model, CPU, "int8", probes).predict(probes[0].images)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-4)
    assert capsys.readouterr().out == ""
    (kept,) = engine.listing()
    assert (
        kept.entry.key.calibration == Wanted("int8", probes=tuple(probes)).calibration
    )
    assert kept.entry.facts["settings"]["calibrated_on"] == 2


def test_int8_is_built_ahead_of_any_scan(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    model = untrained("inception-dual-unet", tmp_path)
    asked: list[str] = []

    def probes(given: Model) -> list[Probe]:
        asked.append(given.sha256)
        return probes_of(given, noise(2, 1, 32, 32))

    path = str(tmp_path / "m.safetensors")
    built = engine.build(path, "openvino", Wanted("int8"), probes=probes)
    assert (built.fresh, built.entry.key.precision) == (True, "int8")
    again = engine.build(path, "openvino", Wanted("int8"), probes=probes)
    assert not again.fresh
    assert asked == [model.sha256] * 2
    engine.build(path, "openvino", Wanted("float32"), probes=probes)
    assert asked == [model.sha256] * 2


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
import sys
from engines.networks import shelf
from engines.runtimes import backends
from engines.runtimes.devices import CPU
model = shelf.load("inception-dual-unet")
backends.find("openvino").load(model, CPU, "float32")
assert "openvino" in sys.modules
assert sys.modules[{TELEMETRY!r}] is None
assert not [name for name in sys.modules if name.startswith({TELEMETRY + "."!r})]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_kept_engine_runs_without_torch() -> None:
    model = shelf.load(shelf.DEFAULT_MODEL)
    ROW.load(model, CPU, "bfloat16")
    code = """
import sys
import numpy as np
from engines.networks import shelf
from engines.runtimes import backends
from engines.runtimes.devices import CPU
model = shelf.open(shelf.DEFAULT_MODEL)
runtime = backends.find("openvino").load(model, CPU, "bfloat16")
found = runtime.predict(np.zeros((2, 1, 64, 64), np.float32))
assert found.shape == (2, model.classes, 64, 64)
heavy = {"torch", "timm", "torchvision", "segmentation_models_pytorch"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
