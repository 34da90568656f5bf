"""Engines are built for real, for GPUs that are not here; what fails says why."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engines.errors import (
    BackendError,
    DeviceError,
    MissingBackendError,
    SettingsError,
)
from engines.labels import SPINE_CLASSES
from engines.networks import catalog
from engines.networks.manifest import Manifest, Model
from engines.preprocess.recipe import RECIPES
from engines.runtimes import backends, export, tensorrt_build
from engines.runtimes.devices import Device
from engines.runtimes.export import Profile
from engines.runtimes.plan import Wanted
from engines.runtimes.tensorrt_build import Gpu, build, plan
from engines.runtimes.tensorrt_library import DATA_CENTRE, RTX, Library

trt: Any = pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not installed"
)

PROFILE = Profile(4, (32, 32), (64, 64), (128, 128))
ADA = Gpu("RTX 4090", "sm89", "550.54.14")
HOPPER = Gpu("H200", "sm90", "550.54.14")


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    spec = catalog.find("unet-r34")
    recipe = RECIPES[spec.recipe]
    manifest = Manifest("m", spec.name, SPINE_CLASSES, "ct", spec.views, recipe)
    return Model(
        manifest, nn.Sequential(*layers).eval(), "0" * 64, Path("m.safetensors")
    )


@pytest.fixture(scope="module")
def onnx(model: Model) -> bytes:
    return export.onnx_bytes(model, "float16", (64, 64))


@pytest.fixture
def library() -> Library:
    return Library(RTX)


def test_an_engine_for_several_cards(library: Library, onnx: bytes) -> None:
    blob, facts = build(library, onnx, PROFILE, ["sm86", "sm89", "sm120"])

    assert len(blob) > 1000
    assert facts["tensors"] == [
        {"name": "image", "precision": "float32", "shape": [-1, 1, -1, -1]},
        {"name": "logits", "precision": "float32", "shape": [-1, 2, -1, -1]},
    ]
    assert facts["memory"]["weights_bytes"] > 0
    assert "float16" in {layer["precision"] for layer in facts["layers"]}
    assert all(layer["name"] and layer["kind"] for layer in facts["layers"])
    assert [-1, 8, -1, -1] in [layer["shape"] for layer in facts["layers"]]


def test_larger_batches_need_more_memory(library: Library, onnx: bytes) -> None:
    sizes = (PROFILE.least, PROFILE.usual, PROFILE.most)
    needed = [
        build(library, onnx, Profile(batch, *sizes), ["sm86"])[1]["memory"]
        for batch in (4, 16)
    ]
    assert needed[1]["activations_bytes"] > needed[0]["activations_bytes"]


def test_what_is_no_network_is_refused(library: Library) -> None:
    with pytest.raises(BackendError, match="could not read the network"):
        build(library, b"this is no network", PROFILE, ["sm86"])


def test_half_a_network_is_an_error_with_the_reason(
    library: Library, onnx: bytes
) -> None:
    with pytest.raises(BackendError, match="could not read the network") as caught:
        build(library, onnx[: len(onnx) // 2], PROFILE, ["sm86"])

    assert library.errors
    assert " ".join(library.errors[0].split()) in str(caught.value)


def test_a_broken_network_is_an_error_with_the_reason(
    library: Library, onnx: bytes
) -> None:
    broken = onnx.replace(b"Relu", b"Rely")
    assert broken != onnx

    with pytest.raises(BackendError, match="Rely"):
        build(library, broken, PROFILE, ["sm86"])

    assert build(library, onnx, PROFILE, ["sm86"])[0]
    assert library.errors == []


def test_sizes_that_the_network_cannot_take(library: Library, onnx: bytes) -> None:
    odd = Profile(4, (64, 64), (32, 32), (16, 16))
    with pytest.raises(BackendError, match="could not take batches of 1 to 4 of 64x64"):
        build(library, onnx, odd, ["sm86"])


@pytest.mark.parametrize(
    ("kind", "call", "gives", "told"),
    [
        ("Builder", "create_network", None, "make a network"),
        ("OnnxParser", "parse", False, "read the network"),
        ("Builder", "create_builder_config", None, "be configured"),
        ("Builder", "create_optimization_profile", None, "make a profile"),
        ("IBuilderConfig", "add_optimization_profile", -1, "take batches of 1 to 4"),
        ("IBuilderConfig", "set_compute_capability", False, "build for sm86"),
        ("Builder", "build_serialized_network", None, "build the engine"),
    ],
)
def test_each_call_that_returns_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
    library: Library,
    onnx: bytes,
    kind: str,
    call: str,
    gives: object,
    told: str,
) -> None:
    def fail(*_: object) -> object:
        library.logger.log(trt.ILogger.Severity.ERROR, "no memory\nleft")
        return gives

    monkeypatch.setattr(getattr(trt, kind), call, fail)

    with pytest.raises(BackendError) as caught:
        build(library, onnx, PROFILE, ["sm86"])
    assert str(caught.value).startswith(f"tensorrt-rtx could not {told}")
    assert str(caught.value).endswith(": no memory left")


def nothing(*_: object) -> None:
    raise TypeError("pybind11::init(): factory function returned nullptr")


@pytest.mark.parametrize("kind", ["Builder", "OnnxParser"])
def test_what_cannot_be_constructed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, library: Library, onnx: bytes, kind: str
) -> None:
    monkeypatch.setattr(trt, kind, nothing)

    with pytest.raises(BackendError, match="could not start: it gave no reason"):
        build(library, onnx, PROFILE, ["sm86"])


def test_a_library_that_cannot_run_here_is_an_error(
    monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    monkeypatch.setattr(trt, "Runtime", nothing)

    with pytest.raises(BackendError, match="could not start: it gave no reason"):
        tensorrt_build.deserialized(library, b"")


def test_what_is_no_engine_is_not_loaded(library: Library) -> None:
    with pytest.raises(BackendError, match=r"could not load the engine: \w"):
        tensorrt_build.deserialized(library, b"this is no engine" * 100)


def test_only_the_first_reasons_are_told(library: Library) -> None:
    library.errors += ["one", "one", "two", "three", "four"]

    assert str(library.failure("run")) == (
        "tensorrt-rtx could not run: one; two; three"
    )


@pytest.mark.parametrize(("flags", "expected"), [({"STRONGLY_TYPED": 1}, 2), ({}, 0)])
def test_types_come_from_the_graph_in_every_version(
    flags: dict[str, int], expected: int
) -> None:
    library = Library(DATA_CENTRE)
    named = SimpleNamespace(**flags)
    library.__dict__["trt"] = SimpleNamespace(NetworkDefinitionCreationFlag=named)

    assert library.network_flags == expected


INSPECTED = {
    "Layers": [
        {
            "Name": "conv1",
            "LayerType": "CaskConvolution",
            "Outputs": [
                {
                    "Name": "a",
                    "Dimensions": [8, 8, 64, 64],
                    "Format/Datatype": "Channel major FP16 format",
                }
            ],
        },
        {
            "Name": "cast",
            "LayerType": "kgen",
            "Outputs": [{"Name": "b", "Dimensions": [-1, 2], "Datatype": "Float"}],
        },
        {"Name": "shape", "LayerType": "shape_call", "Outputs": []},
    ],
    "Bindings": ["image", "logits"],
}
READ = [
    ("conv1", "CaskConvolution", "float16", [8, 8, 64, 64]),
    ("cast", "kgen", "float32", [-1, 2]),
    ("shape", "shape_call", None, []),
]


class Inspector:
    """Stands for an engine on a GPU, and for its inspector."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def create_engine_inspector(self) -> "Inspector | None":
        return None if self.fails == "create_engine_inspector" else self

    def get_engine_information(self, form: object) -> str | None:
        assert form == trt.LayerInformationFormat.JSON
        return None if self.fails else json.dumps(INSPECTED)


