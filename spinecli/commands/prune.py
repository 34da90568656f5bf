"""``spine prune``."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engines.errors import SettingsError
from spinecli import options, progress, render

if TYPE_CHECKING:
    from engines.prune.plan import Target
    from engines.prune.points import Pruned
    from engines.prune.prune import Pruning

TARGET, CHOICE, TUNING = "Target (one of them)", "Choice of filters", "Fine-tuning"

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model to prune: a name that 'spine models' lists, or a model file.",
        show_default=False,
    ),
]
Small = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Model file that comes out, NAME.safetensors; plan, rounds and report go "
        "into NAME-pruning beside it.",
        dir_okay=False,
        show_default=False,
    ),
]
Ratio = Annotated[
    str | None,
    typer.Option(
        "--ratio",
        metavar="P",
        help="Share of the filters that leaves, as 0.5 or 50%.",
        show_default=False,
        rich_help_panel=TARGET,
    ),
]
Flops = Annotated[
    str | None,
    typer.Option(
        "--flops",
        metavar="P",
        help="Share of the operations that may be left, as 30%.",
        show_default=False,
        rich_help_panel=TARGET,
    ),
]
Params = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="P",
        help="Share of the weights that may be left, as 20%.",
        show_default=False,
        rich_help_panel=TARGET,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="MS",
        help="Time that a slice of 256 x 256 may take here, as 10ms.",
        show_default=False,
        rich_help_panel=TARGET,
    ),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="Plan to apply as it is, as one that --dry-run wrote and you changed.",
        exists=True,
        dir_okay=False,
        show_default=False,
        rich_help_panel=TARGET,
    ),
]
Rounds = Annotated[
    int,
    typer.Option(
        "--steps",
        min=1,
        metavar="K",
        help="Rounds of scoring, removing and fine-tuning, in equal steps.",
        rich_help_panel=CHOICE,
    ),
]
Criterion = Annotated[
    str,
    typer.Option(
        "--criterion",
        help="gradient (mean |dL/dw|, as the paper), taylor, magnitude or random.",
        rich_help_panel=CHOICE,
    ),
]
Scope = Annotated[
    str,
    typer.Option(
        "--scope",
        help="layer takes the same share out of every layer, global the lowest scores "
        "of the network.",
        rich_help_panel=CHOICE,
    ),
]
Multiple = Annotated[
    int,
    typer.Option(
        "--round",
        min=1,
        metavar="N",
        help="Channels left are multiples of this, and at least this.",
        rich_help_panel=CHOICE,
    ),
]
Batches = Annotated[
    int,
    typer.Option(
        "--batches",
        min=1,
        metavar="N",
        help="Batches of the pruning set that filters are scored on.",
        rich_help_panel=CHOICE,
    ),
]
MaskOnly = Annotated[
    bool,
    typer.Option(
        "--mask-only",
        help="Silence filters and leave the network its size, as the paper does.",
        rich_help_panel=CHOICE,
    ),
]
Compare = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="NAMES",
        help="More criteria that go the same way, for the report, with commas between.",
        show_default=False,
        rich_help_panel=CHOICE,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        min=1,
        metavar="N",
        help="Times that every criterion goes the way; the first model is kept.",
        rich_help_panel=CHOICE,
    ),
]
Finetune = Annotated[
    int | None,
    typer.Option(
        "--finetune",
        min=0,
        metavar="EPOCHS",
        help="Epochs after each round, an epoch being as many slices as the scans have "
        "planes through the spine; 0 for none. Without it: the steps of --settings, or "
        "else 10.",
        show_default=False,
        rich_help_panel=TUNING,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Of the fine-tuning; 0.3 of the training's if not given.",
        show_default=False,
        rich_help_panel=TUNING,
    ),
]
Regulariser = Annotated[
    str,
    typer.Option(
        "--regulariser",
        help="Added to the loss: l1, l2 or none.",
        rich_help_panel=TUNING,
    ),
]
Strength = Annotated[
    float,
    typer.Option("--strength", help="Of the regulariser.", rich_help_panel=TUNING),
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="TOML file of a training, with its sources; else the model's own training "
        "is gone on with. Examples lie in engines/train/recipes.",
        show_default=False,
        rich_help_panel=TUNING,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Write the plan of the first round, and do nothing else."
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Begin anew where a pruning would be gone on with."),
]


def prune(
    model: ModelName,
    data: options.DataDir,
    output: Small,
    *,
    ratio: Ratio = None,
    flops: Flops = None,
    params: Params = None,
    latency: Latency = None,
    plan: PlanFile = None,
    steps: Rounds = 1,
    criterion: Criterion = "gradient",
    scope: Scope = "layer",
    multiple: Multiple = 8,
    batches: Batches = 24,
    mask_only: MaskOnly = False,
    compare: Compare = None,
    seeds: Seeds = 1,
    finetune: Finetune = None,
    learning_rate: Rate = None,
    regulariser: Regulariser = "none",
    strength: Strength = 1e-5,
    settings: Settings = None,
    scheme: options.Scheme = "verse",
    split: options.Split = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    dry_run: DryRun = False,
    restart: Restart = False,
    as_json: options.AsJson = False,
) -> None:
    """Take the filters out of a model that matter least, and fine-tune what is left.

    The result is an ordinary model file, smaller and faster, that 'spine segment
    --model' takes. NAME-pruning beside it gets the plan and the network of each round,
    and report.html, report.png and report.csv with what was lost and won.

    Run the same command again after an interruption to go on. --dry-run writes the plan
    of the first round as NAME-plan.json, to be read, changed and given to --plan.

    Example: spine prune unet-r34 --data DATA --flops 25% -o small.safetensors
    """
    with render.command("prune", as_json=as_json, cases=False) as run:
        from engines.networks import shelf
        from engines.prune.prune import Pruning
        from engines.prune.settings import PruneSettings, training

        given = {
            "ratio": _share(ratio, "--ratio"),
            "flops": _share(flops, "--flops"),
            "params": _share(params, "--params"),
            "latency": _ms(latency),
        }
        how = PruneSettings(
            target=_target(given),
            plan=plan,
            rounds=steps,
            criterion=criterion,
            scope=scope,
            multiple=multiple,
            mask_only=mask_only,
            finetune=finetune,
            learning_rate=learning_rate,
            regulariser=regulariser,
            strength=strength,
            batches=batches,
            compare=tuple(n for n in (compare or "").split(",") if n),
            seeds=seeds,
            seed=seed,
            device=device,
            has_steps=settings is not None,
        )
        loaded = shelf.load(model)
        tuned = training(loaded.manifest, how, settings, scheme, split)
        command = shlex.join(["spine", *sys.argv[1:]])
        work = Pruning(loaded, how, tuned, data, output, command=command)
        if dry_run:
            with progress.steps() as bar:
                path = work.write_plan(lambda told: bar.told(0, 1, told))
            run.facts |= {"plan": str(path)}
            render.say(f"plan: {path}")
            return
        work.begin(restart=restart)
        found = _go(work)
        run.facts |= found.as_json()
        if not as_json:
            _show(found)
            render.say(f"report: {work.folder / 'report.html'}")


def _go(work: "Pruning") -> "Pruned":
    """Prune, and show how it goes."""
    from engines.prune.points import Point

    with progress.steps() as bar:
        for event in work.run(lambda told: bar.told(0, 1, told)):
            if isinstance(event, Point):
                bar.told(1, 1, event.line())
            else:
                bar.told(event.step, event.steps, event.line())
    return work.result


def _show(found: "Pruned") -> None:
    """Print what every network came to on stdout."""
    rows = []
    whole = found.dense.ms or math.nan
    for point in (found.dense, *found.points):
        ms = point.ms or math.nan
        dice = (point.dice_cut, point.dice)
        rows.append(
            (
                point.name,
                f"{point.parameters / 1e6:.2f}",
                f"{point.gflop:.2f}",
                f"{point.size_bytes / 1e6:.1f}",
                f"{ms:.1f}",
                f"{whole / ms:.2f}",
                *("" if value is None else f"{value:.4f}" for value in dice),
            )
        )
    headings = (
        "network",
        "M weights",
        "GFLOP",
        "MB",
        "ms a slice",
        "times as fast",
        "Dice cut",
        "Dice",
    )
    render.table(headings, rows, whole=True)


def _target(given: dict[str, float | None]) -> "Target | None":
    from engines.prune.plan import Target

    chosen = {kind: value for kind, value in given.items() if value is not None}
    if len(chosen) > 1:
        msg = f"a pruning has one target, not {' and '.join(chosen)}"
        raise SettingsError(msg, hint="Leave out all but one.")
    return next((Target(kind, value) for kind, value in chosen.items()), None)


def _share(given: str | None, option: str) -> float | None:
    """Return a share given as 0.3 or 30%."""
    if given is None:
        return None
    text = given.strip()
    number = _number(text.removesuffix("%"), option, "a share, as 0.3 or 30%")
    return number / 100 if text.endswith("%") else number


def _ms(given: str | None) -> float | None:
    """Return a time given as 10ms or 10."""
    if given is None:
        return None
    text = given.strip().removesuffix("ms").strip()
    return _number(text, "--latency", "a time, as 10ms")


def _number(text: str, option: str, wanted: str) -> float:
    try:
        return float(text)
    except ValueError:
        msg = f"{option} cannot be {text!r}"
        raise SettingsError(msg, hint=f"Give {wanted}.") from None
