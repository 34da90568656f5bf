"""Progress of a batch: a bar on a terminal, plain lines elsewhere, on stderr."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from engines.results import CaseResult
from spinecli import console

STYLES = {"done": "green", "skipped": "cyan", "failed": "bold red"}

PLANNED = {"segment": "would segment", "skip": "done already"}
"""What a case of a dry run says of itself -> how it is called."""


def word(result: CaseResult) -> str:
    """Return how a case ended, or in a dry run what would become of it."""
    return PLANNED.get(result.details.get("planned", ""), result.status)


class Bar(Protocol):
    """What shows the progress; each method may be called from any thread."""

    def expect(self, total: int) -> None:
        """Set how many cases there are."""

    def stage(self, case_name: str, stage: str) -> None:
        """Say that ``stage`` of a case begins."""

    def finished(self, result: CaseResult) -> None:
        """Count a case as finished and say how it ended."""

    def say(self, message: str) -> None:
        """Print a line above what shows the progress."""


@contextmanager
def batch(total: int | None = None, *, to: Console | None = None) -> Iterator[Bar]:
    """Show the progress of a batch until the block ends.

    Args:
        total: cases in the batch; may be told later with ``Bar.expect``.
        to: where to write, stderr if not given.
    """
    target = to or console.err()
    if not (target.is_terminal and not target.is_dumb_terminal):
        yield _Lines(target, total)
        return
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=target, transient=True) as progress:
        yield _Live(progress, total)


def line(result: CaseResult) -> Text:
    """Return how a case ended, in one line."""
    seconds = sum(result.seconds.values())
    text = Text(f"{result.name}: ")
    text.append(word(result), STYLES[result.status])
    if result.status == "done" and seconds:
        text.append(f" in {seconds:.1f} s")
    if result.error is not None:
        text.append(f": {result.error.message}")
    for note in result.warnings:
        text.append(f"; {note.message}", "yellow")
    return text


class _Lines:
    def __init__(self, target: Console, total: int | None) -> None:
        self._console = target
        self._total = total
        self._count = 0
        self._lock = threading.Lock()

    def expect(self, total: int) -> None:
        self._total = total

    def stage(self, case_name: str, stage: str) -> None:
        """Say nothing: a log holds one line per case."""

    def finished(self, result: CaseResult) -> None:
        with self._lock:
            self._count += 1
            count = f"[{self._count}/{'?' if self._total is None else self._total}] "
            self._console.print(Text(count) + line(result), soft_wrap=True)

    def say(self, message: str) -> None:
        with self._lock:
            self._console.print(Text(message), soft_wrap=True)


class _Live:
    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)
        self._stages: dict[str, str] = {}
        self._lock = threading.Lock()

    def expect(self, total: int) -> None:
        with self._lock:
            self._stages.clear()
            self._describe()
        self._progress.update(self._task, total=total)

    def stage(self, case_name: str, stage: str) -> None:
        with self._lock:
            self._stages[case_name] = stage
            self._describe()

    def finished(self, result: CaseResult) -> None:
        with self._lock:
            self._stages.pop(result.name, None)
            self._describe()
        if result.status == "failed" or result.warnings:
            self._progress.console.print(line(result), soft_wrap=True)
        self._progress.advance(self._task)

    def say(self, message: str) -> None:
        self._progress.console.print(Text(message), soft_wrap=True)

    def _describe(self) -> None:
        """Show the case that began first; the next ones are only being read."""
        oldest = next(iter(self._stages.items()), None)
        told = f"{oldest[0]} ({oldest[1]})" if oldest else ""
        self._progress.update(self._task, description=told)


class Steps(Protocol):
    """What shows how far a training is."""

    def told(self, step: int, steps: int, message: str) -> None:
        """Say how far it is."""


@contextmanager
def steps(*, to: Console | None = None) -> Iterator[Steps]:
    """Show the progress of a training until the block ends."""
    target = to or console.err()
    if not (target.is_terminal and not target.is_dumb_terminal):
        yield _StepLines(target)
        return
    columns = (
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=target) as progress:
        yield _StepBar(progress)


class _StepLines:
    def __init__(self, target: Console) -> None:
        self._console = target

    def told(self, step: int, steps: int, message: str) -> None:
        self._console.print(message, soft_wrap=True)


class _StepBar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def told(self, step: int, steps: int, message: str) -> None:
        self._progress.update(
            self._task, completed=step, total=steps, description=message
        )


class Runs(Protocol):
    """What shows how far a series of trainings is."""

    def told(
        self, name: str, step: int, steps: int, message: str, *, notable: bool
    ) -> None:
        """Say how far the training called ``name`` is; a log has what is notable."""

    def finished(self, result: CaseResult) -> None:
        """Count a training as finished and say how it ended."""


@contextmanager
def runs(total: int, *, to: Console | None = None) -> Iterator[Runs]:
    """Show the progress of ``total`` trainings until the block ends."""
    target = to or console.err()
    if not (target.is_terminal and not target.is_dumb_terminal):
        yield _RunLines(target, total)
        return
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=target, transient=True) as progress:
        yield _RunBars(progress, total)


class _RunLines:
    def __init__(self, target: Console, total: int) -> None:
        self._console = target
        self._lines = _Lines(target, total)

    def told(
        self, name: str, step: int, steps: int, message: str, *, notable: bool
    ) -> None:
        if notable:
            self._console.print(Text(f"{name}: {message}"), soft_wrap=True)

    def finished(self, result: CaseResult) -> None:
        self._lines.finished(result)


class _RunBars:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._all = progress.add_task("trainings", total=total)
        self._one = progress.add_task("", total=None, visible=False)

    def told(
        self, name: str, step: int, steps: int, message: str, *, notable: bool
    ) -> None:
        self._progress.update(self._all, description=name)
        self._progress.update(
            self._one, completed=step, total=steps, description=message, visible=True
        )

    def finished(self, result: CaseResult) -> None:
        self._progress.console.print(line(result), soft_wrap=True)
        self._progress.update(self._one, visible=False)
        self._progress.advance(self._all)
