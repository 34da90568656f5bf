"""Where and how the networks of a scan are computed, and what if that fails.

What computes is chosen once for each model and kind of device, by verdicts that do not
depend on the scans (``engines.runtimes.choose``). A runtime that fails on a scan gives
way to the reference for that scan and the rest of the run, with a warning; a scan is
never computed partly by one and partly by another.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines.arrays import on_device
from engines.batch import Job
from engines.errors import LostDeviceError
from engines.networks.manifest import Model
from engines.networks.probes import Probe
from engines.results import Note
from engines.runtimes import backends, devices
from engines.runtimes.choose import AUTO, Choice, candidates, choose, reference
from engines.runtimes.devices import CPU, Device
from engines.runtimes.gate import Gate, compare
from engines.runtimes.runtime import Runtime
from engines.runtimes.sturdy import SturdyRuntime, out_of_memory
from engines.segment import locate
from engines.segment.inference import (
    Inferred,
    Prepared,
    around_spine,
    infer,
    opinion,
    probe,
)
from engines.segment.models import Chosen

VERIFIED_SLICES = 4
"""Slices of each view that ``verify`` compares with the reference."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What computed a scan.

    Attributes:
        verified: agreement with the reference on slices of that very scan; None where
            nobody asked for it.
    """

    model: str
    backend: str
    precision: str
    device: str
    verified: Gate | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record of it."""
        record: dict[str, Any] = {
            "model": self.model,
            "backend": self.backend,
            "precision": self.precision,
            "device": self.device,
        }
        if self.verified is not None:
            record["verified"] = self.verified.as_json()
        return record


@dataclass(frozen=True, slots=True)
class Found:
    """What the networks say of a scan, and what computed it.

    Attributes:
        by: the network that found the spine first, then a guided one.
    """

    inferred: Inferred
    by: tuple[Computed, ...]


class DevicePool:
    """The devices of a run, each lent to one scan at a time.

    Attributes:
        devices: all of them.
    """

    def __init__(self, name: str = AUTO, *, require_gpu: bool = False) -> None:
        """Take the devices called ``name``.

        Raises:
            DeviceError: the device is not there.
        """
        self.require_gpu = require_gpu
        self.devices = devices.pick_all(name, gpu=require_gpu)
        self._free: queue.SimpleQueue[Device] = queue.SimpleQueue()
        for device in self.devices:
            self._free.put(device)

    def take(self) -> Device:
        """Return a device that computes for the caller alone, once one is free."""
        return self._free.get()

    def put(self, device: Device) -> None:
        """Free a device, or what takes its place after it was lost."""
        self._free.put(device)


