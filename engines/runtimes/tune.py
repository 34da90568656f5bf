"""Measure the backends that pass the gate, and pin the fastest first.

It is the one place where a measured speed decides what computes, and it does so only
because the user asked: the order is kept (``pins``) until it is forgotten.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engines.arrays import Array, on_device
from engines.runtimes import pins
from engines.runtimes.choose import AUTO, candidates
from engines.runtimes.devices import Device
from engines.runtimes.gate import BATCH
from engines.runtimes.pins import Pin
from engines.runtimes.runtime import Runtime
from engines.runtimes.trial import Notify, Probes, Trial, Tried, reason_of

if TYPE_CHECKING:
    from engines.networks.manifest import Model
    from engines.networks.probes import Probe


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured of one backend in one precision.

    Attributes:
        tried: what the gate said of it.
        ms_per_slice: median over the rounds; None for what may not be used.
    """

    tried: Tried
    ms_per_slice: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the record of it."""
        ms = self.ms_per_slice
        return self.tried.as_json() | {"ms_per_slice": ms and round(ms, 3)}

    def cells(self) -> tuple[str, ...]:
        """Return one row of the table."""
        one, ms = self.tried, self.ms_per_slice
        agreement = f"{one.gate.agreement:.4%}" if one.gate else ""
        dice = f"{one.gate.dice:.4f}" if one.gate else ""
        if one.problem:
            verdict = one.problem
        elif one.gate is None:
            verdict = "the reference"
        else:
            verdict = "passed" if one.gate.passed else "failed"
        speed = "" if ms is None else f"{ms:.2f}"
        return one.backend, one.precision, speed, agreement, dice, verdict


def tune(
    model: "Model",
    device: Device,
    *,
    probes: Probes,
    repeats: int = 5,
    notify: Notify = lambda line: None,
) -> tuple[list[Tuned], Pin]:
    """Judge every candidate, measure those that passed, and pin the order.

    Each round runs all of them on the golden probes, in turns, so that what else the
    machine does hits all alike.

    Args:
        model: the model.
        device: where it runs.
        probes: returns the golden probes of the model.
        repeats: rounds.
        notify: is called with one line before a candidate is judged.

    Returns:
        What was measured, the fastest first and then what may not be used; and the
        order that is pinned from now on.

    Raises:
        ModelError: the model, or its golden probes, are damaged.
        OutputError: the order cannot be kept.
    """
    trial = Trial(model, device, probes, notify)
    runtimes: dict[int, Runtime] = {}
    tried: list[Tried] = []
    for candidate in candidates(device, AUTO, AUTO):
        one, runtime = trial.of(candidate, judge=True)
        if runtime is not None:
            runtimes[len(tried)] = runtime
        tried.append(one)
    notify(f"measuring {len(runtimes)} of {len(tried)} candidates")
    seconds = _rounds(runtimes, tried, trial.probes(), repeats)
    slices = sum(_slices(probe) for probe in trial.probes())
    rows = [
        Tuned(one, 1e3 * statistics.median(seconds[place]) / slices)
        if place in seconds
        else Tuned(one)
        for place, one in enumerate(tried)
    ]
    rows.sort(key=lambda row: (row.ms_per_slice is None, row.ms_per_slice or 0.0))
    pin = pins.new(
        model,
        device,
        [
            (row.tried.candidate, row.ms_per_slice)
            for row in rows
            if row.ms_per_slice is not None
        ],
    )
    pins.keep(model, device, pin)
    return rows, pin


def _rounds(
    runtimes: dict[int, Runtime],
    tried: list[Tried],
    probes: "Sequence[Probe]",
    repeats: int,
) -> dict[int, list[float]]:
    """Return the seconds of each round, by place in ``tried``.

    One that raises is measured no more, and ``tried`` says why. The first round warms
    up and does not count.
    """
    seconds: dict[int, list[float]] = {place: [] for place in runtimes}
    batches = _batches(next(iter(runtimes.values())), probes) if runtimes else []
    for number in range(repeats + 1):
        for place in list(seconds):
            try:
                spent = _timed(runtimes[place], batches)
            except Exception as error:  # noqa: BLE001  a library may raise anything
                tried[place] = replace(tried[place], problem=reason_of(error))
                del seconds[place]
                continue
            if number:
                seconds[place].append(spent)
    return seconds


def _batches(runtime: Runtime, probes: "Sequence[Probe]") -> list[Array]:
    """Return the images of the probes in batches, as a runtime here takes them."""
    return [
        on_device(probe.images[start : start + step], runtime.device)
        for probe in probes
        for step in (BATCH[probe.dimensions],)
        for start in range(0, len(probe), step)
    ]


def _timed(runtime: Runtime, batches: Sequence[Array]) -> float:
    _wait_for(runtime.device)
    started = time.perf_counter()
    for batch in batches:
        runtime.predict(batch)
    _wait_for(runtime.device)
    return time.perf_counter() - started


def _wait_for(device: str) -> None:
    """Wait until a GPU is done with what it was given."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(torch.device(device))


def _slices(probe: "Probe") -> int:
    """Return how many slices a probe has; a cube has as many as voxels on its edge."""
    return len(probe) * (probe.images.shape[-1] if probe.dimensions == 3 else 1)
