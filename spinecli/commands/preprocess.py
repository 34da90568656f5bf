"""``spine preprocess``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from engines.preprocess.recipe import RECIPES
from spinecli import options, progress, render

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="Folder of scans, with their masks beside them, or what --from says.",
        show_default=False,
    ),
]
Target = Annotated[
    Path,
    typer.Argument(
        metavar="OUT",
        help="Folder for the prepared scans; it may not hold IN.",
        file_okay=False,
        show_default=False,
    ),
]
Layout = Annotated[
    Literal["verse", "spider", "totalsegmentator", "nnunet", "pairs"] | None,
    typer.Option(
        "--from",
        help="Take IN as a data set that is laid out so, as it was downloaded; pairs "
        "are images/X with masks/X, X with X_mask, or a CSV file with the columns "
        "image,mask[,name[,subject]]. Masks get VerSe ids.",
        show_default=False,
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help=f"A paper's preparation: {', '.join(RECIPES)}. The options below change "
        "it; without a recipe they are all that is done.",
        show_default=False,
    ),
]
Modality = Annotated[
    Literal["ct", "mr"] | None,
    typer.Option("--modality", help="Kind of the scans.", show_default=False),
]
Orientation = Annotated[
    str | None,
    typer.Option(
        "--orientation",
        metavar="CODES",
        help="Direction of the axes, as in RAS or PIR.",
        show_default=False,
    ),
]
Spacing = Annotated[
    float | None,
    typer.Option(
        "--spacing",
        min=0,
        metavar="MM",
        help="Resample to this voxel size; 0 keeps the scan's.",
        show_default=False,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        min=0,
        metavar="N",
        help="Resize each axial (CT) or sagittal (MR) slice to N x N, as in 256 or "
        "128; 0 keeps its size.",
        show_default=False,
    ),
]
Smoothing = Annotated[
    float | None,
    typer.Option(
        "--smoothing",
        min=0,
        metavar="MM",
        help="Standard deviation of a Gaussian; 0 for none.",
        show_default=False,
    ),
]
Clamp = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--clamp",
        metavar="LOW HIGH",
        help="Set values beyond these limits to the nearer one, as in -1000 800.",
        show_default=False,
    ),
]
Normalisation = Annotated[
    Literal["none", "zero-mean", "zero-one", "minus-one-one", "maximum"] | None,
    typer.Option(
        "--normalisation",
        help="How values are brought to a common scale.",
        show_default=False,
    ),
]
Binary = Annotated[
    bool,
    typer.Option("--binary", help="Set every mask to 0 and 1."),
]
Classes = Annotated[
    Literal["spine", "regions", "vertebrae"] | None,
    typer.Option(
        "--classes",
        help="Map masks of vertebrae to one class, four regions or VerSe ids.",
        show_default=False,
    ),
]
Scheme = Annotated[
    Literal[
        "verse",
        "totalsegmentator",
        "totalsegmentator-v1",
        "totalsegmentator-v2",
        "totalsegmentator-v3",
        "totalsegmentator-mr",
        "totalspineseg",
        "spider",
        "moose",
        "spine-segment",
        "binary",
    ]
    | None,
    typer.Option(
        "--scheme",
        help="How the vertebrae in the masks are numbered: verse unless --from says.",
        show_default=False,
    ),
]
Slices = Annotated[
    Literal["all", "central"],
    typer.Option("--slices", help="All slices, or the mid-sagittal one."),
]
Format = Annotated[
    Literal["nifti", "npz"],
    typer.Option("--format", help="NIfTI, or compact arrays in NumPy's format."),
]
Split = Annotated[
    Literal["80/10/10", "80/20", "80/20-of-train"] | None,
    typer.Option(
        "--split",
        help="Deal the subjects to training, validation and test, in split.json; "
        "80/20-of-train tests on 20 % and validates on 20 % of the rest.",
        show_default=False,
    ),
]


def preprocess(
    source: Source,
    output: Target,
    recipe: Recipe = None,
    *,
    layout: Layout = None,
    modality: Modality = None,
    orientation: Orientation = None,
    spacing: Spacing = None,
    size: Size = None,
    smoothing: Smoothing = None,
    clamp: Clamp = None,
    normalisation: Normalisation = None,
    binary: Binary = False,
    classes: Classes = None,
    scheme: Scheme = None,
    slices: Slices = "all",
    file_format: Format = "nifti",
    split: Split = None,
    seed: options.Seed = 0,
    jobs: options.Jobs = 2,
    include: options.Include = None,
    exclude: options.Exclude = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Prepare the scans in IN, and the masks beside them, into OUT.

    The order is: orientation, spacing or size, smoothing, clamp, normalisation.
    Masks (NAME_seg-vert_msk.nii.gz beside NAME_ct.nii.gz) follow with the nearest
    voxel. Names stay, so that OUT is a data folder again; OUT/preprocess.json
    records what was done to each scan. So does the header of a prepared scan, from
    which 'spine segment' knows how to undo the normalisation.

    With --from, IN is a data set as it was downloaded, and its files are found by
    the rules of that data set: 'spine preprocess VERSE OUT --from verse' makes a
    folder to train on. Discs and canal of SPIDER come as NAME_seg-mr_msk.nii.gz.
    An image without its mask, or a mask without its image, is a failed case;
    TotalSegmentator's scans without any spine are left out and counted.

    A scan that cannot be used is named with its reason and the others go on. Run
    the same command again after an interruption: what is done with the same input
    and settings is skipped.
    """
    with render.command("preprocess", as_json=as_json) as run:
        from engines.preprocess import masks
        from engines.preprocess.recipe import adjusted
        from engines.preprocess.tree import PrepareRun, PrepareSettings

        how = adjusted(
            recipe,
            modality,
            orientation,
            spacing,
            size,
            smoothing,
            clamp,
            normalisation,
        )
        mapping = masks.choose(binary=binary, classes=classes)
        settings = PrepareSettings(
            recipe=how,
            classes=mapping,
            scheme=scheme,
            slices=slices,
            format=file_format,
            split=split,
            seed=seed,
            threads=jobs,
            overwrite=overwrite,
            layout=layout,
            modality_told=recipe is None and modality is None,
            said=modality or "",
        )
        with progress.batch() as bar:
            work = PrepareRun(
                source,
                output,
                settings,
                include or (),
                exclude or (),
                command=shlex.join(["spine", *sys.argv[1:]]),
                told=bar.stage,
            )
            run.warnings = work.notes
            bar.expect(len(work.cases))
            run.facts["recipe"] = work.settings.recipe.as_json()
            for result in work.results():
                run.add(result)
                bar.finished(result)