class Computer:
    """Runs the network of one model, after that of its guide, over scans."""

    def __init__(
        self,
        model: Chosen,
        pool: DevicePool,
        *,
        backend: str = AUTO,
        precision: str = AUTO,
        verify: bool = False,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Check that what was asked for computes there.

        Args:
            model: the model, with its guide if it has one.
            pool: devices, which several models may share.
            backend: a row of ``engines.runtimes.backends``, or ``auto``.
            precision: one that the backend computes in, or ``auto``.
            verify: compare with the reference on slices of each scan; a scan on which
                they differ is computed by the reference.
            notify: is called with a line about work that is done once, on first use.

        Raises:
            SettingsError, MissingBackendError: nothing installed computes so there.
        """
        self.model = model
        self.pool = pool
        self._asked = backend, precision
        self._verify = verify
        self._notify = notify
        for device in pool.devices:
            candidates(device, precision, backend)
        self._choices: dict[tuple[str, str], Choice] = {}
        self._choosing = threading.Lock()

    @property
    def choice(self) -> Choice | None:
        """Return how the model was computed first; None if it was not yet."""
        mine = (c for (sha, _), c in self._choices.items() if sha == self.model.sha256)
        return next(mine, None)

    def load(self) -> None:
        """Load what computes on the first device, before the first scan needs it."""
        device = self.pool.devices[0]
        for one in dict.fromkeys((self.model.first, self.model)):
            self._choice(one, device)

    def scan(self, job: Job, prepared: Prepared) -> Found:
        """Return what the model says of a scan.

        A lost device is not used again: the CPU computes the scan, with a warning.

        Args:
            job: gets seconds, notes and the stages that begin.
            prepared: the scan as the first network sees it.

        Raises:
            LostDeviceError: the device was lost, and a GPU is required.
        """
        device = self.pool.take()
        try:
            return self._networks(job, prepared, device)
        except LostDeviceError as error:
            if self.pool.require_gpu:
                raise
            job.notes.append(Note(error.code, f"{error}; the CPU did this scan"))
            device = CPU
            return self._networks(job, prepared, device)
        finally:
            self.pool.put(device)

    def _networks(self, job: Job, prepared: Prepared, device: Device) -> Found:
        """Run one network over a scan, or the guide and then the guided one."""
        model = self.model
        found, by = self._network(job, model.first, prepared, device)
        spine = found.probability.sum(axis=0) > locate.SURE
        if model.guide is None or not spine.any():
            return Found(found, (by,))
        with job.timed("prepare"):
            seen = around_spine(prepared, found, model.manifest.recipe)
        named, named_by = self._network(job, model, seen, device)
        both = replace(found, named=opinion(prepared, found.box, seen, named))
        return Found(both, (by, named_by))

    def _network(
        self, job: Job, model: Chosen, prepared: Prepared, device: Device
    ) -> tuple[Inferred, Computed]:
        with job.timed("gate"):
            choice = self._choice(model, device)
        if choice.refused:
            job.notes.append(Note("backend_refused", choice.reason))
        try:
            return self._computed(job, model, prepared, choice, device)
        except (LostDeviceError, MemoryError):
            raise
        except Exception as error:  # a library may raise anything
            name = choice.runtime.backend, choice.runtime.precision
            if name == backends.REFERENCE or out_of_memory(error):
                raise
            reason = (
                f"{name[0]} in {name[1]} failed on a scan "
                f"({type(error).__name__}: {error}): float32 of torch from there on"
            )
            job.notes.append(Note("backend_failed", reason))
            slow = self._reference(model, device)
            choice = replace(choice, runtime=slow, reason=reason)
            self._choices[model.sha256, str(device)] = choice
            return self._computed(job, model, prepared, choice, device)

    def _computed(
        self,
        job: Job,
        model: Chosen,
        prepared: Prepared,
        choice: Choice,
        device: Device,
    ) -> tuple[Inferred, Computed]:
        """Run the network over a scan, as chosen, and compare if that is asked for."""
        used = choice.runtime
        if not self._verify or (used.backend, used.precision) == backends.REFERENCE:
            return self._run(job, model, prepared, used)
        slow = self._reference(model, device)
        batches = [
            on_device(batch, used.device)
            for batch in probe(prepared, model.load(), model.views, VERIFIED_SLICES)
        ]
        with job.timed("verify"):
            verified = compare(slow, used, batches)
        if not verified.passed:
            message = (
                f"{used.backend} in {used.precision} labels {verified.agreement:.4%} "
                f"of this scan's pixels as float32 of torch does (Dice "
                f"{verified.dice:.4f}): float32 of torch computed it"
            )
            job.notes.append(Note("verify_failed", message))
            used = slow
        inferred, by = self._run(job, model, prepared, used)
        return inferred, replace(by, verified=verified)

    def _run(
        self, job: Job, model: Chosen, prepared: Prepared, runtime: Runtime
    ) -> tuple[Inferred, Computed]:
        """Run the network over a scan and count its seconds."""
        sturdy = SturdyRuntime(runtime)
        by = Computed(
            model.manifest.name, runtime.backend, runtime.precision, runtime.device
        )
        job.stage(job.name, "network")
        started = time.perf_counter()
        try:
            inferred = infer(
                prepared,
                model.load(),
                sturdy,
                model.views,
                lambda stage: job.stage(job.name, stage),
            )
        finally:
            spent = time.perf_counter() - started
            seconds, _, notes = sturdy.take()
            job.notes += notes
            for stage, more in (("network", seconds), ("segment", spent - seconds)):
                job.seconds[stage] = job.seconds.get(stage, 0.0) + more
        return inferred, by

    def _choice(self, model: Chosen, device: Device) -> Choice:
        """Return what computes a model on a device, chosen on first use."""
        key = model.sha256, str(device)
        with self._choosing:
            if key not in self._choices:
                backend, precision = self._asked
                if device not in self.pool.devices:  # after one was lost
                    backend, precision = AUTO, AUTO
                loaded = model.load()
                self._choices[key] = choose(
                    loaded,
                    device,
                    precision=precision,
                    backend=backend,
                    probes=lambda: _probes(loaded),
                    notify=self._notify,
                )
            return self._choices[key]

    def _reference(self, model: Chosen, device: Device) -> Runtime:
        return reference(model.load(), device)

    def facts(self) -> dict[str, Any]:
        """Return what the run's record says of what computed."""
        choice = self.choice
        return {
            "backend": choice.runtime.backend if choice else "torch",
            "device": choice.runtime.device if choice else str(self.pool.devices[0]),
            "precision": choice.runtime.precision if choice else None,
            "gate": choice.gate.as_json() if choice and choice.gate else None,
            "backend_reason": choice.reason if choice else "nothing to compute",
            "tried": [one.as_json() for one in choice.tried] if choice else [],
            "devices": [str(device) for device in self.pool.devices],
        }


def _probes(model: Model) -> Sequence[Probe]:
    # They take torch where a file has none; a kept verdict takes none of it.
    from engines.segment import golden

    return golden.of(model)


def summary(by: Sequence[Computed]) -> dict[str, str]:
    """Return backend, precision and device of what computed a scan, in words."""
    return {
        key: ", ".join(dict.fromkeys(getattr(one, key) for one in by))
        for key in ("backend", "precision", "device")
    }
