"""Verdicts of the parity gate that are kept between runs, one file each.

A verdict says whether a backend in a precision labels the golden probes of a model on
this kind of device as the maker's reference did, or why it cannot be loaded or run. It
lies in the folder ``verdicts`` of the cache and counts only for exactly what it was
given for. One that is damaged is none: the gate judges anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import __version__
from engines.errors import OutputError, SettingsError
from engines.networks.probes import Probe
from engines.runtimes import backends, cache, devices, sealed
from engines.runtimes.backends import Candidate
from engines.runtimes.cache import Key
from engines.runtimes.devices import Device
from engines.runtimes.gate import Gate
from engines.runtimes.plan import calibration

if TYPE_CHECKING:
    from engines.networks.manifest import Model

FOLDER = "verdicts"
SUFFIX = ".json"

ANY = "any"
"""In place of a profile: a verdict holds for batches of any size."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said.

    Attributes:
        title: name of the model.
        key: what it holds for; ``device`` is a kind, as ``devices.kind`` names it.
        gate: None where there is a problem.
        problem: why the backend could not be loaded or run.
        judged: when, in UTC, ISO 8601.
        ms_per_slice: milliseconds a slice, or a cube, when it was judged. It decides
            nothing, as it depends on what else the machine does.
    """

    title: str
    key: Key
    gate: Gate | None
    problem: str
    judged: str
    ms_per_slice: float | None = None

    @property
    def passed(self) -> bool:
        """Say whether the backend may be used."""
        return self.gate is not None and self.gate.passed

    @property
    def name(self) -> str:
        """Return the name of its file, without the suffix."""
        return file_name(self.title, self.key)

    def counts(self) -> bool:
        """Say whether the versions that it was given for are those installed here."""
        key = self.key
        row = backends.BACKENDS.get(key.backend)
        if row is None or row.version() != key.version:
            return False
        return key.program == __version__ and key.driver in ("", devices.driver())

    def as_json(self) -> dict[str, Any]:
        """Return the record of it."""
        return {
            "model": self.title,
            "key": self.key.as_json(),
            "gate": self.gate.as_json() if self.gate else None,
            "problem": self.problem,
            "judged": self.judged,
            "ms_per_slice": self.ms_per_slice,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Verdict":
        """Rebuild a verdict from ``as_json``.

        Raises:
            ValueError, KeyError, TypeError: it is no record of a verdict.
        """
        gate = Gate.from_json(record["gate"]) if record["gate"] else None
        problem = str(record["problem"])
        if (gate is None) != bool(problem):
            msg = "a verdict has either figures or a problem"
            raise ValueError(msg)
        key = Key.from_json(record["key"])
        ms, judged = record.get("ms_per_slice"), str(record["judged"])
        pace = None if ms is None else float(ms)
        return cls(str(record["model"]), key, gate, problem, judged, pace)


def key_of(
    model: "Model",
    device: Device,
    candidate: Candidate,
    probes: Sequence[Probe] = (),
) -> Key:
    """Return what a verdict on a candidate with a model depends on here.

    Args:
        model: the model.
        device: where it runs.
        candidate: backend and precision.
        probes: golden probes of the model; they matter for int8 alone.
    """
    backend, precision = candidate
    return Key(
        model.sha256,
        backend,
        backends.find(backend).version(),
        precision,
        ANY,
        device=devices.kind(device),
        driver=devices.driver() if device.type == "cuda" else "",
        calibration=calibration(precision, probes),
    )


def new(
    title: str,
    key: Key,
    gate: Gate | None = None,
    *,
    problem: str = "",
    ms_per_slice: float | None = None,
) -> Verdict:
    """Return a verdict that was given now."""
    judged = datetime.now(UTC).isoformat(timespec="seconds")
    ms = None if ms_per_slice is None else round(ms_per_slice, 3)
    return Verdict(title, key, gate, problem, judged, ms)


def read(title: str, key: Key) -> Verdict | None:
    """Return the verdict that is kept for ``key``; None if there is no intact one."""
    try:
        verdict = _read(_folder() / f"{file_name(title, key)}{SUFFIX}")
    except (OSError, ValueError, SettingsError):
        return None
    return verdict if verdict.key == key else None


def keep(verdict: Verdict) -> bool:
    """Keep a verdict for later runs.

    Returns:
        False where the folder or the disk does not take it: the next run judges anew.
    """
    try:
        sealed.write(_folder() / f"{verdict.name}{SUFFIX}", verdict.as_json())
    except (OutputError, SettingsError):
        return False
    return True


def kept() -> tuple[list[Verdict], list[Path]]:
    """Return the verdicts that are kept, by name, and the files that are damaged."""
    intact, damaged = [], []
    for path in files():
        try:
            intact.append(_read(path))
        except OSError:
            continue  # removed meanwhile, or closed to this user
        except ValueError:
            damaged.append(path)
    return intact, damaged


def files() -> list[Path]:
    """Return the files of the folder, damaged ones too."""
    try:
        return sorted(_folder().glob(f"[!.]*{SUFFIX}"))
    except SettingsError:
        return []


def file_name(title: str, key: Key) -> str:
    """Return how the file of a verdict is called, without its suffix."""
    plain = cache.plain(title)
    return f"{plain}-{key.backend}-{key.precision}-{key.digest[:12]}"


def _folder() -> Path:
    return cache.default_folder() / FOLDER


def _read(path: Path) -> Verdict:
    """Return the verdict in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or lies under another name than its own.
    """
    try:
        verdict = Verdict.from_json(sealed.read(path))
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path.name} is no verdict"
        raise ValueError(msg) from error
    if verdict.name != path.stem:
        msg = f"{path.name} is the verdict of something else"
        raise ValueError(msg)
    return verdict
