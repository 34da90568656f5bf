"""The group of all commands: a usage error speaks JSON too, when asked to."""

from typing import Any

import typer
from typer.core import TyperGroup

from engines.results import Problem
from spinecli import render
from spinecli.status import ExitStatus

_WANTS_JSON = "spine.json"


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
    name = ctx.invoked_subcommand or "spine"
    hint = f"See '{'spine ' + name if ctx.invoked_subcommand else name} --help'."
    problem = Problem("usage", error.format_message(), hint)
    render.print_json(render.envelope(name, ExitStatus.USAGE, problem))
