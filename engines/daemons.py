"""Threads that nobody has to wait for: a pool whose threads end with the program.

``ThreadPoolExecutor`` joins its threads when the interpreter ends, so one reader that
never returns, as on a network drive that is gone, keeps the program for ever.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class DroppedError(BaseException):
    """Ends a wait for what will not be done any more; no failure of a case."""


class _Task(Generic[R]):
    def __init__(self, call: Callable[[], R]) -> None:
        self.call = call
        self.future: Future[R] = Future()

    def run(self) -> None:
        try:
            made = self.call()
        except BaseException as error:  # noqa: BLE001  it is raised by who waits
            self.end(error)
        else:
            with contextlib.suppress(InvalidStateError):  # dropped meanwhile
                self.future.set_result(made)

    def end(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class DaemonPool:
    """Runs calls in daemon threads, which begin when they are needed."""

    def __init__(self, threads: int, name: str) -> None:
        self._most, self._name = threads, name
        self._tasks: queue.SimpleQueue[_Task[object] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open: set[_Task[object]] = set()
        self._lock = threading.Lock()

    def submit(
        self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """Return the future of a call that a thread will make."""
        task = _Task(lambda: call(*args, **kwargs))
        with self._lock:
            self._open.add(task)  # type: ignore[arg-type]  # of any result
            if len(self._threads) < min(self._most, len(self._open)):
                name = f"{self._name}_{len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._tasks.put(task)  # type: ignore[arg-type]
        return task.future

    def close(self, wait_s: float) -> None:
        """Drop what was not begun, and wait so long for what was.

        Whoever waits for a call that is dropped, or that is not over by then, gets
        ``DroppedError``.
        """
        dropped = DroppedError()
        with contextlib.suppress(queue.Empty):
            while True:
                task = self._tasks.get_nowait()
                if task is not None:
                    task.end(dropped)
        for _ in self._threads:
            self._tasks.put(None)
        until = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            for task in self._open:
                task.end(dropped)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task.run()
            with self._lock:
                self._open.discard(task)
