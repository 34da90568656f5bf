"""Build TensorRT engines from models, with either flavour of the library."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from engines.errors import BackendError, DeviceError, SettingsError
from engines.networks.manifest import Model
from engines.runtimes import backends, devices, export
from engines.runtimes.cache import Key
from engines.runtimes.export import Profile
from engines.runtimes.plan import Plan, Wanted
from engines.runtimes.tensorrt_library import DATA_CENTRE, RTX, Flavour, Library

if TYPE_CHECKING:
    import tensorrt as trt

LAYERS = "Layers:\n"
"""How the log's message begins that lists the layers of a finished engine."""

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>.*?), Inputs: .*?"
    r"Outputs: (?P<outputs>\[.*?\]), TacticName:",
    re.MULTILINE,
)
_SHAPE = re.compile(r"Dimensions: \[([-\d,]*)\]")
_TYPE = re.compile(r"Datatype: ([^,}]*)")
_MEMORY = {
    "activations_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "weights_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
}
TYPES = {
    "bfloat16": ("BFloat16", "BF16"),
    "float16": ("Half", "FP16"),
    "float32": ("Float", "FP32"),
    "int8": ("Int8", "INT8"),
    "int32": ("Int32",),
    "int64": ("Int64",),
    "bool": ("Bool",),
}
"""Precision -> what the library calls it, the first that a text holds."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, as far as an engine depends on it."""

    name: str
    capability: str
    driver: str


def gpu(device: devices.Device) -> Gpu:
    """Return what engines depend on of a CUDA device."""
    about = torch.cuda.get_device_properties(torch.device(str(device)))
    return Gpu(about.name, f"sm{about.major}{about.minor}", devices.driver())


def plan(flavour: Flavour, model: Model, wanted: Wanted) -> Plan:
    """Return how the engine that is wanted would be made.

    Raises:
        MissingBackendError: the library is not installed.
        SettingsError: a precision or target that there is not, or no batch.
        DeviceError: there is no GPU to build for.
        BackendError: the library does not know the GPU here.
    """
    row = backends.find(flavour.backend)
    row.require("cuda", wanted.precision)
    library = Library(flavour)
    targets, here = _targets(library, wanted)
    if wanted.batch < 1:
        msg = f"an engine cannot take {wanted.batch} slices"
        raise SettingsError(msg, hint="Give --batch a number from 1.")
    profile = export.profile_for(model, wanted.size, wanted.batch)
    export.require_probes(wanted.precision, wanted.probes)
    settings = {
        "targets": list(targets),
        "precision": wanted.precision,
        "profile": profile.as_json(),
        "strongly_typed": True,
        "tf32": False,
        "onnx_opset": export.OPSET,
    }
    key = Key(
        model.sha256,
        row.name,
        library.version,
        wanted.precision,
        str(profile),
        targets,
        here.name if here else "",
        here.driver if here else "",
        wanted.calibration,
    )

    def make() -> tuple[bytes, Mapping[str, Any]]:
        began = time.perf_counter()
        onnx = _onnx(model, wanted, profile)
        exported = time.perf_counter()
        ahead = targets if flavour.portable else ()
        with _on(wanted.device, portable=flavour.portable):
            blob, found = build(library, onnx, profile, ahead)
        seconds = {
            "export": round(exported - began, 2),
            "build": round(time.perf_counter() - exported, 2),
        }
        told = {"model": model.manifest.name, "settings": settings, "seconds": seconds}
        return blob, told | found

    return Plan(model.manifest.name, key, settings, make)


plan_data_centre = partial(plan, DATA_CENTRE)
plan_rtx = partial(plan, RTX)


def build(
    library: Library, onnx: bytes, profile: Profile, targets: Sequence[str] = ()
) -> tuple[bytes, dict[str, Any]]:
    """Return an engine and what is known of it: tensors, layers and memory.

    Args:
        library: its messages are begun anew.
        onnx: the network, precision and all.
        profile: batches that it will take.
        targets: keys of ``Library.capabilities``; empty for the current GPU.

    Raises:
        BackendError: the library refused; the message says what it said.
    """
    need = library.need
    if not TYPE_CHECKING:  # every call below is checked against the published stubs
        trt = library.trt
    library.errors.clear()
    library.told.clear()
    builder = library.made(lambda: trt.Builder(library.logger), "start")
    network = need(builder.create_network(library.network_flags), "make a network")
    parser = library.made(lambda: trt.OnnxParser(network, library.logger), "start")
    # Some of what is no network it takes for an empty one.
    need(parser.parse(onnx) and network.num_outputs > 0, "read the network")
    config = need(builder.create_builder_config(), "be configured")
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is to mean float32
    shapes = need(builder.create_optimization_profile(), "make a profile")
    # The binding makes its own kind of shape of tuples.
    least, usual, most = cast("Sequence[trt.Dims]", profile.shapes())
    shapes.set_shape(export.INPUT, least, usual, most)
    # Sizes that make no sense are told only here, by an index below 0.
    need(config.add_optimization_profile(shapes) >= 0, f"take batches of {profile}")
    if targets:
        _aim(library, config, targets)
    built = need(builder.build_serialized_network(network, config), "build the engine")
    blob = bytes(built)
    facts = {"tensors": tensors(network), "memory": memory(library.told)}
    return blob, facts | {"layers": layers(library, blob)}


