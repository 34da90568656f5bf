"""Cases overlap, stay in order, and fail one by one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engines import batch
from engines.batch import Job, Steps
from engines.errors import InputError
from engines.results import CaseResult

DATA = Path(__file__).parents[1] / "data"


def jobs(count: int) -> list[Job]:
    return [Job(f"case{i}", f"/in/{i}") for i in range(count)]


def write(job: Job, done: str) -> CaseResult:
    return job.done({"out": done}, {})


STEPS: Steps[str, str] = Steps(
    read=lambda job: job.name, work=lambda job, read: read.upper(), write=write
)


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order(threads: int) -> None:
    results = list(batch.run(jobs(7), STEPS, threads=threads))
    assert [r.outputs["out"] for r in results] == [f"CASE{i}" for i in range(7)]
    assert {r.status for r in results} == {"done"}


@pytest.mark.parametrize("where", ["read", "work", "write"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("bad", hint="mend it"), "input"),
        (ValueError("surprise"), "bug"),
        (MemoryError(), "memory"),
    ],
)
def test_one_bad_case_never_stops_the_others(
    where: str, error: Exception, code: str
) -> None:
    def failing(job: Job, *_: object) -> str:
        if job.name == "case1":
            raise error
        return job.name

    def writing(job: Job, done: str) -> CaseResult:
        failing(job)
        return write(job, done)

    steps: Steps[str, str] = Steps(
        read=failing if where == "read" else STEPS.read,
        work=failing if where == "work" else STEPS.work,
        write=writing if where == "write" else write,
    )
    results = list(batch.run(jobs(3), steps, threads=2))
    assert [r.status for r in results] == ["done", "failed", "done"]
    assert results[1].error is not None
    assert results[1].error.code == code


def test_reading_the_next_overlaps_with_working() -> None:
    reading, working = threading.Event(), threading.Event()

    def read(job: Job) -> str:
        if job.name == "case1":
            reading.set()
            assert working.wait(10)
        return job.name

    def work(job: Job, held: str) -> str:
        if job.name == "case0":
            assert reading.wait(10)
            working.set()
        return held

    steps: Steps[str, str] = Steps(read, work, write)
    results = list(batch.run(jobs(2), steps, threads=1))
    assert [r.status for r in results] == ["done", "done"]


def test_reading_ahead_is_bounded() -> None:
    begun: list[str] = []

    def read(job: Job) -> str:
        begun.append(job.name)
        return job.name

    ahead: list[int] = []

    def work(job: Job, held: str) -> str:
        time.sleep(0.01)
        ahead.append(len(begun) - len(ahead))
        return held

    list(batch.run(jobs(20), Steps(read, work, write), threads=2))
    assert max(ahead) <= 4


def test_finished_cases_are_told_before_an_interruption() -> None:
    told: list[str] = []

    def work(job: Job, held: str) -> str:
        if job.name == "case2":
            raise KeyboardInterrupt
        return held

    steps: Steps[str, str] = Steps(STEPS.read, work, write)
    with pytest.raises(KeyboardInterrupt):
        list(
            batch.run(jobs(5), steps, threads=1, finished=lambda r: told.append(r.name))
        )
    assert told == ["case0", "case1"]


@pytest.mark.parametrize(("memory", "most"), [(100, 1), (250, 2), (1e9, 5)])
def test_cases_on_their_way_fit_into_memory(memory: float, most: int) -> None:
    """Cases of 100 bytes each; one that is too large alone still has its turn."""
    lock = threading.Lock()
    held: set[str] = set()
    largest = [0]

    def read(job: Job) -> str:
        with lock:
            held.add(job.name)
            largest[0] = max(largest[0], len(held))
        time.sleep(0.01)
        return job.name

    def release(job: Job, done: str) -> CaseResult:
        with lock:
            held.remove(job.name)
        return write(job, done)

    weighed = jobs(9)
    for job in weighed:
        job.bytes = 100
    weighed[4].bytes = 10**12
    steps: Steps[str, str] = Steps(read, STEPS.work, release)
    results = list(batch.run(weighed, steps, threads=2, memory=memory))
    assert [r.name for r in results] == [job.name for job in weighed]
    assert largest[0] <= most


def test_several_workers_share_the_cases() -> None:
    both = threading.Barrier(2, timeout=10)
    seen: set[str] = set()

    def work(job: Job, held: str) -> str:
        if job.name in ("case0", "case1"):
            both.wait()
        seen.add(threading.current_thread().name)
        return held.upper()

    steps: Steps[str, str] = Steps(STEPS.read, work, write)
    results = list(batch.run(jobs(8), steps, threads=1, workers=2))
    assert [r.outputs["out"] for r in results] == [f"CASE{i}" for i in range(8)]
    assert len(seen) == 2


def test_a_bad_case_stops_no_worker() -> None:
    def work(job: Job, held: str) -> str:
        if job.name == "case1":
            raise InputError("bad")
        return held

    steps: Steps[str, str] = Steps(STEPS.read, work, write)
    results = list(batch.run(jobs(4), steps, threads=1, workers=3))
    assert [r.status for r in results] == ["done", "failed", "done", "done"]


INTERRUPTED = """
import json, signal, sys, threading, time
from engines import batch
from engines.batch import Job, Steps

