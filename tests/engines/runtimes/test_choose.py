"""The first in a fixed order that passes the gate is chosen, whatever else happens."""

import errno
import shutil
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.errors import (
    BackendError,
    MissingBackendError,
    ModelFileError,
    SettingsError,
)
from engines.networks.probes import Probe
from engines.runtimes import backends, choose, pins, trial, verdicts
from engines.runtimes.backends import REFERENCE
from engines.runtimes.choose import Choice
from engines.runtimes.devices import CPU, Device
from tests.engines.runtimes.backend_rows import (
    BEHAVIOUR,
    LOADED,
    RUN,
    agrees,
    disagrees,
    raises,
    row,
    set_rows,
    table,
)
from tests.engines.runtimes.test_gate import a_model, probes_of

__all__ = ["table"]

pytestmark = pytest.mark.usefixtures("table")

MODEL = a_model(1)
PROBES = probes_of(MODEL)
QUICK, OTHER = ("quick", "bfloat16"), ("other", "bfloat16")


def chosen(**named: Any) -> Choice:
    return choose.choose(MODEL, CPU, **{"probes": lambda: PROBES, **named})


def no_probes() -> Sequence[Probe]:
    pytest.fail("probes were read although a verdict is kept")


def used(choice: Choice) -> tuple[str, str]:
    return choice.runtime.backend, choice.runtime.precision


def test_every_backend_has_its_place_in_the_order_of_preference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    offered = {
        (kind, one.name, precision)
        for one in backends.BACKENDS.values()
        for kind, precisions in one.precisions.items()
        for precision in precisions
        if precision not in choose.ONLY_NAMED
    }
    ordered = [(kind, *one) for kind, rows in choose.PREFERENCE.items() for one in rows]
    assert len(set(ordered)) == len(ordered)
    assert set(ordered) == offered
    assert {rows[-1] for rows in choose.PREFERENCE.values()} == {REFERENCE}


