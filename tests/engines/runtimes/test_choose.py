"""The fastest runtime that agrees with the reference is chosen, and the choice told."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engines.errors import BackendError, MissingBackendError, SettingsError
from engines.networks.manifest import Model
from engines.runtimes import backends, choose, paces
from engines.runtimes.backends import Backend
from engines.runtimes.torch_runtime import TorchRuntime
from tests.engines.runtimes.test_gate import NOISE, a_model

CPU = torch.device("cpu")
WAYS = {"cpu": ("bfloat16", "float32")}


def agreeing(
    model: Model, device: torch.device, precision: str, probe: Sequence[torch.Tensor]
) -> TorchRuntime:
    del precision, probe
    runtime = TorchRuntime(model, device, "float32")
    runtime.backend, runtime.precision = "quick", "bfloat16"  # type: ignore[misc]
    return runtime


class Upside(TorchRuntime):
    """Says the opposite of the reference."""

    def predict(self, slices: torch.Tensor) -> torch.Tensor:
        return super().predict(slices).flip(1)


def disagreeing(
    model: Model, device: torch.device, precision: str, probe: Sequence[torch.Tensor]
) -> TorchRuntime:
    del precision, probe
    return Upside(model, device, "float32")


def broken(*_: object) -> TorchRuntime:
    msg = "the library refused the network"
    raise BackendError(msg)


def a_row(name: str, how: str, *libraries: str) -> Backend:
    factory = f"{__name__}:{how}"
    return Backend(name, factory, libraries, "torch", "extra", {"cpu": ("bfloat16",)})


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The reference alone; tests add rows."""
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    set_rows(monkeypatch)
    return monkeypatch


def set_rows(patch: pytest.MonkeyPatch, *rows: Backend) -> None:
    reference = Backend(
        "torch",
        "engines.runtimes.torch_runtime:load",
        (),
        "torch",
        "",
        {"cpu": ("float32",)},
    )
    patch.setattr(backends, "BACKENDS", {row.name: row for row in (reference, *rows)})
    patch.setattr(choose, "cpu_has_bfloat16", lambda: True)


def test_the_reference_alone_needs_no_gate(table: pytest.MonkeyPatch) -> None:
    choice = choose.choose(a_model(1), CPU, "auto", NOISE)
    assert (choice.runtime.backend, choice.runtime.precision) == ("torch", "float32")
    assert choice.gate is None
    assert "nothing faster" in choice.reason
    assert "asked for" in choose.choose(a_model(1), CPU, "float32", NOISE).reason


def test_what_agrees_is_measured_and_the_fastest_taken(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, a_row("quick", "agreeing"))
    pace = {"quick": 1.0, "torch": 2.0}
    table.setattr(choose, "_pace", lambda runtime, _: pace[runtime.backend])
    choice = choose.choose(a_model(1), CPU, "auto", NOISE)
    assert choice.runtime.backend == "quick"
    assert choice.gate is not None
    assert choice.gate.passed
    assert "1.0 ms a slice" in choice.reason
    assert [one.ms_per_slice for one in choice.tried] == [2.0, 1.0]


def test_a_faster_one_that_disagrees_is_left_out_and_told(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, a_row("wrong", "disagreeing"))
    choice = choose.choose(a_model(1), CPU, "auto", NOISE)
    assert choice.runtime.backend == "torch"
    assert "wrong in bfloat16 failed the gate" in choice.reason
    assert not choice.refused


def test_what_was_named_and_disagrees_is_refused_with_its_figures(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, a_row("wrong", "disagreeing"))
    choice = choose.choose(a_model(1), CPU, "auto", NOISE, "wrong")
    assert choice.refused
    assert choice.runtime.backend == "torch"
    assert choice.gate is not None
    assert not choice.gate.passed
    assert "failed the gate: agreement" in choice.reason


def test_paces_are_measured_once(table: pytest.MonkeyPatch) -> None:
    set_rows(table, a_row("quick", "agreeing"))
    pace = {"quick": 3.0, "torch": 2.0}
    table.setattr(choose, "_pace", lambda runtime, _: pace[runtime.backend])
    first = choose.choose(a_model(1), CPU, "auto", NOISE)
    assert first.runtime.backend == "torch"
    table.setattr(choose, "_pace", broken)
    again = choose.choose(a_model(1), CPU, "auto", NOISE)
    assert again.runtime.backend == "torch"
    assert "2.0 ms a slice" in again.reason
    table.setattr(torch, "get_num_threads", lambda: 99)
    assert paces.Paces(a_model(1), CPU).read() == {}


def test_what_disagreed_once_has_its_chance_with_other_scans(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, a_row("wrong", "disagreeing"))
    pace = {"wrong": 1.0, "torch": 2.0}
    table.setattr(choose, "_pace", lambda runtime, _: pace[runtime.backend])
    table.setattr(Upside, "backend", "wrong")
    for _ in range(2):
        choice = choose.choose(a_model(1), CPU, "auto", NOISE)
        assert choice.runtime.backend == "torch"
        assert "wrong in bfloat16 failed the gate" in choice.reason


def test_a_damaged_book_of_paces_is_written_anew(table: pytest.MonkeyPatch) -> None:
    book = paces.default_folder() / paces.FILE
    book.parent.mkdir(parents=True)
    book.write_text("[1,", encoding="utf-8")
    kept = paces.Paces(a_model(1), CPU)
    assert kept.read() == {}
    kept.write({("torch", "float32"): 2.5})
    assert kept.read() == {("torch", "float32"): 2.5}
    kept.write({("other", "int8"): None})
    assert kept.read() == {("torch", "float32"): 2.5, ("other", "int8"): paces.NEVER}


def test_a_backend_that_breaks_is_left_out_unless_it_was_named(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, a_row("weak", "broken"))
    choice = choose.choose(a_model(1), CPU, "auto", NOISE)
    assert choice.runtime.backend == "torch"
    assert "the library refused" in choice.reason
    with pytest.raises(BackendError, match="refused the network"):
        choose.choose(a_model(1), CPU, "auto", NOISE, "weak")


def test_what_is_not_there_is_refused_only_where_it_was_named(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, a_row("absent", "agreeing", "no_such_library"))
    assert choose.candidates(CPU, "auto", "auto") == [("torch", "float32")]
    with pytest.raises(MissingBackendError, match="no_such_library") as caught:
        choose.candidates(CPU, "auto", "absent")
    assert "spinecli[extra]" in caught.value.hint
    with pytest.raises(SettingsError, match="no backend is called 'fast'"):
        choose.candidates(CPU, "auto", "fast")
    with pytest.raises(SettingsError, match="computes in int8"):
        choose.candidates(CPU, "int8", "auto")


def test_a_processor_without_bfloat16_is_offered_none(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, a_row("quick", "agreeing"))
    table.setattr(choose, "cpu_has_bfloat16", lambda: False)
    assert choose.candidates(CPU, "auto", "auto") == [("torch", "float32")]
