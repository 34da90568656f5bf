"""What can be used here: model files and the networks that have none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.errors import ModelFileError, UnknownModelError
from engines.files import sha256_of
from engines.labels import SPINE_CLASSES
from engines.networks import catalog, shelf
from engines.networks.manifest import read_probes
from engines.networks.probes import summary
from engines.networks.tensors import read_shapes
from engines.preprocess import recipe
from engines.results import Note

MOST_NAMES = 6
"""Classes that a row of the table names; of more it has the first and the last."""

SLICE_PIXELS = 256
"""Rows and columns of the slice that ``gflop_per_slice`` counts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model file, or an architecture without one (``path`` is None)."""

    name: str
    architecture: str
    path: Path | None
    origin: str
    sha256: str | None
    classes: Mapping[str, int]
    modality: str
    views: tuple[str, ...]
    licence: str
    accuracy: tuple[Mapping[str, Any], ...]
    parent: Mapping[str, str] | None
    training: Mapping[str, Any]
    problem: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    guide: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        told, problem = self._size()
        probes, damage = self._probes()
        return {
            "name": self.name,
            "architecture": self.architecture,
            "path": str(self.path) if self.path else None,
            "origin": self.origin,
            "sha256": self.sha256,
            "classes": dict(self.classes),
            "modality": self.modality,
            "views": list(self.views),
            "options": dict(self.options),
            **told,
            "probes": probes,
            "size_bytes": self.path.stat().st_size if self.path else None,
            "guide": self.guide or None,
            "licence": self.licence,
            "accuracy": [dict(row) for row in self.accuracy],
            "parent": dict(self.parent) if self.parent else None,
            "training": dict(self.training),
            "problem": self.problem or problem or damage or None,
        }

    def _size(self) -> tuple[dict[str, Any], str]:
        """Return parameters and operations, or what keeps a file from having any."""
        nothing: dict[str, Any] = {"parameters": None, "gflop_per_slice": None}
        if not self.architecture:
            return nothing, ""
        from engines.networks.complexity import describe_network

        try:
            shapes = read_shapes(self.path) if self.path else None
            return describe_network(
                self.architecture, len(self.classes), SLICE_PIXELS, self.options, shapes
            ), ""
        except Exception as error:  # noqa: BLE001  of one file; the others are listed
            return nothing, f"no network can be built of it ({type(error).__name__})"

    def _probes(self) -> tuple[dict[str, int] | None, str]:
        """Return how many golden probes a file has, or what is wrong with them."""
        if self.path is None or not self.architecture:
            return None, ""
        try:
            found = read_probes(self.path)
        except ModelFileError as error:
            return None, str(error)
        return (summary(found) if found else None), ""

    def cells(self) -> tuple[str, ...]:
        """Return one row of the table, with the first of the figures."""
        size = f"{self.path.stat().st_size / 1e6:.1f}" if self.path else ""
        accuracy = "; ".join(
            f"{row.get('metric')} {row.get('value')} ({row.get('data')})"
            for row in self.accuracy[:1]
        )
        shown = accuracy or ("" if self.path else "no weights: train it")
        marked = [name for name, index in self.classes.items() if index]
        classes = ", ".join(marked)
        if len(marked) > MOST_NAMES:
            classes = f"{len(marked)}: {marked[0]} to {marked[-1]}"
        return (
            self.name,
            self.architecture,
            classes,
            self.modality,
            size,
            self.problem or shown,
        )

    def notes(self) -> tuple[Note, ...]:
        """Return what the user should know about a file that cannot be used."""
        return (Note("model_file", self.problem),) if self.problem else ()


def inventory(name: str | None = None) -> list[Entry]:
    """Return every model and untrained network, or the one called ``name``.

    Raises:
        UnknownModelError: nothing has that name.
    """
    entries = [_of_file(one) for one in shelf.models()]
    entries += [_of_network(spec) for spec in shelf.untrained()]
    if name is None:
        return entries
    if Path(name).is_file():
        return [_of_file(shelf.inspect(Path(name), "path"))]
    chosen = [entry for entry in entries if entry.name == name]
    if not chosen:
        raise UnknownModelError(name, tuple(entry.name for entry in entries))
    return chosen[:1]


def _of_file(one: shelf.Shelved) -> Entry:
    held = one.manifest
    if held is None:
        return Entry(
            one.name,
            "",
            one.path,
            one.origin,
            None,
            {},
            "",
            (),
            "",
            (),
            None,
            {},
            one.problem,
        )
    return Entry(
        one.name,
        held.architecture,
        one.path,
        one.origin,
        sha256_of(one.path),
        held.classes,
        held.modality,
        held.views,
        held.licence,
        held.metrics,
        held.parent,
        held.training,
        options=held.options,
        guide=held.guide,
    )


def _of_network(spec: catalog.NetworkSpec) -> Entry:
    return Entry(
        spec.name,
        spec.name,
        None,
        "catalogue",
        None,
        SPINE_CLASSES,
        recipe.find(spec.recipe).modality,
        spec.views,
        "",
        (),
        None,
        {"source": spec.source},
    )
