"""The two consoles: results on stdout, everything else on stderr.

Names of files are printed as they are: brackets in them are never markup.
"""

import errno
import os
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from engines.files import printable

PLAIN_WIDTH = 120
"""Columns of text that goes to a pipe, a file or a CI log."""


_CONTROLS = (*range(9), *range(11, 32), *range(127, 160))
_TURNING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that let what follows run from right to left."""

_SHOWN = dict.fromkeys((*_CONTROLS, *_TURNING), "\ufffd")
"""What names and texts of files may hold, and a terminal would obey -> what stands for
it."""


class _Console(Console):
    """Shows any text, and leaves a closed pipe to the program."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield segments without control characters but those of the console."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                shown = printable(segment.text.translate(_SHOWN))
                yield Segment(shown, segment.style, segment.control)

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
