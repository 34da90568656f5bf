"""Model files: a network's weights and all that is needed to use them, in one file.

``NAME.safetensors`` carries the manifest as JSON in its metadata, with the SHA-256
of the weights, so that a damaged file is never used, and golden probes (see
``probes``). Importing this module does not import torch; a network is built when it
is first needed.
"""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from engines.errors import ModelFileError, SettingsError
from engines.networks import catalog, schema, tensors
from engines.networks import probes as golden
from engines.networks.probes import Probe
from engines.networks.tensors import Stored
from engines.preprocess.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

SUFFIX = ".safetensors"
METADATA_KEY = "spine"


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
        tensors_sha256: hash of the weights, checked on loading.
        probes_sha256: hash of the block of golden probes; empty for a file without.
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
    probes_sha256: str = ""

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


class Model:
    """A model ready for a runtime.

    Attributes:
        manifest: what it is, can do, and was made from.
        sha256: of its file.
        path: of its file.
    """

    def __init__(
        self, manifest: Manifest, network: "nn.Module | None", sha256: str, path: Path
    ) -> None:
        """Keep what is known of a model.

        Args:
            manifest: of its file.
            network: on the CPU, float32, evaluating; None for the one of the file,
                which is built when it is first needed.
            sha256: of its file.
            path: of its file.
        """
        self.manifest = manifest
        self.sha256 = sha256
        self.path = path
        self._network = network
        self._probes: tuple[Probe, ...] | None = None
        self._lock = threading.Lock()

    @property
    def network(self) -> "nn.Module":
        """The network, on the CPU, float32, evaluating.

        Raises:
            ModelFileError: the file was changed since it was opened, its architecture
                is one that this version does not know, or its weights do not fit it.
        """
        with self._lock:
            if self._network is None:
                held = read_intact(self.path)
                if held.sha256 != self.sha256:
                    msg = f"{self.path} was changed since it was opened"
                    raise ModelFileError(msg, hint="Run again.")
                self._network = _network(self.path, held)
            return self._network

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The golden probes of the file; empty where it has none.

        Raises:
            ModelFileError: they are damaged, or not of this network.
        """
        with self._lock:
            if self._probes is None:
                self._probes = _probes(self.path, self.manifest)
            return self._probes

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


@dataclass(frozen=True, slots=True)
class Content:
    """What a model file holds, without its golden probes.

    Attributes:
        manifest: as it is stored.
        weights: proved to be those that the manifest names.
        sha256: of the whole file.
    """

    manifest: Manifest
    weights: Mapping[str, Stored]
    sha256: str


def save_model(
    path: Path, network: "nn.Module", manifest: Manifest, *, half: bool = True
) -> Manifest:
    """Write a model file without golden probes; return the manifest as it was stored.

    Args:
        path: of the file.
        network: on any device.
        manifest: of the network; its hashes and channels are filled in.
        half: store weights as float16; running statistics stay float32.
    """
    from engines.networks import build

    state = build.state_of(network, half=half)
    full = replace(
        manifest,
        channels=build.channel_plan(network),
        tensors_sha256=tensors.sha256(build.stored(state)),
        probes_sha256="",
    )
    build.write(path, _metadata(full), state)
    return full


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a model file without loading its weights.

    Raises:
        ModelFileError: damaged, or not written by this program.
    """
    try:
        schema.header_bytes(path)
        metadata = tensors.read_metadata(path)
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
        raise tensors.damaged(path, error) from error


