"""Golden probes of a model: made from packaged sample scans, and kept.

They never come from the scans that a user trains on or segments: a model file is given
away, and nothing of a patient's scan may go with it. See ``samples/README.md``.
"""

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import OutputError, SettingsError
from engines.files import write_bytes
from engines.geometry import cropped
from engines.networks import probes
from engines.networks.manifest import Model, load_model, record_probes
from engines.networks.probes import Probe
from engines.preprocess.recipe import Recipe
from engines.runtimes import cache, export
from engines.segment import inference
from engines.volume import Volume

FOLDER = Path(__file__).parent / "samples"
SUFFIX = ".nii.gz"

SAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ct": ("abdomen-ct", "thorax-ct", "neck-ct"),
        "mr": ("lumbar-t2-mr", "lumbar-t1-mr", "lumbar-water-mr"),
    }
)
"""Modality -> the packaged scans, or phantoms, that probes are cut from."""

SLICES = 12
"""Slices of a model's probes, over all views."""

LEAST_EDGE, MOST_EDGE = 64, 160
"""Rows and columns of a slice, at most: the first for a network that was trained on
patches below ``SMALL_PATCH``, the second for all others. A larger patch is kept."""

SMALL_PATCH = 96

MOST_FINE, COARSE_STEPS = 1 << 19, 48
"""Of a probe with more pixels or voxels the values are rounded to so many steps, or
cubes would make a model file a good deal larger."""

BATCH_VALUES = 1 << 20
"""Pixels or voxels that the reference computes at once."""

MOST_VOXELS = 1 << 23
"""Of a sample on the grid of a recipe; of a finer grid the middle is taken."""

Images = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Sample:
    """A packaged scan as the network gets it."""

    name: str
    prepared: inference.Prepared


def make(model: Model) -> tuple[Probe, ...]:
    """Return probes of a model, with the labels of PyTorch in float32 on the CPU.

    Slices lie in the middle of the bone of three packaged scans, for each of the
    model's views, and are cut to ``MOST_EDGE``. A network in three dimensions gets
    from each scan the cube with most bone.

    Args:
        model: with the weights that its file stores, halved ones if it halves them.

    Returns:
        A probe for each view, or one of cubes. The same model gives the same probes.
    """
    samples = _samples(model.manifest.modality, model.manifest.recipe)
    if model.dimensions == 3:
        return (_cubes(model, samples),)
    return tuple(
        _slices(model, samples, view, number)
        for number, view in enumerate(model.manifest.views)
    )


def complete(path: Path) -> None:
    """Make the probes of a finished model's file that has none, and write them into it.

    Raises:
        ModelFileError: the file is damaged.
    """
    model = load_model(path)
    if not model.probes:
        record_probes(path, make(model))


def of(model: Model) -> Sequence[Probe]:
    """Return the probes of a model's file, else those kept for it, else new ones.

    Those of a file without are kept in the folder of the cache, under the hash of the
    file. A folder that takes none is no error, and what is damaged there is made again.

    Raises:
        ModelFileError: the probes of the file are damaged.
    """
    if model.probes:
        return model.probes
    path = _kept_at(model)
    kept = _read(path, model) if path else ()
    if kept:
        return kept
    made = make(model)
    if path:
        _keep(path, made)
    return made


def _kept_at(model: Model) -> Path | None:
    try:
        return cache.default_folder() / "probes" / f"{model.sha256}.probes"
    except SettingsError:
        return None


def _read(path: Path, model: Model) -> tuple[Probe, ...]:
    """Return what is kept at ``path``; nothing where it is damaged or of another."""
    try:
        content = path.read_bytes()
        digest, block = content[:32], content[32:]
        if hashlib.sha256(block).digest() != digest:
            return ()
        kept = probes.decode(block)
        probes.require(
            kept,
            classes=model.classes,
            dimensions=model.dimensions,
            stride=model.stride,
        )
    except (OSError, ValueError):
        return ()
    return kept


def _keep(path: Path, made: Sequence[Probe]) -> None:
    block = probes.encode(made)
    try:
        write_bytes(path, hashlib.sha256(block).digest() + block)
    except OutputError:
        return


@functools.lru_cache(maxsize=2)
def _samples(modality: str, recipe: Recipe) -> tuple[_Sample, ...]:
    """Return the packaged scans of a modality, prepared."""
    return tuple(
        _Sample(name, inference.prepare(_middle(_scan(name), recipe), recipe))
        for name in SAMPLES[modality]
    )


def _scan(name: str) -> Volume:
    return Volume.read(FOLDER / f"{name}{SUFFIX}")


