"""Engines, ahead of their use: build, list, inspect and clear.

A backend that builds engines has a row in ``BUILDERS``.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from engines.errors import MissingBackendError, OutputError, SettingsError
from engines.files import sha256_of, sweep
from engines.networks import shelf
from engines.networks.manifest import Model
from engines.networks.probes import Probe
from engines.results import Note
from engines.runtimes import backends, pins, verdicts
from engines.runtimes.cache import HINT, Cache, Entry
from engines.runtimes.plan import Plan, Wanted

AUTO = "auto"
"""In place of a backend: the one for the GPUs named, or the first installed."""

BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "tensorrt": "engines.runtimes.tensorrt_build:plan_data_centre",
        "tensorrt-rtx": "engines.runtimes.tensorrt_build:plan_rtx",
        "openvino": "engines.runtimes.openvino_runtime:plan",
    }
)
"""Backend -> ``module:function``, (model, wanted) to a plan; imported when used."""

USUAL_PRECISION: Mapping[str, str] = MappingProxyType(
    {"tensorrt": "float16", "tensorrt-rtx": "float16", "openvino": "bfloat16"}
)
"""Key of ``BUILDERS`` -> what an engine computes in unless told otherwise."""

AHEAD = "tensorrt-rtx"
"""The backend whose engines are built for GPUs that need not be here."""

NONE = "no engine's name begins"
LOOK = "Look for its name with 'spine engine list'."

Planner = Callable[[Model, Wanted], Plan]


@dataclass(frozen=True, slots=True)
class Kept:
    """An engine as it is told of.

    Attributes:
        fresh: it was made just now; None when nobody asked for it to be made.
        model: the model file that it belongs to; None where no file here has its hash.
    """

    entry: Entry
    fresh: bool | None = None
    model: Path | None = None

    def as_json(self, *, whole: bool = False) -> dict[str, Any]:
        """Return the record for ``--json``; with its layers if ``whole``."""
        entry, facts = self.entry, self.entry.facts
        record: dict[str, Any] = {
            "name": entry.name,
            "path": str(entry.path),
            "model": {
                "name": facts.get("model"),
                "sha256": entry.key.model,
                "path": str(self.model) if self.model else None,
            },
            "backend": entry.key.backend,
            "backend_version": entry.key.version,
            "precision": entry.key.precision,
            "targets": list(entry.key.targets),
            "gpu": entry.key.device or None,
            "driver": entry.key.driver or None,
            "profile": entry.key.profile,
            "size_bytes": entry.size,
            "sha256": entry.sha256,
            "made": entry.made,
        }
        if self.fresh is not None:
            record |= {"fresh": self.fresh, "seconds": facts.get("seconds")}
        if whole:
            record |= {
                "settings": facts.get("settings"),
                "memory": facts.get("memory"),
                "tensors": facts.get("tensors", []),
                "layer_precisions": self.precisions(),
                "layers": facts.get("layers", []),
            }
        return record

    def precisions(self) -> dict[str, int]:
        """Return precision -> layers that compute in it, the most first."""
        layers = self.entry.facts.get("layers", [])
        counted = Counter(layer["precision"] for layer in layers if layer["precision"])
        return dict(counted.most_common())

    def cells(self) -> tuple[str, ...]:
        """Return one row of the table."""
        key = self.entry.key
        return (
            self.entry.name,
            str(self.model) if self.model else f"no file here ({key.model[:12]})",
            key.device or ", ".join(key.targets),
            key.profile,
            f"{self.entry.size / 1e6:.1f}",
            self.entry.made,
        )


def build(
    name: str,
    backend: str = AUTO,
    wanted: Wanted | None = None,
    *,
    probes: Callable[[Model], Sequence[Probe]] = lambda model: (),
) -> Kept:
    """Build the engine of a model, or find it built, and keep it.

    Args:
        name: of the model, or its path.
        backend: key of ``BUILDERS``, or ``auto``.
        wanted: precision, batch and GPUs.
        probes: returns the golden probes of the model; called only for int8, which is
            calibrated on them.

    Raises:
        UnknownModelError: no such model.
        ModelFileError: the model file is damaged.
        MissingBackendError: the backend's library is not installed.
        SettingsError: the backend builds no engines, or not so.
        DeviceError: there is no GPU to build for.
        BackendError: the network cannot be exported or built.
        OutputError: the engine cannot be kept.
    """
    asked = wanted or Wanted("")
    name_of = chosen(backend, asked)
    planner = _planner(name_of)
    if not asked.precision:
        asked = replace(asked, precision=USUAL_PRECISION[name_of])
    model = shelf.open(name)
    if asked.precision == "int8":
        asked = replace(asked, probes=tuple(probes(model)))
    planned = planner(model, asked)
    fetched = Cache().fetch(planned.title, planned.key, planned.make)
    if fetched.entry is None:
        raise OutputError(fetched.notes[0].message, hint=HINT)
    return Kept(fetched.entry, fetched.fresh, _file_of(fetched.entry, _files()))


def chosen(backend: str, wanted: Wanted) -> str:
    """Return the backend that ``auto`` stands for, any other as it is."""
    if backend != AUTO:
        return backend
    if wanted.targets:
        return AHEAD
    rows = [backends.find(name) for name in BUILDERS]
    return next((row.name for row in rows if row.missing() is None), AHEAD)


def listing() -> list[Kept]:
    """Return the engines that are kept, by name."""
    files = _files()
    return [Kept(entry, model=_file_of(entry, files)) for entry in Cache().entries()]


def inspect(name: str) -> tuple[list[Kept], list[Note]]:
    """Return the engines whose names begin with ``name``, as those of a model do.

    Returns:
        The intact ones, by name, and a note on each that is damaged.

    Raises:
        SettingsError: there is none.
        OutputError: all of them are damaged.
    """
    cache, files = Cache(), _files()
    found = [entry for entry in cache.entries() if entry.name.startswith(name)]
    found = [entry for entry in found if entry.name == name] or found
    if not found:
        raise SettingsError(f"{NONE} with {name!r}", hint=LOOK)
    intact, notes = [], []
    for entry in found:
        if cache.load(entry.name) is None:
            notes.append(Note("damaged", f"{entry.path} is damaged"))
        else:
            intact.append(Kept(entry, model=_file_of(entry, files)))
    if not intact:
        told = "; ".join(note.message for note in notes)
        raise OutputError(told, hint="Build it again with 'spine engine build'.")
    return intact, notes


def _files() -> dict[str, Path]:
    """Return SHA-256 of the model files that are found by name -> path."""
    return {sha256_of(one.path): one.path for one in reversed(shelf.models())}


def _file_of(entry: Entry, files: Mapping[str, Path]) -> Path | None:
    return files.get(entry.key.model)


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was removed.

    Attributes:
        engines: their names.
        verdicts: how many verdicts of the gate.
        pins: how many pinned orders.
        notes: on engines that were not removed.
    """

    engines: list[str]
    verdicts: int
    pins: int
    notes: list[Note]

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        return {
            "removed": self.engines,
            "removed_verdicts": self.verdicts,
            "removed_pins": self.pins,
        }


