"""Where and how the networks of a batch are computed, and what if that fails.

What computes is chosen once for each model and kind of device, kept in the record of
the output folder, and used again by every later run into that folder: the masks of a
folder come from one backend in one precision, whichever scan a run begins with. A
runtime that fails on a scan gives way to the reference for that scan and the rest of
the run, with a warning; a scan is never computed partly by one and partly by another.
"""

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from engines import __version__
from engines.batch import Job
from engines.errors import LostDeviceError
from engines.results import Note
from engines.runlog import RunLog
from engines.runtimes import backends, devices
from engines.runtimes.choose import AUTO, Choice, candidates, choose, reference
from engines.runtimes.gate import Gate
from engines.runtimes.sturdy import SturdyRuntime
from engines.segment import locate
from engines.segment.inference import (
    PROBE_SLICES,
    Inferred,
    Prepared,
    around_spine,
    infer,
    opinion,
    probe,
)
from engines.segment.models import Chosen
from engines.segment.settings import SegmentSettings

CALIBRATION_SLICES = 12
"""Slices of each view that int8 is calibrated on, and then looked at by the gate."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Computed:
    """What computed a scan."""

    model: str
    backend: str
    precision: str
    device: str

    def as_json(self) -> dict[str, str]:
        """Return the record of it."""
        return {
            "model": self.model,
            "backend": self.backend,
            "precision": self.precision,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What the networks say of a scan, and what computed it.

    Attributes:
        by: the network that found the spine first, then a guided one.
    """

    inferred: Inferred
    by: tuple[Computed, ...]


