"""Vary a slice's intensities and field of view as scanners and patients do."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.train import agent, metal, scanner, synthesis
from engines.train.lie import AXIAL, Lie
from engines.train.losses import IGNORED
from engines.train.settings import CT_ALONE, SLICES_ALONE, Augment

Image = NDArray[np.float32]
Target = NDArray[np.uint8]


def vary(
    hu: Image,
    target: Target,
    how: Augment,
    rng: Generator,
    modality: str = "ct",
    lie: Lie = AXIAL,
) -> Image:
    """Return a slice or a cube after random changes; ``target`` stays true.

    What ``settings.SLICES_ALONE`` names is drawn in slices alone.

    Args:
        hu: (H, W) or (R, A, S), in HU, or for MR with its brightest parts at about
            ``data.MR_BRIGHT``.
        target: classes, of the same shape.
        how: what is changed, and how far.
        rng: of the draws.
        modality: ``ct`` or ``mr``.
        lie: how a slice lies in the body.
    """
    spine = (target > 0) & (target != IGNORED)
    if hu.ndim > 2:
        how = how.without(SLICES_ALONE)
    if modality == "mr":
        how = how.without(CT_ALONE)
        hu = _magnet(hu, how, rng)
    elif _changes_intensity(how):
        hu = hu * np.float32(rng.uniform(0.88, 1.14)) + np.float32(rng.normal(0, 12))
    if rng.random() < how.p_density:
        hu = _density(hu, spine, rng)
    if rng.random() < how.p_vessels:
        hard = spine | (hu > 130) | (hu < -150)
        synthesis.vessels(hu, ndimage.binary_dilation(hard), rng)
    hu = _added(hu, spine, how, rng, lie)
    if rng.random() < how.p_coarse:
        hu = coarse(hu, int(rng.integers(hu.ndim)), rng.uniform(1.5, 3.4), rng)
    if rng.random() < how.p_low:
        step = rng.uniform(1.2, 2.3)
        hu = coarse(coarse(hu, 0, step, rng), 1, step, rng)
    if rng.random() < how.p_blur:
        hu = _kernel(hu, rng)
    if _happens(how.p_sharp, rng):
        hu = scanner.sharpened(hu, rng)
    if rng.random() < how.p_noise:
        hu = _noise(hu, how.noise_hu, rng)
    if _happens(how.p_grain, rng):
        hu = scanner.grain(hu, how.noise_hu, rng, lie)
    if _happens(how.p_starved, rng):
        hu = scanner.starved(hu, how.noise_hu, rng, lie)
    if rng.random() < how.p_floor:
        hu = np.maximum(hu, np.float32(rng.choice([-150.0, -50.0, 0.0])))
    return hu


def crop(
    hu: Image, target: Target, outside_hu: float, rng: Generator
) -> tuple[Image, Target]:
    """Return a slice or cube with all outside a random box empty and not scored.

    Most boxes hold the centre, where the spine usually is.
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


def _added(
    hu: Image, spine: NDArray[np.bool_], how: Augment, rng: Generator, lie: Lie
) -> Image:
    """Add what may lie in a patient, or beside one."""
    if _happens(how.p_agent, rng):
        hu = agent.given(hu, spine, rng, lie)
    if _happens(how.p_table, rng):
        hu = scanner.table(hu, spine, rng, lie)
    if _happens(how.p_metal, rng):
        hu = metal.implants(hu, spine, rng, lie)
    return hu


def _happens(chance: float, rng: Generator) -> bool:
    """Draw, unless it is off: then ``rng`` stays as it was."""
    return bool(chance) and rng.random() < chance


def _changes_intensity(how: Augment) -> bool:
    return bool(how.p_density or how.p_vessels or how.p_contrast)


def _magnet(image: Image, how: Augment, rng: Generator) -> Image:
    """Change contrast and coil sensitivity, which MR has no units for."""
    if rng.random() < how.p_contrast:
        bright = max(float(image.max()), 1e-6)
        image = bright * np.clip(image / bright, 0, 1) ** np.exp(rng.normal(0, 0.3))
        image = image * np.float32(rng.uniform(0.7, 1.3))
    if rng.random() < how.p_bias:
        uneven = synthesis.field(rng, (image.shape[0], image.shape[1]), 3)
        image = image * np.exp(np.float32(rng.uniform(0.05, 0.3)) * uneven)
    changed: Image = image.astype(np.float32)
    return changed


def _density(hu: Image, spine: NDArray[np.bool_], rng: Generator) -> Image:
    """Make marrow and cortex of the spine denser or thinner."""
    where: Image = ndimage.gaussian_filter(spine.astype(np.float32), 0.8)
    factor = rng.uniform(0.55, 1.35)
    changed = np.where(hu > 0, hu * np.float32(factor), hu)
    mixed: Image = (hu + where * (changed - hu)).astype(np.float32)
    return mixed


def coarse(hu: Image, axis: int, step: float, rng: Generator) -> Image:
    """Blur along an axis and keep one row in ``step``, as thick slices do."""
    blurred = ndimage.uniform_filter1d(hu, max(2, round(step)), axis=axis)
    size = hu.shape[axis]
    kept = np.arange(rng.uniform(0, step), size, step)
    place = np.interp(np.arange(size), kept, np.arange(len(kept)))
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(kept) - 1)
    index = np.minimum(np.rint(kept).astype(int), size - 1)
    share = (place - low).astype(np.float32)
    share = np.expand_dims(share, [a for a in range(hu.ndim) if a != axis])
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
        sigma = rng.uniform(0.4, 1.0, hu.ndim)
        grain = ndimage.gaussian_filter(grain, sigma)
        grain /= max(float(grain.std()), 1e-6)
    strength = most_hu * rng.random() ** 2
    noisy: Image = hu + np.float32(strength) * grain
    return noisy
