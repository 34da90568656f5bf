"""Model files: a network's weights and all that is needed to use them, in one file.

``NAME.safetensors`` carries the manifest as JSON in its metadata, with the SHA-256
of the tensors, so that a damaged file is never used.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engines.errors import ModelFileError, SettingsError, UnknownModelError
from engines.files import sha256_of, write_bytes
from engines.networks import catalog, resize, schema
from engines.networks.catalog import NetworkSpec
from engines.networks.resize import Shapes
from engines.preprocess.recipe import Recipe

SUFFIX = ".safetensors"
METADATA_KEY = "spine"
UNSAVED = "num_batches_tracked"
"""Batch norm's counter, which matters only while training."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
"""What the tensors of a model file may hold."""

CUBE_VOXELS = 64
"""Edge of the cube that operations are counted in."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is, can do, and was made from.

    Attributes:
        name: what the user types.
        architecture: row of the catalogue that builds it.
        options: what the row was built with, by name.
        classes: class name -> index of the output channel, 0 the background.
        modality: ``ct`` or ``mr``.
        views: planes whose slices it was trained on.
        recipe: how a scan is prepared for it.
        patch: rows and columns of the smallest slices it was trained on; smaller
            ones are filled up to this. For a network in three dimensions, the edge
            of its cubes.
        channels: convolution -> (input, output) channels, as built.
        licence: licence of the weights.
        training: settings, data with origins and licences, steps, command.
        metrics: what was measured, each with the data it was measured on.
        parent: name and hash of the model it was made from, if any.
        guide: name of the model that finds the spine and its regions, whose vertebrae
            this one then tells apart; empty for one that works alone.
        tensors_sha256: hash of all tensors, checked on loading.
    """

    name: str
    architecture: str
    classes: Mapping[str, int]
    modality: str
    views: tuple[str, ...]
    recipe: Recipe
    patch: int = 0
    channels: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    licence: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    parent: Mapping[str, str] | None = None
    tensors_sha256: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    guide: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the manifest as it is stored."""
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        record |= {"recipe": self.recipe.as_json(), "classes": dict(self.classes)}
        record["options"] = dict(self.options)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Manifest":
        """Rebuild a manifest from ``as_json``; keys of later versions are ignored."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in record.items() if k in known}
        values["recipe"] = Recipe.from_json(values["recipe"])
        by_index = sorted(values["classes"].items(), key=lambda item: item[1])
        values["classes"] = dict(by_index)
        values["views"] = tuple(values["views"])
        values["metrics"] = tuple(values.get("metrics", ()))
        values["channels"] = {k: tuple(v) for k, v in values["channels"].items()}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready for a runtime: its network is on the CPU, float32, evaluating."""

    manifest: Manifest
    network: nn.Module
    sha256: str
    path: Path

    @property
    def classes(self) -> int:
        """Number of output channels, background included."""
        return len(self.manifest.classes)

    @property
    def dimensions(self) -> int:
        """2 for a network that sees slices, 3 for one that sees cubes."""
        return catalog.find(self.manifest.architecture).dimensions

    @property
    def stride(self) -> int:
        """Rows and columns of the input are multiples of this."""
        return catalog.find(self.manifest.architecture).stride


def save_model(
    path: Path, network: nn.Module, manifest: Manifest, *, half: bool = True
) -> Manifest:
    """Write the model file and return the manifest as it was stored.

    Args:
        half: store weights as float16; running statistics stay float32.
    """
    tensors = {
        name: _stored(name, value, half)
        for name, value in network.state_dict().items()
        if not name.endswith(UNSAVED)
    }
    full = replace(
        manifest,
        channels=channel_plan(network),
        tensors_sha256=_tensors_sha256(tensors),
    )
    metadata = {METADATA_KEY: json.dumps(full.as_json(), sort_keys=True)}
    write_bytes(path, safetensors.torch.save(tensors, metadata))
    return full


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a model file without loading its weights.

    Raises:
        ModelFileError: damaged, or not written by this program.
    """
    try:
        schema.header_bytes(path)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if METADATA_KEY not in metadata:
            msg = "it has no manifest"
            raise ValueError(msg)
        return Manifest.from_json(schema.parsed(metadata[METADATA_KEY]))
    except FileNotFoundError:
        msg = f"there is no model file {path}"
        raise ModelFileError(msg, hint="Check the path of --model.") from None
    except (
        safetensors.SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        SettingsError,
    ) as error:
        msg = f"{path} is not an intact model file ({_reason(error)})"
        raise ModelFileError(msg) from error


