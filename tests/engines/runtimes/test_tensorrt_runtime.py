"""TensorRT as a runtime: what goes in and out, parts, engines kept, every failure.

Where there is no NVIDIA GPU, a stand-in for the library runs the exported network with
onnxruntime on the same addresses, and can be told to fail like the library: with None
or False, and a word to the logger.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from engines.errors import BackendError, DeviceError
from engines.labels import SPINE_CLASSES
from engines.networks import shelf
from engines.networks.manifest import Manifest, Model
from engines.preprocess.recipe import RECIPES
from engines.runtimes import backends, export, gate, tensorrt_build, tensorrt_runtime
from engines.runtimes.cache import Cache, Key
from engines.runtimes.devices import CPU, Device
from engines.runtimes.export import INPUT, OUTPUT
from engines.runtimes.plan import Plan, Wanted
from engines.runtimes.tensorrt_library import RTX, Flavour
from engines.runtimes.tensorrt_runtime import TensorRtRuntime
from engines.runtimes.torch_runtime import TorchRuntime
from engines.segment import golden

REASON = "cudaError 2: out of memory"


def a_model() -> Model:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    recipe = RECIPES["spine-ct"]
    manifest = Manifest("m", "unet-r34", SPINE_CLASSES, "ct", ("axial",), recipe)
    return Model(manifest, network.eval(), "0" * 64, Path("m.safetensors"))


MODEL = a_model()


class Context:
    """Runs a network on addresses, as an execution context does."""

    def __init__(self, library: "Library", blob: bytes) -> None:
        self.library = library
        self.session = onnxruntime.InferenceSession(blob)
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == INPUT
        self.shape = shape
        return self.library.answers("set_input_shape")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == OUTPUT
        return (self.shape[0], self.library.classes, *self.shape[2:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.library.answers("set_tensor_address")

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        if not self.library.answers("execute_async_v3"):
            return False
        self.library.batches.append(self.shape[0])
        given = _memory(self.addresses[INPUT], self.shape)
        (logits,) = self.session.run(None, {INPUT: given})
        _memory(self.addresses[OUTPUT], logits.shape)[:] = logits
        return True


def _memory(address: int, shape: tuple[int, ...]) -> Any:
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, shape)


class Library:
    """A stand-in for the module ``tensorrt_rtx``; ``fails`` names a call."""

    __version__ = "1.0"
    classes = 2

    def __init__(self) -> None:
        self.fails = ""
        self.built: list[tuple[int, ...]] = []
        self.batches: list[int] = []

        class ILogger:
            Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)

        self.ILogger = ILogger

    def answers(self, call: str) -> bool:
        if call == self.fails:
            self.logger.log(1, REASON)
        return call != self.fails

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        self.logger = logger
        if not self.answers("Runtime"):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return SimpleNamespace(deserialize_cuda_engine=self.engine)

    def engine(self, blob: bytes) -> Any:
        def context() -> Context | None:
            ok = self.answers("create_execution_context")
            return Context(self, blob) if ok else None

        ok = self.answers("deserialize_cuda_engine")
        return SimpleNamespace(create_execution_context=context) if ok else None


@pytest.fixture(scope="module")
def onnx() -> bytes:
    """Return the network, which takes any size."""
    return export.onnx_bytes(MODEL, "float32", (256, 256))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, onnx: bytes) -> Library:
    """Put the stand-in in the library's place, and the CPU in that of the GPU."""
    stand_in = Library()

    def plan(flavour: Flavour, model: Model, wanted: Wanted) -> Plan:
        profile = export.profile_for(model, wanted.size, wanted.batch)
        key = Key(
            model.sha256, flavour.backend, "1", "float32", str(profile), ("sm89",)
        )
        facts = {"settings": {"profile": profile.as_json()}}

        def make() -> tuple[bytes, dict[str, Any]]:
            stand_in.built.append(profile.most)
            return onnx, facts

        return Plan("m", key, {}, make)

    @contextlib.contextmanager
    def stream(_: torch.device) -> Iterator[int]:
        yield 7

    monkeypatch.setattr(
        "engines.runtimes.tensorrt_library.import_module", lambda _: stand_in
    )
    monkeypatch.setattr(tensorrt_runtime, "plan", plan)
    monkeypatch.setattr(tensorrt_runtime, "_side_stream", stream)
    monkeypatch.setattr(
        tensorrt_runtime, "_current", lambda _: contextlib.nullcontext()
    )
    return stand_in


@pytest.fixture
def runtime(library: Library, tmp_path: Path) -> TensorRtRuntime:
    return TensorRtRuntime(RTX, MODEL, CPU, "float32", Cache(tmp_path / "cache"))


def slices(count: int, rows: int = 64, columns: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 1, rows, columns, generator=generator)


