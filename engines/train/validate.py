"""Score a network on unaltered slices, or cubes, of the validation scans."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engines.networks import catalog
from engines.train import losses, sampling
from engines.train.data import Subject
from engines.train.feeder import Example, prepared
from engines.train.settings import TrainSettings

SLICES = 10
"""Per view of each scan, spread evenly over its spine; also cubes of each scan."""


def dice(
    network: nn.Module,
    subjects: Sequence[Subject],
    settings: TrainSettings,
    device: torch.device,
) -> float:
    """Return the mean Dice of the foreground classes over all pixels of all slices.

    A class that neither the truth nor the network sees is left out; what is marked
    ``losses.IGNORED`` or ``UNDIVIDED`` does not count.
    """
    most = 256
    both, total = np.zeros(most), np.zeros(most)
    for subject in subjects:
        for image, target in examples(subject, settings):
            found = predicted(network, image, device)
            scored = target < losses.UNDIVIDED
            truth, seen = target[scored], found[scored]
            both += np.bincount(truth[truth == seen], minlength=most)
            total += np.bincount(truth, minlength=most)
            total += np.bincount(seen, minlength=most)
    held = np.flatnonzero(total[1:]) + 1
    return float((2 * both[held] / total[held]).mean()) if len(held) else 0.0


def predicted(
    network: nn.Module, image: NDArray[np.float32], device: torch.device
) -> NDArray[np.uint8]:
    """Return the class of each pixel of one prepared slice, or voxel of a cube."""
    with torch.inference_mode():
        logits = network(torch.from_numpy(image)[None, None].to(device))
    labels: NDArray[np.uint8] = logits[0].argmax(dim=0).byte().cpu().numpy()
    return labels


def examples(subject: Subject, settings: TrainSettings) -> Iterator[Example]:
    """Yield prepared slices or cubes of a scan, unaltered, and their targets.

    They are the central planes where the training sees these, or else ``SLICES``
    spread over the spine; with whole planes where the training has whole planes.
    """
    how, size = settings.prepared_by, settings.middle_patch
    if subject.image is None:
        return
    if catalog.find(settings.network).dimensions == 3:
        for share in np.linspace(0.1, 0.9, SLICES // 3):
            pose = sampling.straight(subject, "axial", float(share))
            cube, target = sampling.cut_cube(subject, pose, size)
            if cube is not None:
                yield prepared(cube, subject, how), target
        return
    for view in settings.views:
        for pose in _poses(subject, view, settings.sampling):
            shown, target = sampling.cut(subject, pose, size)
            if shown is not None:
                yield prepared(shown, subject, how), target


def _poses(subject: Subject, view: str, kind: str) -> list[sampling.Pose]:
    if kind == "oblique":
        shares = np.linspace(0.1, 0.9, SLICES)
        return [sampling.straight(subject, view, float(share)) for share in shares]
    planes = sampling.places(subject, view, central=kind == "central")
    if len(planes) > SLICES:
        chosen = np.linspace(0, len(planes) - 1, SLICES).round().astype(int)
        planes = [planes[i] for i in chosen]
    return [sampling.whole(subject, view, place) for place in planes]
