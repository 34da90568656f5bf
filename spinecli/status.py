"""Exit statuses, and how records and errors become one."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

from engines.errors import SettingsError, UnknownModelError
from engines.results import CaseResult

Word = Literal["ok", "partial", "failed"]


class ExitStatus(IntEnum):
    """What the shell gets."""

    DONE = 0
    FATAL = 1
    USAGE = 2
    PARTIAL = 3
    INTERRUPTED = 130
    CLOSED_PIPE = 141


MEANINGS = {
    ExitStatus.DONE: "every case done",
    ExitStatus.FATAL: "nothing done, or a fatal error",
    ExitStatus.USAGE: "wrong usage",
    ExitStatus.PARTIAL: "some cases failed",
    ExitStatus.INTERRUPTED: "interrupted",
    ExitStatus.CLOSED_PIPE: "what reads the output closed it",
}

EPILOG = "Exit status: " + ", ".join(
    f"{status.value} {meaning}" for status, meaning in MEANINGS.items()
)


def of_cases(cases: Sequence[CaseResult]) -> ExitStatus:
    """Return the exit status of a batch that ran to its end.

    A skipped case counts as done. A batch without cases did nothing.
    """
    failed = sum(case.status == "failed" for case in cases)
    if failed == len(cases):
        return ExitStatus.FATAL
    return ExitStatus.PARTIAL if failed else ExitStatus.DONE


def of_error(error: BaseException) -> ExitStatus:
    """Return the exit status of a command that ``error`` ended."""
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    if isinstance(error, UnknownModelError | SettingsError):
        return ExitStatus.USAGE
    return ExitStatus.FATAL


def word(status: ExitStatus, cases: Sequence[CaseResult] = ()) -> Word:
    """Return the status as ``--json`` words it.

    An interrupted batch is partial when it finished at least one case.
    """
    if status is ExitStatus.DONE:
        return "ok"
    if status is ExitStatus.PARTIAL:
        return "partial"
    finished = any(case.status != "failed" for case in cases)
    return "partial" if status is ExitStatus.INTERRUPTED and finished else "failed"
