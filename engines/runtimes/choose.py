"""Choose the fastest runtime that labels as the reference does.

How fast they are is measured once, on the first scan, and kept beside the engines, so
that later runs try the fastest first. Whether it agrees with the reference is found out
in every run, on its own scans.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engines.errors import BackendError, SettingsError
from engines.networks.manifest import Model
from engines.runtimes import backends, gate
from engines.runtimes.devices import cpu_has_bfloat16
from engines.runtimes.gate import Gate
from engines.runtimes.paces import Paces, Way
from engines.runtimes.runtime import Runtime

AUTO = "auto"
PRECISIONS = (AUTO, "float32", "bfloat16", "float16", "int8")

ONLY_NAMED = ("int8",)
"""Precisions that are used only when they are asked for: they depend on the slices that
they were calibrated on."""

USUAL = (
    ("tensorrt", "float16"),
    ("tensorrt-rtx", "float16"),
    ("torch", "float16"),
    ("openvino", "int8"),
    ("openvino", "bfloat16"),
    ("torch", "bfloat16"),
    ("tensorrt", "float32"),
    ("tensorrt-rtx", "float32"),
    ("openvino", "float32"),
    ("torch", "float32"),
)
"""Usually the fastest first; what is not named comes after these."""

ROUNDS = 3
"""Times that the slices are run to measure a pace."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one backend in one precision.

    Attributes:
        gate: None for the reference itself, and where it could not be loaded.
        ms_per_slice: median, of the probe slices; None where not measured.
        problem: why it could not be loaded.
    """

    backend: str
    precision: str
    gate: Gate | None = None
    ms_per_slice: float | None = None
    problem: str = ""

    @property
    def usable(self) -> bool:
        """Say whether it may label scans."""
        return not self.problem and (self.gate is None or self.gate.passed)

    @property
    def way(self) -> Way:
        """Return its backend and precision."""
        return self.backend, self.precision

    def as_json(self) -> dict[str, Any]:
        """Return the record of it."""
        ms = self.ms_per_slice
        return {
            "backend": self.backend,
            "precision": self.precision,
            "gate": self.gate.as_json() if self.gate else None,
            "ms_per_slice": None if ms is None else round(ms, 3),
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime to use, the gate it passed, and why it was chosen.

    Attributes:
        gate: of the runtime, or of what was asked for and refused.
        refused: whether what the user asked for by name was refused.
        tried: everything that was looked at.
    """

    runtime: Runtime
    gate: Gate | None
    reason: str
    refused: bool = False
    tried: tuple[Tried, ...] = ()


def choose(
    model: Model,
    device: torch.device,
    precision: str,
    probe: Sequence[Tensor],
    backend: str = AUTO,
) -> Choice:
    """Return the runtime for ``model`` on ``device``.

    Args:
        precision: ``auto``, or one of those that the backend offers.
        probe: batches (N, 1, H, W) of prepared slices, or cubes, of the scans at hand.
        backend: a row of ``backends``, or ``auto``. What is named but disagrees with
            the reference gives way to it.

    Raises:
        SettingsError: the backend does not run there, or not so.
        MissingBackendError: what was named is not installed.
        BackendError: what was named cannot be loaded.
    """
    ways = candidates(device, precision, backend)
    standard = reference(model, device)
    if ways == [backends.REFERENCE]:
        return Choice(standard, None, _alone(device, precision, backend))
    named = backend != AUTO or precision != AUTO
    trial = _Trial(model, device, probe, standard, fatal=backend != AUTO)
    book = Paces(model, device)
    if named and backends.REFERENCE not in ways and len(ways) == 1:
        found = trial.of(ways[0], pace=False)
        return _settled([found], standard, trial, named=True)
    known = book.read()
    if all(way in known for way in ways):
        results = []
        for way in sorted(ways, key=lambda way: known[way]):
            results.append(trial.of(way, pace=False))
            if results[-1].usable:
                break
        return _settled(results, standard, trial, named=named, known=known)
    results = [trial.of(way, pace=True) for way in ways]
    book.write({one.way: one.ms_per_slice for one in results})
    return _settled(results, standard, trial, named=named)


def reference(model: Model, device: torch.device) -> Runtime:
    """Return what every other runtime is held against: torch in float32."""
    name, precision = backends.REFERENCE
    return backends.find(name).load(model, device, precision)


