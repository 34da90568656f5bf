"""Turn records and errors into one JSON record, or into text for human eyes.

A command does its work inside ``with render.command(...) as run``, adds what it
got to ``run`` and leaves the rest to this module: text, JSON and exit status are
the same whether the work ended well, badly or with Ctrl-C.
"""

import errno
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import typer
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engines import __version__
from engines.errors import SpineError
from engines.results import CaseResult, Note, Problem
from spinecli import console, hints, progress, status, tables
from spinecli.progress import STYLES
from spinecli.status import ExitStatus

TABLE_ROWS = 50
"""The closing table of a larger batch lists only the cases that need attention."""

INTERRUPTED = Problem(
    "interrupted", "interrupted before the end", "Run the same command again."
)
NOTHING = Problem("nothing_done", "there was nothing to do")


class Run:
    """What one run of a command has to say.

    Attributes:
        cases: records of the cases so far; None for a command without cases.
        facts: more keys of the JSON record.
        warnings: what concerns the whole run.
        table: shows the cases at the end; ``closing_table`` unless replaced.
        cases_are: the key of the cases in the JSON record.
    """

    def __init__(
        self, name: str, *, as_json: bool, cases: bool, cases_are: str = "cases"
    ) -> None:
        self.name = name
        self.cases_are = cases_are
        self.as_json = as_json
        self.cases: list[CaseResult] | None = [] if cases else None
        self.facts: dict[str, Any] = {}
        self.warnings: list[Note] = []
        self.failed: Problem | None = None
        self.table: Callable[[Sequence[CaseResult]], None] = closing_table
        self._describe: list[Callable[[], Mapping[str, Any]]] = []

    def add(self, result: CaseResult) -> None:
        """Record a case."""
        if self.cases is None:
            msg = f"{self.name} has no cases"
            raise ValueError(msg)
        self.cases.append(hints.of_case(result, self.name))

    def describe(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        """Ask ``facts`` at the end for more keys, also after an interruption."""
        self._describe.append(facts)

    def fail(self, problem: Problem) -> None:
        """End with exit status 1 though nothing was raised."""
        self.failed = problem

    def settle(self) -> ExitStatus:
        """Return the exit status of a run that nothing interrupted."""
        if self.cases == [] and self.failed is None:
            self.failed = NOTHING
        if self.failed is not None:
            return ExitStatus.FATAL
        return ExitStatus.DONE if self.cases is None else status.of_cases(self.cases)

    def record(self, exit_status: ExitStatus) -> dict[str, Any]:
        """Return the record that ``--json`` prints."""
        cases = self.cases or []
        record = envelope(
            self.name, exit_status, self.failed, cases=cases, warnings=self.warnings
        )
        if self.cases is not None:
            record[self.cases_are] = [case.as_json() for case in cases]
        for facts in self._describe:
            record |= facts()
        return record | self.facts


@contextmanager
def command(
    name: str, *, as_json: bool, cases: bool = True, cases_are: str = "cases"
) -> Iterator[Run]:
    """Run the body of a command, show what it did and set the exit status.

    Args:
        name: the command, as the user types it.
        as_json: print one JSON record on stdout instead of text for human eyes.
        cases: whether the command goes through cases.
        cases_are: the key of the cases in the JSON record.

    Raises:
        typer.Exit: with the exit status, unless that is 0.
    """
    run = Run(name, as_json=as_json, cases=cases, cases_are=cases_are)
    try:
        yield run
        exit_status = run.settle()
    except KeyboardInterrupt as error:
        run.failed = INTERRUPTED
        exit_status = status.of_error(error)
    except MemoryError as error:
        run.failed, exit_status = _memory(error), ExitStatus.FATAL
    except SpineError as error:
        run.failed = hints.for_command(Problem.of(error), name)
        exit_status = status.of_error(error)
    except (typer.TyperException, typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if is_output(error) or _is_memory(error):
            run.failed = output_problem(error) if is_output(error) else _memory(error)
            exit_status = ExitStatus.FATAL
        else:
            run.failed = Problem.of(error)
            _show(run, status.of_error(error))
            raise
    exit_status = _shown(run, exit_status)
    if exit_status is not ExitStatus.DONE:
        raise typer.Exit(exit_status)


def envelope(
    name: str,
    exit_status: ExitStatus,
    problem: Problem | None,
    *,
    cases: Sequence[CaseResult] = (),
    warnings: Sequence[Note] = (),
) -> dict[str, Any]:
    """Return the keys that the JSON record of every command has."""
    return {
        "command": name,
        "version": __version__,
        "status": status.word(exit_status, cases),
        "exit_status": int(exit_status),
        "warnings": [note.as_json() for note in warnings],
        "error": problem.as_json() if problem else None,
    }


def print_json(record: Mapping[str, Any]) -> None:
    """Print ``record`` as one line of JSON on stdout.

    An infinite number becomes ``"inf"`` or ``"-inf"``, one that is none ``null``.
    """
    sys.stdout.write(json.dumps(_plain(record), allow_nan=False) + "\n")
    sys.stdout.flush()


def error(problem: Problem) -> None:
    """Print an error and its hint on stderr, a line each."""
    _labelled("error:", "bold red", problem.message)
    if problem.hint:
        _labelled("hint:", "bold", problem.hint)


def warning(message: str) -> None:
    """Print a warning on stderr."""
    _labelled("warning:", "bold yellow", message)


def say(message: str) -> None:
    """Print a line on stderr."""
    console.err().print(Text(message), soft_wrap=True)


def out(
    message: str, *, mark: str = "", style: str = "", whole: bool = False,
    indent: str = "",
) -> None:  # fmt: skip
    """Print a line of results on stdout.

    Args:
        message: what is printed, broken between words where it is too long.
        mark: what stands before it, in ``style``.
        style: colour of the mark.
        whole: leave it to the terminal to break it.
        indent: what every line of it begins with.
    """
    target = console.out()
    text: RenderableType = Text.assemble((mark, style), message)
    if indent:
        text = Padding(text, (0, 0, 0, len(indent)))
    target.print(text, soft_wrap=whole)


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, whole: bool = False
) -> None:
    """Print a table of results on stdout, nothing where there are no rows.

    Numbers stand right under their headings and are never broken. What does not fit
    side by side goes into tables below one another, each with the first column.

    Args:
        headings: of the columns.
        rows: their cells.
        whole: break no cell but those in the first column.
    """
    if not rows:
        return
    target = console.out()
    for places in tables.fitting(headings, rows, target.width, whole=whole):
        drawn = Table(box=box.SIMPLE, pad_edge=False)
        for place in places:
            cells = [row[place] for row in rows]
            number = place > 0 and tables.are_numbers(cells)
            drawn.add_column(
                headings[place],
                overflow="fold",
                justify="right" if number else "left",
                no_wrap=number,
                min_width=tables.least_width(headings[place], cells, whole=whole)
                if place
                else None,
            )
        for row in rows:
            drawn.add_row(*(Text(row[place]) for place in places))
        target.print(drawn)


def details(record: Mapping[str, Any]) -> None:
    """Print a record on stdout, a line for each key."""
    for key, value in record.items():
        console.out().print(f"{key}: {value}", soft_wrap=True)


def closing_table(cases: Sequence[CaseResult], rows: int = TABLE_ROWS) -> None:
    """List the cases on stderr, with reason and hint of those that failed.

    Args:
        rows: of more cases than these, only those that need attention are listed.
    """
    target = console.err()
    shown = cases if len(cases) <= rows else [c for c in cases if _notable(c)]
    if shown:
        table = Table(box=box.SIMPLE, pad_edge=False)
        table.add_column("case", overflow="fold")
        table.add_column("status", no_wrap=True)
        table.add_column("seconds", justify="right", no_wrap=True)
        table.add_column("why, and what to do", overflow="fold")
        for case in shown:
            seconds = sum(case.seconds.values())
            table.add_row(
                Text(case.name),
                Text(progress.word(case), STYLES[case.status]),
                f"{seconds:.1f}" if case.seconds else "",
                Text(_remarks(case)),
            )
        target.print(table)
    counted = Counter[str](progress.word(case) for case in cases)
    words = (*progress.PLANNED.values(), *STYLES)
    told = [f"{counted[word]} {word}" for word in words if counted[word]]
    if told:
        target.print(", ".join(told))


def _notable(case: CaseResult) -> bool:
    return case.status == "failed" or bool(case.warnings)


def _remarks(case: CaseResult) -> str:
    remarks = [note.message for note in case.warnings]
    if case.error is not None:
        remarks.append(case.error.message)
        if case.error.hint:
            remarks.append(case.error.hint)
    return "\n".join(remarks)


def _show(run: Run, exit_status: ExitStatus) -> None:
    if not run.as_json and run.cases:
        run.table(run.cases)
    for note in run.warnings:
        warning(note.message)
    if _shows.tracebacks:
        _traces(run)
    if run.failed is not None:
        error(run.failed)
    if run.as_json:
        print_json(run.record(exit_status))


def _shown(run: Run, exit_status: ExitStatus) -> ExitStatus:
    """Show a run; return its exit status, another where stdout takes no more of it."""
    try:
        _show(run, exit_status)
    except BrokenPipeError:
        return exit_status or ExitStatus.CLOSED_PIPE
    except OSError as failure:
        if not is_output(failure):
            raise
        error(output_problem(failure))
        return exit_status or ExitStatus.FATAL
    return exit_status


NO_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF)
"""What the system says where stdout cannot be written to."""

