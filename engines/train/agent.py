"""Contrast agent beside the spine: great vessels, kidneys, bowel.

Lengths are in pixels of about 1.5 mm.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.train import lie as lies
from engines.train import shapes
from engines.train.lie import Lie

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

SOFT_HU = (-160.0, 180.0)
"""What may be drawn over: neither lung nor bone."""


def given(hu: Image, spine: Mask, rng: Generator, lie: Lie) -> Image:
    """Return a slice (H, W) in which contrast agent was given, or chalk has settled.

    The spine stays as it is; what is drawn may touch it.
    """
    drawn = hu.copy()
    free = (hu > SOFT_HU[0]) & (hu < SOFT_HU[1]) & ~spine
    parts = rng.random(3) < (0.7, 0.3, 0.4)
    if parts[0] or not parts.any():
        great_vessel(drawn, spine, free, rng, lie)
        if rng.random() < 0.3:
            great_vessel(drawn, spine, free, rng, lie)
    if parts[1]:
        kidney(drawn, spine, free, rng, lie)
    if parts[2]:
        for _ in range(int(rng.integers(1, 5))):
            bowel(drawn, free, rng, lie)
    return drawn


def great_vessel(hu: Image, spine: Mask, free: Mask, rng: Generator, lie: Lie) -> None:
    """Draw an aorta or a vena cava against the front of the bodies, in place."""
    radius = rng.uniform(4, 11)
    if not spine.any():
        at = shapes.pixel(np.ones_like(spine), rng)
        distance = shapes.capsule(hu.shape, at, at, radius)
    elif lie.upright is None:
        distance = _before_body(spine, radius, rng, lie)
    else:
        distance = _along_bodies(spine, radius, rng, lie)
    pour(hu, distance, free, _blood(rng))
    if rng.random() < 0.25:  # a thrombus, or a true and a false lumen
        wave = rng.uniform(1.5, 4)
        shift = np.rint(rng.normal(0, wave, 2)).astype(int)
        inner = np.roll(distance, (int(shift[0]), int(shift[1])), (0, 1)) + wave
        pour(hu, np.maximum(distance, -inner), free, rng.uniform(30, 90))
    if rng.random() < 0.5:
        chalk(hu, distance, free, rng)


def chalk(hu: Image, distance: Image, free: Mask, rng: Generator) -> None:
    """Draw plaques into a vessel's wall, in place."""
    thick = rng.uniform(0.4, 1.3)
    wall = np.clip(thick + 0.5 - np.abs(distance + 0.5), 0, 1)
    patch = _coarse(hu.shape, 12, rng) > rng.uniform(-0.3, 1.0)
    soft = ndimage.gaussian_filter((wall * patch * free).astype(np.float32), 0.4)
    hu += np.minimum(1.3 * soft * free, 1) * (np.float32(rng.uniform(300, 1500)) - hu)


def kidney(hu: Image, spine: Mask, free: Mask, rng: Generator, lie: Lie) -> None:
    """Draw a kidney with cortex, medulla and filled pelvis, in place."""
    centre = shapes.pixel(spine if spine.any() else np.ones_like(spine), rng)
    aside = lie.right if lies.shows(lie.right) else lie.anterior
    side = shapes.way(aside, rng) * rng.choice([-1, 1])
    centre += side * rng.uniform(28, 55) + rng.normal(0, 8, 2)
    radii = rng.uniform(11, 18), rng.uniform(15, 30)
    angle = rng.uniform(0, np.pi)
    outer = shapes.ellipse(hu.shape, centre, radii, angle)
    cortex, medulla = rng.uniform(130, 280), rng.uniform(60, 200)
    pour(hu, outer, free, cortex)
    pour(hu, outer + rng.uniform(3, 6), free, medulla)
    pelvis = shapes.ellipse(hu.shape, centre, (radii[0] * 0.3, radii[1] * 0.4), angle)
    pour(hu, pelvis, free, rng.choice([rng.uniform(-100, 20), rng.uniform(200, 1500)]))