# A process begun in the background passes on that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
begun = threading.Event()

def stuck(job):
    if job.name == "case1":
        begun.set()
        time.sleep(600)
    return job.name

def interrupt():
    begun.wait()
    time.sleep(0.3)
    sent.append(time.monotonic())
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

steps = Steps(stuck, lambda job, name: name, lambda job, name: job.done({}, {}))
saved, sent = [], []
jobs = [Job(f"case{number}", "") for number in range(3)]
threading.Thread(target=interrupt, daemon=True).start()
try:
    list(batch.run(jobs, steps, threads=1, workers=int(sys.argv[1]),
                   finished=lambda result: saved.append(result.name)))
except KeyboardInterrupt:
    waited = time.monotonic() - sent[0]
    print(json.dumps([saved, waited < batch.WORK_S + 2]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_reader_that_never_returns_keeps_no_interruption_waiting(workers: str) -> None:
    """In a process of its own, since an interruption may end the one that tests."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, workers],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, '[["case0"], true]'), (
        done.stderr
    )


PROGRAM = """
import signal, sys, time
for name in ("SIGTERM", "SIGHUP"):  # which a test run in the background may ignore
    signal.signal(getattr(signal, name), signal.SIG_DFL)
module, mark = sys.argv.pop(), sys.argv.pop()
from pathlib import Path
from engines import scans
from spinecli import app

read = scans.read_case

def blocking(found):
    if found.name == "b":
        Path(mark).touch()
        time.sleep(600)
    return read(found)

from importlib import import_module

import_module(module).read_case = blocking
app.main()
"""


SEGMENT = ("segment", "engines.segment.run", "a/a_seg-spine_msk.nii.gz")
PREPARE = ("preprocess", "engines.preprocess.tree", "a_ct.nii.gz")


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize(
    ("ended", "command", "record"),
    [("SIGTERM", SEGMENT, "spine-run.json"), ("SIGHUP", PREPARE, "preprocess.json")],
)
def test_polite_end_leaves_a_record(
    tmp_path: Path, ended: str, command: tuple[str, str, str], record: str
) -> None:
    """A reader blocks for ever; the program ends in seconds, and nothing is lost."""
    verb, module, first = command
    scans, mark, out = (tmp_path / name for name in ("in", "blocked", "out"))
    scans.mkdir()
    for name in "abc":
        shutil.copy(DATA / "tptbox_ct.nii.gz", scans / f"{name}.nii.gz")
    given = [verb, scans, "-o", out, "--precision", "float32"]
    line = (given if verb == "segment" else [verb, scans, out]) + ["-j", "1"]
    words = [*map(str, line), str(mark), module]
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, *words])
    try:
        until = time.monotonic() + 120
        while not (mark.exists() and (out / first).exists()):
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(1)
        started = time.monotonic()
        for _ in range(2):  # those who end programs send several
            program.send_signal(getattr(signal, ended))
        assert program.wait(60) == 130
        assert time.monotonic() - started < 25
    finally:
        program.kill()
        program.wait()
    saved = json.loads((out / record).read_text())
    assert [case["name"] for case in saved["cases"]] == ["a"]
    assert (out / "index.html").exists() == (verb == "segment")
    assert not [*out.rglob(".spine-part-*")]