def by_torch(given: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.from_numpy(
        TorchRuntime(MODEL, CPU, "float32").predict(given.numpy())
    )
    return found


@pytest.mark.parametrize(("count", "parts"), [(1, [1]), (8, [8]), (19, [8, 8, 3])])
def test_probabilities_are_those_of_torch(
    runtime: TensorRtRuntime, library: Library, count: int, parts: list[int]
) -> None:
    given = slices(count)

    found = runtime.predict(given)

    expected = by_torch(given)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (library.batches, library.built) == (parts, [(512, 512)])


def test_slices_that_are_not_contiguous_come_out_right(
    runtime: TensorRtRuntime, library: Library
) -> None:
    given = slices(3).transpose(2, 3).to(torch.float64)

    found = runtime.predict(given)

    expected = by_torch(given.float())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_larger_slices_get_an_engine_of_their_own_and_smaller_keep_theirs(
    runtime: TensorRtRuntime, library: Library
) -> None:
    for rows in (64, 544, 32, 512, 1024):
        assert runtime.predict(slices(3, rows=rows)).shape == (3, 2, rows, 96)

    assert library.built == [(512, 512), (1024, 1024)]
    assert library.batches == [3, 2, 1, 3, 3, 2, 1]


def test_an_engine_is_built_once(
    runtime: TensorRtRuntime, library: Library, tmp_path: Path
) -> None:
    runtime.predict(slices(1))
    again = TensorRtRuntime(RTX, MODEL, CPU, "float32", Cache(tmp_path / "cache"))
    again.predict(slices(1))

    assert library.built == [(512, 512)]


def put(folder: Path, onnx: bytes, batch: int = 8, **changed: Any) -> None:
    """Keep an engine that was built ahead."""
    profile = export.profile_for(MODEL, None, batch)
    values = {
        "model": MODEL.sha256,
        "backend": "tensorrt-rtx",
        "version": "1",
        "precision": "float32",
        "profile": str(profile),
        "targets": ("sm86", "sm89"),
    }
    key = Key(**(values | changed))
    Cache(folder).store("m", key, onnx, {"settings": {"profile": profile.as_json()}})


def test_an_engine_built_ahead_for_this_gpu_and_others_is_used(
    runtime: TensorRtRuntime, library: Library, onnx: bytes, tmp_path: Path
) -> None:
    put(tmp_path / "cache", onnx, batch=32)

    runtime.predict(slices(20))

    assert (library.built, library.batches) == ([], [20])


@pytest.mark.parametrize(
    "changed",
    [
        {"targets": ("sm86", "sm120")},
        {"model": "1" * 64},
        {"precision": "float16"},
        {"version": "2"},
        {"driver": "550"},
        {"backend": "tensorrt"},
    ],
)
def test_an_engine_for_something_else_is_not_used(
    runtime: TensorRtRuntime,
    library: Library,
    onnx: bytes,
    tmp_path: Path,
    changed: dict[str, Any],
) -> None:
    put(tmp_path / "cache", onnx, **changed)

    runtime.predict(slices(1))

    assert library.built == [(512, 512)]


def test_a_damaged_engine_is_built_again(
    runtime: TensorRtRuntime, library: Library, onnx: bytes, tmp_path: Path
) -> None:
    put(tmp_path / "cache", onnx)
    (path,) = (tmp_path / "cache").glob("*.engine")
    path.write_bytes(path.read_bytes()[:-100])

    assert runtime.predict(slices(1)).shape == (1, 2, 64, 96)
    assert library.built == [(512, 512)]


def test_a_closed_cache_is_a_note_and_the_engine_is_used(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    closed = Cache(tmp_path / "file" / "cache")
    runtime = TensorRtRuntime(RTX, MODEL, CPU, "float32", closed)

    assert runtime.predict(slices(2)).shape == (2, 2, 64, 96)
    assert runtime.predict(slices(2)).shape == (2, 2, 64, 96)
    assert len(library.built) == 1
    assert [note.code for note in runtime.notes] == ["cache"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("Runtime", "could not start"),
        ("deserialize_cuda_engine", "could not load the engine"),
        ("create_execution_context", "could not set memory aside"),
        ("set_input_shape", "could not take a batch of"),
        ("set_tensor_address", "could not use the memory of image"),
        ("execute_async_v3", "could not run the network"),
    ],
)
def test_each_call_that_fails_is_an_error_with_its_reason(
    runtime: TensorRtRuntime, library: Library, call: str, told: str
) -> None:
    library.fails = call

    with pytest.raises(BackendError, match=rf"^tensorrt-rtx {told}.*{REASON}$") as one:
        runtime.predict(slices(1))

    assert "--backend torch" in one.value.hint


def test_an_output_of_another_shape_is_refused(
    runtime: TensorRtRuntime, library: Library
) -> None:
    library.classes = 3

    with pytest.raises(BackendError, match=r"where .* was expected"):
        runtime.predict(slices(1))


def test_reasons_of_earlier_failures_are_not_told_again(
    runtime: TensorRtRuntime, library: Library
) -> None:
    library.fails = "execute_async_v3"
    with pytest.raises(BackendError):
        runtime.predict(slices(1))
    library.fails = ""

    runtime.predict(slices(1))

    assert runtime._library.errors == []


def test_loading_opens_an_engine_for_the_usual_size(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))

    runtime = tensorrt_runtime.load_rtx(MODEL, CPU, "float32", ())

    assert library.built == [(512, 512)]
    assert (runtime.backend, runtime.precision) == ("tensorrt-rtx", "float32")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_the_shipped_model_passes_the_gate_on_a_gpu(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = backends.find(name)
    if row.missing() is not None:
        pytest.skip(f"{row.missing()} is not installed")
    if not torch.cuda.is_available():
        pytest.skip("there is no NVIDIA GPU here")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))
    model, device = shelf.load("unet-r34"), Device("cuda", 0)
    batches = [slices(9, 256, 320).cuda(), slices(2, 96, 256).cuda()]
    try:
        runtime = row.load(model, device, precision)
    except BackendError as error:
        if "does not run on" in str(error):
            pytest.skip(str(error))
        raise

    reference = TorchRuntime(model, device, "float32")

    assert gate.compare(reference, runtime, batches).passed
    assert gate.judge(runtime, golden.of(model)).passed
    assert len(Cache().entries()) == 1
    (entry,) = Cache().entries()
    assert precision in {layer["precision"] for layer in entry.facts["layers"]}


def test_where_there_is_no_gpu_loading_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    with pytest.raises(DeviceError, match="no GPU here to build for"):
        tensorrt_build.plan(RTX, MODEL, Wanted("float32", device="cpu"))