class Computer:
    """Runs networks over the scans of a batch, on all of its devices."""

    def __init__(
        self,
        settings: SegmentSettings,
        log: RunLog,
        stage: Callable[[str, str], None] = lambda name, stage: None,
    ) -> None:
        """Take the devices.

        Args:
            settings: of the batch.
            log: record of the output folder, which keeps what was chosen.
            stage: is called with a case and the stage that begins.

        Raises:
            DeviceError: the device is not there.
            SettingsError, MissingBackendError: nothing installed computes so there.
        """
        self._settings = settings
        self._log = log
        self._stage = stage
        self.devices = devices.pick_all(settings.device, gpu=settings.require_gpu)
        for device in self.devices:
            candidates(device, settings.precision, settings.backend)
        self._free: queue.SimpleQueue[torch.device] = queue.SimpleQueue()
        for device in self.devices:
            self._free.put(device)

    def scan(self, job: Job, chosen: Chosen, prepared: Prepared) -> Found:
        """Return what ``chosen`` says of a scan.

        A lost device is not used again: the CPU computes the scan, with a warning.

        Raises:
            LostDeviceError: the device was lost, and a GPU is required.
        """
        device = self._free.get()
        try:
            return self._networks(job, chosen, prepared, device)
        except LostDeviceError as error:
            if self._settings.require_gpu:
                raise
            job.notes.append(Note(error.code, f"{error}; the CPU did this scan"))
            device = CPU
            return self._networks(job, chosen, prepared, device)
        finally:
            self._free.put(device)

    def _networks(
        self, job: Job, chosen: Chosen, prepared: Prepared, device: torch.device
    ) -> Found:
        """Run one network over a scan, or the guide and then the guided one."""
        found, by = self._network(job, chosen.first, prepared, device)
        spine = found.probability.sum(dim=0) > locate.SURE
        if chosen.guide is None or not spine.any():
            return Found(found, (by,))
        with job.timed("prepare"):
            seen = around_spine(prepared, found, chosen.manifest.recipe)
        named, named_by = self._network(job, chosen, seen, device)
        told = replace(found, named=opinion(prepared, found.box, seen, named))
        return Found(told, (by, named_by))

    def _network(
        self, job: Job, chosen: Chosen, prepared: Prepared, device: torch.device
    ) -> tuple[Inferred, Computed]:
        choice = self._choice(job, chosen, prepared, device)
        if choice.refused:
            job.notes.append(Note("backend_refused", choice.reason))
        try:
            return self._computed(job, chosen, prepared, choice)
        except (LostDeviceError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a library may raise anything
            way = choice.runtime.backend, choice.runtime.precision
            if way == backends.REFERENCE:
                raise
            reason = (
                f"{way[0]} in {way[1]} failed on a scan "
                f"({type(error).__name__}: {error}): float32 of torch from there on"
            )
            job.notes.append(Note("backend_failed", reason))
            slow = reference(chosen.load(), device)
            kept = replace(choice, runtime=slow, reason=reason)
            chosen.choices[str(device)] = kept
            return self._computed(job, chosen, prepared, kept)

    def _computed(
        self, job: Job, chosen: Chosen, prepared: Prepared, choice: Choice
    ) -> tuple[Inferred, Computed]:
        """Run the network over a scan, as chosen, and count its seconds."""
        runtime = SturdyRuntime(choice.runtime)
        by = Computed(
            chosen.manifest.name, runtime.backend, runtime.precision, runtime.device
        )
        started = time.monotonic()
        self._stage(job.name, "network")
        try:
            done = infer(
                prepared,
                chosen.load(),
                runtime,
                chosen.views,
                lambda stage: self._stage(job.name, stage),
            )
            return done, by
        finally:
            spent = time.monotonic() - started
            network, _, notes = runtime.take()
            job.notes += notes
            for stage, seconds in (("network", network), ("segment", spent - network)):
                job.seconds[stage] = job.seconds.get(stage, 0.0) + seconds

    def _choice(
        self, job: Job, chosen: Chosen, prepared: Prepared, device: torch.device
    ) -> Choice:
        if str(device) not in chosen.choices:
            with job.timed("gate"):
                chosen.choices[str(device)] = self._choose(chosen, prepared, device)
        return chosen.choices[str(device)]

    def _choose(
        self, chosen: Chosen, prepared: Prepared, device: torch.device
    ) -> Choice:
        """Choose what computes a model on a device, as the folder's record has it."""
        wanted = self._settings
        backend, precision = wanted.backend, wanted.precision
        if device not in self.devices:  # after one was lost
            backend, precision = AUTO, AUTO
        key = _key(chosen, device, backend, precision)
        model = chosen.load()
        kept = self._log.kept_choice(key)
        if kept is not None:
            known = _as_kept(chosen, device, kept)
            if known is not None:
                return known
        count = CALIBRATION_SLICES if precision == "int8" else PROBE_SLICES
        tried = probe(prepared, model, chosen.views, count)
        made = choose(model, device, precision, tried, backend)
        mine = _record(made)
        if mine["precision"] in NOT_KEPT:
            return made
        agreed = self._log.keep_choice(key, mine)
        if agreed == mine:
            return made
        # Another run into the folder, or another GPU of this one, was first.
        return _as_kept(chosen, device, agreed) or made

    def facts(self, choice: Choice | None) -> dict[str, Any]:
        """Return what the run's record says of what computed."""
        return {
            "backend": choice.runtime.backend if choice else "torch",
            "device": choice.runtime.device if choice else str(self.devices[0]),
            "precision": choice.runtime.precision if choice else None,
            "gate": choice.gate.as_json() if choice and choice.gate else None,
            "backend_reason": choice.reason if choice else "nothing to compute",
            "tried": [one.as_json() for one in choice.tried] if choice else [],
            "devices": [str(device) for device in self.devices],
        }


NOT_KEPT = ("int8",)
"""Precisions that are calibrated on the scans at hand, in every run anew."""


def _key(
    chosen: Chosen, device: torch.device, backend: str, precision: str
) -> dict[str, Any]:
    """Return all that a choice belongs to; where any of it differs it is made anew."""
    return {
        "model_sha256": chosen.sha256,
        "device": devices.kind(device),
        "asked": [backend, precision],
        "version": __version__,
        "installed": [
            f"{row.name} {row.version()}"
            for row in backends.BACKENDS.values()
            if row.missing() is None
        ],
    }


def _record(choice: Choice) -> dict[str, Any]:
    return {
        "backend": choice.runtime.backend,
        "precision": choice.runtime.precision,
        "refused": choice.refused,
        "reason": choice.reason,
        "gate": choice.gate.as_json() if choice.gate else None,
    }


def _as_kept(
    chosen: Chosen, device: torch.device, kept: Mapping[str, Any]
) -> Choice | None:
    """Return the choice that the record keeps; None if it cannot be had any more."""
    try:
        row = backends.find(str(kept["backend"]))
        runtime = row.load(chosen.load(), device, str(kept["precision"]))
        passed = Gate.from_json(kept["gate"]) if kept["gate"] else None
    except Exception:  # noqa: BLE001  a library may raise anything; then choose anew
        return None
    reason = f"as the first run into this folder chose: {kept['reason']}"
    return Choice(runtime, passed, reason, refused=bool(kept["refused"]))


def summary(by: Sequence[Computed]) -> dict[str, str]:
    """Return backend, precision and device of what computed a scan, in words."""
    return {
        key: ", ".join(dict.fromkeys(getattr(one, key) for one in by))
        for key in ("backend", "precision", "device")
    }
