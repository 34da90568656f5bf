"""``spine train``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from spinecli import options, progress, render

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
Network = Annotated[
    str | None,
    typer.Option("--network", help="Row of the catalogue.", show_default=False),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Name of the model.", show_default=False),
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", help="spine or regions.", show_default=False),
]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="How scans are prepared.", show_default=False),
]
Scheme = Annotated[
    str,
    typer.Option(
        "--scheme",
        help="Ids in the masks, without --settings: verse, totalsegmentator, binary.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", help="80/10/10, 80/20 or all, by subject.", show_default=False
    ),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Optimizer steps.", show_default=False),
]
Batch = Annotated[
    int | None,
    typer.Option("--batch", min=1, help="Slices per step.", show_default=False),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        help="cross-entropy, bce, dice, focal, bce-dice or cross-entropy-dice.",
        show_default=False,
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        "--optimizer", help="adam, adamw, rmsprop or adamax.", show_default=False
    ),
]
Rate = Annotated[
    float | None,
    typer.Option("--learning-rate", help="Highest rate.", show_default=False),
]
Every = Annotated[
    int | None,
    typer.Option(
        "--validate-every", min=1, help="Steps between validations.", show_default=False
    ),
]
Parent = Annotated[
    str | None,
    typer.Option("--parent", help="Model to start from.", show_default=False),
]
OptionalSeed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Same seed, same draws.", show_default=False),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Begin anew where a checkpoint would be resumed."),
]


def train(
    data: options.DataDir,
    output: options.Output,
    *,
    settings: Settings = None,
    network: Network = None,
    name: Name = None,
    classes: Classes = None,
    recipe: Recipe = None,
    scheme: Scheme = "verse",
    split: Split = None,
    steps: Steps = None,
    batch: Batch = None,
    loss: Loss = None,
    optimizer: Optimizer = None,
    learning_rate: Rate = None,
    validate_every: Every = None,
    parent: Parent = None,
    device: options.Device = "auto",
    seed: OptionalSeed = None,
    restart: Restart = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a network on scans with label maps, into a model file.

    The output folder gets NAME.safetensors, which 'spine segment --model' takes,
    settings.json, split.json, curve.csv and curve.png, and checkpoint.pt. Run the
    same command again after an interruption to go on from the last checkpoint.
    """
    with render.command("train", as_json=as_json, cases=False) as run:
        from engines.train import loop
        from engines.train.settings import prepared

        chosen = prepared(
            settings,
            scheme,
            name=name,
            network=network,
            classes=classes,
            recipe=recipe,
            split=split,
            steps=steps,
            batch=batch,
            loss=loss,
            optimizer=optimizer,
            learning_rate=learning_rate,
            seed=seed,
            validate_every=validate_every,
            parent=parent,
            device=device,
        )
        command = shlex.join(["spine", *sys.argv[1:]])
        events = loop.train(chosen, data, output, resume=not restart, command=command)
        with progress.steps(chosen.steps) as bar:
            for event in events:
                bar.told(event.step, event.line())
                run.facts["last"] = event.as_json()
