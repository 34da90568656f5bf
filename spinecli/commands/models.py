"""``spine models``."""

from pathlib import Path
from typing import Annotated

import typer

from engines.errors import SettingsError
from spinecli import options, render

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="Show one model or network: what it does, how good it is, how it was "
        "trained, its licence and its limits. Its whole manifest: --json.",
        show_default=False,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--page",
        metavar="FILE",
        help="Write a page on the model NAME (HTML): what it is, how good it is, and "
        "pictures of where it fails.",
        dir_okay=False,
        show_default=False,
    ),
]


def models(
    name: Name = None, *, page: Page = None, as_json: options.AsJson = False
) -> None:
    """List the models that can be used here, and the networks that can be trained.

    A model is looked up in the folders of SPINE_MODELS, then among those shipped.

    The page of a model is one file that opens from disk and can be printed or mailed:
    classes, licence, size, accuracy, cross-validation, robustness, training data, and
    where it fails. The pictures of that are those in the folder NAME.page beside the
    model file, if there is one; its failures.toml has a sentence for each.
    """
    with render.command("models", as_json=as_json, cases=False) as run:
        from engines.networks.inventory import inventory

        if page is not None and name is None:
            msg = "--page needs the name of a model"
            raise SettingsError(msg, hint="Give it: spine models NAME --page FILE.")
        rows = inventory(name)
        if as_json:
            run.facts["models"] = [row.as_json() for row in rows]
        run.warnings += [note for row in rows for note in row.notes()]
        if not as_json and name is None:
            headings = ("model", "network", "classes", "modality", "MB", "accuracy")
            render.table(headings, [row.cells() for row in rows])
        elif not as_json and page is None:
            from spinecli import model_text

            model_text.show(rows[0])
        if page is not None:
            from engines.files import write_text
            from engines.report import model_page

            write_text(page, model_page.html(rows[0]))
            if not as_json:
                render.say(f"page: {page}")
