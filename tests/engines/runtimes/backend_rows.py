"""Backends that are not: rows of the table whose behaviour a test decides.

A row ``quick`` is loaded by ``load_quick`` of this module and does what ``BEHAVIOUR``
says for its name; ``LOADED`` and ``JUDGED`` are what was loaded and run so far.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.networks.manifest import Model
from engines.networks.probes import Probe
from engines.runtimes import backends, choose
from engines.runtimes.backends import Backend, Candidate
from engines.runtimes.devices import Device
from engines.runtimes.torch_runtime import TorchRuntime

Floats = NDArray[np.float32]

BEHAVIOUR: dict[str, Callable[[Floats], Floats]] = {}
"""Name of a row -> what becomes of the probabilities of the reference, or raises."""

LOADED: list[Candidate] = []
RUN: list[Candidate] = []


class RowRuntime(TorchRuntime):
    """Computes as the reference does, then what its row is to do."""

    def __init__(self, name: str, model: Model, device: Device, precision: str) -> None:
        super().__init__(model, device, "float32")
        self.backend, self.precision = name, precision  # type: ignore[misc]

    def predict(self, slices: Any) -> Any:
        RUN.append((self.backend, self.precision))
        return BEHAVIOUR[self.backend](super().predict(slices))


def _loader(name: str) -> Callable[..., RowRuntime]:
    def load(
        model: Model, device: Device, precision: str, probes: Sequence[Probe]
    ) -> RowRuntime:
        LOADED.append((name, precision))
        if f"load {name}" in BEHAVIOUR:
            BEHAVIOUR[f"load {name}"](np.empty(0, np.float32))
        return RowRuntime(name, model, device, precision)

    return load


load_quick, load_other, load_torch = (
    _loader(name) for name in ("quick", "other", "torch")
)


def load_reference(
    model: Model, device: Device, precision: str, probes: Sequence[Probe]
) -> TorchRuntime:
    LOADED.append(("torch", precision))
    return TorchRuntime(model, device, precision)


def agrees(found: Floats) -> Floats:
    return found


def disagrees(found: Floats) -> Floats:
    """Say the opposite of the reference."""
    return np.flip(found, axis=1)


def raises(error: BaseException) -> Callable[[Floats], Floats]:
    def behaviour(found: Floats) -> Floats:
        raise error

    return behaviour


def row(name: str, *precisions: str, libraries: tuple[str, ...] = ()) -> Backend:
    return Backend(
        name,
        f"{__name__}:load_{name}",
        libraries,
        "numpy",
        "extra",
        {"cpu": precisions or ("bfloat16",)},
    )


def set_rows(patch: pytest.MonkeyPatch, *rows: Backend) -> None:
    """Let the table be the reference and ``rows``, the first preferred most."""
    reference = Backend(
        "torch", f"{__name__}:load_reference", (), "torch", "", {"cpu": ("float32",)}
    )
    patch.setattr(backends, "BACKENDS", {one.name: one for one in (reference, *rows)})
    order = [(one.name, each) for one in rows for each in one.precisions["cpu"]]
    patch.setattr(choose, "PREFERENCE", {"cpu": (*order, backends.REFERENCE)})
    patch.setattr(choose, "cpu_has_bfloat16", lambda: True)


@pytest.fixture
def table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Iterator[pytest.MonkeyPatch]:
    """Two agreeing rows before the reference, and an empty cache."""
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    set_rows(monkeypatch, row("quick"), row("other"))
    BEHAVIOUR.clear()
    BEHAVIOUR.update(quick=agrees, other=agrees)
    LOADED.clear()
    RUN.clear()
    yield monkeypatch
    BEHAVIOUR.clear()
