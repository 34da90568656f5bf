"""int8: told in signed numbers, near the network, and taken by TensorRT."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from engines.errors import BackendError, MissingBackendError, SettingsError
from engines.networks import shelf
from engines.networks.manifest import Model
from engines.networks.probes import Probe
from engines.runtimes import export, gate, quantize, tensorrt_build
from engines.runtimes.devices import CPU
from engines.runtimes.plan import Wanted
from engines.runtimes.tensorrt_library import RTX, Library
from engines.runtimes.torch_runtime import TorchRuntime
from engines.segment import inference
from engines.volume import Volume
from tests.engines.runtimes.test_gate import probes_of

pytestmark = pytest.mark.usefixtures("one_thread")

SCAN = Path(__file__).parents[2] / "data" / "tsexample_ct.nii.gz"
LEAST_AGREEMENT, LEAST_DICE = 0.998, 0.98
"""With float32 on slices of the scan; less than the gate asks for."""


class OnnxRuntime:
    """An exported network on the CPU."""

    backend, precision, device = "onnxruntime", "int8", "cpu"

    def __init__(self, exported: bytes) -> None:
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(exported, providers=providers)

    def predict(self, slices: np.ndarray) -> np.ndarray:
        (logits,) = self.session.run(None, {export.INPUT: slices})
        return torch.from_numpy(logits).softmax(dim=1).numpy()


@pytest.fixture(scope="module")
def model() -> Model:
    return shelf.load("unet-r34")


@pytest.fixture(scope="module")
def probes(model: Model) -> list[Probe]:
    prepared = inference.prepare(Volume.read(SCAN), model.manifest.recipe)
    batches = inference.probe(prepared, model, model.manifest.views)
    arrays = [np.asarray(batch, np.float32) for batch in batches]
    return [probe for array in arrays for probe in probes_of(model, array)]


@pytest.fixture(scope="module")
def exported(model: Model, probes: list[Probe]) -> bytes:
    return export.onnx_bytes(model, "int8", (256, 256), probes)


def test_all_is_signed_about_zero(exported: bytes) -> None:
    graph = onnx.load_from_string(exported).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    zeros = [
        held[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"
    ]

    assert len(zeros) > 40
    assert {zero.data_type for zero in zeros} == {onnx.TensorProto.INT8}
    assert not any(onnx.numpy_helper.to_array(zero).any() for zero in zeros)
    ends = (*graph.input, *graph.output)
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


def test_labels_are_near_those_of_float32(
    model: Model, probes: list[Probe], exported: bytes
) -> None:
    runtime, batches = OnnxRuntime(exported), [probe.images for probe in probes]

    figures = gate.judge(runtime, probes)
    again = gate.compare(TorchRuntime(model, CPU, "float32"), runtime, batches)

    assert (figures.agreement, figures.dice) == (again.agreement, again.dice)
    assert figures.agreement > LEAST_AGREEMENT
    assert figures.dice > LEAST_DICE


def test_tensorrt_takes_it(model: Model, exported: bytes) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

    profile = export.profile_for(model)
    blob, facts = tensorrt_build.build(Library(RTX), exported, profile, ["sm86"])

    computing = [layer["precision"] for layer in facts["layers"]]
    assert computing.count("int8") > 30
    assert len(blob) > 1000


def test_engines_calibrated_on_other_slices_are_others(
    model: Model, probes: list[Probe]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

    def digest(precision: str, given: list[Probe]) -> str:
        wanted = Wanted(precision, targets=("sm86",), probes=tuple(given))
        return tensorrt_build.plan(RTX, model, wanted).key.digest

    copies = [replace(probe, images=probe.images.copy()) for probe in probes]
    assert digest("int8", probes) == digest("int8", copies)
    assert digest("int8", probes) != digest("int8", probes[:1])
    assert digest("float16", probes) == digest("float16", probes[:1])


def test_int8_needs_probes(model: Model) -> None:
    with pytest.raises(SettingsError, match="calibrated on the golden probes"):
        export.onnx_bytes(model, "int8", (256, 256))


def test_a_network_of_one_size_needs_probes_of_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "is_fixed", lambda _: True)
    (probe,) = probes_of(model, np.zeros((1, 1, 64, 64), np.float32))
    with pytest.raises(BackendError, match="none of the model is 64x96"):
        export.onnx_bytes(model, "int8", (64, 96), [probe])


def test_a_network_that_cannot_be_calibrated_is_an_error(exported: bytes) -> None:
    wrong = [np.zeros((1, 1, 33, 33), np.float32)]
    with pytest.raises(BackendError, match="cannot be calibrated for int8"):
        quantize.quantized(exported, "nothing", wrong)


def test_a_zero_that_is_not_0_is_refused(exported: bytes) -> None:
    network = onnx.load_from_string(exported)
    node = next(n for n in network.graph.node if n.op_type == "QuantizeLinear")
    held = {tensor.name: tensor for tensor in network.graph.initializer}
    off = onnx.numpy_helper.from_array(np.uint8(3), node.input[2])
    held[node.input[2]].CopyFrom(off)

    with pytest.raises(BackendError, match="zero that is not 0"):
        quantize._sign(onnx, network.graph)


@pytest.mark.parametrize("library", ["nncf", "onnxruntime"])
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    absent: Any = None
    monkeypatch.setitem(sys.modules, library, absent)

    with pytest.raises(MissingBackendError, match=f"the package {library},"):
        quantize.quantized(b"", "image", [np.zeros(1, np.float32)])


def test_calibrating_says_nothing_on_stdout(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    network = torch.nn.Conv2d(1, 2, 3, padding=1).eval()
    small = Model(model.manifest, network, model.sha256, model.path)

    images = np.random.default_rng(0).standard_normal((2, 1, 64, 64), np.float32)
    export.onnx_bytes(small, "int8", (64, 64), probes_of(small, images))

    assert capsys.readouterr().out == ""
