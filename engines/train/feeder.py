"""Batches of training slices or cubes, drawn ahead of the network in threads.

Every draw depends on the seed and the number of the step alone, so neither threads
nor an interruption change what the network sees.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines import labels
from engines.networks import catalog
from engines.preprocess import intensity
from engines.preprocess.prepare import normalised
from engines.preprocess.recipe import Recipe
from engines.train import augment, losses, magnet, sampling, solid, synthesis
from engines.train.data import Subject, outside_of
from engines.train.lie import Lie
from engines.train.settings import TrainSettings

MOST_THREADS = 12

Example = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""One slice (H, W) or cube (R, A, S) and its target of the same shape."""

Batch = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""Images (N, 1, ...) and targets (N, ...)."""


class Item(NamedTuple):
    """One plane of a scan; of an ``oblique`` training there are none."""

    subject: int
    view: str
    place: int


def items_of(subjects: Sequence[Subject], settings: TrainSettings) -> list[Item]:
    """Return every plane that an epoch goes through; none for oblique slices."""
    if settings.sampling == "oblique":
        return []
    central = settings.sampling == "central"
    return [
        Item(number, view, place)
        for number, subject in enumerate(subjects)
        for view in settings.views
        for place in sampling.places(subject, view, central=central)
    ]


def example(
    subject: Subject,
    settings: TrainSettings,
    size: int,
    rng: np.random.Generator,
    item: Item | None = None,
    view: str = "",
) -> Example:
    """Draw one training slice or cube, prepared, and its target.

    Args:
        subject: the scan it is taken from.
        settings: how it is taken and varied.
        size: rows and columns, or the edge of the cube.
        rng: of every draw.
        item: the plane to take; None for any.
        view: of a plane that is not given; empty for any of the settings'.
    """
    how, prepared_by = settings.varied_by, settings.prepared_by
    classes = labels.CLASS_SETS[settings.classes]
    if catalog.find(settings.network).dimensions == 3:
        pose = sampling.draw(subject, "axial", how, rng)
        image, target = sampling.cut_cube(subject, pose, size)
        hu = _filled_cube(subject, image, target, rng, classes, pose.step_mm[0])
    else:
        views = settings.views
        if item:
            view = item.view
        view = view or views[int(rng.integers(len(views)))]
        place = item.place if item else None
        pose = sampling.draw(subject, view, how, rng, place)
        image, target = sampling.cut(subject, pose, size)
        if subject.tissues is None:
            hu, target = _filled(subject, image, target, rng, pose.lie, classes)
        else:
            tissues = sampling.cut_tissues(subject, pose, size)
            hu = magnet.scan_of(image, tissues, subject.source.kind, rng, pose.lie)
    hu = augment.vary(hu, target, how, rng, prepared_by.modality, pose.lie)
    if rng.random() < how.p_crop:
        clamp = prepared_by.clamp
        outside = clamp[0] if clamp else outside_of(prepared_by)
        hu, target = augment.crop(hu, target, outside, rng)
    return prepared(hu, subject, prepared_by), target


def prepared(
    hu: NDArray[np.float32], subject: Subject, how: Recipe
) -> NDArray[np.float32]:
    """Return a slice as the network sees it, by the recipe and the scan's line."""
    if subject.line is None:
        return normalised(hu, how)[0]
    values = intensity.clamp(hu, how.clamp) if how.clamp else hu
    if how.normalisation == "maximum":
        values = np.maximum(values, 0)
    return subject.line.apply(values.astype(np.float32))


