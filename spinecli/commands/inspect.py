"""``spine inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from spinecli import options, series_table

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH",
        help="Folders of DICOM files, archives, or single files.",
        show_default=False,
    ),
]


def inspect(
    paths: Paths,
    *,
    include: options.Include = None,
    exclude: options.Exclude = None,
    as_json: options.AsJson = False,
) -> None:
    """Show each DICOM series under PATH, and what is wrong with it.

    Reads headers only. The exit status is that of 'spine convert' without its
    options: 3 if some series would be refused, 1 if all would.
    """
    from engines.convert.findings import Repairs

    series_table.command("inspect", paths, include, exclude, Repairs(), as_json=as_json)
