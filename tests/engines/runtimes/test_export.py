"""ONNX: float32 outside whatever is inside, open sizes, profiles that fit."""

import builtins
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from engines.errors import BackendError, MissingBackendError, SettingsError
from engines.labels import SPINE_CLASSES
from engines.networks import catalog
from engines.networks.manifest import Manifest, Model
from engines.preprocess.recipe import RECIPES
from engines.runtimes import export
from engines.runtimes.export import INPUT, OUTPUT, Profile

pytestmark = pytest.mark.usefixtures("one_thread")


def a_model(
    architecture: str, network: nn.Module | None = None, patch: int = 0
) -> Model:
    spec = catalog.find(architecture)
    torch.manual_seed(0)
    made = network or spec.build(in_channels=1, classes=2)
    recipe = RECIPES[spec.recipe]
    manifest = Manifest("m", spec.name, SPINE_CLASSES, "ct", spec.views, recipe, patch)
    return Model(manifest, made.eval(), "0" * 64, Path("m.safetensors"))


@pytest.fixture(scope="module")
def small() -> Model:
    convolution = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    layers = (convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    return a_model("unet-r34", nn.Sequential(*layers))


def axes(tensor: Any) -> list[str | int]:
    found = tensor.type.tensor_type.shape.dim
    return [axis.dim_param or axis.dim_value for axis in found]


def run(exported: bytes, image: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (logits,) = session.run([OUTPUT], {INPUT: image.numpy()})
    return logits


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_float32_goes_in_and_out(small: Model, precision: str) -> None:
    exported = export.onnx_bytes(small, precision, (256, 256))

    graph = onnx.load_from_string(exported).graph
    onnx.checker.check_model(exported)
    kinds = {onnx.TensorProto.FLOAT}
    assert {
        t.type.tensor_type.elem_type for t in (*graph.input, *graph.output)
    } == kinds
    weights = {tensor.data_type for tensor in graph.initializer if tensor.dims}
    half = {onnx.TensorProto.FLOAT16}
    assert weights == (half if precision == "float16" else kinds)
    assert axes(graph.input[0]) == ["batch", 1, "32*rows", "32*columns"]
    assert [node.op_type for node in graph.node].count("BatchNormalization") == 0


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float16", 1e-2)]
)
def test_logits_are_those_of_torch(
    small: Model, precision: str, tolerance: float
) -> None:
    exported = export.onnx_bytes(small, precision, (256, 256))
    for shape in ((1, 1, 32, 64), (3, 1, 96, 32)):
        image = torch.randn(*shape)
        with torch.inference_mode():
            expected = small.network(image).numpy()
        found = run(exported, image)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def test_exporting_in_float16_leaves_the_network_as_it_was(small: Model) -> None:
    export.onnx_bytes(small, "float16", (64, 64))

    assert {p.dtype for p in small.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["pspnet"])
def test_networks_that_pool_to_a_fixed_grid_are_exported_for_one_size(
    name: str,
) -> None:
    model = a_model(name)

    exported = export.onnx_bytes(model, "float16", (64, 96))

    (given,) = onnx.load_from_string(exported).graph.input
    assert axes(given) == ["batch", 1, 64, 96]
    image = torch.randn(3, 1, 64, 96)
    with torch.inference_mode():
        expected = model.network(image).numpy()
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(run(exported, image), expected, atol=0.01 * largest)


def test_precisions_that_there_are_not(small: Model) -> None:
    with pytest.raises(SettingsError, match="cannot be exported in int4") as caught:
        export.onnx_bytes(small, "int4", (64, 64))
    assert "float16" in caught.value.hint


def test_a_network_that_cannot_be_exported_is_a_backend_error() -> None:
    class Moody(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum() > 0 else -image

    model = a_model("unet-r34", Moody())
    with pytest.raises(BackendError, match=r"unet-r34 cannot be exported to ONNX: \w"):
        export.onnx_bytes(model, "float32", (64, 64))


def test_a_missing_exporter_names_the_package(
    small: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(
        name: str,
        given: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        names: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        if name.partition(".")[0] == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")
        return real(name, given, local, names, level)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(MissingBackendError, match="onnxscript") as caught:
        export.onnx_bytes(small, "float32", (64, 64))
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize(
    ("size", "batch", "expected"),
    [
        (None, 8, Profile(8, (32, 32), (256, 256), (512, 512))),
        ((512, 96), 4, Profile(4, (32, 32), (256, 256), (512, 512))),
        ((544, 96), 8, Profile(2, (32, 32), (256, 256), (1024, 1024))),
        ((96, 1600), 8, Profile(1, (32, 32), (256, 256), (2048, 2048))),
    ],
)
def test_profiles_of_slices(
    small: Model, size: tuple[int, int] | None, batch: int, expected: Profile
) -> None:
    found = export.profile_for(small, size, batch)

    assert found == expected
    assert found.takes(size or (64, 64))
    assert not found.takes((4096, 32))
    assert not found.takes((32, 16))
    assert Profile.from_json(found.as_json()) == found


def test_profiles_of_one_size() -> None:
    network = nn.Identity()
    psp = a_model("pspnet", network)
    assert export.profile_for(psp).usual == (256, 256)
    assert export.profile_for(psp, (64, 96)) == Profile(8, *[(64, 96)] * 3)
    cubes = export.profile_for(a_model("mru-net-3d", network, patch=60))
    assert cubes.shapes() == ((1, 1, 64, 64, 64), *[(8, 1, 64, 64, 64)] * 2)


def test_a_profile_in_words(small: Model) -> None:
    assert str(export.profile_for(small)) == (
        "1 to 8 of 32x32 to 512x512, tuned for 256x256"
    )
    assert str(Profile(2, (64, 96), (64, 96), (64, 96))) == (
        "1 to 2 of 64x96, tuned for 64x96"
    )
