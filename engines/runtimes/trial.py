"""Load backends for a model and hold them against its golden probes, once.

What the gate said is kept between runs (``verdicts``). A backend that passed is loaded
without being judged again, one that failed is not loaded at all.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.arrays import on_device, to_numpy
from engines.errors import (
    BackendError,
    DeviceError,
    MissingBackendError,
    ModelError,
    OutputError,
)
from engines.networks.probes import Probe
from engines.runtimes import backends, gate, verdicts
from engines.runtimes.backends import Candidate
from engines.runtimes.cache import Key, announcing
from engines.runtimes.devices import Device
from engines.runtimes.gate import Gate
from engines.runtimes.runtime import Runtime
from engines.runtimes.sturdy import LOST, out_of_memory

if TYPE_CHECKING:
    from engines.networks.manifest import Model

Notify = Callable[[str], None]
Probes = Callable[[], Sequence[Probe]]

TRANSIENT = (
    MemoryError,
    OSError,
    ImportError,
    OutputError,
    DeviceError,
    MissingBackendError,
)
"""Errors that say nothing of the backend and the model: the next run tries again."""

TRANSIENT_WORDS = (LOST, "out of memory", "bad_alloc", "No space left")
"""What libraries write in errors of a kind of their own for the same reasons."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one backend in one precision.

    Attributes:
        gate: None for the reference itself, and where there is a problem.
        problem: why it could not be loaded or run.
    """

    backend: str
    precision: str
    gate: Gate | None = None
    problem: str = ""

    @property
    def candidate(self) -> Candidate:
        """Return its backend and precision."""
        return self.backend, self.precision

    def as_json(self) -> dict[str, Any]:
        """Return the record of it."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "gate": self.gate.as_json() if self.gate else None,
            "problem": self.problem,
        }


class Trial:
    """Tries candidates for one model on one device.

    Attributes:
        errors: candidate -> what was raised when it was loaded or run just now; empty
            unless they are kept.
    """

    def __init__(
        self,
        model: "Model",
        device: Device,
        probes: Probes,
        notify: Notify,
        *,
        keep_errors: bool = False,
    ) -> None:
        """Take what is tried.

        Args:
            model: its network is built only if a candidate needs it.
            device: where candidates run.
            probes: returns the golden probes of the model; called once at most, and
                only where a verdict is missing or int8 is tried.
            notify: is called with one line before a candidate is judged, or an engine
                made.
            keep_errors: fill ``errors``. Each holds on to the runtime that it came
                from, with the memory of it.
        """
        self._model = model
        self._device = device
        self._read_probes = probes
        self._notify = notify
        self._probes: Sequence[Probe] | None = None
        self._keep_errors = keep_errors
        self.errors: dict[Candidate, Exception] = {}

    def probes(self) -> Sequence[Probe]:
        """Return the golden probes of the model.

        Raises:
            ModelFileError: they are damaged.
        """
        if self._probes is None:
            self._probes = self._read_probes()
        return self._probes

    def of(
        self, candidate: Candidate, *, again: bool = False, judge: bool = False
    ) -> tuple[Tried, Runtime | None]:
        """Return what becomes of a candidate, and its runtime if it may be used.

        A library may raise anything for a network or a processor that it does not
        know: whatever it raises is the reason why it is not used.

        Args:
            candidate: backend and precision.
            again: try once more what could not be loaded or run before.
            judge: judge whatever is kept.

        Raises:
            ModelError: the model or its probes are damaged.
        """
        if candidate == backends.REFERENCE:
            return Tried(*candidate), reference(self._model, self._device)
        key = self._key(candidate)
        kept = None if judge else verdicts.read(self._model.manifest.name, key)
        if kept is None or (again and kept.problem):
            return self._judged(candidate, key)
        if not kept.passed:
            return Tried(*candidate, kept.gate, kept.problem), None
        try:
            with announcing(lambda: self._notify(self._line(candidate, made=True))):
                return Tried(*candidate, kept.gate), self._load(candidate)
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001  a library may raise anything
            return self._failed(candidate, error), None

    def _judged(self, candidate: Candidate, key: Key) -> tuple[Tried, Runtime | None]:
        """Load a candidate, hold it against the golden probes and keep the verdict."""
        self._notify(self._line(candidate))
        title, probes = self._model.manifest.name, self.probes()
        try:
            runtime = self._load(candidate)
            figures = gate.judge(runtime, probes)
            ms = _ms_per_slice(runtime, probes)
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001  a library may raise anything
            tried = self._failed(candidate, error)
            if not is_transient(error):
                verdicts.keep(verdicts.new(title, key, problem=tried.problem))
            return tried, None
        verdicts.keep(verdicts.new(title, key, figures, ms_per_slice=ms))
        return Tried(*candidate, figures), runtime if figures.passed else None

    def _key(self, candidate: Candidate) -> Key:
        probes = self._calibration(candidate)
        return verdicts.key_of(self._model, self._device, candidate, probes)

    def _load(self, candidate: Candidate) -> Runtime:
        name, precision = candidate
        probes = self._calibration(candidate)
        return backends.find(name).load(self._model, self._device, precision, probes)

    def _calibration(self, candidate: Candidate) -> Sequence[Probe]:
        return self.probes() if candidate[1] == "int8" else ()

    def _failed(self, candidate: Candidate, error: Exception) -> Tried:
        if self._keep_errors:
            self.errors[candidate] = error
        return Tried(*candidate, problem=reason_of(error))

    def _line(self, candidate: Candidate, *, made: bool = False) -> str:
        name, (backend, precision) = self._model.manifest.name, candidate
        if made:
            return f"{name} is converted for {backend} in {precision} here, once"
        own = backend == backends.REFERENCE[0]
        steps = "checking" if own else "converting and checking"
        return f"first use of {name} with {backend} in {precision} here: {steps}, once"


def reference(model: "Model", device: Device) -> Runtime:
    """Return what every other runtime is held against: torch in float32."""
    name, precision = backends.REFERENCE
    return backends.find(name).load(model, device, precision)


def _ms_per_slice(runtime: Runtime, probes: Sequence[Probe]) -> float | None:
    """Return how long a slice, or a cube, takes; judging has warmed the runtime up."""
    if not probes:
        return None
    count = gate.BATCH[probes[0].dimensions]
    given = on_device(probes[0].images[:count], runtime.device)
    started = time.perf_counter()
    to_numpy(runtime.predict(given))
    return 1e3 * (time.perf_counter() - started) / len(given)


def reason_of(error: Exception) -> str:
    """Return in one line what was raised."""
    if isinstance(error, BackendError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def is_transient(error: BaseException) -> bool:
    """Say whether an error, or what it came from, may be gone in the next run."""
    step: BaseException | None = error
    while step is not None:
        if isinstance(step, TRANSIENT) or out_of_memory(step):
            return True
        if any(word in str(step) for word in TRANSIENT_WORDS):
            return True
        step = step.__cause__ or step.__context__
    return False
