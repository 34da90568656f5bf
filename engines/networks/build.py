"""Networks of model files: built, given their weights, and taken apart for a file."""

import copy
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor, nn

from engines.errors import ModelFileError, UnknownModelError
from engines.files import write_bytes
from engines.networks import catalog, resize
from engines.networks.catalog import NetworkSpec
from engines.networks.resize import Shapes
from engines.networks.tensors import Stored

if TYPE_CHECKING:
    from engines.networks.manifest import Manifest

UNSAVED = "num_batches_tracked"
"""Batch norm's counter, which matters only while training."""

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
        "I64": torch.int64,
    }
)
"""Name of a type in safetensors -> torch's, for what weights may hold."""


def network_of(
    path: Path, manifest: "Manifest", tensors: Mapping[str, Stored]
) -> nn.Module:
    """Return the network of a model file: on the CPU, float32, evaluating.

    Args:
        path: of the file, for messages.
        manifest: of the file.
        tensors: its weights, which ``tensors.require_weights`` accepted.

    Raises:
        ModelFileError: an architecture that this version does not know, or weights
            that do not fit it.
    """
    network = _built(path, manifest, {k: v.shape for k, v in tensors.items()})
    msg = f"{path}: the weights do not fit {manifest.architecture!r}"
    try:
        state = {name: _tensor(held) for name, held in tensors.items()}
        result = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelFileError(msg) from error
    lost = [k for k in result.missing_keys if not k.endswith(UNSAVED)]
    if lost or result.unexpected_keys:
        raise ModelFileError(msg)
    return network.float().eval()


def state_of(network: nn.Module, *, half: bool) -> dict[str, Tensor]:
    """Return what a model file keeps of a network, by name.

    Args:
        network: on any device.
        half: weights as float16; running statistics stay float32.
    """
    return {
        name: _saved(name, value, half)
        for name, value in network.state_dict().items()
        if not name.endswith(UNSAVED)
    }


def stored(tensors: Mapping[str, Tensor]) -> dict[str, Stored]:
    """Return tensors as a file holds them; their memory is shared.

    Args:
        tensors: on the CPU, contiguous.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    return {
        name: Stored(
            names[value.dtype],
            tuple(value.shape),
            value.view(-1).view(torch.uint8).numpy().data,
        )
        for name, value in tensors.items()
    }


def bytes_tensor(content: bytes) -> Tensor:
    """Return bytes as a tensor of one axis, uint8."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a model file, its golden probes included."""
    state: dict[str, Tensor] = safetensors.torch.load_file(path)
    return state


def write(path: Path, metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Write a model file, whole or not at all."""
    write_bytes(path, safetensors.torch.save(dict(state), dict(metadata)))


def channel_plan(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (input, output) channels of every convolution, by module name."""
    return {
        name: (module.in_channels, module.out_channels)
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd)
    }


def _built(path: Path, manifest: "Manifest", shapes: Shapes) -> nn.Module:
    try:
        spec = catalog.find(manifest.architecture)
    except UnknownModelError as error:
        msg = f"{path}: this version has no network {manifest.architecture!r}"
        raise ModelFileError(msg, hint="Update spine.") from error
    try:
        network = spec.build(
            in_channels=1, classes=len(manifest.classes), options=manifest.options
        )
        whole = channel_plan(network)
        resize.fit(network, shapes)
    except Exception as error:  # a file may make a library raise anything
        reason = str(error).splitlines()[0][:120] if str(error) else ""
        msg = f"{path}: no {manifest.architecture!r} can be built of it"
        told = reason or type(error).__name__
        raise ModelFileError(f"{msg} ({told})") from error
    plan = channel_plan(network)
    fits = plan == dict(manifest.channels)
    if not fits or (plan != whole and not _gives(network, spec, manifest)):
        msg = f"{path}: its channels are not those of {manifest.architecture!r}"
        raise ModelFileError(msg, hint="Update spine.")
    return network


def _gives(network: nn.Module, spec: NetworkSpec, manifest: "Manifest") -> bool:
    """Say whether a pruned network's layers fit each other and give the classes."""
    ghost = copy.deepcopy(network).to("meta").eval()
    image = torch.empty(spec.shape(2 * spec.stride), device="meta")
    try:
        with torch.no_grad():
            logits = ghost(image)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return bool(logits.shape[1] == len(manifest.classes))


def _tensor(held: Stored) -> Tensor:
    """Return a tensor that shares the memory of what a file holds."""
    dtype = DTYPES[held.dtype]
    if not len(held.data):
        return torch.empty(held.shape, dtype=dtype)
    return torch.frombuffer(held.data, dtype=dtype).reshape(held.shape)


def _saved(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    keep = not half or not value.is_floating_point() or "running_" in name
    return value if keep else value.half()
