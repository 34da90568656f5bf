"""Soft tissue, vessels and other bones drawn around the spine of a slice.

For masks without an image, and for images that hold bone alone. Nothing here looks
like a patient; it teaches the network that the surroundings may be anything.
Intensities are in HU, lengths in pixels of about 1.5 mm.
"""

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


def field(rng: Generator, shape: tuple[int, int], cells: float) -> Image:
    """Return a smooth random field with about ``cells`` bumps along each axis."""
    size = [max(2, round(cells))] * 2
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, *size)).astype(np.float32))
    fine = functional.interpolate(coarse, shape, mode="bicubic", align_corners=True)
    values: Image = fine[0, 0].numpy()
    return values


def scan_of(mask: Mask, rng: Generator) -> Image:
    """Draw a slice in HU whose spine bone is ``mask``, (H, W)."""
    hu = surroundings(mask, rng)
    distractors(hu, mask, rng, count=int(rng.integers(0, 6)))
    vessels(hu, mask, rng)
    return spine_bone(hu, mask, rng)


def around_bone(bone_hu: Image, mask: Mask, rng: Generator) -> Image:
    """Fill soft tissue into a slice that holds bone alone, 0 elsewhere."""
    hu = surroundings(mask, rng)
    vessels(hu, mask | (bone_hu > 0), rng)
    marrow = rng.uniform(50, 190) + rng.uniform(10, 40) * field(rng, mask.shape, 40)
    inner = ndimage.gaussian_filter(mask.astype(np.float32), 0.7)
    hu = hu * (1 - inner) + marrow * inner
    share = np.clip(bone_hu / 200, 0, 1)
    filled: Image = (hu * (1 - share) + bone_hu * share).astype(np.float32)
    return filled


def surroundings(mask: Mask, rng: Generator) -> Image:
    """Draw fat, muscle, organs, lung and air in HU around ``mask``."""
    shape = mask.shape
    fat = rng.uniform(-130, -70)
    muscle = rng.uniform(30, 75)
    texture = field(rng, shape, rng.uniform(5, 14)) + 0.5 * field(rng, shape, 30)
    near = ndimage.gaussian_filter(mask.astype(np.float32), 6)
    texture += rng.uniform(0.5, 2.5) * np.minimum(near * 3, 1) + rng.uniform(-0.6, 0.6)
    muscles = 1 / (1 + np.exp(-6 * texture))
    hu = fat + (muscle - fat) * muscles
    organs = field(rng, shape, rng.uniform(3, 7))
    for level in np.linspace(0.6, 1.8, int(rng.integers(1, 4))):
        hu[(organs > level) & (near < 0.1)] = rng.uniform(-20, 190)
    disc = ndimage.gaussian_filter(mask.astype(np.float32), 3.5) > 0.45
    hu[disc] = rng.uniform(40, 130)
    if rng.random() < 0.5:
        away = ndimage.gaussian_filter(mask.astype(np.float32), 4) < 0.05
        gas = field(rng, shape, rng.uniform(2, 6))
        hu[(gas > rng.uniform(0.3, 1.5)) & away] = rng.uniform(-1000, -700)
    if rng.random() < 0.6:
        hu[~_body(mask, rng)] = -1000
    drawn: Image = ndimage.gaussian_filter(hu, rng.uniform(0.4, 1.2)).astype(np.float32)
    return drawn


def spine_bone(hu: Image, mask: Mask, rng: Generator) -> Image:
    """Draw vertebrae with cortex and marrow where ``mask`` is, and return the slice."""
    solid = mask.astype(np.float32)
    blurred = ndimage.gaussian_filter(solid, rng.uniform(0.9, 1.6))
    shell = np.clip((1 - blurred) * rng.uniform(1.6, 3.0), 0, 1)
    cortex = rng.uniform(230, 1000) + 60 * field(rng, mask.shape, 30)
    marrow = rng.uniform(40, 350) + rng.uniform(10, 70) * field(rng, mask.shape, 60)
    bone = marrow + (np.maximum(cortex, marrow) - marrow) * shell
    if rng.random() < 0.15:
        spot = field(rng, mask.shape, rng.uniform(8, 20)) > 1.5
        bone[spot] = rng.uniform(-60, 900)
    edge = ndimage.gaussian_filter(solid, rng.uniform(0.35, 0.9))
    drawn: Image = (hu * (1 - edge) + bone * edge).astype(np.float32)
    return drawn


def distractors(hu: Image, mask: Mask, rng: Generator, count: int) -> None:
    """Draw ribs, hips, skulls: bones that are not the spine, in place."""
    apart = ndimage.distance_transform_edt(~mask)
    for _ in range(count):
        size = rng.uniform(2.5, 8), rng.uniform(3, 40)
        inside = _ellipse(mask.shape, rng, size)
        if rng.random() < 0.25:
            inside &= ~_eroded(inside, int(rng.integers(3, 6)))
        solid = inside & (apart > rng.uniform(1.5, 8))
        if not solid.any():
            continue
        hu[:] = spine_bone(hu, solid, rng)


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


def _body(mask: Mask, rng: Generator) -> Mask:
    """Return a body outline that holds the whole of ``mask``."""
    apart = ndimage.distance_transform_edt(~mask) if mask.any() else None
    if apart is None:
        return np.ones(mask.shape, bool)
    limit = rng.uniform(15, 90) + 12 * field(rng, mask.shape, 5)
    body: Mask = apart < np.maximum(limit, 6)
    return body