def test_where_the_log_lists_no_layers_the_engine_is_asked(
    monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    monkeypatch.setattr(tensorrt_build, "deserialized", lambda *_: Inspector())

    found = tensorrt_build.layers(library, b"")

    assert [tuple(layer.values()) for layer in found] == READ


@pytest.mark.parametrize("call", ["create_engine_inspector", "get_engine_information"])
def test_an_inspector_that_says_nothing_is_an_error(
    library: Library, call: str
) -> None:
    with pytest.raises(BackendError, match="could not inspect"):
        tensorrt_build.inspection(library, Inspector(call))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("Half", "float16"),
        ("Float", "float32"),
        ("BFloat16", "bfloat16"),
        ("Int8", "int8"),
        ("HALF", "float16"),
        ("FP8", "FP8"),
    ],
)
def test_words_for_precisions(told: str, expected: str) -> None:
    assert tensorrt_build.precision_of(told) == expected


def test_the_plan_of_an_engine_for_cards_that_are_not_here(model: Model) -> None:
    wanted = Wanted("float16", 4, ("sm120", "sm86", "sm86"))

    planned = plan(RTX, model, wanted)

    key = planned.key
    assert (key.backend, key.version) == ("tensorrt-rtx", trt.__version__)
    assert (key.targets, key.device, key.driver) == (("sm86", "sm120"), "", "")
    assert key.profile.startswith("1 to 4 of")
    blob, facts = planned.make()
    assert len(blob) > 1000
    assert facts["settings"]["targets"] == ["sm86", "sm120"]
    assert set(facts["seconds"]) == {"export", "build"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, Gpu]:
    """Make as if there were a GPU, the one under ``gpu``."""
    found = {"gpu": ADA}
    monkeypatch.setattr(tensorrt_build.devices, "pick", lambda _: Device("cuda", 0))
    monkeypatch.setattr(tensorrt_build, "gpu", lambda _: found["gpu"])
    return found


