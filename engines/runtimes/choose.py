"""Choose the runtime that computes: the first in a fixed order that passes the gate.

Which that is depends on the model, the installed backends and the processor, and on
nothing else: not on the scans, on how busy the machine is, or on what is kept between
runs, which only saves judging again. 'spine engine tune' may pin another order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from engines.errors import BackendError, SettingsError
from engines.runtimes import backends, pins
from engines.runtimes.backends import Candidate
from engines.runtimes.devices import Device, cpu_has_bfloat16
from engines.runtimes.gate import Gate
from engines.runtimes.pins import Pin
from engines.runtimes.runtime import Runtime
from engines.runtimes.trial import Notify, Probes, Trial, Tried, reason_of, reference

if TYPE_CHECKING:
    from engines.networks.manifest import Model

__all__ = ["Choice", "Tried", "candidates", "choose", "reference"]

AUTO = "auto"
PRECISIONS = (AUTO, "float32", "bfloat16", "float16", "int8")

ONLY_NAMED = ("int8",)
"""Precisions that are used only when they are asked for."""

PREFERENCE: Mapping[str, tuple[Candidate, ...]] = MappingProxyType(
    {
        "cpu": (
            ("openvino", "bfloat16"),
            ("openvino", "float32"),
            ("torch", "bfloat16"),
            ("torch", "float32"),
        ),
        "cuda": (
            ("tensorrt", "float16"),
            ("tensorrt-rtx", "float16"),
            ("torch", "float16"),
            ("torch", "bfloat16"),
            ("tensorrt", "float32"),
            ("tensorrt-rtx", "float32"),
            ("torch", "float32"),
        ),
    }
)
"""Kind of device -> what is tried there, in this order; what is not named here comes
before the reference. bfloat16 on a CPU takes hardware for it."""


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
    model: "Model",
    device: Device,
    *,
    probes: Probes,
    precision: str = AUTO,
    backend: str = AUTO,
    notify: Notify = lambda line: None,
) -> Choice:
    """Return the runtime for ``model`` on ``device``.

    Args:
        model: its network is built only where it has to be.
        device: where it runs.
        probes: returns the golden probes of the model; called only where no verdict is
            kept, and for int8, which is calibrated on them.
        precision: ``auto``, or one of those that the backend offers.
        backend: a row of ``backends``, or ``auto``. What is named but disagrees with
            the reference gives way to it.
        notify: is called with one line before a backend is judged, or an engine made.

    Raises:
        SettingsError: the backend does not run there, or not so.
        MissingBackendError: what was named is not installed.
        BackendError: what was named cannot be loaded or run.
        ModelError: the model, or its golden probes, are damaged.
    """
    offered = candidates(device, precision, backend)
    if offered == [backends.REFERENCE]:
        alone = _alone(device, precision, backend)
        return Choice(reference(model, device), None, alone)
    pin, remark = _pin(model, device)
    named = backend != AUTO
    trial = Trial(model, device, probes, notify, keep_errors=named)
    tried: list[Tried] = []
    for candidate in pin.sorted(offered) if pin else offered:
        one, runtime = trial.of(candidate, again=named)
        tried.append(one)
        if runtime is not None:
            return Choice(runtime, one.gate, _reason(tried, remark), tried=tuple(tried))
    if named and all(one.problem for one in tried):
        raise _error(tried[0], trial.errors[tried[0].candidate])
    reasons = "; ".join(_why_not(one) for one in tried)
    return Choice(
        reference(model, device),
        next((one.gate for one in tried if one.gate), None),
        f"float32 of torch, the reference: {reasons}",
        refused=True,
        tried=tuple(tried),
    )


def candidates(device: Device, precision: str, backend: str) -> list[Candidate]:
    """Return the backends and precisions to try, in the order of preference.

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
    found = [
        (row.name, one)
        for row in rows
        for one in row.precisions.get(device.type, ())
        if one == precision or (precision == AUTO and one not in ONLY_NAMED)
    ]
    if precision == AUTO and device.type == "cpu" and not cpu_has_bfloat16():
        found = [one for one in found if one[1] != "bfloat16"]
    if not found:
        msg = f"nothing that is installed computes in {precision} on {device.type}"
        raise SettingsError(msg, hint="See 'spine doctor', or use --precision auto.")
    return sorted(found, key=lambda one: _place(one, PREFERENCE[device.type]))


def _place(candidate: Candidate, order: Sequence[Candidate]) -> float:
    if candidate in order:
        return order.index(candidate)
    return len(order) - 1.5


def _pin(model: "Model", device: Device) -> tuple[Pin | None, str]:
    """Return the pinned order, if any, and what the reason says of it."""
    try:
        pin = pins.read(model, device)
    except ValueError:
        return None, "the order pinned by 'spine engine tune' is damaged and not used; "
    return pin, f"{pin.reason}; " if pin else ""


def _reason(tried: Sequence[Tried], remark: str) -> str:
    """Return why the last of those that were tried is used."""
    *others, best = tried
    reason = f"{remark}{best.backend} in {best.precision}"
    if best.gate:
        reason += f" passed the gate: {best.gate.figures} with float32 of torch"
    return reason + "".join(f"; {_why_not(one)}" for one in others)


def _why_not(one: Tried) -> str:
    name = f"{one.backend} in {one.precision}"
    if one.problem or one.gate is None:
        return f"{name} could not be loaded or run: {one.problem}"
    return f"{name} failed the gate: {one.gate.figures} with float32 of torch"


def _error(one: Tried, error: Exception) -> BackendError:
    if isinstance(error, BackendError):
        return error
    reason = reason_of(error)
    made = BackendError(
        f"{one.backend} in {one.precision} cannot run this network ({reason})"
    )
    made.__cause__ = error
    return made


def _alone(device: Device, precision: str, backend: str) -> str:
    if precision == "float32" or backend != AUTO:
        return "float32 of torch was asked for"
    return f"nothing faster than float32 of torch is there for {device.type}"


def _first(offered: Sequence[str]) -> str:
    return offered[0] if offered else AUTO
