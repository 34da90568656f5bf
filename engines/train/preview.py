"""Training slices on one sheet, drawn as a training would draw them."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from engines.files import write_bytes
from engines.networks import catalog
from engines.report import contact_sheet
from engines.report.contact_sheet import Tile
from engines.train import feeder
from engines.train.data import Scans, Subject
from engines.train.settings import KINDS, TrainSettings

SLICES = 24
"""Of each kind of source."""

WINDOWS = {"zero-one": (0.0, 1.0), "minus-one-one": (-1.0, 1.0)}
"""Normalisation -> its lowest and highest value; others are shown end to end."""


def draw(settings: TrainSettings, data_root: Path, picture: Path) -> None:
    """Write a PNG with slices of every kind of source that is trained on.

    Raises:
        TrainingError: no data, or nothing to train on.
        OutputError: the picture cannot be written.
    """
    subjects = Scans(data_root, settings).subjects("train")
    write_bytes(picture, contact_sheet.draw(tiles(subjects, settings)))


def tiles(
    subjects: Sequence[Subject], settings: TrainSettings, count: int = SLICES
) -> list[Tile]:
    """Draw ``count`` slices of each kind of source, its scans and views in turn."""
    drawn = []
    for kind in KINDS:
        held = [subject for subject in subjects if subject.source.kind == kind]
        turns = zip(cycle(held), range(count if held else 0), strict=False)
        for subject, number in turns:
            rng = np.random.default_rng([settings.seed, KINDS.index(kind), number])
            view = settings.views[number * len(settings.views) // count]
            drawn.append(_tile(subject, settings, view, rng))
    return drawn


def _tile(
    subject: Subject, settings: TrainSettings, view: str, rng: np.random.Generator
) -> Tile:
    """Draw one slice, or the middle one of a cube."""
    size = settings.middle_patch
    items = [i for i in feeder.items_of([subject], settings) if i.view == view]
    item = items[int(rng.integers(len(items)))] if items else None
    image, target = feeder.example(subject, settings, size, rng, item, view)
    if catalog.find(settings.network).dimensions == 3:
        image, target, view = image[..., size // 2], target[..., size // 2], "cube"
    window = WINDOWS.get(settings.prepared_by.normalisation)
    return Tile(
        f"{subject.source.kind} sources",
        f"{subject.source.path}/{subject.name} {view}",
        image,
        target,
        window or (float(image.min()), float(image.max())),
    )