def test_an_rtx_engine_for_the_card_here_does_for_all_of_its_kind(
    model: Model, here: dict[str, Gpu]
) -> None:
    key = plan(RTX, model, Wanted()).key

    assert (key.targets, key.device, key.driver) == (("sm89",), "", "")


def test_an_rtx_engine_for_another_gpu_is_refused(
    model: Model, here: dict[str, Gpu]
) -> None:
    here["gpu"] = HOPPER
    with pytest.raises(BackendError, match="does not run on the H200, which is sm90"):
        plan(RTX, model, Wanted())


def test_an_engine_of_the_other_flavour_is_for_one_gpu_and_driver(
    model: Model, here: dict[str, Gpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.Backend, "missing", lambda _: None)
    monkeypatch.setattr(
        "engines.runtimes.tensorrt_library.import_module",
        lambda _: SimpleNamespace(__version__="10.9"),
    )
    here["gpu"] = HOPPER

    key = plan(DATA_CENTRE, model, Wanted()).key

    assert (key.backend, key.version) == ("tensorrt", "10.9")
    assert (key.targets, key.device) == (("sm90",), "H200")
    assert key.driver == "550.54.14"
    with pytest.raises(SettingsError, match="builds for the GPU of this machine only"):
        plan(DATA_CENTRE, model, Wanted(targets=("sm90",)))


def test_without_a_gpu_the_cards_have_to_be_named(model: Model) -> None:
    with pytest.raises(DeviceError, match="has no GPU here to build for") as caught:
        plan(RTX, model, Wanted(device="cpu"))
    assert "--for sm86" in caught.value.hint


@pytest.mark.parametrize("target", ["sm90", "ada", "86"])
def test_cards_that_there_are_not(model: Model, target: str) -> None:
    with pytest.raises(SettingsError, match=f"cannot build for '{target}'") as caught:
        plan(RTX, model, Wanted(targets=("sm86", target)))
    assert "sm75, sm80, sm86, sm89, sm120" in caught.value.hint


@pytest.mark.parametrize("batch", [0, -3])
def test_batches_that_make_no_sense(model: Model, batch: int) -> None:
    with pytest.raises(SettingsError, match=f"cannot take {batch} slices"):
        plan(RTX, model, Wanted(batch=batch, targets=("sm86",)))


def test_precisions_that_there_are_not(model: Model) -> None:
    with pytest.raises(SettingsError, match="does not compute in float64"):
        plan(RTX, model, Wanted("float64", targets=("sm86",)))


def test_a_library_that_is_broken_counts_as_missing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> None:
        raise OSError("libtensorrt_rtx.so.1: cannot open shared object file")

    monkeypatch.setattr("engines.runtimes.tensorrt_library.import_module", broken)

    with pytest.raises(MissingBackendError, match="tensorrt_rtx") as caught:
        plan(RTX, model, Wanted(targets=("sm86",)))
    assert "spinecli[rtx]" in caught.value.hint
