"""Run many cases through read, work and write, with the three overlapped.

While one case is computed, the next ones are read and the last ones written, each
by a few threads. One bad case never stops the others.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engines.daemons import DaemonPool
from engines.errors import SpineError
from engines.results import CaseResult, Note, Problem

WORK_S, WRITE_S = 4.0, 10.0
"""Seconds that an interrupted batch gives to what is being worked on, and written."""

Read = TypeVar("Read")
Done = TypeVar("Done")


@dataclass(slots=True)
class Job:
    """One case on its way: what is known of it, and what happened so far.

    Attributes:
        stage: is called with the case's name and the stage that begins.
        bytes: of memory that it takes from reading to writing, roughly.
    """

    name: str
    input: str
    stage: Callable[[str, str], None] = lambda name, stage: None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    bytes: int = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to ``stage``, and tell that it begins."""
        self.stage(self.name, stage)
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def failed(self, error: BaseException) -> CaseResult:
        """Return the record of the case after ``error``."""
        return CaseResult(
            self.name,
            self.input,
            "failed",
            seconds=self.seconds,
            warnings=tuple(self.notes),
            error=_problem(error),
        )

    def done(
        self, outputs: Mapping[str, str], details: Mapping[str, object]
    ) -> CaseResult:
        """Return the record of the finished case."""
        return CaseResult(
            self.name,
            self.input,
            "done",
            outputs,
            self.seconds,
            tuple(self.notes),
            details=details,
        )


@dataclass(frozen=True, slots=True)
class Steps(Generic[Read, Done]):
    """The three steps of a case, each given its job.

    Attributes:
        read: runs in a reading thread.
        work: runs in the calling thread, one case after the other; with several
            workers in a thread of each.
        write: runs in a writing thread and returns the finished record.
    """

    read: Callable[[Job], Read]
    work: Callable[[Job, Read], Done]
    write: Callable[[Job, Done], CaseResult]


def run(
    jobs: Sequence[Job],
    steps: Steps[Read, Done],
    *,
    threads: int,
    workers: int = 1,
    memory: float = math.inf,
    finished: Callable[[CaseResult], None] = lambda result: None,
) -> Iterator[CaseResult]:
    """Yield one record per job, in the order of ``jobs``.

    Args:
        threads: that read, and that write; also how many cases wait on each side.
        workers: cases that are worked on at the same time.
        memory: bytes that the cases on their way may take together. One is always
            on its way, whatever it takes.
        finished: is called with each record as soon as it is known, from whatever
            thread, so that it can be saved before the batch is interrupted.
    """
    line = _Line(steps, threads, workers, finished)
    waiting = deque(jobs)
    try:
        while waiting or line.busy:
            while waiting and line.takes(waiting[0], memory):
                line.read(waiting.popleft())
            line.work()
            yield from line.written(all_of_it=not (waiting or line.reads))
    finally:
        line.close()


class _Line(Generic[Read, Done]):
    """The cases on their way, in order: being read, worked on, written."""

    def __init__(
        self,
        steps: Steps[Read, Done],
        threads: int,
        workers: int,
        finished: Callable[[CaseResult], None],
    ) -> None:
        self._steps = steps
        self._threads, self._workers = threads, workers
        self._finished = finished
        self._readers = DaemonPool(threads, "read")
        self._working = DaemonPool(workers, "work")
        self._writers = DaemonPool(threads, "write")
        self.reads: deque[tuple[Job, Future[Read]]] = deque()
        self._behind: deque[tuple[Job, Future[Future[CaseResult]]]] = deque()

    @property
    def busy(self) -> bool:
        """Say whether any case is on its way."""
        return bool(self.reads or self._behind)

    def takes(self, job: Job, memory: float) -> bool:
        """Say whether ``job`` may set out now."""
        held = [on for on, _ in self.reads]
        held += [on for on, working in self._behind if not _is_over(working)]
        fits = sum(on.bytes for on in held) + job.bytes <= memory
        return len(self.reads) < self._threads + self._workers and (fits or not held)

    def read(self, job: Job) -> None:
        """Begin to read a case."""
        self.reads.append((job, self._readers.submit(self._steps.read, job)))

    def work(self) -> None:
        """Work on the next case that was read, if there is one."""
        if not self.reads:
            return
        job, read = self.reads.popleft()

        def worked() -> Future[CaseResult]:
            return _worked(job, read, self._steps, self._writers, self._finished)

        if self._workers > 1:
            self._behind.append((job, self._working.submit(worked)))
            return
        done: Future[Future[CaseResult]] = Future()
        done.set_result(worked())
        self._behind.append((job, done))

    def written(self, *, all_of_it: bool) -> Iterator[CaseResult]:
        """Yield the records that are due, waiting where too much piles up."""
        most = self._threads + self._workers - 1
        stuck = not self.reads  # nothing was read: memory has to come free
        while self._behind:
            _, working = self._behind[0]
            due = all_of_it or stuck or len(self._behind) > most or _is_over(working)
            if not due:
                return
            self._behind.popleft()
            yield working.result().result()
            stuck = False

    def close(self) -> None:
        """Drop what was not begun, and wait for what was, but not for ever.

        Nothing is lost with a reader; work and writing are given time to end.
        """
        self._readers.close(0)
        self._working.close(WORK_S)
        self._writers.close(WRITE_S)


def _is_over(working: Future[Future[CaseResult]]) -> bool:
    return working.done() and working.result().done()


def _worked(
    job: Job,
    read: Future[Read],
    steps: Steps[Read, Done],
    writers: DaemonPool,
    finished: Callable[[CaseResult], None],
) -> Future[CaseResult]:
    try:
        done = steps.work(job, read.result())
    except Exception as error:  # noqa: BLE001  one bad case never stops the others
        failed = job.failed(error)
        return writers.submit(_tell, failed, finished)
    return writers.submit(_written, job, done, steps, finished)


def _written(
    job: Job,
    done: Done,
    steps: Steps[Read, Done],
    finished: Callable[[CaseResult], None],
) -> CaseResult:
    try:
        result = steps.write(job, done)
    except Exception as error:  # noqa: BLE001  one bad case never stops the others
        result = job.failed(error)
    return _tell(result, finished)


def _tell(result: CaseResult, finished: Callable[[CaseResult], None]) -> CaseResult:
    finished(result)
    return result


def _problem(error: BaseException) -> Problem:
    if isinstance(error, MemoryError):
        hint = "Close other programs, or give the scan to a machine with more memory."
        return Problem("memory", "not enough memory for this case", hint)
    if isinstance(error, SpineError):
        return Problem.of(error)
    return Problem.of(error)