@pytest.mark.parametrize(
    ("device", "bfloat16", "expected"),
    [
        (CPU, True, ["openvino bfloat16", "openvino float32", "torch bfloat16"]),
        (CPU, False, ["openvino float32", "torch float32"]),
        (
            Device("cuda", 0),
            False,
            ["tensorrt float16", "tensorrt-rtx float16", "torch float16",
             "torch bfloat16", "tensorrt float32", "tensorrt-rtx float32"],
        ),
    ],
)  # fmt: skip
def test_the_usual_order(
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    bfloat16: bool,
    expected: list[str],
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(backends.Backend, "missing", lambda _: None)
    monkeypatch.setattr(choose, "cpu_has_bfloat16", lambda: bfloat16)
    found = [" ".join(one) for one in choose.candidates(device, "auto", "auto")]
    assert found[: len(expected)] == expected
    assert found[-1] == "torch float32"
    assert ("torch bfloat16" in found) == (bfloat16 or device != CPU)


def test_the_reference_alone_needs_no_gate(table: pytest.MonkeyPatch) -> None:
    set_rows(table)
    choice = chosen(probes=no_probes)
    assert used(choice) == REFERENCE
    assert choice.gate is None
    assert "nothing faster" in choice.reason
    assert "asked for" in chosen(precision="float32", probes=no_probes).reason


def test_the_first_that_passes_is_taken_and_no_other_loaded() -> None:
    choice = chosen()
    assert used(choice) == QUICK
    assert choice.gate is not None
    assert choice.gate.passed
    assert choice.reason.startswith("quick in bfloat16 passed the gate: agreement 100")
    assert [one.candidate for one in choice.tried] == LOADED == [QUICK]


def test_one_that_disagrees_is_skipped_with_its_figures() -> None:
    BEHAVIOUR["quick"] = disagrees
    choice = chosen()
    assert used(choice) == OTHER
    assert "quick in bfloat16 failed the gate: agreement 0" in choice.reason
    gates = [one.gate for one in choice.tried]
    assert [one is not None and one.passed for one in gates] == [False, True]
    assert not choice.refused
    BEHAVIOUR["other"] = disagrees
    shutil.rmtree(verdicts.cache.default_folder())
    choice = chosen()
    assert used(choice) == REFERENCE
    assert choice.reason.startswith("torch in float32; quick in bfloat16 failed")
    assert not choice.refused


@pytest.mark.parametrize(
    "error",
    [
        BackendError("the library refused the network"),
        RuntimeError("engine"),
        NotImplementedError("no such kernel"),
        ValueError(),
        MemoryError("out"),
        OSError(errno.ENOSPC, "no space"),
        AssertionError("x\ny"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["load quick", "quick"])
def test_a_candidate_that_raises_anything_is_skipped_with_its_reason(
    where: str, error: Exception
) -> None:
    BEHAVIOUR[where] = raises(error)
    choice = chosen()
    assert used(choice) == OTHER
    (problem,) = [one.problem for one in choice.tried if one.problem]
    assert (type(error).__name__ in problem) != isinstance(error, BackendError)
    assert f"quick in bfloat16 could not be loaded or run: {problem}" in choice.reason


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_who_stops_the_program_stops_it(error: BaseException) -> None:
    BEHAVIOUR["quick"] = raises(error)
    with pytest.raises(type(error)):
        chosen()
    assert verdicts.kept() == ([], [])


def test_a_kept_verdict_saves_judging_and_reading_probes() -> None:
    BEHAVIOUR["quick"] = disagrees
    first = chosen()
    LOADED.clear()
    RUN.clear()
    again = chosen(probes=no_probes)
    assert again.reason == first.reason
    records = [[one.as_json() for one in each.tried] for each in (first, again)]
    assert records[0] == records[1]
    assert (LOADED, RUN) == ([OTHER], [])


def test_an_emptied_cache_changes_nothing_but_that_it_is_judged_anew() -> None:
    BEHAVIOUR["quick"] = disagrees
    first = chosen()
    for _ in range(2):
        shutil.rmtree(verdicts.cache.default_folder())
        again = chosen()
        assert used(again) == used(first)
        assert (again.reason, again.tried) == (first.reason, first.tried)


@pytest.mark.parametrize("names", list(permutations(["", "precision", "backend"])))
def test_what_was_asked_before_changes_nothing(
    names: tuple[str, ...],
) -> None:
    """Whatever verdicts earlier runs left, the same is chosen."""
    BEHAVIOUR["quick"] = disagrees
    asked = {
        "": {},
        "precision": {"precision": "bfloat16"},
        "backend": {"backend": "other"},
    }
    found = {name: used(chosen(**asked[name])) for name in names}
    assert found == dict.fromkeys(asked, OTHER)


@pytest.mark.parametrize("slow", [QUICK, OTHER])
def test_a_busy_machine_changes_nothing(
    slow: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a slice took, the fixed order decides."""
    monkeypatch.setattr(
        trial, "_ms_per_slice",
        lambda runtime, _: 1e6 * ((runtime.backend, runtime.precision) == slow),
    )  # fmt: skip
    assert used(chosen()) == QUICK
    (verdict,) = verdicts.kept()[0]
    assert verdict.ms_per_slice == 1e6 * (slow == QUICK)
    assert used(chosen(probes=no_probes)) == QUICK


def test_what_once_passed_and_cannot_be_loaded_now_gives_way() -> None:
    chosen()
    BEHAVIOUR["load quick"] = raises(RuntimeError("the engine is gone"))
    choice = chosen()
    assert used(choice) == OTHER
    assert "RuntimeError: the engine is gone" in choice.reason
    del BEHAVIOUR["load quick"]
    assert used(chosen(probes=no_probes)) == QUICK


def test_damaged_probes_are_no_reason_to_skip_a_backend() -> None:
    def damaged() -> Sequence[Probe]:
        raise ModelFileError("the golden probes are damaged")

    with pytest.raises(ModelFileError, match="golden probes are damaged"):
        chosen(probes=damaged)
    BEHAVIOUR["load quick"] = raises(ModelFileError("the weights do not fit"))
    with pytest.raises(ModelFileError, match="weights do not fit"):
        chosen()
    assert verdicts.kept() == ([], [])


def test_without_any_probe_nothing_but_the_reference_is_used() -> None:
    assert used(chosen(probes=lambda: ())) == REFERENCE


def test_what_was_named_and_disagrees_is_refused_with_its_figures() -> None:
    BEHAVIOUR["quick"] = disagrees
    for read in (lambda: PROBES, no_probes):
        choice = chosen(backend="quick", probes=read)
        assert choice.refused
        assert used(choice) == REFERENCE
        assert choice.gate is not None
        assert not choice.gate.passed
        assert "failed the gate: agreement" in choice.reason


def test_a_named_backend_that_cannot_be_loaded_is_an_error_every_time() -> None:
    BEHAVIOUR["load quick"] = raises(BackendError("refused", hint="Do this."))
    assert used(chosen()) == OTHER
    for _ in range(2):
        with pytest.raises(BackendError, match="refused") as caught:
            chosen(backend="quick")
        assert caught.value.hint == "Do this."
    BEHAVIOUR["load quick"] = raises(ZeroDivisionError("x"))
    with pytest.raises(BackendError, match=r"cannot run this network \(ZeroDiv"):
        chosen(backend="quick", precision="bfloat16")
    del BEHAVIOUR["load quick"]
    assert used(chosen(backend="quick")) == QUICK
    assert used(chosen(probes=no_probes)) == QUICK


def test_a_named_backend_may_compute_in_another_precision(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, row("quick", "bfloat16", "float32"))
    table.setattr(
        "tests.engines.runtimes.backend_rows.RowRuntime.predict",
        lambda self, slices: BEHAVIOUR[self.precision](
            super(type(self), self).predict(slices)
        ),
    )
    BEHAVIOUR.update(bfloat16=disagrees, float32=agrees)
    choice = chosen(backend="quick")
    assert used(choice) == ("quick", "float32")
    assert not choice.refused
    BEHAVIOUR["float32"] = disagrees
    shutil.rmtree(verdicts.cache.default_folder())
    assert chosen(backend="quick").refused


def test_what_is_not_there_is_refused_only_where_it_was_named(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, row("quick", libraries=("no_such_library",)))
    assert choose.candidates(CPU, "auto", "auto") == [REFERENCE]
    with pytest.raises(MissingBackendError, match="no_such_library") as caught:
        choose.candidates(CPU, "auto", "quick")
    assert "spinecli[extra]" in caught.value.hint
    with pytest.raises(SettingsError, match="no backend is called 'fast'"):
        choose.candidates(CPU, "auto", "fast")
    with pytest.raises(SettingsError, match="computes in int8"):
        choose.candidates(CPU, "int8", "auto")


def test_what_has_no_place_in_the_order_comes_before_the_reference(
    table: pytest.MonkeyPatch,
) -> None:
    table.setattr(choose, "PREFERENCE", {"cpu": (OTHER, REFERENCE)})
    assert choose.candidates(CPU, "auto", "auto") == [OTHER, QUICK, REFERENCE]


def test_int8_is_used_only_where_it_is_named(table: pytest.MonkeyPatch) -> None:
    set_rows(table, row("quick", "int8", "bfloat16"))
    assert choose.candidates(CPU, "auto", "auto") == [QUICK, REFERENCE]
    assert choose.candidates(CPU, "auto", "quick") == [QUICK]
    assert choose.candidates(CPU, "int8", "auto") == [("quick", "int8")]


def test_first_use_is_announced_once() -> None:
    lines: list[str] = []
    BEHAVIOUR["quick"] = disagrees
    for _ in range(2):
        chosen(notify=lines.append)
    assert lines == [
        f"first use of m with {name} in bfloat16 here: converting and checking, once"
        for name in ("quick", "other")
    ]


def test_the_reference_is_loaded_only_where_it_computes() -> None:
    chosen()
    assert REFERENCE not in LOADED
    BEHAVIOUR.update(quick=disagrees, other=disagrees)
    shutil.rmtree(verdicts.cache.default_folder())
    chosen()
    assert LOADED.count(REFERENCE) == 1


def pin(*order: tuple[str, str]) -> Path:
    made = pins.new(MODEL, CPU, [(one, 1.0 + n) for n, one in enumerate(order)])
    return pins.keep(MODEL, CPU, made)


def test_a_pinned_order_is_taken_and_named() -> None:
    path = pin(OTHER, REFERENCE)
    choice = chosen()
    assert used(choice) == OTHER
    day = verdicts.kept()[0][0].judged[:10]
    assert choice.reason.startswith(
        f"order pinned by 'spine engine tune' on {day}; other in bfloat16 passed"
    )
    path.unlink()
    assert used(chosen()) == QUICK


def test_a_pinned_order_may_begin_with_the_reference() -> None:
    pin(REFERENCE, QUICK)
    choice = chosen(probes=no_probes)
    assert used(choice) == REFERENCE
    assert choice.reason.endswith("; torch in float32")
    assert used(chosen(backend="quick")) == QUICK


def test_a_pinned_backend_still_has_to_pass() -> None:
    BEHAVIOUR["other"] = disagrees
    pin(OTHER, QUICK)
    assert used(chosen()) == QUICK


def test_a_damaged_pin_is_not_used_and_named() -> None:
    path = pin(OTHER, REFERENCE)
    path.write_text(path.read_text().replace("other", "quick"))
    choice = chosen()
    assert used(choice) == QUICK
    assert "'spine engine tune' is damaged and not used" in choice.reason


def test_a_pin_of_another_model_or_processor_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pin(OTHER, REFERENCE)
    monkeypatch.setattr("engines.runtimes.devices.processor", lambda: "another CPU")
    assert used(chosen()) == QUICK
