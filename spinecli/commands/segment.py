"""``spine segment``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spinecli import options, progress, render

Scans = Annotated[
    list[Path],
    typer.Argument(
        metavar="SCANS",
        help="Scans and folders of scans: NIfTI, NRRD, MHA, DICOM series, mixed.",
        show_default=False,
    ),
]
Views = Annotated[
    str | None,
    typer.Option(
        "--views",
        metavar="VIEWS",
        help="Planes to segment in, whose probabilities are fused: axial, sagittal, "
        "coronal, several with commas between, or all. Default: those the model "
        "was trained on.",
        show_default=False,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="PRECISION",
        help="float32, bfloat16, float16, int8, or auto: the first, of those that are "
        "usually fastest, that labels the model's golden probes as float32 does. "
        "int8 has to be asked for.",
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="What computes: torch, openvino, tensorrt, tensorrt-rtx, or auto: the "
        "first in a fixed order that is installed and labels the model's golden "
        "probes as torch in float32 does ('spine doctor' shows which).",
    ),
]
RequireGpu = Annotated[
    bool,
    typer.Option("--require-gpu", help="Fail rather than compute on the CPU."),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory that scans on their way may take together, as in 4G or 500M; a "
        "scan that takes more by itself is refused. "
        "Default: half of the machine's.",
        show_default=False,
    ),
]


Modality = Annotated[
    Literal["ct", "mr"] | None,
    typer.Option(
        "--modality",
        help="What the scans are, where neither their headers nor their values say: "
        "values alone never prove MR.",
        show_default=False,
    ),
]
MarkUncertain = Annotated[
    bool,
    typer.Option(
        "--mark-uncertain",
        help="Write 255 where the network is not sure, for training on the masks.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Compare with torch in float32 on slices of every scan; where they differ "
        "torch computes the scan, with a warning.",
    ),
]


def segment(
    scans: Scans,
    output: options.Output,
    model: options.Model = "auto",
    *,
    modality: Modality = None,
    views: Views = None,
    device: options.Device = "auto",
    backend: Backend = "auto",
    precision: Precision = "auto",
    require_gpu: RequireGpu = False,
    verify: Verify = False,
    memory: Memory = None,
    jobs: options.Jobs = 2,
    include: options.Include = None,
    exclude: options.Exclude = None,
    overwrite: options.Overwrite = False,
    force: options.Force = False,
    mark_uncertain: MarkUncertain = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Segment the spine in each of SCANS, into masks on the scans' own grids.

    For a scan NAME, its path below the folder given, the output folder gets
    NAME/NAME_seg-spine_msk.nii.gz and NAME/NAME_preview.png; beside them
    spine-run.json and spine-run.csv record the run and index.html shows it.

    The models that come with the program label CT as 1 cervical, 2 thoracic, 3 lumbar
    and 4 sacral spine, and vertebral bodies in lumbar MR as 1.

    CT is taken in Hounsfield units. A known offset is taken off, and padding becomes
    air, with a warning. MR is known by its DICOM header, its name (NAME_mr, NAME_T2w)
    or --modality mr; what may be either is refused.

    A scan that cannot be used is named with its reason and the others go on. Run
    the same command again after an interruption: what is done with the same
    input, model and settings is skipped. Label maps among the inputs (names with
    _seg- or _msk) are left out.
    """
    with render.command("segment", as_json=as_json) as run:
        from engines.segment.run import SegmentRun
        from engines.segment.settings import SegmentSettings

        settings = SegmentSettings(
            model=model,
            views=views,
            device=device,
            precision=precision,
            threads=jobs,
            overwrite=overwrite,
            force=force,
            mark_uncertain=mark_uncertain,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            backend=backend,
            require_gpu=require_gpu,
            memory_gib=None if memory is None else options.gibibytes(memory),
            modality=modality,
            verify=verify,
        )
        with progress.batch() as bar:
            command = shlex.join(["spine", *sys.argv[1:]])
            work = SegmentRun(
                scans,
                output,
                settings,
                command=command,
                told=bar.stage,
                notify=bar.say,
            )
            bar.expect(len(work.found))
            run.facts["dry_run"] = dry_run
            run.describe(work.facts)
            for result in work.planned() if dry_run else work.results():
                run.add(result)
                bar.finished(result)
        if not (as_json or dry_run):
            for used in work.facts()["models"]:
                _say_model(used, named=model != "auto")
            facts = work.facts()
            if facts["precision"]:
                render.say(f"computed by: {_computed_by(facts)}")
            render.say(f"results: {output / 'index.html'}")


def _computed_by(facts: dict[str, Any]) -> str:
    """Return in one line what computed; all that was tried is in the record."""
    told = f"{facts['backend']} in {facts['precision']} on {facts['device']}"
    gate = facts["gate"]
    if gate is not None and gate["passed"] and gate["backend"] == facts["backend"]:
        told += f", Dice {gate['dice']:.4f} with torch in float32 on golden probes"
    return told


def _say_model(used: dict[str, Any], *, named: bool) -> None:
    if used["scans"]:
        scans = f"{used['scans']} scan{'s' if used['scans'] > 1 else ''}"
        why = "" if named else f", the default for {used['modality'].upper()}"
        render.say(f"model: {used['name']}{why} ({scans})")
