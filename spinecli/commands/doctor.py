"""``spine doctor``."""

from spinecli import options, render


def doctor(*, as_json: options.AsJson = False) -> None:
    """Check this machine: versions, devices, models, and what to do about trouble."""
    with render.command("doctor", as_json=as_json, cases=False):
        pass