def bowel(hu: Image, free: Mask, rng: Generator, lie: Lie) -> None:
    """Draw a loop or the stomach with oral contrast and gas above it, in place."""
    centre = shapes.pixel(free if free.any() else np.ones_like(free), rng)
    long = rng.uniform(6, 32)
    radii = rng.uniform(6, 14), long
    angle = rng.uniform(0, np.pi)
    outer = shapes.ellipse(hu.shape, centre, radii, angle)
    outer = outer + np.float32(1.5) * _coarse(hu.shape, 9, rng)
    pour(hu, outer, free, rng.uniform(20, 60))
    lumen = outer + rng.uniform(1, 2.2)
    content = rng.uniform(150, 600) if rng.random() < 0.75 else rng.uniform(0, 60)
    pour(hu, lumen, free, content)
    if lies.shows(lie.anterior) and rng.random() < 0.6:
        high = lies.along(hu.shape, lie.anterior)
        at = np.clip(np.rint(centre).astype(int), 0, np.array(hu.shape) - 1)
        level = float(high[at[0], at[1]]) + rng.uniform(-5, 6)
        pour(hu, np.maximum(lumen, level - high), free, rng.uniform(-1000, -850))


def _blood(rng: Generator) -> float:
    return rng.uniform(30, 60) if rng.random() < 0.3 else rng.uniform(150, 600)


def _before_body(spine: Mask, radius: float, rng: Generator, lie: Lie) -> Image:
    """Return the distance to a round vessel in front of the body, axial slices."""
    front = lies.along(spine.shape, lie.anterior)
    aside = lies.along(spine.shape, lie.right)
    middle = float(np.median(aside[spine]))
    near = spine & (np.abs(aside - middle) < rng.uniform(2, 14))
    reached = np.where(near if near.any() else spine, front, -np.inf)
    edge = np.array(divmod(int(reached.argmax()), spine.shape[1]), float)
    gap = max(0.0, rng.uniform(-1, 3))
    centre = edge + shapes.way(lie.anterior, rng) * (radius + gap)
    return shapes.ellipse(
        spine.shape, centre, (radius, radius * rng.uniform(1, 1.4)), rng.uniform(0, 3)
    )


def _along_bodies(spine: Mask, radius: float, rng: Generator, lie: Lie) -> Image:
    """Return the distance to a vessel that runs along the front or the side."""
    upright = lie.upright or 0
    forward = lie.anterior if lies.shows(lie.anterior) else lie.right
    sign = np.sign(forward[1 - upright])
    if not lies.shows(lie.anterior):
        sign = rng.choice([-1, 1])
    across = np.arange(spine.shape[1 - upright], dtype=np.float32) * sign
    held = spine if upright == 0 else spine.T
    edge = np.where(held, across, -np.inf).max(axis=1)
    seen = np.flatnonzero(np.isfinite(edge))
    every = np.arange(len(edge))
    front = np.interp(every, seen, edge[seen])
    front = ndimage.maximum_filter1d(front, 15)
    front = ndimage.gaussian_filter1d(front, 10) + max(0.0, rng.uniform(-1, 3))
    front += rng.uniform(0, 0.25) * np.abs(every - rng.uniform(0, len(edge)))
    distance = np.abs(across - front[:, None] - radius) - radius
    drawn: Image = (distance if upright == 0 else distance.T).astype(np.float32)
    return drawn


def pour(hu: Image, distance: Image, free: Mask, value: float) -> None:
    """Fill a shape with ``value`` where there is room, in place.

    Args:
        hu: slice or cube.
        distance: to the shape in pixels, below 0 inside.
        free: where it may be drawn.
        value: in HU.
    """
    share = shapes.inside(distance)
    share = share * free
    hu += share * (np.float32(value) - hu)


def _coarse(shape: tuple[int, ...], knots: int, rng: Generator) -> Image:
    """Return a random field of ``knots`` values along each axis, in small steps."""
    grid = ndimage.zoom(rng.normal(0, 1, (knots, knots)), 3, order=1)
    rows, columns = (np.arange(size) * 3 * knots // size for size in shape)
    values: Image = grid[np.ix_(rows, columns)].astype(np.float32)
    return values
