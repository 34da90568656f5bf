"""Tuning measures what passed, in turns, and pins the order until it is forgotten."""

from pathlib import Path

import pytest

from engines.errors import OutputError
from engines.runtimes import choose, devices, pins, tune, verdicts
from engines.runtimes.backends import REFERENCE
from engines.runtimes.devices import CPU
from engines.runtimes.pins import Pin
from engines.runtimes.runtime import Runtime
from tests.engines.runtimes.backend_rows import (
    BEHAVIOUR,
    RUN,
    agrees,
    disagrees,
    raises,
    table,
)
from tests.engines.runtimes.test_gate import NOISE, a_model, probes_of

__all__ = ["table"]

MODEL = a_model(1)
PROBES = probes_of(MODEL)
QUICK, OTHER = ("quick", "bfloat16"), ("other", "bfloat16")
SECONDS = {"quick": 3.0, "other": 1.0, "torch": 2.0}


@pytest.fixture(autouse=True)
def clock(table: pytest.MonkeyPatch) -> None:
    """Let each pass take what ``SECONDS`` says, and the second round much longer."""
    measured = tune._timed
    rounds = {"quick": 0, "other": 0, "torch": 0}

    def timed(runtime: Runtime, batches: list[object]) -> float:
        assert measured(runtime, batches) > 0
        rounds[runtime.backend] += 1
        slow = 100.0 if rounds[runtime.backend] == 2 else 0.0
        return SECONDS[runtime.backend] + slow

    table.setattr(tune, "_timed", timed)


def tuned(repeats: int = 3) -> tuple[list[tune.Tuned], Pin]:
    return tune.tune(MODEL, CPU, probes=lambda: PROBES, repeats=repeats)


def used() -> tuple[str, str]:
    choice = choose.choose(MODEL, CPU, probes=lambda: PROBES)
    return choice.runtime.backend, choice.runtime.precision


def test_the_fastest_is_pinned_and_used_until_it_is_forgotten() -> None:
    assert used() == QUICK
    rows, pin = tuned()
    assert [row.tried.candidate for row in rows] == [OTHER, REFERENCE, QUICK]
    assert [row.ms_per_slice for row in rows] == [500, 1000, 1500]  # of two slices
    assert pin.order == (OTHER, REFERENCE, QUICK)
    assert pin == pins.read(MODEL, CPU)
    assert pins.kept() == ([pin], [])
    assert used() == OTHER
    assert pins.forget(MODEL, CPU)
    assert used() == QUICK
    assert not pins.forget(MODEL, CPU)


def test_what_fails_the_gate_is_neither_measured_nor_pinned() -> None:
    BEHAVIOUR["other"] = disagrees
    rows, pin = tuned()
    assert pin.order == (REFERENCE, QUICK)
    assert rows[-1].tried.candidate == OTHER
    assert rows[-1].ms_per_slice is None
    assert rows[-1].cells()[-1] == "failed"
    assert [row.cells()[-1] for row in rows[:2]] == ["the reference", "passed"]


def test_what_breaks_while_it_is_measured_is_left_out() -> None:
    calls = []

    def breaks(found: object) -> object:
        calls.append(found)
        if len(calls) > 2:
            raise ValueError("it broke")
        return found

    BEHAVIOUR["other"] = breaks  # type: ignore[assignment]
    rows, pin = tuned()
    assert pin.order == (REFERENCE, QUICK)
    assert rows[-1].tried.problem == rows[-1].cells()[-1] == "ValueError: it broke"
    assert rows[-1].as_json()["ms_per_slice"] is None


def test_all_are_judged_anew_and_measured_in_turns() -> None:
    BEHAVIOUR["quick"] = raises(RuntimeError("no such layer"))
    used()
    BEHAVIOUR["quick"] = agrees
    RUN.clear()
    tuned(repeats=2)
    judged = [QUICK, QUICK, OTHER, OTHER]  # by the gate, which is timed, too
    assert judged + [QUICK, OTHER] * 3 == RUN  # to warm up, and in two rounds
    assert len(verdicts.kept()[0]) == 2
    assert all(one.passed for one in verdicts.kept()[0])


def test_an_order_that_cannot_be_kept_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="cannot write"):
        tuned()


def test_an_order_holds_for_one_model_and_one_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuned()
    other = type(MODEL)(MODEL.manifest, MODEL.network, "1" * 64, MODEL.path)
    assert pins.read(other, CPU) is None
    monkeypatch.setattr(devices, "processor", lambda: "another CPU")
    assert pins.read(MODEL, CPU) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sha256": ""}', b"\xff"])
def test_a_damaged_pin_is_an_error_and_is_listed(content: bytes) -> None:
    tuned()
    (path,) = pins.files()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        pins.read(MODEL, CPU)
    assert pins.kept() == ([], [path])
    assert used() == QUICK
    assert pins.forget(MODEL, CPU)


def test_others_follow_a_pinned_order_as_they_stand() -> None:
    pin = pins.new(MODEL, CPU, [(REFERENCE, 1.0), (OTHER, 2.0)])
    given = [("a", "x"), OTHER, ("b", "y"), REFERENCE]
    assert pin.sorted(given) == [REFERENCE, OTHER, ("a", "x"), ("b", "y")]


def test_a_cube_counts_as_the_slices_along_its_edge() -> None:
    cube = NOISE[:1, :, None, :16, :16].repeat(16, axis=2)
    labels = cube[:, 0].astype("uint8")
    probe = type(PROBES[0])(cube, labels, labels)
    assert tune._slices(probe) == 16
    assert tune._slices(PROBES[0]) == 2
