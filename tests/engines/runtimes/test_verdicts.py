"""Verdicts are kept whole, for exactly what they were given for, or not at all."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.errors import BackendError, MissingBackendError, OutputError
from engines.runtimes import backends, choose, devices, sealed, trial, verdicts
from engines.runtimes.cache import Key
from engines.runtimes.devices import CPU, Device
from engines.runtimes.gate import Gate
from engines.runtimes.verdicts import Verdict
from tests.engines.runtimes.backend_rows import (
    BEHAVIOUR,
    LOADED,
    RUN,
    agrees,
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
KEY = Key(
    "a" * 64, "openvino", "1.2", "float32", verdicts.ANY, device="Some CPU",
    program="9.9",
)  # fmt: skip
PASSED = Gate("openvino", "float32", 0.9999, 0.9995, 12, 3, 1, 0.1)


def chosen(**named: Any) -> str:
    choice = choose.choose(MODEL, CPU, **{"probes": lambda: PROBES, **named})
    return choice.runtime.backend


def the_file() -> Path:
    (path,) = verdicts.files()
    return path


@pytest.mark.parametrize(
    "verdict",
    [
        verdicts.new("m", KEY, PASSED),
        verdicts.new("m", KEY, PASSED, ms_per_slice=12.5),
        verdicts.new("m", KEY, replace(PASSED, dice=0.5)),
        verdicts.new("m", KEY, replace(PASSED, surest=0.9)),
        verdicts.new("m", KEY, problem="RuntimeError: \u00fc"),
    ],
    ids=["passed", "timed", "failed", "sure", "problem"],
)
def test_a_verdict_comes_back_as_it_was(verdict: Verdict) -> None:
    assert verdicts.read("m", KEY) is None
    assert verdicts.keep(verdict)
    assert verdicts.read("m", KEY) == verdict
    assert verdicts.kept() == ([verdict], [])
    assert verdict.passed == (verdict.gate == PASSED)


@pytest.mark.parametrize("name", [one.name for one in fields(Key)])
def test_a_verdict_counts_for_exactly_what_it_was_given_for(name: str) -> None:
    verdicts.keep(verdicts.new("m", KEY, PASSED))
    assert verdicts.read("m", replace(KEY, **{name: "another"})) is None
    assert verdicts.read("m", KEY) is not None


def damaged(path: Path) -> list[bytes]:
    """Return what may stand in the file instead."""
    whole = path.read_bytes()
    record = json.loads(whole)
    record["gate"]["dice"] = 1.0
    other = json.loads(whole)
    del other["sha256"]
    return [
        b"",
        whole[: len(whole) // 2],
        whole.replace(b"0.9995", b"0.9996"),
        json.dumps(record).encode(),
        json.dumps(other).encode(),
        b"[1, 2]",
        b'{"sha256": 3}',
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
    ]


def test_a_damaged_verdict_is_none_and_is_listed() -> None:
    verdict = verdicts.new("m", KEY, PASSED)
    verdicts.keep(verdict)
    path = the_file()
    for content in damaged(path):
        path.write_bytes(content)
        assert verdicts.read("m", KEY) is None, content[:40]
        assert verdicts.kept() == ([], [path]), content[:40]
    verdicts.keep(verdict)
    assert verdicts.read("m", KEY) == verdict


@pytest.mark.parametrize(
    "changed",
    [
        {"gate": None},
        {"problem": "both"},
        {"key": {"model": "only"}},
        {"key": None},
        {"gate": {"agreement": "much"}},
    ],
    ids=str,
)
def test_a_sealed_record_that_is_no_verdict_is_damaged(changed: dict[str, Any]) -> None:
    verdicts.keep(verdicts.new("m", KEY, PASSED))
    path = the_file()
    sealed.write(path, verdicts.new("m", KEY, PASSED).as_json() | changed)
    assert verdicts.read("m", KEY) is None
    assert verdicts.kept() == ([], [path])


def test_the_verdict_of_something_else_under_this_name_is_none() -> None:
    verdicts.keep(verdicts.new("m", KEY, PASSED))
    other = replace(KEY, device="another CPU")
    path = the_file().with_name(f"{verdicts.file_name('m', other)}.json")
    the_file().rename(path)
    assert verdicts.read("m", other) is None
    assert verdicts.kept() == ([], [path])


def test_a_damaged_verdict_is_judged_anew_and_replaced() -> None:
    assert chosen() == "quick"
    path = the_file()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    RUN.clear()
    assert chosen() == "quick"
    assert RUN
    assert verdicts.read("m", verdicts.key_of(MODEL, CPU, ("quick", "bfloat16")))


def test_a_forged_pass_does_not_count() -> None:
    """A verdict that was edited by hand is judged anew."""
    BEHAVIOUR["quick"] = lambda found: found[:, ::-1]
    assert chosen() == "other"
    for path in verdicts.files():
        text = path.read_text().replace('"agreement": 0.0', '"agreement": 1.0')
        path.write_text(text.replace('"dice": 0.0', '"dice": 1.0'))
    assert chosen() == "other"


def test_a_verdict_of_another_machine_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen()
    for name, value in (
        ("processor", "another CPU"),
        ("cpu_has_bfloat16", not devices.cpu_has_bfloat16()),
    ):
        RUN.clear()
        monkeypatch.setattr(devices, name, lambda value=value: value)
        assert chosen() == "quick"
        assert RUN, name
    monkeypatch.setattr(backends.Backend, "version", lambda _: "99")
    RUN.clear()
    chosen()
    assert RUN


def test_the_driver_counts_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "driver", lambda: "550.1")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    candidate = ("quick", "bfloat16")
    on_gpu = verdicts.key_of(MODEL, Device("cuda", 0), candidate)
    assert (on_gpu.device, on_gpu.driver) == ("Some GPU", "550.1")
    assert verdicts.key_of(MODEL, CPU, candidate).driver == ""


def test_int8_belongs_to_what_it_was_calibrated_on() -> None:
    others = probes_of(MODEL, PROBES[0].images[::-1])
    keys = [
        verdicts.key_of(MODEL, CPU, ("quick", precision), probes)
        for precision in ("int8", "bfloat16")
        for probes in (PROBES, others)
    ]
    assert len(set(keys)) == 3
    assert keys[2] == keys[3]


def test_int8_has_its_probes_and_a_verdict_of_its_own(
    table: pytest.MonkeyPatch,
) -> None:
    set_rows(table, row("quick", "int8"))
    given = []
    table.setattr(
        "tests.engines.runtimes.backend_rows.load_quick",
        lambda model, device, precision, probes: (
            given.append(probes) or trial.reference(model, device)
        ),
    )
    for _ in range(2):
        choose.choose(MODEL, CPU, probes=lambda: PROBES, precision="int8")
    assert given == [PROBES, PROBES]
    assert the_file().name.startswith("m-quick-int8-")


TRANSIENT: list[Exception] = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    OSError(28, "No space left on device"),
    OutputError("cannot write"),
    MissingBackendError("quick in int8", "nncf", "openvino"),
    RuntimeError("CUDA error: unspecified launch failure"),
    BackendError("tensorrt could not set memory aside: cudaError 2: out of memory"),
    RuntimeError("std::bad_alloc"),
    ImportError("libtbb.so.12: cannot open shared object file"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["load quick", "quick"])
def test_a_transient_problem_is_not_kept(where: str, error: Exception) -> None:
    before = dict(BEHAVIOUR)
    BEHAVIOUR[where] = raises(error)
    assert chosen() == "other"
    BEHAVIOUR.clear()
    BEHAVIOUR.update(before)
    assert chosen() == "quick"


def test_what_a_transient_problem_was_turned_into_is_transient() -> None:
    error = BackendError("refused the network")
    error.__cause__ = RuntimeError("in the library")
    assert not trial.is_transient(error)
    error.__cause__.__context__ = MemoryError()
    assert trial.is_transient(error)
    assert not trial.is_transient(BackendError("refused the network"))


def test_a_lasting_problem_is_kept_and_not_tried_again() -> None:
    BEHAVIOUR["load quick"] = raises(RuntimeError("no such layer"))
    assert chosen() == "other"
    LOADED.clear()
    BEHAVIOUR["load quick"] = agrees
    assert chosen() == "other"
    assert LOADED == [("other", "bfloat16")]
    assert chosen(backend="quick") == "quick"
    assert chosen() == "quick"


def test_a_folder_that_takes_nothing_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        RUN.clear()
        assert chosen() == "quick"
        assert RUN
    assert verdicts.kept() == ([], [])


def test_without_a_home_it_is_judged_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home")

    for name in ("SPINE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert chosen() == "quick"
    assert verdicts.kept() == ([], [])


def _write_often(verdict: Verdict) -> None:
    for _ in range(100):
        verdicts.keep(verdict)


def test_processes_at_once_leave_whole_files() -> None:
    both = [
        verdicts.new("m", KEY, PASSED),
        verdicts.new("m", KEY, problem="a longer text " * 200),
    ]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(one,)) for one in both]
    verdicts.keep(both[0])
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        seen.append(verdicts.read("m", KEY))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert None not in seen
    assert {one.problem for one in seen if one} <= {one.problem for one in both}
    assert len(verdicts.files()) == 1
    assert list(the_file().parent.iterdir()) == [the_file()]


def test_only_what_is_installed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    key = verdicts.key_of(MODEL, CPU, ("quick", "bfloat16"))
    counts: Callable[[Key], bool] = lambda one: verdicts.new("m", one, PASSED).counts()  # noqa: E731
    assert counts(key)
    assert not counts(replace(key, version="0"))
    assert not counts(replace(key, program="0"))
    assert not counts(replace(key, backend="gone"))
    monkeypatch.setattr(devices, "driver", lambda: "550.1")
    assert counts(replace(key, driver="550.1"))
    assert not counts(replace(key, driver="540.1"))
