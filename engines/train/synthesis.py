"""Soft tissue, vessels and other bones drawn around the spine of a slice.

For masks without an image, and for images that hold bone alone. Nothing here looks
like a patient; it teaches the network that the surroundings may be anything.
Intensities are in HU, lengths in pixels of about 1.5 mm.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from engines.train import anatomy, shapes
from engines.train import lie as lies
from engines.train.lie import AXIAL, Lie

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

P_RIBS, P_HIPS, P_BRIDGES = 0.4, 0.15, 0.12
"""How many drawn slices have ribs, hip bones, bridges between bodies."""

P_OWN_RIBS, P_OWN_HIPS = 0.85, 0.75
"""How many have them where the mask tells which bone they belong to."""

MARROWS = ((80.0, 350.0, 1000.0), (-50.0, 90.0, 500.0), (250.0, 600.0, 1300.0))
"""Lowest and highest marrow and highest cortex, HU: sound, porous, sclerotic."""


def field(rng: Generator, shape: tuple[int, int], cells: float) -> Image:
    """Return a smooth random field with about ``cells`` bumps along each axis."""
    size = [max(2, round(cells))] * 2
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, *size)).astype(np.float32))
    fine = functional.interpolate(coarse, shape, mode="bicubic", align_corners=True)
    values: Image = fine[0, 0].numpy()
    return values


@dataclass(frozen=True, slots=True)
class Regions:
    """Which parts of a mask bear ribs and which hip bones, both (H, W)."""

    thoracic: Mask
    sacral: Mask


def scan_of(
    mask: Mask, rng: Generator, lie: Lie = AXIAL, regions: Regions | None = None
) -> tuple[Image, Mask]:
    """Draw a slice in HU whose spine bone is ``mask``, (H, W).

    Args:
        mask: the spine.
        rng: of every draw.
        lie: how the slice lies in the body.
        regions: parts of the mask, where it tells them; ribs and hip bones are then
            beside these alone, so that they can be learnt from.

    Returns:
        The slice, and where bone was drawn that may or may not count as spine.
    """
    apart = _apart(mask)
    hu = surroundings(mask, rng)
    discs, canal = anatomy.gaps(mask, rng, lie)
    anatomy.fill_gaps(hu, discs, canal, rng)
    distractors(hu, mask, apart, rng, count=int(rng.integers(0, 6)))
    chest, p_ribs = (regions.thoracic, P_OWN_RIBS) if regions else (mask, P_RIBS)
    pelvis, p_hips = (regions.sacral, P_OWN_HIPS) if regions else (mask, P_HIPS)
    if chest.any() and rng.random() < p_ribs:
        anatomy.ribs(hu, chest, apart, rng, lie)
    if pelvis.any() and rng.random() < p_hips:
        anatomy.hips(hu, pelvis, apart, rng, lie)
    vessels(hu, mask, rng)
    unsure = np.zeros_like(mask)
    if rng.random() < P_BRIDGES:
        unsure = anatomy.bridges(hu, discs, mask, rng, lie)
    return spine_bone(bounded(hu, apart, rng, lie), mask, rng, lie), unsure


def around_bone(bone_hu: Image, mask: Mask, rng: Generator, lie: Lie = AXIAL) -> Image:
    """Fill soft tissue into a slice that holds bone alone, 0 elsewhere."""
    hu = surroundings(mask, rng)
    anatomy.fill_gaps(hu, *anatomy.gaps(mask, rng, lie), rng)
    vessels(hu, mask | (bone_hu > 0), rng)
    hu = bounded(hu, _apart(mask | (bone_hu > 0)), rng, lie)
    marrow = rng.uniform(50, 190) + rng.uniform(10, 40) * field(rng, mask.shape, 40)
    inner = ndimage.gaussian_filter(mask.astype(np.float32), 0.7)
    hu = hu * (1 - inner) + marrow * inner
    share = np.clip(bone_hu / 200, 0, 1)
    filled: Image = (hu * (1 - share) + bone_hu * share).astype(np.float32)
    return filled


def surroundings(mask: Mask, rng: Generator) -> Image:
    """Draw fat, muscle, organs and lung in HU around ``mask``, (H, W)."""
    shape = mask.shape
    near = ndimage.gaussian_filter(mask.astype(np.float32), 6)
    fat, muscle = rng.uniform(-130, -70), rng.uniform(30, 75)
    hu = fat + (muscle - fat) * _muscles(near, rng)
    organs = field(rng, shape, rng.uniform(3, 7))
    for level in np.linspace(0.6, 1.8, int(rng.integers(1, 4))):
        hu[(organs > level) & (near < 0.1)] = rng.uniform(-20, 190)
    hu += rng.uniform(2, 14) * field(rng, shape, rng.uniform(20, 70))
    disc = ndimage.gaussian_filter(mask.astype(np.float32), 3.5) > 0.45
    hu[disc] = rng.uniform(40, 130)
    if rng.random() < 0.5:
        _lung(hu, near < 0.02, rng)
    slope = rng.normal(0, 6, 2) * (rng.random() < 0.5)
    hu += np.linspace(-1, 1, shape[0])[:, None] * slope[0]
    hu += np.linspace(-1, 1, shape[1])[None] * slope[1]
    return hu.astype(np.float32)


def bounded(hu: Image, apart: Image, rng: Generator, lie: Lie) -> Image:
    """Return a slice with the fat under the skin, the skin, and air beyond.

    The body reaches farther to the front and the sides than behind the spine.

    Args:
        hu: (H, W).
        apart: distance of each pixel to what must be in the body; where nothing must,
            all is in the body.
        rng: of every draw.
        lie: how the slice lies in the body.
    """
    if rng.random() < 0.6 and not apart.all():
        limit = rng.uniform(20, 100) + 12 * field(rng, hu.shape, 5)
        for way, most, both in ((lie.anterior, 0.8, False), (lie.right, 0.5, True)):
            if lies.shows(way):
                reach = lies.along(hu.shape, way)
                reach -= np.median(reach[apart == 0])
                reach = np.abs(reach) if both else np.maximum(reach, 0)
                limit += rng.uniform(0, most) * reach
        deep = np.maximum(limit, 6) - apart
        hu[(deep < rng.uniform(1, 22)) & (apart > 0)] = rng.uniform(-130, -70)
        hu[deep < 1.3] = rng.uniform(-40, 40)
        hu[deep <= 0] = -1000
    smooth: Image = ndimage.gaussian_filter(hu, rng.uniform(0.4, 0.9))
    return smooth


def spine_bone(hu: Image, mask: Mask, rng: Generator, lie: Lie = AXIAL) -> Image:
    """Draw vertebrae with cortex and marrow where ``mask`` is, and return the slice.

    Marrow is as in the young, thin as in osteoporosis, or dense as in sclerosis.
    """
    solid = mask.astype(np.float32)
    blurred = ndimage.gaussian_filter(solid, rng.uniform(0.9, 1.6))
    uneven = 1 + rng.uniform(0, 0.5) * field(rng, mask.shape, 14)
    shell = np.clip((1 - blurred) * rng.uniform(1.1, 3.0) * uneven, 0, 1)
    low, high, top = MARROWS[int(rng.choice(len(MARROWS), p=(0.6, 0.2, 0.2)))]
    cortex = rng.uniform(230, top) + 60 * field(rng, mask.shape, 30)
    marrow = rng.uniform(low, high) + rng.uniform(10, 70) * field(rng, mask.shape, 60)
    marrow += rng.uniform(0, 35) * field(rng, mask.shape, 9)
    bone = marrow + (np.maximum(cortex, marrow) - marrow) * shell
    if mask.any():
        anatomy.marrow_details(bone, mask, rng, lie)
    if rng.random() < 0.15:
        spot = field(rng, mask.shape, rng.uniform(8, 20)) > 1.5
        bone[spot] = rng.uniform(-60, 900)
    edge = ndimage.gaussian_filter(solid, rng.uniform(0.35, 0.9))
    drawn: Image = (hu * (1 - edge) + bone * edge).astype(np.float32)
    return drawn


def distractors(
    hu: Image, mask: Mask, apart: Image, rng: Generator, count: int
) -> None:
    """Draw ribs, hips, skulls: bones that are not the spine, in place."""
    for _ in range(count):
        centre = np.array(mask.shape) * rng.random(2)
        if rng.random() < 0.5:
            size = rng.uniform(2.5, 8), rng.uniform(3, 40)
            bone = shapes.ellipse(mask.shape, centre, size, rng.uniform(0, np.pi))
            if rng.random() < 0.25:
                bone = np.maximum(bone, -bone - np.float32(rng.uniform(2.5, 5)))
        else:
            way = rng.normal(0, 22, 2)
            middle = centre + way / 2 + rng.normal(0, 9, 2)
            course = (centre, middle, centre + way)
            bone = shapes.tube(mask.shape, course, rng.uniform(1.5, 5.5))
        gap = np.float32(rng.uniform(1.5, 8))
        anatomy.other_bone(hu, np.maximum(bone, gap - apart), rng)


def vessels(hu: Image, keep_out: Mask, rng: Generator) -> None:
    """Draw round vessels, some with contrast agent or calcified walls, in place."""
    for _ in range(int(rng.integers(0, 4))):
        radius = rng.uniform(2, 11)
        inside = _ellipse(hu.shape, rng, (radius, radius * rng.uniform(1, 1.6)))
        inside &= ~keep_out
        if not inside.any():
            continue
        soft = ndimage.gaussian_filter(inside.astype(np.float32), 0.7)
        soft[keep_out] = 0
        blood = rng.uniform(30, 60) if rng.random() < 0.4 else rng.uniform(100, 480)
        hu += soft * (blood - hu)
        if rng.random() < 0.5:
            wall = inside & ~_eroded(inside, 2)
            wall &= field(rng, hu.shape, rng.uniform(15, 50)) > rng.uniform(0, 1.2)
            chalk = ndimage.gaussian_filter(wall.astype(np.float32), 0.6)
            chalk[keep_out] = 0
            hu += np.clip(1.5 * chalk, 0, 1) * (rng.uniform(300, 1400) - hu)


def _ellipse(shape: tuple[int, ...], rng: Generator, size: tuple[float, float]) -> Mask:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    r, c = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    angle = rng.uniform(0, np.pi)
    along = (rows - r) * np.cos(angle) + (columns - c) * np.sin(angle)
    across = (columns - c) * np.cos(angle) - (rows - r) * np.sin(angle)
    inside: Mask = (along / size[0]) ** 2 + (across / size[1]) ** 2 < 1
    return inside


def _eroded(mask: Mask, depth: int) -> Mask:
    eroded: Mask = ndimage.binary_erosion(mask, iterations=depth)
    return eroded


def _apart(mask: Mask) -> Image:
    """Return how far each pixel is from ``mask``; far away without one."""
    if not mask.any():
        return np.full(mask.shape, np.float32(1e3))
    apart: Image = ndimage.distance_transform_edt(~mask).astype(np.float32)
    return apart


def _muscles(near: Image, rng: Generator) -> Image:
    """Return how much of each pixel is muscle, the rest being fat.

    Fat lies in blobs, or in seams between muscles and organs.
    """
    texture = field(rng, near.shape, rng.uniform(4, 12))
    texture += rng.uniform(0.1, 0.5) * field(rng, near.shape, 30)
    texture += rng.uniform(0.5, 2.5) * np.minimum(near * 3, 1) + rng.uniform(-0.6, 1.2)
    share: Image = 1 / (1 + np.exp(-rng.uniform(4, 16) * texture))
    if rng.random() < 0.7:
        for cells in (rng.uniform(3, 7), rng.uniform(5, 12)):
            seam = 1 - np.abs(field(rng, near.shape, cells)) * rng.uniform(6, 20)
            here = np.clip(field(rng, near.shape, 5) + rng.uniform(-0.3, 0.8), 0, 1)
            share *= 1 - here * np.maximum(seam, 0)
    return share


def _lung(hu: Image, away: Mask, rng: Generator) -> None:
    """Draw gas, most of it with vessels in it as in lung, in place."""
    gas = field(rng, hu.shape, rng.uniform(2, 6))
    inside = (gas > rng.uniform(0.3, 1.5)) & away
    hu[inside] = rng.uniform(-1000, -700)
    if rng.random() < 0.7:
        twigs = field(rng, hu.shape, rng.uniform(25, 60)) > rng.uniform(1.0, 1.8)
        hu[inside & twigs] = rng.uniform(-400, 60)
