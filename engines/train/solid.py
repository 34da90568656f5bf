"""Soft tissue, ribs and hips drawn around the spine of a cube, as ``synthesis`` does.

For masks without an image, and for images that hold bone alone, in three dimensions.
Cubes lie along right, anterior and superior, turned by some degrees at most.
Intensities are in HU, lengths in voxels unless they say mm.
"""

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from engines.train.synthesis import MARROWS, P_OWN_HIPS, P_OWN_RIBS, Regions

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Ids = NDArray[np.uint8]

RIB_MM = (2.5, 5.5)
"""Radius of ribs."""


def field(rng: Generator, shape: tuple[int, ...], cells: float) -> Image:
    """Return a smooth random field with about ``cells`` bumps along each axis."""
    size = [max(2, round(cells))] * 3
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, *size)).astype(np.float32))
    fine = functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)
    values: Image = fine[0, 0].numpy()
    return values


def scan_of(
    spine: Mask, target: Ids, regions: Regions | None, step_mm: float, rng: Generator
) -> Image:
    """Draw a cube in HU whose spine bone is ``spine``, (R, A, S).

    Args:
        spine: the bone.
        target: its classes; ribs start from each class of the chest.
        regions: parts of ``spine``, where the classes tell them.
        step_mm: voxel size.
        rng: of every draw.
    """
    hu = _surroundings(spine, rng)
    if regions is not None:
        bones = np.zeros(spine.shape, bool)
        if regions.thoracic.any() and rng.random() < P_OWN_RIBS:
            bones |= _ribs(np.where(regions.thoracic, target, 0), step_mm, rng)
        if regions.sacral.any() and rng.random() < P_OWN_HIPS:
            bones |= _hips(regions.sacral, step_mm, rng)
        hu = _bone(hu, bones & ~spine, rng)
    return _bone(hu, spine, rng)


def around_bone(bone_hu: Image, spine: Mask, rng: Generator) -> Image:
    """Fill soft tissue into a cube that holds bone alone, 0 elsewhere."""
    hu = _surroundings(spine, rng)
    marrow = rng.uniform(50, 190) + rng.uniform(10, 40) * field(rng, spine.shape, 16)
    inner = ndimage.gaussian_filter(spine.astype(np.float32), 0.7)
    hu = hu * (1 - inner) + marrow * inner
    share = np.clip(bone_hu / 200, 0, 1)
    filled: Image = (hu * (1 - share) + bone_hu * share).astype(np.float32)
    return filled


def _surroundings(spine: Mask, rng: Generator) -> Image:
    """Draw fat, muscle, organs, lung, the skin and air beyond."""
    shape = spine.shape
    fat, muscle = rng.uniform(-130, -70), rng.uniform(30, 75)
    near = ndimage.gaussian_filter(spine.astype(np.float32), 5)
    texture = field(rng, shape, rng.uniform(4, 9)) + rng.uniform(0.5, 2) * (near > 0.02)
    lean = np.clip(texture + rng.uniform(-0.5, 1), 0, 1)
    hu: Image = (fat + (muscle - fat) * lean).astype(np.float32)
    organs = field(rng, shape, rng.uniform(3, 6))
    for level in (0.6, 1.2):
        hu[(organs > level) & (near < 0.08)] = rng.uniform(-20, 190)
    if rng.random() < 0.5:
        lung = field(rng, shape, rng.uniform(2, 4)) > rng.uniform(0, 1)
        hu[lung & (near < 0.02)] = rng.uniform(-900, -650)
    if spine.any() and rng.random() < 0.7:
        middle = [float(np.median(axis)) for axis in np.nonzero(spine)[:2]]
        aside, ahead = np.ogrid[: shape[0], : shape[1]]
        behind = np.where(ahead < middle[1], rng.uniform(1, 2.5), rng.uniform(0.4, 0.9))
        apart = np.hypot((aside - middle[0]) * 0.75, (ahead - middle[1]) * behind)
        skin = rng.uniform(30, 70) + 4 * field(rng, shape, 4)
        hu[apart[..., None] > skin] = -1000
    grain: Image = hu + rng.uniform(2, 14) * field(rng, shape, rng.uniform(10, 30))
    return grain


def _bone(hu: Image, mask: Mask, rng: Generator) -> Image:
    """Return the cube with cortex and marrow where ``mask`` is."""
    if not mask.any():
        return hu
    solid = mask.astype(np.float32)
    shell = np.clip((1 - ndimage.gaussian_filter(solid, 1.0)) * rng.uniform(1, 3), 0, 1)
    low, high, top = MARROWS[int(rng.choice(len(MARROWS), p=(0.6, 0.2, 0.2)))]
    marrow = rng.uniform(low, high) + rng.uniform(10, 60) * field(rng, mask.shape, 20)
    cortex = np.maximum(rng.uniform(230, top), marrow)
    edge = ndimage.gaussian_filter(solid, rng.uniform(0.35, 0.8))
    bone = marrow + (cortex - marrow) * shell
    drawn: Image = (hu * (1 - edge) + bone * edge).astype(np.float32)
    return drawn


def _ribs(chest: Ids, step_mm: float, rng: Generator) -> Mask:
    """Return ribs on both sides of each vertebra in ``chest``, 0 elsewhere."""
    line = np.zeros(chest.shape, bool)
    reach, drop = rng.uniform(60, 130), rng.uniform(10, 60)
    deep, share = rng.uniform(60, 150), np.linspace(0, 1, 120)
    for vertebra in np.unique(chest[chest > 0]):
        held = np.argwhere(chest == vertebra)
        middle = held.mean(axis=0)
        wide = np.abs(held[:, 0] - middle[0]).max() * step_mm
        for side in (-1, 1):
            angle = share * np.pi * 0.75
            right = side * (0.8 * wide + reach * np.sin(angle))
            ahead = -12 - 25 * np.sin(2 * angle) + deep * (1 - np.cos(angle)) / 2
            points = np.stack([right, ahead, -drop * share], axis=1) / step_mm + middle
            index = np.rint(points + rng.normal(0, 0.5, 3)).astype(int)
            inside = ((index >= 0) & (index < chest.shape)).all(axis=1)
            line[tuple(index[inside].T)] = True
    return _within(line, rng.uniform(*RIB_MM) / step_mm)


def _hips(sacrum: Mask, step_mm: float, rng: Generator) -> Mask:
    """Return hip bones beside ``sacrum``, with a joint between."""
    apart = ndimage.distance_transform_edt(~sacrum) * step_mm
    held = np.nonzero(sacrum)[0]
    aside = np.abs(np.arange(sacrum.shape[0]) - np.median(held))
    wide = float(np.quantile(aside[held], rng.uniform(0.7, 0.95)))
    gap, thick = rng.uniform(2, 5), rng.uniform(10, 22)
    plate = (apart > gap) & (apart < gap + thick) & (aside > wide)[:, None, None]
    low, high = np.nonzero(sacrum)[2].min(), np.nonzero(sacrum)[2].max()
    top = int(high + rng.uniform(-10, 30) / step_mm)
    plate[:, :, : max(0, low)] = False
    plate[:, :, max(top, 0) :] = False
    return np.asarray(plate, bool)


def _within(line: Mask, radius: float) -> Mask:
    if not line.any():
        return line
    return np.asarray(ndimage.distance_transform_edt(~line) <= max(radius, 0.9), bool)
