"""Convert a network of torch for OpenVINO, and calibrate it for int8.

Imported only where an engine has to be made; ``openvino_runtime`` runs it.
"""

import contextlib
import copy
import io
import logging
import os
import tempfile
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
from engines.networks.probes import Probe
from engines.runtimes.openvino_library import NAME, library, refused
from engines.runtimes.openvino_runtime import WEIGHTS, XML, split

COMPUTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
"""Layers that are told of; the others are fused with them."""

TOLERANCE = 1e-3
"""How far a network in two channels may be from itself, relative to the largest
logit."""


def converted(
    model: Model, precision: str, probes: Sequence[Probe]
) -> tuple[bytes, Mapping[str, Any]]:
    """Convert a network; return it as stored, and facts about it.

    Args:
        model: whose network is converted.
        precision: key of ``openvino_runtime.HINTS``.
        probes: int8 is calibrated on them.

    Raises:
        BackendError: OpenVINO refused the network, or there is nothing to calibrate
            on.
    """
    openvino = library()
    edge = max(model.manifest.patch, model.stride) // model.stride * model.stride
    example = torch.randn(1, 1, *(edge,) * model.dimensions)
    network: nn.Module = model.network
    double = doubled(network, example) if precision == "bfloat16" else None
    network, shown = (double, _split(example)) if double else (network, example)
    try:
        # Without gradients, since weights that were made in inference mode have none.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # on the tracer, which OpenVINO calls
            graph = openvino.convert_model(_Likely(network).eval(), example_input=shown)
        graph.reshape([-1, shown.shape[1], *(-1,) * model.dimensions])
    except (RuntimeError, ValueError) as error:
        raise refused(error) from error
    facts: dict[str, Any] = {"settings": {"two_channels": double is not None}}
    if precision == "int8":
        graph = _calibrated(graph, probes)
        facts["settings"]["calibrated_on"] = sum(len(probe) for probe in probes)
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
    return _packed(openvino, graph), facts


def _packed(openvino: Any, graph: Any) -> bytes:  # noqa: ANN401
    """Return a graph as an archive of its layers and weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, XML)
        openvino.save_model(graph, path, compress_to_fp16=False)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name in (XML, WEIGHTS):
                entry = zipfile.ZipInfo(name)  # carries no time, unlike a file's own
                file.writestr(entry, Path(folder, name).read_bytes())
    return packed.getvalue()


def _split(image: Tensor) -> Tensor:
    return torch.from_numpy(split(image.numpy()))


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
            found = copied(_split(example))
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


def _calibrated(graph: Any, probes: Sequence[Probe]) -> Any:  # noqa: ANN401
    """Return the graph in int8, its ranges those that ``probes`` reach."""
    if not probes:
        msg = "int8 is calibrated on the golden probes of the model, which has none"
        raise BackendError(msg, hint="Choose bfloat16 or float32.")
    # It would send usage figures to its makers, unless it is told that it is tested.
    os.environ.setdefault("NNCF_CI", "1")
    slices = [image[None] for probe in probes for image in probe.images]
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
            raise refused(error) from error