NO_MEMORY = (
    "cannot allocate memory",
    "failed to map segment",
    "not enough memory",
    "can't start new thread",
)


def is_output(failure: Exception) -> bool:
    """Say whether stdout could not be written to; files are other errors' business."""
    return (
        isinstance(failure, OSError)
        and failure.filename is None
        and failure.errno in NO_OUTPUT
    )


def _is_memory(failure: Exception) -> bool:
    lines = str(failure).lower()
    return isinstance(failure, OSError | ImportError | RuntimeError) and any(
        words in lines for words in NO_MEMORY
    )


def output_problem(failure: Exception) -> Problem:
    """Return why stdout takes no more."""
    told = getattr(failure, "strerror", None) or failure
    hint = "Free space where it goes, or send it elsewhere."
    return Problem("stdout", f"cannot write the results to stdout: {told}", hint)


def _memory(failure: BaseException) -> Problem:
    said = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
    hint = "Raise the limit (ulimit -v), or close other programs."
    return Problem("memory", f"not enough memory ({said})", hint)


def show_tracebacks(wanted: bool) -> None:
    """Let every fault of the program show its traceback on stderr, or not."""
    _shows.tracebacks = wanted


class _Shows:
    tracebacks = False


_shows = _Shows()


def _traces(run: Run) -> None:
    problems = [case.error for case in run.cases or () if case.error is not None]
    for problem in (*problems, run.failed):
        if problem is not None and problem.traceback:
            say(problem.traceback.rstrip())


def _labelled(label: str, style: str, message: str) -> None:
    text = Text.assemble((label, style), " ", message)
    console.err().print(text, soft_wrap=True)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, PathLike):
        return str(value)
    if hasattr(value, "item") and callable(value.item):
        value = value.item()  # a NumPy scalar
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