def read_intact(path: Path) -> Content:
    """Return what a file holds, after proving that manifest and weights are intact.

    Raises:
        ModelFileError: damaged, or the hash of the weights is another.
    """
    manifest = read_manifest(path)
    try:
        content = path.read_bytes()
        held = tensors.parsed(content)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise tensors.damaged(path, error) from error
    whole = hashlib.sha256(content).hexdigest()
    block = held.pop(golden.TENSOR, None)
    found = tensors.sha256(held)
    if found != manifest.tensors_sha256:
        msg = (
            f"{path} is damaged: the hash of its weights is {found[:12]}, "
            f"its manifest says {manifest.tensors_sha256[:12]}"
        )
        raise ModelFileError(msg)
    if (block is not None) != bool(manifest.probes_sha256):
        missing = "file" if block is None else "manifest"
        msg = f"{path} is damaged: its {missing} lacks the golden probes"
        raise ModelFileError(msg)
    if block is not None:
        _require_hash(path, bytes(block.data), manifest)
    try:
        tensors.require_weights(held)
    except ValueError as error:
        hint = "Train it again, or use another model."
        raise ModelFileError(f"{path}: {error}", hint=hint) from error
    return Content(manifest, held, whole)


def open_model(path: Path) -> Model:
    """Prove that a model file is intact; its network is built when first needed.

    Raises:
        ModelFileError: damaged, or its weights are not those of its manifest.
    """
    held = read_intact(path)
    return Model(held.manifest, None, held.sha256, path)


def load_model(path: Path) -> Model:
    """Load a model file with its network, after proving that it is intact.

    Raises:
        ModelFileError: damaged, hash mismatch, or an architecture that this
            version does not know.
    """
    held = read_intact(path)
    return Model(held.manifest, _network(path, held), held.sha256, path)


def record_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> Manifest:
    """Write what was measured into a model file; all else stays as it is.

    Each row says ``metric``, ``value`` and the ``data`` it was measured on.
    """
    return _rewritten(path, replace(read_manifest(path), metrics=tuple(rows)))


def record_training(path: Path, facts: Mapping[str, Any]) -> Manifest:
    """Add facts on the training to a model file; all else stays as it is."""
    held = read_manifest(path)
    return _rewritten(path, replace(held, training={**held.training, **facts}))


def record_probes(path: Path, probes: Sequence[Probe]) -> None:
    """Write golden probes into a model file, in place of those that it has.

    Raises:
        ModelFileError: the file is damaged.
        ValueError: the probes are not of its network, or too large.
    """
    from engines.networks import build

    manifest = read_manifest(path)
    _require_fit(probes, manifest)
    block = golden.encode(probes)
    full = replace(manifest, probes_sha256=hashlib.sha256(block).hexdigest())
    state = build.read_state(path) | {golden.TENSOR: build.bytes_tensor(block)}
    build.write(path, _metadata(full), state)


def read_probes(path: Path) -> tuple[Probe, ...]:
    """Return the golden probes of a model file; none where it has none.

    Raises:
        ModelFileError: the file or its probes are damaged.
    """
    return _probes(path, read_manifest(path))


def _network(path: Path, held: Content) -> "nn.Module":
    import torch

    from engines.networks import build

    # Weights made in inference mode could not be traced or trained afterwards.
    with torch.inference_mode(mode=False):
        return build.network_of(path, held.manifest, held.weights)


def _probes(path: Path, manifest: Manifest) -> tuple[Probe, ...]:
    if not manifest.probes_sha256:
        return ()
    try:
        block = tensors.read_bytes(path, golden.TENSOR, golden.MOST_BLOCK_BYTES)
        _require_hash(path, block, manifest)
        found = golden.decode(block)
        _require_fit(found, manifest)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise tensors.damaged(path, error) from error
    return found


def _require_hash(path: Path, block: bytes, manifest: Manifest) -> None:
    if hashlib.sha256(block).hexdigest() != manifest.probes_sha256:
        msg = f"{path} is damaged: the hash of its golden probes is another"
        raise ModelFileError(msg)


def _require_fit(probes: Sequence[Probe], manifest: Manifest) -> None:
    spec = catalog.find(manifest.architecture)
    golden.require(
        probes,
        classes=len(manifest.classes),
        dimensions=spec.dimensions,
        stride=spec.stride,
    )


def _rewritten(path: Path, manifest: Manifest) -> Manifest:
    from engines.networks import build

    build.write(path, _metadata(manifest), build.read_state(path))
    return manifest


def _metadata(manifest: Manifest) -> dict[str, str]:
    return {METADATA_KEY: json.dumps(manifest.as_json(), sort_keys=True)}
