"""The group of all commands: a usage error speaks JSON too, when asked to."""

from typing import Any

import typer
from typer.core import TyperGroup

from engines.results import Problem
from spinecli import render
from spinecli.status import ExitStatus

_WANTS_JSON = "spine.json"
PROGRAM = "spine"


class SpineGroup(TyperGroup):
    """Typer's group, which prints a JSON record before a usage error ends it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse what comes before the command."""
        ctx.meta[_WANTS_JSON] = "--json" in args
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            _tell(ctx, error)
            raise

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Parse the rest and run the command."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            _tell(ctx, error)
            raise


def _tell(ctx: Any, error: typer.TyperException) -> None:  # noqa: ANN401
    if not ctx.meta[_WANTS_JSON]:
        return
    name = _command_of(ctx, error)
    hint = f"See '{name if name == PROGRAM else f'{PROGRAM} {name}'} --help'."
    problem = Problem("usage", error.format_message(), hint)
    render.print_json(render.envelope(name, ExitStatus.USAGE, problem))


def _command_of(ctx: Any, error: typer.TyperException) -> str:  # noqa: ANN401
    """Return the command that was misused, as ``engine build``, or the program."""
    inner, names = getattr(error, "ctx", None), []
    while inner is not None and inner is not ctx:
        names.append(inner.info_name)
        inner = inner.parent
    return " ".join(reversed(names)) or ctx.invoked_subcommand or PROGRAM
