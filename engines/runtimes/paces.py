"""How fast each backend is on this machine, measured once and kept with the engines."""

import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from engines import __version__
from engines.errors import OutputError, SettingsError
from engines.files import write_json
from engines.networks.manifest import Model
from engines.runtimes import backends
from engines.runtimes.cache import default_folder

FILE = "paces.json"

Way = tuple[str, str]
"""Backend and precision."""

NEVER = 1e9
"""In place of the milliseconds of what could not be loaded."""


class Paces:
    """What was measured for one model on one kind of device.

    Other versions and another number of threads are measured anew; other sizes of
    slices change little in which backend is the fastest.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        where = platform.processor() or platform.machine()
        if device.type == "cuda":
            where = torch.cuda.get_device_name(device)
        versions = [f"{row.name} {row.version()}" for row in backends.BACKENDS.values()]
        told = [__version__, model.sha256, where, torch.get_num_threads()]
        self._key = "|".join(map(str, [*told, *versions]))

    def read(self) -> dict[Way, float]:
        """Return milliseconds per slice; empty where nothing was measured."""
        rows = _all().get(self._key, [])
        return {(name, precision): float(ms) for name, precision, ms in rows}

    def write(self, found: Mapping[Way, float | None]) -> None:
        """Keep what was measured; a folder that takes nothing is no reason to stop."""
        known = self.read() | {
            w: NEVER if ms is None else ms for w, ms in found.items()
        }
        rows = [[*way, ms] for way, ms in known.items()]
        try:
            write_json(default_folder() / FILE, {**_all(), self._key: rows})
        except (OutputError, SettingsError):
            return


def _all() -> dict[str, Any]:
    try:
        found = json.loads((default_folder() / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, SettingsError):
        return {}
    return found if isinstance(found, dict) else {}
