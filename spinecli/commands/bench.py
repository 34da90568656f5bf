"""``spine bench``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from spinecli import bench_table, options, progress, render

Scans = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="SCANS",
        help="Scans and folders of scans to time. Default: a phantom like a CT of the "
        "chest, 512 x 512 x 133 voxels of 0.7 x 0.7 x 2.5 mm.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Model to time: a name that 'spine models' lists, or a model file.",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="NAME",
        help="Another model, such as the one it was pruned from: its network is timed "
        "beside it, in turns.",
        show_default=False,
    ),
]
Backend = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="Backend to time: torch, openvino, tensorrt or tensorrt-rtx; may be "
        "repeated. Default: all that run on the device. torch in float32 always is "
        "among them, as what the others are held against.",
        show_default=False,
    ),
]
Precision = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="PRECISION",
        help="Precision to time: int8, bfloat16, float16 or float32; may be repeated. "
        "Default: all that each backend has on the device.",
        show_default=False,
    ),
]
Repeats = Annotated[
    int,
    typer.Option(
        "--repeats",
        min=1,
        metavar="N",
        help="Times that everything is done; medians are told. The network has three "
        "rounds for each.",
    ),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain",
        help="Segment the scans the plain way, too, and tell how many times longer it "
        "takes and how alike the masks are.",
    ),
]


def bench(
    scans: Scans = None,
    output: options.OptionalOutput = None,
    *,
    model: Model = "unet-r34",
    against: Against = None,
    backend: Backend = None,
    precision: Precision = None,
    device: options.Device = "auto",
    repeats: Repeats = 3,
    plain: Plain = False,
    as_json: options.AsJson = False,
) -> None:
    """Time this machine: the network by backend and precision, and 'spine segment'.

    The network computes the same prepared slices of the first scan with every backend
    and precision, in turns, so that ratios hold on a busy machine: milliseconds per
    slice, slices per second, operations per second and their share of what a large
    matrix product reaches here in the same precision (int8 is held against bfloat16),
    seconds to load, and whether its labels agree with torch in float32. A backend that
    is not installed, or breaks, is a row that says so.

    Then 'spine segment' runs as a process of its own, as the program chooses by itself:
    seconds from start to end and by stage, and the most memory it held. Of several
    scans stages overlap, and the table says in which share of the time the network ran.

    With --plain a plain script does the same in turns with it: SciPy resampling with
    cubic splines, torch in float32, one slice at a time over the whole scan, nibabel's
    gzip; same model, same labels.

    Figures depend on the machine and on what else it does: compare ratios. --output
    gets bench.json with everything and bench.png with two charts.
    """
    with render.command("bench", as_json=as_json, cases_are="measurements") as run:
        from engines.bench.bench import BenchRun, BenchSettings

        settings = BenchSettings(
            model=model,
            against=against,
            backends=tuple(backend or ()),
            precisions=tuple(precision or ()),
            device=device,
            repeats=repeats,
            plain=plain,
        )
        with progress.batch() as bar:
            work = BenchRun(
                scans or [],
                settings,
                output,
                command=shlex.join(["spine", *sys.argv[1:]]),
                told=bar.stage,
            )
            run.table = lambda cases: bench_table.show(cases, work.facts())
            run.describe(work.facts)
            bar.expect(work.count)
            for result in work.results():
                run.add(result)
                bar.finished(result)
        run.warnings += work.notes
        if output is not None and not as_json:
            render.say(f"results: {output / 'bench.json'}, {output / 'bench.png'}")
