"""Bones and spaces that belong beside the spine of a drawn slice.

Ribs that start at the mask's edge, hip bones along the sacrum, discs between bodies,
the canal, what marrow and endplates look like, bridges between bodies. Intensities
are in HU, lengths in pixels of about 1.5 mm.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.train import lie as lies
from engines.train import shapes
from engines.train.lie import Lie
from engines.train.shapes import Point

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


def other_bone(hu: Image, distance: Image, rng: Generator) -> None:
    """Draw a bone with cortex and marrow that is not spine, in place.

    Args:
        hu: (H, W).
        distance: to its surface, below 0 inside.
    """
    thick = rng.uniform(0.6, 2.0)
    shell = np.clip(1.2 + distance / thick, 0, 1)
    marrow, cortex = rng.uniform(-40, 320), rng.uniform(280, 1200)
    bone = np.float32(marrow) + np.float32(max(cortex - marrow, 0)) * shell
    hu += shapes.inside(distance) * (bone - hu)


def ribs(hu: Image, mask: Mask, apart: Image, rng: Generator, lie: Lie) -> None:
    """Draw ribs that start at the edge of ``mask``, in place.

    Args:
        hu: (H, W).
        mask: the spine.
        apart: distance of each pixel to it.
    """
    gap = np.float32(max(0.0, rng.uniform(-0.8, 1.4)))
    radius = rng.uniform(1.7, 3.6)
    parts = []
    for start, middle, end in _courses(mask, rng, lie):
        thin = radius * rng.uniform(0.8, 1.2)
        parts.append(shapes.tube(mask.shape, (start, middle, end), thin))
        parts.append(shapes.capsule(mask.shape, start, start, thin * 1.25))
    if parts:
        other_bone(hu, np.maximum(shapes.union(parts), gap - apart), rng)


def hips(hu: Image, mask: Mask, apart: Image, rng: Generator, lie: Lie) -> None:
    """Draw hip bones along both sides of ``mask`` with a joint between, in place."""
    if not lies.shows(lie.right):
        return
    aside = lies.along(mask.shape, lie.right)
    aside = aside - float(np.median(aside[mask]))
    wide = float(np.quantile(np.abs(aside[mask]), rng.uniform(0.6, 0.9)))
    rise = lies.along(mask.shape, lie.anterior if lie.upright is None else lie.superior)
    low, high = np.quantile(rise[mask], (0.05, rng.uniform(0.5, 0.95)))
    gap, thick = rng.uniform(0.6, 2.6), rng.uniform(4, 9)
    joint = np.maximum(gap - apart, apart - gap - thick)
    for sign in (-1, 1):
        plate = np.maximum(joint, wide - sign * aside)
        plate = np.maximum(plate, np.maximum(low - rise, rise - high))
        start = np.unravel_index(
            int(np.where(plate < 0, -rise, 1e3).argmin()), mask.shape
        )
        foot = np.array(start, float)
        out = shapes.way(lie.right, rng) * sign
        up = shapes.way(lie.anterior if lie.upright is None else lie.superior, rng)
        length = rng.uniform(15, 60)
        bend = foot + (0.3 * out + 0.6 * up) * length
        wing = shapes.tube(
            mask.shape, (foot, bend, foot + (out + up) * length * 0.7), thick * 0.45
        )
        whole = np.maximum(np.minimum(plate, wing), gap - apart)
        other_bone(hu, whole.astype(np.float32), rng)


def gaps(mask: Mask, rng: Generator, lie: Lie) -> tuple[Mask, Mask]:
    """Return where discs and where the canal are, none of it in ``mask``.

    Discs are the short gaps between bone along the body's axis. The canal is what
    bone encloses in an axial slice, and lies between bone across the axis in others.
    """
    if lie.upright is None:
        parts, _ = ndimage.label(~mask)
        rim = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        canal = ~mask & ~np.isin(parts, np.unique(rim))
        return np.zeros_like(mask), canal
    discs = _closed(mask, 2 * int(rng.integers(3, 7)) + 1, lie.upright) & ~mask
    between = _closed(mask, 2 * int(rng.integers(5, 10)) + 1, 1 - lie.upright) & ~mask
    return discs, between & ~discs


def fill_gaps(hu: Image, discs: Mask, canal: Mask, rng: Generator) -> None:
    """Draw discs, each with its own intensity, and the canal, in place."""
    parts, count = ndimage.label(discs)
    level = rng.uniform(50, 110) + rng.normal(0, 15, count + 1)
    level = np.where(rng.random(count + 1) < 0.06, rng.uniform(120, 400), level)
    level = np.where(rng.random(count + 1) < 0.06, rng.uniform(-500, -50), level)
    soft = ndimage.gaussian_filter(discs.astype(np.float32), 0.6)
    hu += np.minimum(1.3 * soft, 1) * (level[parts].astype(np.float32) - hu) * discs
    fluid = rng.uniform(0, 60) if rng.random() < 0.93 else rng.uniform(150, 700)
    hu[canal] = fluid
    if rng.random() < 0.5:
        fat = canal & ~ndimage.binary_erosion(canal, iterations=int(rng.integers(1, 3)))
        hu[fat] += rng.uniform(0.3, 0.9) * (-100 - hu[fat])


def bridges(hu: Image, discs: Mask, mask: Mask, rng: Generator, lie: Lie) -> Mask:
    """Draw osteophytes and chalky ligaments over some discs' edges, in place.

    Returns:
        Where they are: whether they count as spine is a matter of taste.
    """
    drawn = np.zeros_like(mask)
    parts, count = ndimage.label(discs)
    if not count:
        return drawn
    aside = lies.along(mask.shape, lie.anterior)
    if not lies.shows(lie.anterior):
        aside = lies.along(mask.shape, lie.right) * rng.choice([-1, 1])
    chosen = np.isin(parts, 1 + np.flatnonzero(rng.random(count) < 0.4))
    thick = rng.uniform(1.5, 4)
    far = ndimage.maximum(aside, parts, np.arange(count + 1))
    drawn = chosen & (aside > np.asarray(far)[parts] - thick)
    soft = ndimage.gaussian_filter(drawn.astype(np.float32), 0.5)
    soft[mask] = 0
    hu += soft * (np.float32(rng.uniform(250, 900)) - hu)
    return drawn


def marrow_details(bone: Image, mask: Mask, rng: Generator, lie: Lie) -> None:
    """Draw dense arches, endplates, veins and holes into the bone, in place.

    Arches and processes are known by being thin: less marrow, more cortex.

    Args:
        bone: (H, W), intensity of the bone wherever it may be.
        mask: the spine.
    """
    deep: Image = ndimage.distance_transform_edt(mask).astype(np.float32)
    if rng.random() < 0.7:
        thin = np.clip(1.2 - ndimage.maximum_filter(deep, 9) / 6, 0, 1)
        bone += np.float32(rng.uniform(50, 350)) * ndimage.uniform_filter(thin, 5)
    if lie.upright is not None and rng.random() < 0.5:
        rim = ndimage.gaussian_filter1d(mask.astype(np.float32), 1.6, axis=lie.upright)
        side = ndimage.gaussian_filter1d(mask.astype(np.float32), 1.6, 1 - lie.upright)
        plate = np.clip(2.4 * (side - rim), 0, 1) * (rng.uniform(0.2, 1.2))
        bone += plate * np.float32(rng.uniform(100, 700))
    if rng.random() < 0.6 and lies.shows(lie.anterior):
        _veins(bone, deep, rng, lie)
    if rng.random() < 0.25:
        for _ in range(int(rng.integers(1, 4))):
            centre = shapes.pixel(mask, rng)
            radii = rng.uniform(1.2, 6), rng.uniform(1.2, 6)
            hole = shapes.ellipse(mask.shape, centre, radii, rng.uniform(0, 3))
            if rng.random() < 0.5:
                rim = np.clip(1.5 - np.abs(hole), 0, 1)
                bone += rim * (np.float32(rng.uniform(300, 800)) - bone)
            value = rng.choice([rng.uniform(-90, 90), rng.uniform(500, 1100)])
            bone += shapes.inside(hole) * (np.float32(value) - bone)


def _courses(mask: Mask, rng: Generator, lie: Lie) -> list[tuple[Point, Point, Point]]:
    """Return start, bend and end of the ribs of a slice."""
    if not lies.shows(lie.right):
        return []
    aside = lies.along(mask.shape, lie.right)
    aside = aside - float(np.median(aside[mask]))
    other = lie.anterior if lie.upright is None else lie.superior
    signs = (-1, 1) if rng.random() < 0.7 else (int(rng.choice([-1, 1])),)
    courses = []
    length, drop = rng.uniform(14, 75), rng.uniform(-0.9, -0.2)
    for sign in signs:
        for start in _heads(mask, aside * sign, rng, lie):
            out = shapes.way(lie.right, rng) * sign
            down = shapes.way(other, rng)
            end_drop = drop + (rng.uniform(0, 1.2) if lie.upright is None else -0.2)
            bend = start + (0.55 * out + 0.5 * drop * down) * length
            courses.append((start, bend, start + (out + end_drop * down) * length))
    return courses


def _heads(mask: Mask, aside: Image, rng: Generator, lie: Lie) -> list[Point]:
    """Return where ribs start: on the mask's outer edge of one side."""
    if lie.upright is None:
        edge = float(np.quantile(aside[mask], rng.uniform(0.75, 0.98)))
        return [shapes.pixel(mask & (aside >= edge), rng)]
    outer = np.where(mask, aside, -np.inf)
    column = outer.argmax(axis=1 - lie.upright)
    seen = np.flatnonzero(mask.any(axis=1 - lie.upright))
    pitch = int(rng.integers(11, 22))
    rows = seen[int(rng.integers(min(pitch, len(seen)))) :: pitch]
    places = [(row, column[row]) for row in rows.tolist()]
    return [np.array(p if lie.upright == 0 else p[::-1], float) for p in places]


def _veins(bone: Image, deep: Image, rng: Generator, lie: Lie) -> None:
    """Draw dark channels from the middle of each body to its back."""
    core = deep > max(4.0, 0.7 * float(deep.max()))
    parts, count = ndimage.label(core)
    back = -shapes.way(lie.anterior, rng)
    value, thin = rng.uniform(-20, 130), rng.uniform(0.4, 1.4)
    for centre in ndimage.center_of_mass(core, parts, range(1, min(count, 8) + 1)):
        start = np.array(centre, float)
        end = start + back * rng.uniform(4, 10)
        vein = shapes.capsule(bone.shape, start, end, thin)
        bone += 0.8 * shapes.inside(vein) * (np.float32(value) - bone)


def _closed(mask: Mask, size: int, axis: int) -> Mask:
    """Return a mask with gaps shorter than ``size``, odd, along an axis closed."""
    grown = ndimage.maximum_filter1d(mask.astype(np.uint8), size, axis, mode="constant")
    closed = ndimage.minimum_filter1d(grown, size, axis, mode="constant", cval=1)
    return closed.astype(bool)
