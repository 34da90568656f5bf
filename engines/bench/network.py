"""The network alone: every backend and precision on slices of the same scan.

All are loaded first and held against torch in float32, then they compute the same
batches in turns, so that what else the machine does hits all of them alike and their
ratios hold. What cannot be loaded, or breaks, is told and the others go on.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch
from torch import Tensor

from engines.bench.ceiling import STANDS_FOR, Ceiling, held_against, wait_for
from engines.errors import MissingBackendError, SettingsError
from engines.networks.complexity import operations
from engines.networks.manifest import Model
from engines.results import CaseResult, Problem, Status
from engines.runtimes import gate
from engines.runtimes.backends import BACKENDS, REFERENCE, Backend
from engines.runtimes.gate import Gate
from engines.runtimes.runtime import Runtime
from engines.segment import inference, views
from engines.segment.slices import is_filled
from engines.volume import Volume

KIND = "network"

BATCH: Mapping[str, int] = {"cpu": 8, "cuda": 32}
"""Kind of device -> slices of each view that are computed together."""

TURNS = 3
"""Rounds for each time that a whole process is timed."""

Told = Callable[[str, str], None]
Given = ParamSpec("Given")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and what it is given.

    Attributes:
        name: what the model is called here, unlike any other.
        batches: prepared slices (N, 1, H, W), one batch per view, or one of cubes.
        probe: what the parity gate looks at.
        slices: in all batches; a cube has as many as voxels along an edge.
        gflop: of all batches.
    """

    name: str
    model: Model
    batches: tuple[Tensor, ...]
    probe: tuple[Tensor, ...]
    slices: int
    gflop: float


@dataclass(slots=True)
class Contender:
    """A backend in a precision with a model, and what was measured of it so far.

    Attributes:
        version: of the backend's library.
        load_seconds: to load the network; where an engine is built, that too.
        memory_bytes: of the GPU that it holds; None on a CPU.
        seconds: of each round.
        problem: why it cannot be measured.
    """

    subject: Subject
    backend: Backend
    precision: str
    runtime: Runtime | None = None
    load_seconds: float = 0.0
    memory_bytes: int | None = None
    agreement: Gate | None = None
    seconds: list[float] = field(default_factory=list)
    problem: Problem | None = None

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.subject.name} {self.backend.name} {self.precision}"

    @property
    def is_reference(self) -> bool:
        """Say whether all others are held against it."""
        return (self.backend.name, self.precision) == REFERENCE

    @property
    def ms_per_slice(self) -> float:
        """The median over rounds."""
        return 1e3 * statistics.median(self.seconds) / self.subject.slices


def choices(
    kind: str, names: Sequence[str] = (), precisions: Sequence[str] = ()
) -> list[tuple[Backend, str]]:
    """Return what is to be measured, the reference always among it.

    Args:
        kind: of device, ``cpu`` or ``cuda``.
        names: of backends; empty takes all that run on such a device.
        precisions: empty takes all that a backend has there.

    Raises:
        SettingsError: an unknown name, or one that makes no sense on the device.
    """
    _require_known("backend", names, tuple(BACKENDS))
    offered = [row.precisions.values() for row in BACKENDS.values()]
    every = dict.fromkeys(chain.from_iterable(chain.from_iterable(offered)))
    _require_known("precision", precisions, tuple(every))
    rows = [BACKENDS[name] for name in BACKENDS if not names or name in names]
    for row in rows:
        if names and kind not in row.precisions:
            msg = f"{row.name} does not run on {kind}"
            hint = f"Give --device {' or '.join(row.precisions)}."
            raise SettingsError(msg, hint=hint)
    chosen = [
        (row, precision)
        for row in rows
        for precision in row.precisions.get(kind, ())
        if not precisions or precision in precisions
    ]
    if not chosen:
        msg = f"no backend computes in {' or '.join(precisions)} on {kind}"
        raise SettingsError(msg, hint="Choose another --precision or --device.")
    reference = (BACKENDS[REFERENCE[0]], REFERENCE[1])
    return chosen if reference in chosen else [reference, *chosen]


def subject_of(name: str, model: Model, scan: Volume, device: torch.device) -> Subject:
    """Return what ``model`` is given of ``scan``, in Hounsfield units for CT.

    It is slices of all its views, evenly spread over those that are not empty, or a
    cube from the middle. They lie on the device: how they get there is not timed.
    """
    prepared = inference.prepare(scan, model.manifest.recipe)
    planes = model.manifest.views
    probe = tuple(inference.probe(prepared, model, planes))
    if model.dimensions == 3:
        batches, slices = probe, sum(len(b) * b.shape[-1] for b in probe)
    else:
        frame = inference.frame_for(model, prepared)
        cut = []
        for view in planes:
            stacked = views.stack(torch.from_numpy(prepared.values), view)
            filled = torch.nonzero(is_filled(stacked, prepared.empty)).ravel()
            count = min(BATCH[device.type], len(filled))
            spread = np.linspace(0, len(filled) - 1, count + 2)[1:-1]
            cut.append(frame.put(stacked[filled[np.rint(spread).astype(int)]]))
        batches, slices = tuple(cut), sum(len(batch) for batch in cut)
    ghost = copy.deepcopy(model.network).to("meta")
    flop = sum(operations(ghost, torch.empty(b.shape, device="meta")) for b in batches)
    placed = tuple(batch.to(device) for batch in batches)
    return Subject(name, model, placed, probe, slices, flop / 1e9)


