"""The two consoles: results on stdout, everything else on stderr.

Names of files are printed as they are: brackets in them are never markup.
"""

import errno
import os

from rich.console import Console

PLAIN_WIDTH = 120
"""Columns of text that goes to a pipe, a file or a CI log."""


class _Console(Console):
    """Leaves a closed pipe to the program, which ends as the shell expects."""

    def on_broken_pipe(self) -> None:
        """Raise what was raised."""
        raise BrokenPipeError(errno.EPIPE, "closed by what reads it")


def out() -> Console:
    """Return the console for results."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console for progress, warnings and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    in_ci = bool(os.environ.get("CI"))
    console = _Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=False if in_ci else None,
    )
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PLAIN_WIDTH
    return console