def _middle(scan: Volume, recipe: Recipe) -> Volume:
    """Return the middle of a scan that a fine recipe would make too large."""
    if recipe.spacing_mm is None:
        return scan
    finer = math.prod(mm / recipe.spacing_mm for mm in scan.grid.spacing_mm)
    share = (MOST_VOXELS / (scan.voxels.size * finer)) ** (1 / 3)
    if share >= 1:
        return scan
    kept = [max(1, int(n * share)) for n in scan.grid.shape]
    starts = [(n - k) // 2 for n, k in zip(scan.grid.shape, kept, strict=True)]
    sides = [slice(start, start + k) for start, k in zip(starts, kept, strict=True)]
    box = (sides[0], sides[1], sides[2])
    return Volume(scan.voxels[box], cropped(scan.grid, box))


def _slices(model: Model, samples: Sequence[_Sample], view: str, number: int) -> Probe:
    """Return the probe of one view.

    Args:
        model: what it is for.
        samples: the prepared scans.
        view: of the slices.
        number: of the view; scans take turns in having one slice more.
    """
    count = max(len(samples), SLICES // len(model.manifest.views))
    found: list[tuple[_Sample, Images]] = []
    for place, sample in enumerate(samples):
        turn = (place - number) % len(samples)
        own = count // len(samples) + (turn < count % len(samples))
        (batch,) = inference.probe(sample.prepared, model, (view,), own)
        found += [(sample, image) for image in np.asarray(batch, np.float32)[:, 0]]
    size = _size(model, [image.shape for _, image in found])
    cut = [_cut(sample, image, size) for sample, image in found]
    return _labelled(model, np.stack(cut), [sample.name for sample, _ in found])


def _cubes(model: Model, samples: Sequence[_Sample]) -> Probe:
    found = [inference.probe(s.prepared, model, (), 1)[0] for s in samples]
    images = np.concatenate([np.asarray(cube, np.float32)[:, 0] for cube in found])
    return _labelled(model, images, [sample.name for sample in samples])


def _size(model: Model, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Return rows and columns of a probe: those of the largest slice, or fewer.

    They are multiples of the network's stride, and the patch of its training or more.
    """
    stride, patch = model.stride, model.manifest.patch
    if export.is_fixed(model):
        rows, columns = export.profile_for(model).usual
        return rows, columns
    most = max(patch, LEAST_EDGE if 0 < patch < SMALL_PATCH else MOST_EDGE)
    most = -(-most // stride) * stride
    return (
        min(most, max(shape[0] for shape in shapes)),
        min(most, max(shape[1] for shape in shapes)),
    )


def _cut(sample: _Sample, image: Images, size: tuple[int, int]) -> Images:
    """Return a slice cut, or filled up, to ``size``, about the middle of its bone."""
    bone = _weight(sample, image)
    for axis, wanted in enumerate(size):
        given = image.shape[axis]
        if given > wanted:
            below = np.cumsum(bone.sum(axis=1 - axis))
            middle = int(np.searchsorted(below, below[-1] / 2))
            start = min(max(0, middle - wanted // 2), given - wanted)
            kept = np.arange(start, start + wanted)
            image, bone = image.take(kept, axis), bone.take(kept, axis)
        elif given < wanted:
            around = [(0, 0), (0, 0)]
            before = (wanted - given) // 2
            around[axis] = before, wanted - given - before
            image = np.pad(image, around, constant_values=sample.prepared.empty)
            bone = np.pad(bone, around)
    return image


def _weight(sample: _Sample, image: Images) -> NDArray[np.float64]:
    """Return how much of bone each pixel is: in CT all or nothing, in MR its value."""
    values, hu = sample.prepared.values, sample.prepared.hu
    weight = (image - sample.prepared.empty).astype(np.float64)
    bone = values[hu > inference.BONE_HU] if sample.name in SAMPLES["ct"] else None
    if bone is not None and len(bone):
        weight[image < bone.min()] = 0
    return weight


def _labelled(model: Model, images: Images, names: Sequence[str]) -> Probe:
    """Return inputs (N, ...), rounded to float16, with what the reference gives."""
    if images.size > MOST_FINE:
        step = (images.max() - images.min()) / COARSE_STEPS
        images = np.round(images / step) * step if step else images
    limits = np.finfo(np.float16)
    rounded = np.clip(images, limits.min, limits.max).astype(np.float16)
    given = rounded.astype(np.float32)[:, None]
    count = max(1, BATCH_VALUES // given[0].size)
    labels, margins = [], []
    for start in range(0, len(given), count):
        part = torch.from_numpy(given[start : start + count])
        two = _probabilities(model, part).topk(2, dim=1)
        gap = (two.values[:, 0] - two.values[:, 1]).nan_to_num()
        labels.append(two.indices[:, 0].numpy().astype(np.uint8))
        margins.append((gap * 255).round().numpy().astype(np.uint8))
    return Probe(given, np.concatenate(labels), np.concatenate(margins), tuple(names))


def _probabilities(model: Model, images: torch.Tensor) -> torch.Tensor:
    network = model.network
    with torch.inference_mode():
        logits: torch.Tensor = network(images)
        return logits.softmax(dim=1)
