"""OpenVINO on the CPU: layers fused, in float32, bfloat16 or int8.

The network is converted once and kept in the cache of engines; compiling it for the
CPU at hand takes a tenth of a second, so nothing that depends on the CPU is kept.

A bfloat16 has 8 bits, too few for what a scan's values tell apart. The scan is handed
over as two channels therefore, the value as far as 8 bits go and what is then missing,
and the first convolution has its weights twice. It costs nothing that can be measured.
"""

import contextlib
import copy
import io
import logging
import os
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.errors import BackendError, MissingBackendError
from engines.networks.manifest import Model
from engines.runtimes import backends
from engines.runtimes.cache import Cache, Key
from engines.runtimes.devices import cpu_has_bfloat16
from engines.runtimes.plan import Plan, Wanted

NAME = "openvino"
TELEMETRY = "openvino_telemetry"
XML, WEIGHTS = "model.xml", "model.bin"

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
"""Precision -> what layers compute in, for int8 those that stay as they are."""

COMPUTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
"""Layers that are told of; the others are fused with them."""

TOLERANCE = 1e-3
"""How far a network in two channels may be from itself, relative to the largest
logit."""


class OpenvinoRuntime:
    """A converted network, compiled for this CPU."""

    backend = NAME
    device = "cpu"

    def __init__(self, blob: bytes, precision: str, *, threads: int) -> None:
        openvino = _library()
        self.precision = precision
        with zipfile.ZipFile(io.BytesIO(blob)) as held:
            xml, weights = held.read(XML), held.read(WEIGHTS)
        core = openvino.Core()
        hint = HINTS[precision] if cpu_has_bfloat16() else "f32"
        try:
            graph = core.read_model(model=xml, weights=weights)
            self._double = graph.inputs[0].partial_shape[1] == 2
            self._compiled = core.compile_model(
                graph,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hint,
                    "INFERENCE_NUM_THREADS": threads,
                    "PERFORMANCE_HINT": "LATENCY",
                },
            )
        except RuntimeError as error:
            raise _refused(error) from error

    @torch.inference_mode()
    def predict(self, slices: Tensor) -> Tensor:
        """Return class probabilities; see the protocol for shapes."""
        given = split(slices) if self._double else slices
        try:
            found = self._compiled(given.contiguous().numpy())[0]
        except RuntimeError as error:
            raise _refused(error) from error
        return torch.from_numpy(found)


def load(
    model: Model, device: torch.device, precision: str, probe: Sequence[Tensor]
) -> OpenvinoRuntime:
    """Return the runtime, from the cache if it was there before.

    Args:
        probe: int8 is calibrated on it.

    Raises:
        BackendError: OpenVINO refused the network, or there is nothing to calibrate
            on.
    """
    wanted = Wanted(precision, device=str(device), probe=tuple(probe))
    planned = plan(model, wanted)
    kept = Cache().fetch(planned.title, planned.key, planned.make)
    return OpenvinoRuntime(kept.blob, precision, threads=torch.get_num_threads())


def plan(model: Model, wanted: Wanted) -> Plan:
    """Return the engine that is asked for, which takes slices of any size.

    Raises:
        SettingsError: OpenVINO does not compute so on CPUs.
    """
    row = backends.find(NAME)
    precision = wanted.precision
    row.require("cpu", precision)
    profile = "any"
    if precision == "int8":
        profile = f"any, calibrated on {wanted.calibration[:16]}"
    key = Key(model.sha256, NAME, row.version(), precision, profile, ("cpu",))

    def make() -> tuple[bytes, Mapping[str, Any]]:
        started = time.monotonic()
        blob, facts = made(model, precision, wanted.probe)
        seconds = round(time.monotonic() - started, 2)
        told = {"model": model.manifest.name, "seconds": seconds}
        return blob, {**told, **facts}

    return Plan(model.manifest.name, key, {}, make)