def _aim(
    library: Library,
    config: Any,  # noqa: ANN401  only TensorRT for RTX has these two members
    targets: Sequence[str],
) -> None:
    """Let an engine be built for GPUs that need not be here."""
    known = library.capabilities()
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        done = config.set_compute_capability(known[target], index)
        library.need(done, f"build for {target}")


def _onnx(model: Model, wanted: Wanted, profile: Profile) -> bytes:
    return export.onnx_bytes(model, wanted.precision, profile.usual, wanted.probes)


def tensors(network: "trt.INetworkDefinition") -> list[dict[str, Any]]:
    """Return name, precision and shape of what goes in and out; -1 is an open axis."""
    given = [network.get_input(i) for i in range(network.num_inputs)]
    got = [network.get_output(i) for i in range(network.num_outputs)]
    return [
        {
            "name": tensor.name,
            "precision": precision_of(tensor.dtype.name),
            "shape": list(cast("Sequence[int]", tensor.shape)),
        }
        for tensor in (*given, *got)
    ]


def memory(told: Sequence[str]) -> dict[str, int | None]:
    """Return what the engine sets aside, in bytes, of what the builder's log says."""
    return {
        name: next((int(m[1]) for text in told if (m := pattern.search(text))), None)
        for name, pattern in _MEMORY.items()
    }


def layers(library: Library, blob: bytes) -> list[dict[str, Any]]:
    """Return name, kind, precision and shape of each layer of a finished engine.

    The builder's log lists them where an engine is built for GPUs that are not here;
    else the engine itself is asked, which takes its GPU.
    """
    listed = [text for text in library.told if text.startswith(LAYERS)]
    if listed:
        return layers_of_log(listed[-1])
    return layers_of_json(inspection(library, deserialized(library, blob)))


def layers_of_log(text: str) -> list[dict[str, Any]]:
    """Read the list of layers in the builder's log."""
    read = []
    for found in _LAYER.finditer(text):
        shape = _SHAPE.search(found["outputs"])
        kept = _TYPE.search(found["outputs"])
        sizes = [int(size) for size in shape[1].split(",") if size] if shape else []
        told = kept[1] if kept else ""
        read.append(_layer(found["name"], found["kind"], told, sizes))
    return read


def layers_of_json(text: str) -> list[dict[str, Any]]:
    """Read what the library's inspector says of an engine."""
    read = []
    for layer in json.loads(text).get("Layers", []):
        out: dict[str, Any] = next(iter(layer.get("Outputs", ())), {})
        told = out.get("Datatype") or out.get("Format/Datatype", "")
        sizes = out.get("Dimensions", [])
        read.append(_layer(layer["Name"], layer.get("LayerType", ""), told, sizes))
    return read


def _layer(name: str, kind: str, told: str, shape: Sequence[int]) -> dict[str, Any]:
    precision = precision_of(told) if told else None
    return {"name": name, "kind": kind, "precision": precision, "shape": list(shape)}


def precision_of(told: str) -> str:
    """Return our word for a type of the library's, or its own where there is none."""
    for name, words in TYPES.items():
        if any(word.lower() in told.lower() for word in words):
            return name
    return told.strip()


def deserialized(library: Library, blob: bytes) -> "trt.ICudaEngine":
    """Return an engine that the current GPU can run.

    Raises:
        BackendError: it cannot.
    """
    if not TYPE_CHECKING:
        trt = library.trt
    runtime = library.made(lambda: trt.Runtime(library.logger), "start")
    return library.need(runtime.deserialize_cuda_engine(blob), "load the engine")


def inspection(library: Library, engine: "trt.ICudaEngine") -> str:
    """Return what the library's inspector says of an engine, as JSON."""
    if not TYPE_CHECKING:
        trt = library.trt
    inspector = library.need(engine.create_engine_inspector(), "inspect the engine")
    form = trt.LayerInformationFormat.JSON
    return str(library.need(inspector.get_engine_information(form), "inspect it"))


def _targets(library: Library, wanted: Wanted) -> tuple[tuple[str, ...], Gpu | None]:
    """Return the capabilities to build for, and the GPU where it has to be this one."""
    name, portable = library.flavour.backend, library.flavour.portable
    if wanted.targets:
        if not portable:
            msg = f"{name} builds for the GPU of this machine only"
            raise SettingsError(msg, hint="Leave out --for, or use tensorrt-rtx.")
        return _known(library, wanted.targets), None
    device = devices.pick(wanted.device)
    if device.type != "cuda":
        msg = f"{name} has no GPU here to build for"
        hint = "Name the GPUs that it is for, as in --for sm86,sm89,sm120."
        raise DeviceError(msg, hint=hint if portable else None)
    here = gpu(device)
    if not portable:
        return (here.capability,), here
    if here.capability not in library.capabilities():
        msg = f"{name} does not run on the {here.name}, which is {here.capability}"
        raise BackendError(msg, hint="Use --backend tensorrt or torch.")
    return (here.capability,), None


def _known(library: Library, targets: Sequence[str]) -> tuple[str, ...]:
    known = library.capabilities()
    for target in targets:
        if target not in known:
            msg = f"{library.flavour.backend} cannot build for {target!r}"
            hint = f"Choose from: {', '.join(sorted(known, key=_number))}."
            raise SettingsError(msg, hint=hint)
    return tuple(sorted(set(targets), key=_number))


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))


def _on(name: str, *, portable: bool) -> AbstractContextManager[object]:
    return nullcontext() if portable else torch.cuda.device(str(devices.pick(name)))
