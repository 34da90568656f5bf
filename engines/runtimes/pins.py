"""Orders of preference that 'spine engine tune' measured and pinned.

One file for each model and kind of device, in the folder ``tuned`` of the cache. It
holds until it is forgotten, whatever is measured or installed later.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import OutputError, SettingsError
from engines.runtimes import cache, devices, sealed
from engines.runtimes.backends import Candidate
from engines.runtimes.devices import Device

if TYPE_CHECKING:
    from engines.networks.manifest import Model

FOLDER = "tuned"
SUFFIX = ".json"
COMMAND = "spine engine tune"


@dataclass(frozen=True, slots=True)
class Pin:
    """The order for a model on a kind of device.

    Attributes:
        title: name of the model.
        model: SHA-256 of the model file.
        device: kind of device, as ``devices.kind`` names it.
        order: backends and precisions, the fastest first.
        ms_per_slice: median time of each, in milliseconds.
        made: when, in UTC, ISO 8601.
    """

    title: str
    model: str
    device: str
    order: tuple[Candidate, ...]
    ms_per_slice: tuple[float, ...]
    made: str

    @property
    def reason(self) -> str:
        """Return what the reason of a choice says of it."""
        return f"order pinned by '{COMMAND}' on {self.made[:10]}"

    def sorted(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates in this order; others follow as they stand."""
        last = len(self.order)
        place = {candidate: index for index, candidate in enumerate(self.order)}
        return sorted(candidates, key=lambda candidate: place.get(candidate, last))

    def as_json(self) -> dict[str, Any]:
        """Return the record of it."""
        return {
            "model": self.title,
            "model_sha256": self.model,
            "device": self.device,
            "order": [
                {"backend": backend, "precision": precision, "ms_per_slice": ms}
                for (backend, precision), ms in zip(
                    self.order, self.ms_per_slice, strict=True
                )
            ],
            "made": self.made,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Pin":
        """Rebuild a pin from ``as_json``.

        Raises:
            ValueError, KeyError, TypeError: it is no record of a pin.
        """
        rows = record["order"]
        return cls(
            str(record["model"]),
            str(record["model_sha256"]),
            str(record["device"]),
            tuple((str(row["backend"]), str(row["precision"])) for row in rows),
            tuple(float(row["ms_per_slice"]) for row in rows),
            str(record["made"]),
        )


def new(
    model: "Model", device: Device, measured: Sequence[tuple[Candidate, float]]
) -> Pin:
    """Return the pin of what was measured now.

    Args:
        model: the model.
        device: where it ran.
        measured: candidates with their milliseconds a slice, the fastest first.
    """
    return Pin(
        model.manifest.name,
        model.sha256,
        devices.kind(device),
        tuple(candidate for candidate, _ in measured),
        tuple(round(ms, 3) for _, ms in measured),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )


def read(model: "Model", device: Device) -> Pin | None:
    """Return the pin of a model on a kind of device; None if there is none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        pin = _read(_path(model, device))
    except (OSError, SettingsError):
        return None
    if (pin.model, pin.device) != (model.sha256, devices.kind(device)):
        return None
    return pin


def keep(model: "Model", device: Device, pin: Pin) -> Path:
    """Keep a pin in place of an earlier one; return its file.

    Raises:
        OutputError: the folder or the disk does not take it.
        SettingsError: there is no folder for it.
    """
    path = _path(model, device)
    sealed.write(path, pin.as_json())
    return path


def forget(model: "Model", device: Device) -> bool:
    """Remove the pin of a model on a kind of device; say whether there was one.

    Raises:
        OutputError: the folder may not be changed.
    """
    path = _path(model, device)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        msg = f"cannot remove {path}: {error.strerror}"
        raise OutputError(msg, hint=cache.HINT) from error
    return True


def kept() -> tuple[list[Pin], list[Path]]:
    """Return the pins that are kept, by name, and the files that are damaged."""
    intact, damaged = [], []
    for path in files():
        try:
            intact.append(_read(path))
        except OSError:
            continue
        except ValueError:
            damaged.append(path)
    return intact, damaged


def files() -> list[Path]:
    """Return the files of the folder, damaged ones too."""
    try:
        return sorted((cache.default_folder() / FOLDER).glob(f"[!.]*{SUFFIX}"))
    except SettingsError:
        return []


def _path(model: "Model", device: Device) -> Path:
    digest = hashlib.sha256(f"{model.sha256}|{devices.kind(device)}".encode())
    name = f"{cache.plain(model.manifest.name)}-{digest.hexdigest()[:12]}{SUFFIX}"
    return cache.default_folder() / FOLDER / name


def _read(path: Path) -> Pin:
    try:
        return Pin.from_json(sealed.read(path))
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path.name} is no pinned order"
        raise ValueError(msg) from error
