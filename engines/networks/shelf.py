"""Where models are found: a path, then ``SPINE_MODELS``, then those shipped."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from engines.errors import ModelFileError, UnknownModelError
from engines.networks import catalog
from engines.networks.manifest import (
    SUFFIX,
    Manifest,
    Model,
    load_model,
    open_model,
    read_manifest,
)

DEFAULT_MODEL = "unet-r34"
DEFAULTS: Mapping[str, str] = MappingProxyType(
    {"ct": DEFAULT_MODEL, "mr": "inception-dual-unet"}
)
"""Modality of a scan -> the model for it where none is named."""

AUTO = "auto"
"""In place of a model's name: the default for what each scan is."""

VARIABLE = "SPINE_MODELS"
"""Environment variable: folders of model files, separated as in ``PATH``."""

PAGE_SUFFIX = ".page"
"""Of the folder with pictures for a model's page, beside ``NAME.safetensors``."""

SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class Shelved:
    """A model file that was found.

    Attributes:
        origin: ``shipped`` or the folder of ``SPINE_MODELS`` that holds it.
        manifest: None when the file is damaged; ``problem`` then says how.
    """

    name: str
    path: Path
    origin: str
    manifest: Manifest | None
    problem: str = ""


def models() -> list[Shelved]:
    """Return all model files, in the order in which a name is looked up."""
    return [inspect(path, origin) for path, origin in _files()]


def locate(name: str) -> Path:
    """Return the model file that ``name`` stands for.

    Raises:
        UnknownModelError: there is none; the hint lists those there are.
    """
    given = Path(name)
    if given.suffix == SUFFIX or given.is_file():
        if given.is_file():
            return given
        raise UnknownModelError(name, _known())
    for path, _ in _files():
        if path.name == name + SUFFIX:
            return path
    raise UnknownModelError(name, _known())


def defaults() -> dict[str, Path]:
    """Return the model file for each modality that has one here.

    Raises:
        UnknownModelError: there is none for CT.
    """
    known = set(_known()) | {DEFAULT_MODEL}
    return {kind: locate(name) for kind, name in DEFAULTS.items() if name in known}


def load(name: str) -> Model:
    """Find and load a model by name or path, with its network.

    Raises:
        UnknownModelError: no such model.
        ModelFileError: the file is damaged, or no network can be built of it.
    """
    return load_model(locate(name))


def open(name: str) -> Model:  # noqa: A001  read as shelf.open
    """Find a model by name or path; its network is built when it is first needed.

    Raises:
        UnknownModelError: no such model.
        ModelFileError: the file is damaged.
    """
    return open_model(locate(name))


def page_folder(path: Path) -> Path:
    """Return the folder beside a model file that holds what its page shows of it."""
    return path.with_name(path.name.removesuffix(SUFFIX) + PAGE_SUFFIX)


def untrained() -> list[catalog.NetworkSpec]:
    """Return the architectures that have no model file here."""
    held = {m.manifest.architecture for m in models() if m.manifest}
    return [spec for name, spec in catalog.NETWORKS.items() if name not in held]


def _files() -> Iterator[tuple[Path, str]]:
    folders = [Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    for folder in folders:
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            yield path, str(folder)
    for path in sorted(SHIPPED.glob(f"*{SUFFIX}")):
        yield path, "shipped"


def inspect(path: Path, origin: str) -> Shelved:
    """Return what a model file says of itself, or what is wrong with it."""
    name = path.name.removesuffix(SUFFIX)
    try:
        return Shelved(name, path, origin, read_manifest(path))
    except ModelFileError as error:
        return Shelved(name, path, origin, None, str(error))


def _known() -> tuple[str, ...]:
    return tuple(dict.fromkeys(p.name.removesuffix(SUFFIX) for p, _ in _files()))
