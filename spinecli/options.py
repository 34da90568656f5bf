"""The options that several commands share, worded once."""

import re
from pathlib import Path
from typing import Annotated

import typer

DATA = "Data"
"""Panel of the options on what is read."""

_OUTPUT = typer.Option(
    "--output",
    "-o",
    metavar="DIR",
    help="Folder for the results; it is made if it does not exist.",
    file_okay=False,
    show_default=False,
)
Output = Annotated[Path, _OUTPUT]
OptionalOutput = Annotated[Path | None, _OUTPUT]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Model to use: a name that 'spine models' lists, a model file, or auto: "
        "the default for what each scan is, CT or MR.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Do every case again, finished ones too."),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON record on stdout."),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        help="Cases that are read, and that are written, at the same time.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where the network runs: auto, cpu, cuda or cuda:N.",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="Take only cases whose name or file name matches; may be repeated.",
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Leave out cases whose name or file name matches; may be repeated.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Tell what would be done, and do nothing."),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Go on where the check of the scan's values would refuse."
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of scans with label maps (NAME_ct beside NAME_seg-vert_msk).",
        exists=True,
        file_okay=False,
        show_default=False,
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, metavar="N", help="Same seed, same random choices."),
]
Scheme = Annotated[
    str,
    typer.Option(
        "--scheme",
        help="Ids in the masks, without --settings: verse, totalsegmentator, spider, "
        "binary and others.",
        rich_help_panel=DATA,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="80/10/10, 80/20, 80/20-of-train or all, by subject.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]


def gibibytes(size: str) -> float:
    """Return a size as ``4G``, ``500M`` or ``4`` in GiB.

    Raises:
        typer.BadParameter: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GMT]?)(?:i?B)?", size.strip(), re.I)
    if not found:
        msg = f"{size!r} is no size; give one as in 4G or 500M."
        raise typer.BadParameter(msg, param_hint="--memory")
    scale = {"M": 1 / 1024, "": 1.0, "G": 1.0, "T": 1024.0}
    return float(found[1]) * scale[found[2].upper()]