def measure(
    subjects: Sequence[Subject],
    chosen: Sequence[tuple[Backend, str]],
    device: torch.device,
    rounds: int,
    told: Told = lambda name, stage: None,
) -> list[Contender]:
    """Return every backend and precision with every model, measured in turns.

    Args:
        subjects: models with what they are given.
        chosen: as ``choices`` gives them.
        rounds: after one that warms up.
        told: is called with each contender and what is done with it.
    """
    all_of_them = []
    for subject in subjects:
        held = [Contender(subject, row, precision) for row, precision in chosen]
        held.sort(key=lambda contender: not contender.is_reference)
        for contender in held:
            told(contender.name, "load")
            _guarded(contender, _load, device)
        reference = held[0].runtime
        for contender in held[1:]:
            if reference and contender.runtime:
                told(contender.name, "gate")
                _guarded(contender, _compare, reference)
        all_of_them += held
    for number in range(rounds + 1):
        for contender in all_of_them:
            if contender.runtime is not None:
                told(contender.name, f"round {number} of {rounds}")
                _guarded(contender, _turn, device)
                if number == 0:  # it warms up
                    contender.seconds.clear()
    return all_of_them


def results(
    measured: Sequence[Contender], ceilings: Mapping[str, Ceiling]
) -> Iterator[CaseResult]:
    """Yield the record of each contender.

    ``times_as_fast`` is against the reference with the same model, ``times_first``
    how many times as long a slice takes the first model in the same way.
    """
    done = [c for c in measured if c.problem is None]
    reference = {c.subject.name: c for c in done if c.is_reference}
    first = measured[0].subject if measured else None
    firsts = {(c.backend.name, c.precision): c for c in done if c.subject is first}
    for one in measured:
        other = firsts.get((one.backend.name, one.precision))
        yield _result(
            one,
            held_against(one.precision, ceilings),
            reference.get(one.subject.name),
            None if one.subject is first else other,
        )


def _require_known(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            msg = f"no {what} is called {name!r}"
            raise SettingsError(msg, hint=f"Choose one of: {', '.join(known)}.")


def _guarded(
    contender: Contender,
    step: Callable[Concatenate[Contender, Given], None],
    *given: Given.args,
    **more: Given.kwargs,
) -> None:
    """Do a step with a contender; an error takes it out and not the others."""
    try:
        step(contender, *given, **more)
    except Exception as error:  # noqa: BLE001  a library may raise anything
        contender.problem = Problem.of(error)
        contender.runtime = None


def _load(one: Contender, device: torch.device) -> None:
    before = _free_bytes(device)
    started = time.perf_counter()
    subject = one.subject
    one.runtime = one.backend.load(subject.model, device, one.precision, subject.probe)
    wait_for(device)
    one.load_seconds = time.perf_counter() - started
    for batch in subject.batches:
        one.runtime.predict(batch)
    wait_for(device)
    after = _free_bytes(device)
    if before is not None and after is not None:
        one.memory_bytes = max(0, before - after)


def _compare(one: Contender, reference: Runtime) -> None:
    if one.runtime is not None:
        one.agreement = gate.compare(reference, one.runtime, one.subject.probe)


def _turn(one: Contender, device: torch.device) -> None:
    if one.runtime is None:
        return
    wait_for(device)
    started = time.perf_counter()
    for batch in one.subject.batches:
        one.runtime.predict(batch)
    wait_for(device)
    one.seconds.append(time.perf_counter() - started)


def _free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a GPU, None for a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def _result(
    one: Contender,
    ceiling: Ceiling | None,
    reference: Contender | None,
    first: Contender | None,
) -> CaseResult:
    details: dict[str, Any] = {
        "kind": KIND,
        "model": one.subject.name,
        "backend": one.backend.name,
        "backend_version": one.backend.version(),
        "precision": one.precision,
    }
    if one.problem is not None:
        missing = one.problem.code == MissingBackendError.code
        status: Status = "skipped" if missing else "failed"
        return CaseResult(one.name, "", status, error=one.problem, details=details)
    seconds = {"load": one.load_seconds, "rounds": sum(one.seconds)}
    details |= _figures(one, ceiling, reference, first)
    return CaseResult(one.name, "", "done", seconds=seconds, details=details)


def _figures(
    one: Contender,
    ceiling: Ceiling | None,
    reference: Contender | None,
    first: Contender | None,
) -> dict[str, Any]:
    ms, subject = one.ms_per_slice, one.subject
    gflops = subject.gflop / subject.slices / ms * 1e3
    return {
        "ms_per_slice": round(ms, 4),
        "ms_range": [
            round(1e3 * end / subject.slices, 4)
            for end in (min(one.seconds), max(one.seconds))
        ],
        "slices_per_second": round(1e3 / ms, 2),
        "slices": subject.slices,
        "batches": [list(batch.shape) for batch in subject.batches],
        "gflop_per_slice": round(subject.gflop / subject.slices, 3),
        "gflops": round(gflops, 1),
        "ceiling_gflops": ceiling and round(ceiling.gflops, 1),
        "ceiling_precision": ceiling and ceiling.precision,
        "ceiling_stands_in": one.precision in STANDS_FOR,
        "share_of_ceiling": ceiling and round(gflops / ceiling.gflops, 4),
        "times_as_fast": reference and round(reference.ms_per_slice / ms, 3),
        "times_first": first and round(first.ms_per_slice / ms, 3),
        "gate": one.agreement and one.agreement.as_json(),
        "load_seconds": round(one.load_seconds, 3),
        "rounds": len(one.seconds),
        "gpu_memory_bytes": one.memory_bytes,
    }