def clear(names: Sequence[str] = ()) -> Cleared:
    """Remove all whose names begin with one of ``names``, or everything.

    That are engines, verdicts of the gate and pinned orders. What killed builds left
    goes too. An engine that is being built now stays.

    Raises:
        SettingsError: nothing begins so.
        OutputError: the folder may not be changed.
    """
    cache = Cache()
    there, judged, pinned = cache.names(), verdicts.files(), pins.files()
    every = [*there, *(path.stem for path in (*judged, *pinned))]
    for name in names:
        if not any(one.startswith(name) for one in every):
            raise SettingsError(f"{NONE} with {name!r}", hint=LOOK)
    removed, notes = [], []
    for one in _named(there, names):
        if cache.remove(one):
            removed.append(one)
        else:
            notes.append(Note("busy", f"{one} is being built just now and was kept"))
    count, pin_count = _removed(judged, names), _removed(pinned, names)
    if not names:
        _tidy(cache.folder)
    return Cleared(removed, count, pin_count, notes)


def _named(there: Sequence[str], names: Sequence[str]) -> list[str]:
    return [one for one in there if not names or one.startswith(tuple(names))]


def _removed(paths: Sequence[Path], names: Sequence[str]) -> int:
    """Remove the records whose names begin with one of ``names``; return how many."""
    chosen = [path for path in paths if _named([path.stem], names)]
    for path in chosen:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            msg = f"cannot remove {path}: {error.strerror}"
            raise OutputError(msg, hint=HINT) from error
    return len(chosen)


def _tidy(folder: Path) -> None:
    """Remove what killed runs left of records, and their folders where empty."""
    for name in (verdicts.FOLDER, pins.FOLDER):
        sweep(folder / name)
        with contextlib.suppress(OSError):
            (folder / name).rmdir()


def targets(given: str | None) -> tuple[str, ...]:
    """Return the compute capabilities in a text like ``sm86,sm89``."""
    parts = (part.strip().lower() for part in (given or "").split(","))
    return tuple(part for part in parts if part)


def _planner(backend: str) -> Planner:
    row = backends.find(backend)
    if row.name not in BUILDERS:
        msg = f"{row.name} is not a backend that engines are built for"
        raise SettingsError(msg, hint=f"Choose one of: {', '.join(BUILDERS)}.")
    lost = row.missing()
    if lost is not None:
        raise MissingBackendError(row.name, lost, row.extra)
    module, _, attribute = BUILDERS[row.name].partition(":")
    return cast("Planner", getattr(import_module(module), attribute))
