"""``spine convert``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from spinecli import options, progress, render, series_table

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="Folder of DICOM files in any order, an archive (.zip, .tar.gz ...), or "
        "one file.",
        show_default=False,
    ),
]
Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="OUT",
        help="Folder for the NIfTI files; not needed with --list.",
        file_okay=False,
        show_default=False,
    ),
]
Name = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="TEMPLATE",
        help="Names of the files, below OUT: {case} (path below IN), {modality}, "
        "{series}, {description}, {protocol}, {digest}, {part}, and the personal "
        "{patient}, {date}, {time}, {study}.",
    ),
]
List = Annotated[
    bool,
    typer.Option("--list", help="Show each series and what is wrong with it, only."),
]
AllowGaps = Annotated[
    bool,
    typer.Option("--allow-gaps", help="Fill missing slices by interpolation."),
]
Regrid = Annotated[
    bool,
    typer.Option("--regrid", help="Interpolate unevenly spaced slices to even steps."),
]
FixTilt = Annotated[
    bool,
    typer.Option(
        "--fix-tilt", help="Shear slices of a tilted gantry to a grid at right angles."
    ),
]
AllowFew = Annotated[
    bool,
    typer.Option(
        "--allow-few-slices",
        help="Convert two slices, whose distance nothing confirms as their step.",
    ),
]
AllowSlopes = Annotated[
    bool,
    typer.Option(
        "--allow-slopes",
        help="Convert CT whose slices differ in rescale slope or intercept.",
    ),
]
Duplicates = Annotated[
    Literal["error", "first", "last"],
    typer.Option(
        "--duplicates",
        help="Which of several different images at one place to keep, by number.",
    ),
]
Split = Annotated[
    bool,
    typer.Option(
        "--split", help="Write each time, echo or b-value of a 4-D series by itself."
    ),
]
KeepIdentifiers = Annotated[
    bool,
    typer.Option(
        "--keep-identifiers",
        help="Put patient, dates and UIDs into the sidecar files, and keep names of "
        "folders that contain the patient's.",
    ),
]


def convert(
    source: Source,
    output: Target = None,
    *,
    name: Name = "{case}_{modality}",
    show: List = False,
    allow_gaps: AllowGaps = False,
    regrid: Regrid = False,
    fix_tilt: FixTilt = False,
    allow_few_slices: AllowFew = False,
    allow_slopes: AllowSlopes = False,
    duplicates: Duplicates = "error",
    split: Split = False,
    keep_identifiers: KeepIdentifiers = False,
    jobs: options.Jobs = 2,
    include: options.Include = None,
    exclude: options.Exclude = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Convert each DICOM series under IN to a NIfTI file with a JSON sidecar in OUT.

    Slices of a series are brought together from all folders and ordered by where
    they lie, never by name or number. A series is converted right or refused with
    its reason: missing slices, uneven steps, gantry tilt, different images at one
    place, slopes that disagree, images that differ in patient or pixel size, damaged
    files. The options that mend these are recorded in the sidecar. Images that differ
    in blanks or spelling alone are joined with a warning. Localizers, reports and
    screenshots are left out; they and files that are not DICOM are counted and named.

    Sidecars (NAME.json) use the keys of BIDS and dcm2niix and hold nothing that
    names a patient unless asked for; in names of files and in the record hashes stand
    for folders and files that are called after the patient. OUT/convert.json records
    the run; run the same command again after an interruption, and what is done is
    skipped.
    """
    from engines.convert.findings import Repairs

    repairs = Repairs(
        allow_gaps, regrid, fix_tilt, allow_few_slices, allow_slopes, duplicates
    )
    if show:
        series_table.command(
            "convert", [source], include, exclude, repairs, as_json=as_json
        )
        return
    with render.command("convert", as_json=as_json) as run:
        from engines.convert.convert import ConvertRun, ConvertSettings

        settings = ConvertSettings(
            repairs=repairs,
            name=name,
            split=split,
            keep_identifiers=keep_identifiers,
            threads=jobs,
            overwrite=overwrite,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
        )
        if output is None:
            raise typer.BadParameter("OUT is needed to convert to.", param_hint="OUT")
        with progress.batch() as bar:
            command = shlex.join(["spine", *sys.argv[1:]])
            work = ConvertRun(
                [source], output, settings, command=command, told=bar.stage
            )
            bar.expect(len(work.cases))
            run.describe(work.facts)
            for result in work.results():
                run.add(result)
                bar.finished(result)
        run.warnings += series_table.left_out_notes(work.left_out)
