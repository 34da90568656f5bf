"""The program ``spine``: one line per command.

Command modules import their engine inside the function, so that ``spine --help``
loads none of the scientific libraries.
"""

import atexit
import contextlib
import os
import signal
import sys
import traceback
from functools import partial
from typing import Annotated

import typer

from engines import __version__
from engines.results import Problem
from spinecli import render
from spinecli.commands import (
    bench,
    convert,
    doctor,
    engine,
    evaluate,
    inspect,
    models,
    preprocess,
    prune,
    segment,
    study,
    train,
)
from spinecli.group import SpineGroup
from spinecli.status import EPILOG, ExitStatus

app = typer.Typer(
    name="spine",
    cls=SpineGroup,
    help="Spine segmentation of scans in batches, offline.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_command = partial(app.command, epilog=EPILOG)

_command()(convert.convert)
_command()(inspect.inspect)
_command()(segment.segment)
_command()(preprocess.preprocess)
_command()(train.train)
_command()(study.study)
_command()(prune.prune)
_command()(evaluate.evaluate)
app.add_typer(engine.app)
_command()(models.models)
_command()(bench.bench)
_command()(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spine {__version__}")
        raise typer.Exit


@app.callback()
def spine(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Show the traceback of every fault of the program, also where it "
            "only cost one case; given before the command.",
        ),
    ] = False,
) -> None:
    """Spine segmentation of scans in batches, offline."""
    render.show_tracebacks(debug)


def main() -> None:
    """Run the program; a polite end from outside counts as Ctrl-C."""
    _end_politely()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may know fewer letters
            stream.reconfigure(errors="backslashreplace")
    ended: list[object] = []
    atexit.register(_leave, ended)  # what is registered after this runs before it
    try:
        app(prog_name="spine")
    except SystemExit as end:
        closed = isinstance(end.__context__, BrokenPipeError)
        code = int(ExitStatus.CLOSED_PIPE) if closed else _flushed(end.code)
        ended.append(code)
        raise SystemExit(code) from None
    except BrokenPipeError:
        _forget_stdout()
        ended.append(int(ExitStatus.CLOSED_PIPE))
        raise SystemExit(ExitStatus.CLOSED_PIPE) from None
    except Exception as error:  # noqa: BLE001  below its traceback stands what it means
        if render.is_output(error):
            _forget_stdout()
            render.error(render.output_problem(error))
        else:
            traceback.print_exc()
            render.error(Problem.of(error))
        ended.append(int(ExitStatus.FATAL))
        raise SystemExit(ExitStatus.FATAL) from None


def _flushed(code: object) -> object:
    """Return the exit status, another where stdout takes no more of what was said."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return code or int(ExitStatus.CLOSED_PIPE)
    except OSError as error:
        _forget_stdout()
        render.error(render.output_problem(error))
        return code or int(ExitStatus.FATAL)
    return code


def _forget_stdout() -> None:
    """Let nothing more be written there, at the end of Python either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_politely() -> None:
    """Take SIGTERM and SIGHUP for Ctrl-C, the first of them alone.

    Those who end programs often send several; the record is being written by then.
    """
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    seen: list[int] = []

    def end(number: int, frame: object) -> None:
        if number != signal.SIGTERM:  # the terminal is gone, and writing to it fails
            for fd in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        seen.append(number)
        if len(seen) == 1:
            raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup ignores SIGHUP, and means it.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _leave(ended: list[object]) -> None:
    """End at once: taking apart all that was loaded would take another second."""
    code = ended[-1] if ended else ""
    if code is None or isinstance(code, int):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a pipe that was closed
                stream.flush()
        os._exit(code or 0)