class Feeder:
    """Draws batches ahead, in the order of the steps."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        settings: TrainSettings,
        first: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Begin with the batch of step ``first``.

        Args:
            subjects: the scans.
            settings: of the training.
            first: step, from 0.
            rank: which share of each batch this process draws.
            ranks: how many processes share each batch.
        """
        weights = np.array([s.source.weight for s in subjects], float)
        counts = {s.source: 0 for s in subjects}
        for subject in subjects:
            counts[subject.source] += 1
        weights /= [counts[s.source] for s in subjects]
        self.chance = weights / weights.sum()
        self.subjects = subjects
        self.items = items_of(subjects, settings)
        self.settings = settings
        self.next = first
        self.ranks = ranks
        self.share = slice(rank, None, ranks)
        threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) // ranks - 1))
        self.pool = ThreadPoolExecutor(threads)
        self.ahead = 2 * threads + 1
        self.waiting: deque[Future[Batch]] = deque()

    def __enter__(self) -> "Feeder":
        for _ in range(self.ahead):
            self._ask()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def get(self) -> Batch:
        """Return the next batch: images (N, 1, ...), targets (N, ...)."""
        self._ask()
        return self.waiting.popleft().result()

    def _ask(self) -> None:
        if self.next < self.settings.steps:
            self.waiting.append(self.pool.submit(self._batch, self.next))
        self.next += 1

    def _batch(self, step: int) -> Batch:
        seed, patches = self.settings.seed, self.settings.patches
        size = int(np.random.default_rng([seed, step]).choice(patches))
        count = self.settings.batch
        if not self.items:
            # A multiple of the ranks: they average their gradients as equals.
            share = (self.settings.middle_patch / size) ** 2 / self.ranks
            count = self.ranks * max(1, round(count * share))
        drawn = [self._draw(step, place, size) for place in range(count)[self.share]]
        images, targets = zip(*drawn, strict=True)
        return np.stack(images)[:, None], np.stack(targets)

    def _draw(self, step: int, place: int, size: int) -> Example:
        rng = np.random.default_rng([self.settings.seed, step, place])
        if not self.items:
            subject = self.subjects[rng.choice(len(self.subjects), p=self.chance)]
            return example(subject, self.settings, size, rng)
        epoch, number = divmod(step * self.settings.batch + place, len(self.items))
        order = np.random.default_rng([self.settings.seed, epoch, 1, 1])
        item = self.items[order.permutation(len(self.items))[number]]
        return example(self.subjects[item.subject], self.settings, size, rng, item)


def _filled(
    subject: Subject,
    image: NDArray[np.float32] | None,
    target: NDArray[np.uint8],
    rng: np.random.Generator,
    lie: Lie,
    classes: Mapping[str, int],
) -> Example:
    """Return the slice with what its source does not show drawn in, and its target.

    Bone that was drawn and may or may not be spine is not scored.
    """
    spine = (target > 0) & (target != losses.IGNORED)
    if image is None:
        hu, unsure = synthesis.scan_of(spine, rng, lie, _regions(target, classes))
        return hu, np.where(unsure & ~spine, np.uint8(losses.IGNORED), target)
    if subject.source.kind == "bone":
        return synthesis.around_bone(image, spine, rng, lie), target
    return image, target


def _filled_cube(
    subject: Subject,
    image: NDArray[np.float32] | None,
    target: NDArray[np.uint8],
    rng: np.random.Generator,
    classes: Mapping[str, int],
    step_mm: float,
) -> NDArray[np.float32]:
    """Return the cube with what its source does not show drawn in."""
    spine = (target > 0) & (target != losses.IGNORED)
    if image is None:
        regions = _regions(target, classes)
        return solid.scan_of(spine, target, regions, step_mm, rng)
    if subject.source.kind == "bone":
        return solid.around_bone(image, spine, rng)
    return image


def _regions(
    target: NDArray[np.uint8], classes: Mapping[str, int]
) -> synthesis.Regions | None:
    """Return what is thoracic and sacral in ``target``, None where nothing tells."""
    if "spine" in classes or losses.UNDIVIDED in target:
        return None
    found = {
        region: [
            labels.class_of(vertebra.id, classes)
            for vertebra in labels.VERTEBRAE.values()
            if vertebra.region == region
        ]
        for region in ("thoracic", "sacral")
    }
    masks = {region: np.isin(target, ids) for region, ids in found.items()}
    return synthesis.Regions(**masks)
