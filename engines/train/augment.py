"""Vary a slice's intensities and field of view as scanners and patients do."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.train import synthesis
from engines.train.losses import IGNORED
from engines.train.settings import Augment

Image = NDArray[np.float32]
Target = NDArray[np.uint8]


def vary(hu: Image, target: Target, how: Augment, rng: Generator) -> Image:
    """Return the slice in HU after random changes; ``target`` stays true."""
    hu = hu * np.float32(rng.uniform(0.88, 1.14)) + np.float32(rng.normal(0, 12))
    spine = (target > 0) & (target != IGNORED)
    if rng.random() < how.p_density:
        hu = _density(hu, spine, rng)
    if rng.random() < how.p_vessels:
        hard = spine | (hu > 130) | (hu < -150)
        synthesis.vessels(hu, ndimage.binary_dilation(hard), rng)
    if rng.random() < how.p_coarse:
        hu = _coarse(hu, int(rng.integers(2)), rng.uniform(1.5, 3.4), rng)
    if rng.random() < how.p_low:
        step = rng.uniform(1.2, 2.3)
        hu = _coarse(_coarse(hu, 0, step, rng), 1, step, rng)
    if rng.random() < how.p_blur:
        hu = _kernel(hu, rng)
    if rng.random() < how.p_noise:
        hu = _noise(hu, how.noise_hu, rng)
    if rng.random() < how.p_floor:
        hu = np.maximum(hu, np.float32(rng.choice([-150.0, -50.0, 0.0])))
    return hu


def crop(
    hu: Image, target: Target, outside_hu: float, rng: Generator
) -> tuple[Image, Target]:
    """Return the slice with all outside a random box empty and not scored.

    Most boxes hold the centre of the slice, where the spine usually is.
    """
    box = []
    about_centre = rng.random() < 0.85
    for size in hu.shape:
        length = int(rng.integers(min(36, size), size + 1))
        first, last = 0, size - length
        if about_centre:
            first, last = max(first, size // 2 - length), min(last, size // 2)
        start = int(rng.integers(first, last + 1))
        box.append(slice(start, start + length))
    seen = np.full(hu.shape, np.float32(outside_hu))
    scored = np.full(target.shape, IGNORED, np.uint8)
    seen[tuple(box)] = hu[tuple(box)]
    scored[tuple(box)] = target[tuple(box)]
    return seen, scored


def _density(hu: Image, spine: NDArray[np.bool_], rng: Generator) -> Image:
    """Make marrow and cortex of the spine denser or thinner."""
    where: Image = ndimage.gaussian_filter(spine.astype(np.float32), 0.8)
    factor = rng.uniform(0.55, 1.35)
    changed = np.where(hu > 0, hu * np.float32(factor), hu)
    mixed: Image = (hu + where * (changed - hu)).astype(np.float32)
    return mixed


def _coarse(hu: Image, axis: int, step: float, rng: Generator) -> Image:
    """Blur along an axis and keep one row in ``step``, as thick slices do."""
    blurred = ndimage.uniform_filter1d(hu, max(2, round(step)), axis=axis)
    size = hu.shape[axis]
    kept = np.arange(rng.uniform(0, step), size, step)
    place = np.interp(np.arange(size), kept, np.arange(len(kept)))
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(kept) - 1)
    index = np.minimum(np.rint(kept).astype(int), size - 1)
    share = (place - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None, :]
    first = np.take(blurred, index[low], axis=axis)
    second = np.take(blurred, index[high], axis=axis)
    mixed: Image = first + share * (second - first)
    return mixed


def _kernel(hu: Image, rng: Generator) -> Image:
    soft = ndimage.gaussian_filter(hu, rng.uniform(0.4, 1.2))
    if rng.random() < 0.4:
        sharp: Image = hu + np.float32(rng.uniform(0.3, 1.2)) * (hu - soft)
        return sharp
    smoothed: Image = soft.astype(np.float32)
    return smoothed


def _noise(hu: Image, most_hu: float, rng: Generator) -> Image:
    grain = rng.normal(0, 1, hu.shape).astype(np.float32)
    if rng.random() < 0.6:
        sigma = rng.uniform(0.4, 1.0), rng.uniform(0.4, 1.0)
        grain = ndimage.gaussian_filter(grain, sigma)
        grain /= max(float(grain.std()), 1e-6)
    strength = most_hu * rng.random() ** 2
    noisy: Image = hu + np.float32(strength) * grain
    return noisy
