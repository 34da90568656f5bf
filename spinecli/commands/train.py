"""``spine train``."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engines.results import Note
from spinecli import options, progress, render

if TYPE_CHECKING:
    from engines.train.cross_validation import Fold
    from engines.train.loop import Event
    from engines.train.self_training import Labelled

DATA, NETWORK = options.DATA, "Network"
PREPARATION, TRAINING = "Preparation", "Training"

Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="TOML file with everything that can be set; options win over it. "
        "Examples lie in engines/train/recipes.",
        show_default=False,
    ),
]
Sampling = Annotated[
    str | None,
    typer.Option(
        "--sampling",
        help="oblique planes anywhere about the spine, the scan's own slices through "
        "it, or the central one of each scan.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Augmentations = Annotated[
    str | None,
    typer.Option(
        "--augment",
        metavar="NAMES",
        help="How slices are varied, with commas between: rotation, scaling, warping, "
        "reorienting, flip, cropping, thick-slices, intensity, smoothing, noise, "
        "clamping, contrast-agent, metal, table, sharpening, grain, starvation, "
        "crushing; or all, or none.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        help="Row of the catalogue; 'spine models' lists them.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        help="Name of the model.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="spine, regions, vertebrae or mr (vertebrae, discs, canal).",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        help="Another encoder, by its name in segmentation-models-pytorch.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(
        "--attention",
        help="Block that weighs the skips: none, sam, cbam or se.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        "--dropout",
        help="Share of features dropped in the deep levels.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        metavar="FILE",
        help="ImageNet weights for the encoder: a file, or 'cache' for those that this "
        "machine already holds. Nothing is downloaded.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Parent = Annotated[
    str | None,
    typer.Option(
        "--parent",
        help="Model to start from.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="How scans are prepared, if not as the network's paper does.",
        show_default=False,
        rich_help_panel=PREPARATION,
    ),
]
Views = Annotated[
    str | None,
    typer.Option(
        "--views",
        help="axial, sagittal, coronal, with commas between.",
        show_default=False,
        rich_help_panel=PREPARATION,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        min=16,
        metavar="N",
        help="Rows and columns that whole slices are resized to, as 256 or 128.",
        show_default=False,
        rich_help_panel=PREPARATION,
    ),
]
Normalisation = Annotated[
    str | None,
    typer.Option(
        "--normalisation",
        help="zero-mean, zero-one, minus-one-one, maximum or none.",
        show_default=False,
        rich_help_panel=PREPARATION,
    ),
]
Clamp = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--clamp",
        metavar="LOW HIGH",
        help="Limits for the values, as in -1000 800.",
        show_default=False,
        rich_help_panel=PREPARATION,
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
        rich_help_panel=PREPARATION,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="Optimizer steps.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="Times that every slice is seen, in place of steps; with --sampling "
        "slices or central.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        help="Slices per step.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Accumulate = Annotated[
    int | None,
    typer.Option(
        "--accumulate",
        min=1,
        help="Parts that a batch is learnt in, when memory is short.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        help="cross-entropy, bce, dice, focal, bce-dice, cross-entropy-dice, or "
        "nested: the spine first, then its classes.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--focal-alpha",
        help="Weight of the foreground in the focal loss.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        "--focal-gamma",
        help="How much hard pixels count in the focal loss.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
LossWeights = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--loss-weights",
        metavar="A B",
        help="Weights of the two parts of a sum.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        help="adam, adamw, rmsprop or adamax.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Highest rate.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="Of the learning rate: constant, cosine or plateau.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--plateau-patience",
        min=1,
        help="Validations without gain after which the rate falls to a tenth.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Stopping = Annotated[
    int | None,
    typer.Option(
        "--early-stopping",
        min=1,
        help="Validations without gain that end the training.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        help="The model of the last step, or of the best validation: last or best.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        "--validate-every",
        min=1,
        help="Steps between validations; once an epoch, with --epochs.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="auto, float32 or bfloat16.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic",
        help="Refuse operations whose result may differ from run to run.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
OptionalSeed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        help="Same seed, same draws.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Preview = Annotated[
    Path | None,
    typer.Option(
        "--preview-data",
        metavar="FILE",
        help="Train nothing: draw a sheet of training slices as the network would see "
        "them, a PNG, and end. Needs no --output.",
        dir_okay=False,
        show_default=False,
    ),
]
CrossValidate = Annotated[
    bool,
    typer.Option(
        "--cross-validate",
        help="First train once without each labelled subject, in OUT/folds, and "
        "measure on it; the figures go into the manifest of the model, trained last.",
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Begin anew where a checkpoint would be resumed."),
]


def train(
    data: options.DataDir,
    output: options.OptionalOutput = None,
    *,
    settings: Settings = None,
    scheme: options.Scheme = "verse",
    split: options.Split = None,
    sampling: Sampling = None,
    augmentations: Augmentations = None,
    network: Network = None,
    name: Name = None,
    classes: Classes = None,
    encoder: Encoder = None,
    attention: Attention = None,
    dropout: Dropout = None,
    pretrained: Pretrained = None,
    parent: Parent = None,
    recipe: Recipe = None,
    views: Views = None,
    size: Size = None,
    normalisation: Normalisation = None,
    clamp: Clamp = None,
    smoothing: Smoothing = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch: Batch = None,
    accumulate: Accumulate = None,
    loss: Loss = None,
    focal_alpha: Alpha = None,
    focal_gamma: Gamma = None,
    loss_weights: LossWeights = None,
    optimizer: Optimizer = None,
    learning_rate: Rate = None,
    schedule: Schedule = None,
    plateau_patience: Patience = None,
    early_stopping: Stopping = None,
    keep: Keep = None,
    validate_every: Every = None,
    precision: Precision = None,
    deterministic: Deterministic = None,
    device: options.Device = "auto",
    seed: OptionalSeed = None,
    cross_validate: CrossValidate = False,
    restart: Restart = False,
    preview_data: Preview = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a network on scans with label maps, into a model file.

    The output folder gets NAME.safetensors, which 'spine segment --model' takes,
    settings.json, split.json, curve.csv and curve.png, and checkpoint.pt. Run the
    same command again after an interruption to go on from the last checkpoint.

    What is not given is as the network's paper has it where the catalogue says so
    (preparation, views, size of slices), else as in the settings' defaults.

    On several GPUs: torchrun --standalone --nproc-per-node N -m spinecli train ... with
    the same options; the batch is shared among them.
    """
    leads = os.environ.get("RANK", "0") == "0"
    with render.command("train", as_json=as_json and leads, cases=False) as run:
        from engines.train import cross_validation, self_training
        from engines.train.settings import prepared

        chosen = prepared(
            settings,
            scheme,
            {
                "name": name,
                "network": network,
                "classes": classes,
                "recipe": recipe,
                "views": views.split(",") if views else None,
                "size": size,
                "normalisation": normalisation,
                "clamp": clamp,
                "smoothing_mm": smoothing,
                "split": split,
                "sampling": sampling,
                "augmentations": _names(augmentations),
                "pretrained": pretrained,
                "parent": parent,
                "steps": steps,
                "epochs": epochs,
                "batch": batch,
                "accumulate": accumulate,
                "loss": loss,
                "focal_alpha": focal_alpha,
                "focal_gamma": focal_gamma,
                "loss_weights": loss_weights,
                "optimizer": optimizer,
                "learning_rate": learning_rate,
                "schedule": schedule,
                "plateau_patience": plateau_patience,
                "early_stopping": early_stopping,
                "keep": keep,
                "validate_every": validate_every,
                "precision": precision,
                "deterministic": deterministic,
                "device": device,
                "seed": seed,
            },
            {"encoder": encoder, "attention": attention, "dropout": dropout},
        )
        if preview_data is not None:
            from engines.train import preview

            preview.draw(chosen, data, preview_data)
            run.facts["preview"] = str(preview_data)
            if not as_json:
                render.say(f"sheet of training slices: {preview_data}")
            return
        if output is None:
            raise typer.BadParameter("a folder is needed.", param_hint="--output")
        command = shlex.join(["spine", *sys.argv[1:]])
        how: Any = {"resume": not restart, "command": command}
        labelled: list[Any] = []
        with progress.steps() as bar:
            if cross_validate:
                folds = output / "folds"
                for fold in cross_validation.train(chosen, data, folds, **how):
                    _tell(bar, fold)
                told = cross_validation.read(folds / cross_validation.FOLDS)
                run.facts["cross_validation"] = told
            for event in self_training.train(chosen, data, output, **how):
                _tell(bar, event)
                if isinstance(event, self_training.Labelled):
                    labelled.append(event.as_json())
                else:
                    run.facts["last"] = event.as_json()
        if cross_validate and leads:
            cross_validation.record(output / f"{chosen.name}.safetensors", told)
        if labelled:
            run.facts["labelled"] = labelled
        if leads:
            run.warnings += _notes(output)
        if leads and not as_json:
            render.say(f"model: {output / chosen.name}.safetensors")
            render.say(f"learning curve: {output / 'curve.png'}")


def _notes(run: Path) -> list[Note]:
    """Return what was mended in the scans of a training when they were read."""
    from engines.files import files_below
    from engines.train.loop import NOTES

    found: dict[str, list[str]] = {}
    for path in sorted(p for p in files_below(run) if p.name == NOTES):
        found |= json.loads(path.read_text(encoding="utf-8"))
    return [
        Note("scan", f"{name}: {message}")
        for name, messages in found.items()
        for message in messages
    ]


def _tell(bar: progress.Steps, event: "Event | Labelled | Fold") -> None:
    """Show how far a training is, or what became of a scan."""
    from engines.train.loop import Event

    step, steps = (event.step, event.steps) if isinstance(event, Event) else (0, 1)
    bar.told(step, steps, event.line())


def _names(given: str | None) -> list[str] | None:
    """Return the names in a list with commas; ``none`` is an empty one."""
    if given is None:
        return None
    return [name for name in given.split(",") if name != "none"]