def read_intact(path: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Read a model file's manifest and weights, after proving that it is intact.

    Raises:
        ModelFileError: damaged, or the hash of the weights is another.
    """
    manifest = read_manifest(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        msg = f"{path} is not an intact model file ({_reason(error)})"
        raise ModelFileError(msg) from error
    found = _tensors_sha256(tensors)
    if found != manifest.tensors_sha256:
        msg = (
            f"{path} is damaged: the hash of its weights is {found[:12]}, "
            f"its manifest says {manifest.tensors_sha256[:12]}"
        )
        raise ModelFileError(msg)
    _require_weights(path, tensors)
    return manifest, tensors


def load_model(path: Path) -> Model:
    """Load a model file, after proving that it is intact.

    Raises:
        ModelFileError: damaged, hash mismatch, or an architecture that this
            version does not know.
    """
    manifest, tensors = read_intact(path)
    network = _build(path, manifest, {k: v.shape for k, v in tensors.items()})
    try:
        result = network.load_state_dict(tensors, strict=False)
    except (RuntimeError, ValueError, TypeError) as error:
        msg = f"{path}: the weights do not fit {manifest.architecture!r}"
        raise ModelFileError(msg) from error
    lost = [k for k in result.missing_keys if not k.endswith(UNSAVED)]
    if lost or result.unexpected_keys:
        msg = f"{path}: the weights do not fit {manifest.architecture!r}"
        raise ModelFileError(msg)
    return Model(manifest, network.float().eval(), sha256_of(path), path)


def record_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> Manifest:
    """Write what was measured into a model file; its weights stay as they are.

    Each row says ``metric``, ``value`` and the ``data`` it was measured on.
    """
    manifest = replace(read_manifest(path), metrics=tuple(rows))
    tensors = safetensors.torch.load_file(path)
    metadata = {METADATA_KEY: json.dumps(manifest.as_json(), sort_keys=True)}
    write_bytes(path, safetensors.torch.save(tensors, metadata))
    return manifest


def channel_plan(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (input, output) channels of every convolution, by module name."""
    return {
        name: (module.in_channels, module.out_channels)
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd)
    }


def parameter_counts(network: nn.Module) -> dict[str, int]:
    """Count weights, and batch norm's running statistics as non-trainable."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    kept = sum(b.numel() for n, b in network.named_buffers() if not n.endswith(UNSAVED))
    return {
        "total": trainable + frozen + kept,
        "trainable": trainable,
        "non_trainable": frozen + kept,
    }


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model file's tensors without loading them.

    Raises:
        ModelFileError: damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        msg = f"{path} is not an intact model file ({_reason(error)})"
        raise ModelFileError(msg) from error


def describe_network(
    architecture: str,
    classes: int,
    size: int,
    options: Mapping[str, Any] | None = None,
    shapes: Shapes | None = None,
) -> dict[str, Any]:
    """Return parameter counts and GFLOP of one (size, size) slice, without weights.

    A multiplication and an addition count as two operations. For a network in three
    dimensions it is a cube of ``CUBE_VOXELS`` per edge, divided by its slices.

    Args:
        architecture: row of the catalogue.
        classes: output channels.
        size: rows and columns of the slice.
        options: what the row was built with.
        shapes: of a pruned network's tensors, by name.
    """
    spec = catalog.find(architecture)
    size = size if spec.dimensions == 2 else CUBE_VOXELS
    with torch.device("meta"):
        network = spec.build(in_channels=1, classes=classes, options=options)
        resize.fit(network, shapes or {})
        flop = operations(network.eval(), torch.empty(spec.shape(size)))
    slices = 1 if spec.dimensions == 2 else size
    return {
        "parameters": parameter_counts(network),
        "gflop_per_slice": round(flop / 1e9 / slices, 2),
        "slice_size": size,
    }


def operations(network: nn.Module, image: Tensor) -> int:
    """Return the operations of one forward pass; both may be on the device meta."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(image)
    return int(counter.get_total_flops())


def _build(path: Path, manifest: Manifest, shapes: Shapes) -> nn.Module:
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
        msg = f"{path}: no {manifest.architecture!r} can be built of it"
        raise ModelFileError(f"{msg} ({_reason(error)})") from error
    plan = channel_plan(network)
    fits = plan == dict(manifest.channels)
    if not fits or (plan != whole and not _gives(network, spec, manifest)):
        msg = f"{path}: its channels are not those of {manifest.architecture!r}"
        raise ModelFileError(msg, hint="Update spine.")
    return network


def _require_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers: every mask would be empty, and look done."""
    for name, value in tensors.items():
        if value.dtype not in DTYPES:
            kind = str(value.dtype).removeprefix("torch.")
            msg = f"{path}: {name} holds {kind}, which no weights are"
            raise ModelFileError(msg)
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            msg = f"{path}: {bad} of the weights of {name} are not finite numbers"
            raise ModelFileError(msg, hint="Train it again, or use another model.")


def _gives(network: nn.Module, spec: NetworkSpec, manifest: Manifest) -> bool:
    """Say whether a pruned network's layers fit each other and give the classes."""
    ghost = copy.deepcopy(network).to("meta").eval()
    image = torch.empty(spec.shape(2 * spec.stride), device="meta")
    try:
        with torch.no_grad():
            logits = ghost(image)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return bool(logits.shape[1] == len(manifest.classes))


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    keep = not half or not value.is_floating_point() or "running_" in name
    return value if keep else value.half()


def _tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