def candidates(device: torch.device, precision: str, backend: str) -> list[Way]:
    """Return the backends and precisions to try, usually the fastest first.

    Raises:
        SettingsError: there is no such backend, or nothing fits.
        MissingBackendError: what was named is not installed.
    """
    if backend != AUTO:
        row = backends.find(backend)
        offered = row.precisions.get(device.type, ())
        row.require(device.type, precision if precision != AUTO else _first(offered))
        rows = [row]
    else:
        rows = [row for row in backends.BACKENDS.values() if row.missing() is None]
    ways = [
        (row.name, one)
        for row in rows
        for one in row.precisions.get(device.type, ())
        if one == precision or (precision == AUTO and one not in ONLY_NAMED)
    ]
    if precision == AUTO and device.type == "cpu" and not cpu_has_bfloat16():
        ways = [way for way in ways if way[1] != "bfloat16"]
    if not ways:
        msg = f"nothing that is installed computes in {precision} on {device.type}"
        raise SettingsError(msg, hint="See 'spine doctor', or use --precision auto.")
    return sorted(ways, key=lambda way: USUAL.index(way) if way in USUAL else 99)


class _Trial:
    """Loads runtimes and tries them on the probe; keeps what it loaded."""

    def __init__(
        self,
        model: Model,
        device: torch.device,
        probe: Sequence[Tensor],
        reference: Runtime,
        *,
        fatal: bool,
    ) -> None:
        self._given = model, device
        self._probe = probe
        self._reference = gate.Remembered(reference)
        self._fatal = fatal
        self.loaded: dict[Way, Runtime] = {backends.REFERENCE: reference}

    def of(self, way: Way, *, pace: bool) -> Tried:
        """Try one way; measure its pace too if asked.

        A library may raise anything for a network or a processor that it does not
        know: whatever it raises is the reason why it is not used.

        Raises:
            BackendError: what was named cannot be loaded or run.
        """
        name, precision = way
        try:
            if way not in self.loaded:
                row = backends.find(name)
                self.loaded[way] = row.load(*self._given, precision, self._probe)
            runtime = self.loaded[way]
            figures = None
            if way != backends.REFERENCE:
                figures = gate.compare(self._reference, runtime, self._probe)
            ms = _pace(runtime, self._probe) if pace else None
        except BackendError as error:
            if self._fatal:
                raise
            return Tried(name, precision, problem=str(error))
        except Exception as error:  # a library may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            if self._fatal:
                msg = f"{name} in {precision} cannot run this network ({reason})"
                raise BackendError(msg) from error
            return Tried(name, precision, problem=reason)
        return Tried(name, precision, figures, ms)


def _settled(
    results: Sequence[Tried],
    reference: Runtime,
    trial: _Trial,
    *,
    named: bool,
    known: dict[Way, float] | None = None,
) -> Choice:
    """Return the fastest that passed, or the reference."""
    usable = [one for one in results if one.usable]
    told = tuple(results)
    if not usable:
        failed = next((one for one in results if one.gate), None)
        figures = failed.gate if failed else None
        reasons = "; ".join(_why_not(one) for one in results)
        reason = f"float32 of torch, the reference: {reasons}"
        return Choice(reference, figures, reason, refused=named, tried=told)
    best = min(usable, key=lambda one: one.ms_per_slice or 0.0)
    runtime = trial.loaded[best.way]
    reason = f"{best.backend} in {best.precision}"
    if best.gate:
        reason += (
            f" passed the gate: agreement {best.gate.agreement:.4%}, "
            f"Dice {best.gate.dice:.4f} with float32 of torch"
        )
    paced = known.get(best.way) if known else best.ms_per_slice
    if paced is not None:
        reason += f"; {paced:.1f} ms a slice, measured here"
    others = [one for one in results if one.way != best.way]
    reason += "".join(f"; {_why_not(one)}" for one in others if not one.usable)
    slower = [one for one in others if one.usable and one.ms_per_slice]
    reason += "".join(
        f"; {one.backend} in {one.precision}: {one.ms_per_slice:.1f} ms"
        for one in slower
    )
    return Choice(runtime, best.gate, reason, tried=told)


def _why_not(one: Tried) -> str:
    name = f"{one.backend} in {one.precision}"
    if one.problem:
        return f"{name} could not be loaded or run: {one.problem}"
    if one.gate is None:
        return name
    told = f"agreement {one.gate.agreement:.4%}, Dice {one.gate.dice:.4f}"
    return f"{name} failed the gate: {told} with float32 of torch"


def _alone(device: torch.device, precision: str, backend: str) -> str:
    if precision == "float32" or backend != AUTO:
        return "float32 of torch was asked for"
    return f"nothing faster than float32 of torch is there for {device.type}"


def _first(offered: Sequence[str]) -> str:
    return offered[0] if offered else AUTO


def _pace(runtime: Runtime, probe: Sequence[Tensor]) -> float:
    """Return the median time in ms of a slice; the gate's pass has warmed it up."""
    slices = sum(len(batch) for batch in probe)
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for batch in probe:
            runtime.predict(batch).sum().item()
        rounds.append(1e3 * (time.perf_counter() - started) / slices)
    return statistics.median(rounds)
