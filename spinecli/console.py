"""The two consoles: results on stdout, everything else on stderr.

Names of files are printed as they are: brackets in them are never markup.
"""

import os

from rich.console import Console

PLAIN_WIDTH = 120
"""Columns of text that goes to a pipe, a file or a CI log."""


def out() -> Console:
    """Return the console for results."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console for progress, warnings and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    in_ci = bool(os.environ.get("CI"))
    console = Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=False if in_ci else None,
    )
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PLAIN_WIDTH
    return console
