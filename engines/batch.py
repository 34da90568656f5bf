"""Run many cases through read, work and write, with the three overlapped.

While one case is computed, the next ones are read and the last ones written, each
by a few threads. One bad case never stops the others.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engines.errors import SpineError
from engines.results import CaseResult, Note, Problem

Read = TypeVar("Read")
Done = TypeVar("Done")


@dataclass(slots=True)
class Job:
    """One case on its way: what is known of it, and what happened so far.

    Attributes:
        stage: is called with the case's name and the stage that begins.
    """

    name: str
    input: str
    stage: Callable[[str, str], None] = lambda name, stage: None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

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
        work: runs in the calling thread, one case after the other.
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
    finished: Callable[[CaseResult], None] = lambda result: None,
) -> Iterator[CaseResult]:
    """Yield one record per job, in the order of ``jobs``.

    Args:
        threads: that read, and that write; also how many cases wait on each side.
        finished: is called with each record as soon as it is known, from whatever
            thread, so that it can be saved before the batch is interrupted.
    """
    readers = ThreadPoolExecutor(threads, "read")
    writers = ThreadPoolExecutor(threads, "write")
    waiting = deque(jobs)
    reading: deque[tuple[Job, Future[Read]]] = deque()
    writing: deque[Future[CaseResult]] = deque()
    try:
        while waiting or reading:
            while waiting and len(reading) <= threads:
                job = waiting.popleft()
                reading.append((job, readers.submit(steps.read, job)))
            job, read = reading.popleft()
            writing.append(_worked(job, read, steps, writers, finished))
            while writing and (len(writing) > threads or writing[0].done()):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        writers.shutdown(wait=True)


def _worked(
    job: Job,
    read: Future[Read],
    steps: Steps[Read, Done],
    writers: ThreadPoolExecutor,
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
