"""``spine evaluate``."""

from spinecli import options, render


def evaluate(*, as_json: options.AsJson = False) -> None:
    """Score label maps."""
    with render.command("evaluate", as_json=as_json):
        pass
