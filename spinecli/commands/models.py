"""``spine models``."""

from typing import Annotated, Any

import typer

from spinecli import console, options, render

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="Show one model or network whole.",
        show_default=False,
    ),
]


def models(name: Name = None, *, as_json: options.AsJson = False) -> None:
    """List the models that can be used here, and the networks that can be trained.

    A model is looked up in the folders of SPINE_MODELS, then among those shipped.
    """
    with render.command("models", as_json=as_json, cases=False) as run:
        from engines.networks.inventory import inventory

        rows = inventory(name)
        run.facts["models"] = [row.as_json() for row in rows]
        run.warnings += [note for row in rows for note in row.notes()]
        if not as_json and name is None:
            headings = ("model", "network", "classes", "modality", "MB", "accuracy")
            render.table(headings, [row.cells() for row in rows])
        elif not as_json:
            for row in rows:
                _details(row.as_json())


def _details(record: dict[str, Any]) -> None:
    for key, value in record.items():
        console.out().print(f"{key}: {value}", soft_wrap=True)
