"""Score a trained network on the unaltered slices of held-out scans.

Overlaps are counted over all slices of a scan, class by class, averaged over the
foreground classes that either side has, then over scans. ``miou`` is the mean over
these and the background, as in the lumbar MR paper; ``accuracy`` is the share of
pixels that have their class. Distances are those of contours in pixels, averaged over
the slices in which either side has the class; infinite where one side lacks it.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engines import labels
from engines.errors import TrainingError
from engines.metrics import overlap, surface
from engines.metrics.overlap import Overlap
from engines.networks import catalog
from engines.train import losses, validate
from engines.train.data import Subject
from engines.train.measures import MEASURES
from engines.train.settings import TrainSettings

WARM_UPS, PASSES = 2, 7

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured.

    Attributes:
        metrics: name in ``MEASURES`` -> mean over the scans.
        cases: name of a scan -> the same for it.
    """

    metrics: Mapping[str, float]
    cases: Mapping[str, Mapping[str, float]]


def score(
    network: nn.Module,
    subjects: Sequence[Subject],
    settings: TrainSettings,
    device: torch.device,
) -> Score:
    """Score a network, which evaluates and lies on ``device``, on each of the scans.

    Raises:
        TrainingError: there is nothing to score in them.
    """
    classes = len(labels.CLASS_SETS[settings.classes])
    cases: dict[str, Mapping[str, float]] = {}
    for subject in subjects:
        pairs = [
            (validate.predicted(network, image, device), target)
            for image, target in validate.examples(subject, settings)
        ]
        scored = of_pairs(pairs, classes)
        if scored:
            cases[subject.name] = scored
    if not cases:
        msg = "there is nothing to score in the held-out scans"
        raise TrainingError(msg, hint="Hold out scans with images and labels.")
    means = {
        name: statistics.fmean(case[name] for case in cases.values())
        for name in MEASURES
    }
    return Score(means, cases)


def of_pairs(pairs: Sequence[tuple[Labels, Labels]], classes: int) -> dict[str, float]:
    """Return the metrics of one scan; none where no side has a foreground class.

    Args:
        pairs: prediction and truth of each slice (H, W) or cube, in class indices;
            pixels whose truth is ``losses.IGNORED`` or ``UNDIVIDED`` do not
                count.
        classes: how many there are, the background included.
    """
    table = np.zeros((classes, classes), np.int64)
    for seen, truth in pairs:
        scored = truth < losses.UNDIVIDED
        joint = seen[scored].astype(np.int64) * classes + truth[scored]
        table += np.bincount(joint, minlength=classes**2).reshape(classes, classes)
    counts = _counts(table)
    spine = [one for one in counts if one.label != labels.BACKGROUND]
    if not spine:
        return {}
    dice = statistics.fmean(map(overlap.dice, spine))
    return {
        "dice": dice,
        "f1": dice,
        "iou": statistics.fmean(map(overlap.iou, spine)),
        "miou": statistics.fmean(map(overlap.iou, counts)),
        "accuracy": float(np.trace(table) / table.sum()),
        "precision": statistics.fmean(map(overlap.precision, spine)),
        "recall": statistics.fmean(map(overlap.recall, spine)),
        **_distances(pairs, [one.label for one in spine]),
    }


def seconds_per_slice(
    network: nn.Module, settings: TrainSettings, device: torch.device
) -> float:
    """Return the median time of one slice, in float32 and alone, after a warm-up.

    Of a network in three dimensions it is the time of a cube by its slices.
    """
    spec = catalog.find(settings.network)
    size = settings.middle_patch
    slices = 1 if spec.dimensions == 2 else size
    image = torch.zeros(spec.shape(size), device=device)
    taken = []
    with torch.inference_mode():
        for _ in range(WARM_UPS + PASSES):
            started = time.perf_counter()
            network(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[WARM_UPS:]) / slices


def _counts(table: NDArray[np.int64]) -> list[Overlap]:
    """Return the counts of every class that either side has.

    Args:
        table: (classes, classes), rows by prediction and columns by truth.
    """
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), int(table.sum())
    return [
        Overlap(c, int(table[c, c]), int(rows[c]), int(columns[c]), total)
        for c in np.flatnonzero(rows + columns).tolist()
    ]


def _distances(
    pairs: Sequence[tuple[Labels, Labels]], classes: Sequence[int]
) -> dict[str, float]:
    """Return both distances, averaged over slices and then over ``classes``."""
    far: list[float] = []
    average: list[float] = []
    for label in classes:
        measured = [
            surface.distances(*sides, (1.0,) * sides[0].ndim)
            for sides in (_sides(seen, truth, label) for seen, truth in pairs)
            if sides[0].any() or sides[1].any()
        ]
        far.append(statistics.fmean(map(surface.hausdorff, measured)))
        average.append(statistics.fmean(map(surface.average, measured)))
    return {"hd_px": statistics.fmean(far), "assd_px": statistics.fmean(average)}


def _sides(
    seen: Labels, truth: Labels, label: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where prediction and truth have the label, among what is scored."""
    scored = truth < losses.UNDIVIDED
    return (seen == label) & scored, truth == label