def made(
    model: Model, precision: str, probe: Sequence[Tensor]
) -> tuple[bytes, Mapping[str, Any]]:
    """Convert a network; return it as stored, and facts about it.

    Raises:
        BackendError: OpenVINO refused the network, or there is nothing to calibrate
            on.
    """
    openvino = _library()
    edge = max(model.manifest.patch, model.stride) // model.stride * model.stride
    example = torch.randn(1, 1, *(edge,) * model.dimensions)
    network: nn.Module = model.network
    double = doubled(network, example) if precision == "bfloat16" else None
    network, shown = (double, split(example)) if double else (network, example)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the tracer, which OpenVINO calls
            graph = openvino.convert_model(_Likely(network).eval(), example_input=shown)
        graph.reshape([-1, shown.shape[1], *(-1,) * model.dimensions])
    except (RuntimeError, ValueError) as error:
        raise _refused(error) from error
    facts: dict[str, Any] = {"settings": {"two_channels": double is not None}}
    if precision == "int8":
        graph = _calibrated(graph, probe)
        facts["settings"]["calibrated_on"] = sum(len(batch) for batch in probe)
    facts["layers"] = [
        {
            "name": layer.get_friendly_name(),
            "kind": layer.get_type_name(),
            "precision": precision,
            "shape": [
                int(size.get_length()) if size.is_static else -1
                for size in layer.get_output_partial_shape(0)
            ],
        }
        for layer in graph.get_ordered_ops()
        if layer.get_type_name() in COMPUTED
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, XML)
        openvino.save_model(graph, path, compress_to_fp16=False)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name in (XML, WEIGHTS):
                entry = zipfile.ZipInfo(name)  # carries no time, unlike a file's own
                file.writestr(entry, Path(folder, name).read_bytes())
    return packed.getvalue(), facts


def split(image: Tensor) -> Tensor:
    """Return (N, 1, ...) as (N, 2, ...): as far as bfloat16 goes, and the rest."""
    coarse = image.bfloat16().float()
    return torch.cat([coarse, image - coarse], dim=1)


def doubled(network: nn.Module, example: Tensor) -> nn.Module | None:
    """Return a copy of a network that takes what ``split`` gives.

    None where something else than convolutions looks at the image, which is found out
    by trying.
    """
    copied = copy.deepcopy(network)
    first: list[nn.Conv2d | nn.Conv3d] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda module, given: (
                first.append(module)
                if given[0].data_ptr() == example.data_ptr()
                else None
            )
        )
        for module in copied.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d)
    ]
    with torch.inference_mode():
        expected = copied(example)
    for hook in hooks:
        hook.remove()
    if not first or any(conv.groups > 1 or conv.in_channels > 1 for conv in first):
        return None
    for conv in first:
        conv.in_channels = 2
        conv.weight = nn.Parameter(conv.weight.detach().repeat_interleave(2, dim=1))
    try:
        with torch.inference_mode():
            found = copied(split(example))
    except (RuntimeError, ValueError):
        return None
    near = (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return copied if near else None


class _Likely(nn.Module):
    """A network that gives probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return the probabilities of the classes."""
        logits: Tensor = self.network(image)
        return logits.softmax(dim=1)


def _calibrated(graph: Any, probe: Sequence[Tensor]) -> Any:  # noqa: ANN401
    """Return the graph in int8, its ranges those that ``probe`` reaches."""
    if not probe:
        msg = "int8 needs slices to be calibrated on"
        raise BackendError(msg, hint="Use it in 'spine segment', on scans.")
    # It would send usage figures to its makers, unless it is told that it is tested.
    os.environ.setdefault("NNCF_CI", "1")
    slices = [one[None].numpy() for batch in probe for one in batch]
    # It draws progress bars on stdout, which belongs to the results.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # on what it uses of other libraries
        try:
            nncf: Any = import_module("nncf")
            nncf.set_log_level(logging.ERROR)
            return nncf.quantize(
                graph,
                nncf.Dataset(slices),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(slices),
            )
        except ImportError as error:
            raise MissingBackendError(f"{NAME} in int8", "nncf", NAME) from error
        except RuntimeError as error:
            raise _refused(error) from error


def _library() -> Any:  # noqa: ANN401  its types are not told
    """Return the module openvino, unable to report its use to its makers.

    Its converter has a stand-in for when the package that reports is not there.
    """
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]
    return import_module("openvino")


def _refused(error: Exception) -> BackendError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return BackendError(
        f"OpenVINO refused the network: {lines[-1] if lines else error}"
    )
