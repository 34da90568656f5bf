"""What the scanner and its reconstruction add to a slice in HU.

Noise with the spectrum of a filtered back projection, streaks where the rays are
starved, sharp kernels, the table. Lengths are in pixels of about 1.5 mm.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft, ndimage

from engines.train import lie as lies
from engines.train.lie import Lie
from engines.train.metal import HIGHEST_HU, LOWEST_HU

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


def grain(hu: Image, most_hu: float, rng: Generator, lie: Lie) -> Image:
    """Return a slice (H, W) with the noise of a filtered back projection.

    The power grows with the frequency until the kernel cuts it off, and there is
    none at frequency 0. Across the body's axis rows are independent of each other.
    Noise is strongest where much lies around: deep in the body, beside bone.
    """
    cut, roll = rng.uniform(0.45, 1.5), rng.uniform(0.6, 2)
    noise = projected_noise(hu.shape, cut, roll, rng, lie.upright)
    strength = most_hu * rng.random() ** 1.5
    depth = attenuation(hu, int(rng.integers(15, 50)))
    noisy: Image = hu + noise * np.float32(strength) * depth
    return noisy


def projected_noise(
    shape: tuple[int, ...],
    cut: float,
    roll: float,
    rng: Generator,
    upright: int | None = None,
) -> Image:
    """Return noise (H, W) of mean 0 and deviation 1 with the spectrum of ``grain``.

    Args:
        shape: of the slice.
        cut: frequency above which the kernel lets nothing pass; 1 is the highest
            that the pixels can show.
        roll: how steeply the kernel falls towards it.
        rng: of the draws.
        upright: image axis that is the body's, None for an axial slice.
    """
    down = np.abs(fft.fftfreq(shape[0]))[:, None] * 2
    right = fft.rfftfreq(shape[1])[None] * 2
    if upright is None:
        pitch = np.hypot(down, right)
    else:
        pitch = np.hypot(right if upright == 0 else down, 0.12)
    kernel = np.cos(np.minimum(pitch / cut, 1) * (np.pi / 2)) ** roll
    shaped = np.sqrt(pitch) * kernel * np.ones_like(down + right)
    shaped[0, 0] = 0
    white = fft.rfft2(rng.normal(0, 1, shape).astype(np.float32))
    noise = fft.irfft2(white * shaped.astype(np.float32), shape)
    if upright is not None:
        noise = ndimage.gaussian_filter1d(noise, rng.uniform(0.1, 0.8), axis=upright)
    noise -= noise.mean()
    noise /= max(float(noise.std()), 1e-6)
    unit: Image = noise.astype(np.float32)
    return unit


def starved(hu: Image, most_hu: float, rng: Generator, lie: Lie) -> Image:
    """Return a slice (H, W) with streaks from side to side where rays are starved.

    Rays that cross both shoulders or both hips leave few photons, so the lines with
    most to go through get streaks. In a sagittal slice those lines are seen end on,
    and their rows are merely noisy.
    """
    side = lie.lateral
    sagittal = not lies.shows(lie.right)
    weight = np.clip(hu / 1000 + 1, 0, 2).sum(axis=side, keepdims=True)
    weight = ndimage.gaussian_filter1d(weight, 2, axis=1 - side)
    path = weight / max(float(weight.max()), 1e-6)
    dose = np.exp(rng.uniform(3, 8) * (path - 1))
    lines = hu.shape[1 - side]
    streak = np.zeros((lines, hu.shape[side]), np.float32)
    longest = rng.uniform(2, 6) if sagittal else rng.uniform(20, 90)
    for length in (longest, longest / 3):
        count = max(3, round(hu.shape[side] / length) + 2)
        knots = rng.normal(0, 1, (lines, count)).astype(np.float32)
        place = np.linspace(0, count - 1.001, hu.shape[side]) + 0.0
        low = place.astype(np.intp)
        share = (place - low).astype(np.float32)
        streak += knots[:, low] * (1 - share) + knots[:, low + 1] * share
    streak = ndimage.gaussian_filter1d(streak, rng.uniform(0.3, 0.9), axis=0)
    streak -= streak.mean()
    streak /= max(float(streak.std()), 1e-6)
    noise = (streak.T if side == 0 else streak) * dose
    body = attenuation(hu, 9)
    strength = rng.uniform(0.3, 1.2) * most_hu
    noisy: Image = hu + (np.float32(strength) * noise * body).astype(np.float32)
    return noisy


def sharpened(hu: Image, rng: Generator) -> Image:
    """Return a slice or cube as a bone kernel shows it, with overshoot at edges.

    Two scales: one pixel, as the kernel's own, and a wider one, as the edge
    enhancement that scanners add.
    """
    sigmas = rng.uniform(0.5, 0.9), rng.uniform(1.2, 2.6)
    gains = rng.uniform(0.15, 1) * 1.8, rng.uniform(0.15, 1) * 0.6
    return enhanced(hu, sigmas, gains)


def enhanced(
    hu: Image, sigmas: Sequence[float | Sequence[float]], gains: Sequence[float]
) -> Image:
    """Return ``hu`` with what each blur would take away added to it.

    Args:
        hu: slice or cube.
        sigmas: of the blurs in pixels, one number or one per axis.
        gains: how many times each is added.
    """
    changed = hu.astype(np.float32)
    for sigma, gain in zip(sigmas, gains, strict=True):
        soft = ndimage.gaussian_filter(hu, sigma)
        changed = changed + np.float32(gain) * (hu - soft)
    clipped: Image = np.clip(changed, LOWEST_HU, HIGHEST_HU)
    return clipped


def table(hu: Image, spine: Mask, rng: Generator, lie: Lie) -> Image:
    """Return a slice (H, W) with shells of a table in the air beside the body.

    Most lie behind the patient, flat or hollow; in a slice that does not show front
    and back they lie anywhere.
    """
    back = (-lie.anterior[0], -lie.anterior[1])
    if not lies.shows(back) or rng.random() < 0.15:
        angle = rng.uniform(0, 2 * np.pi)
        back = (float(np.cos(angle)), float(np.sin(angle)))
    deep = lies.along(hu.shape, back)
    wide = lies.along(hu.shape, (back[1], -back[0]))
    body = ndimage.binary_opening(hu > -300, iterations=2)
    reach = float(np.quantile(deep[body], 0.995)) if body.any() else 0.0
    bend = rng.uniform(0.0005, 0.003) if rng.random() < 0.6 else 0.0
    if lie.upright is not None:
        bend = 0.0
    deep = deep + bend * (wide - rng.uniform(-15, 15)) ** 2
    top = reach + rng.uniform(-1, 10)
    air = (hu < -300) & ~ndimage.binary_dilation(spine, iterations=2)
    drawn = hu.copy()
    lines = [top, top + rng.uniform(4, 30)][: int(rng.integers(1, 3))]
    if len(lines) == 2 and rng.random() < 0.6:
        core = air & (deep > lines[0]) & (deep < lines[1])
        drawn[core] = np.maximum(drawn[core], rng.uniform(-980, -800))
    for line in lines:
        share = np.clip(rng.uniform(0.9, 1.6) - np.abs(deep - line), 0, 1)
        shell = np.where(air, share, 0)
        drawn += shell * (np.float32(rng.uniform(100, 800)) - drawn)
    return drawn


def attenuation(hu: Image, size: int) -> Image:
    """Return how dense the surroundings of each pixel are; 1 at their densest."""
    dense = np.clip(hu / 1000 + 1, 0, 2.5).astype(np.float32)
    around = ndimage.uniform_filter(dense, size)
    share: Image = 0.25 + 0.75 * around / max(float(around.max()), 1e-6)
    return share
