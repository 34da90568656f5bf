"""Metal in and beside the spine, with the streaks that it throws.

The streaks are the reconstruction of what metal does to the detector: rays through
it are taken for weaker than they are (beam hardening, which grows with the path
through metal), and few photons arrive, so they are noisy. Lengths are in pixels of
about 1.5 mm.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft, ndimage

from engines.train import lie as lies
from engines.train import shapes
from engines.train.lie import Lie
from engines.train.shapes import Point

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

HIGHEST_HU, LOWEST_HU = 3071.0, -1024.0
"""What 12 bits hold."""

BODY_HU = -400.0
"""Metal lies in the body, not in the air around it."""

ANGLES = 150
"""Projections; a scanner takes a thousand, but the eye does not miss them."""

FULL_PIXELS = 60.0
"""Area of metal from which on the streaks have their full strength."""


def implants(hu: Image, spine: Mask, rng: Generator, lie: Lie) -> Image:
    """Return a slice (H, W) with screws, rods, markers or cement in or by the spine.

    What the spine is stays the same: bone under metal is still bone.
    """
    centre = np.array(spine.shape) * rng.uniform(0.2, 0.8, 2)
    if spine.any():
        centre = shapes.pixel(spine, rng)
    draw = _KINDS[int(rng.choice(len(_KINDS), p=_CHANCES))]
    metal = shapes.inside(draw(spine, centre, rng, lie))
    metal *= ndimage.binary_closing(hu > BODY_HU, iterations=2) | spine
    if not metal.any():
        return hu
    strength = rng.uniform(10, 60) * min(1.0, float(metal.sum()) / FULL_PIXELS)
    bright = rng.uniform(2000, 3600)
    if draw is _cement:
        strength, bright = 0.1 * strength, rng.uniform(700, 2200)
    if lie.upright is None:
        error = radial(metal, rng)
    else:
        error = banded(metal, lie.upright, rng)
    changed = hu + np.float32(strength) * error
    blooming: Image = ndimage.gaussian_filter(metal, rng.uniform(0.3, 0.7))
    changed += np.minimum(1.1 * blooming, 1) * (bright - changed)
    clipped: Image = np.clip(changed, LOWEST_HU, HIGHEST_HU).astype(np.float32)
    return clipped


def radial(metal: Image, rng: Generator) -> Image:
    """Return the streaks of an axial slice, mean 0 and standard deviation 1.

    Args:
        metal: (H, W), share of each pixel that is metal.
    """
    half = int(np.ceil(np.hypot(*metal.shape) / 2)) + 1
    angles = (np.arange(ANGLES) + rng.random()) * (np.pi / ANGLES)
    path = _projected(metal, angles, half)
    hardened = -(path**2) / (path + rng.uniform(2, 12))
    few = np.minimum(path, 12) * rng.uniform(0.05, 0.35)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, path.shape), (0.8, 0.4))
    error = hardened + noise * few
    error *= 1 + rng.uniform(0, 0.8) * np.cos(angles[:, None]) ** 2
    return _unit(_back_projected(error, angles, metal.shape, half), metal)


def banded(metal: Image, upright: int, rng: Generator) -> Image:
    """Return the streaks of a slice that holds the body's axis, mean 0, deviation 1.

    Every row across the axis was reconstructed apart, so streaks keep to the rows
    that hold metal: bright or dark along the row, and weaker far from the metal.
    """
    amount = ndimage.gaussian_filter1d(metal.sum(axis=1 - upright), 0.8)
    amount = np.sqrt(amount / max(float(amount.max()), 1e-6))
    across = metal.sum(axis=upright)
    place = np.arange(len(across))
    middle = float((across * place).sum()) / max(float(across.sum()), 1e-6)
    apart = np.abs(place - middle) / rng.uniform(20, 60)
    uneven = ndimage.gaussian_filter1d(rng.normal(0, 1, len(amount)), 0.6)
    level = amount * (uneven - rng.uniform(0, 0.6))
    ripple = np.cos(apart * rng.uniform(0, 5) + rng.uniform(0, 6))
    course = (1 + 0.5 * ripple) / (1 + apart)
    course -= course.mean()
    offset = rng.uniform(0.2, 0.6)
    error = np.multiply.outer(level, course + offset)
    return _unit(error if upright == 0 else error.T, metal)


def _projected(metal: Image, angles: NDArray[np.floating], half: int) -> Image:
    """Return how far each ray runs in metal, (angles, 2 half + 2)."""
    rows, columns = np.nonzero(metal > 0.02)
    weight = np.tile(metal[rows, columns], len(angles))
    down = rows - (metal.shape[0] - 1) / 2
    right = columns - (metal.shape[1] - 1) / 2
    place = np.outer(np.cos(angles), down) + np.outer(np.sin(angles), right) + half
    width = 2 * half + 2
    low = np.floor(place).astype(np.intp)
    share = (place - low).ravel()
    index = (low + np.arange(len(angles))[:, None] * width).ravel()
    size = len(angles) * width
    path = np.bincount(index, weight * (1 - share), size + 1)[:size]
    path += np.bincount(index + 1, weight * share, size + 1)[:size]
    lengths: Image = path.reshape(len(angles), width).astype(np.float32)
    return lengths


def _back_projected(
    error: NDArray[np.floating],
    angles: NDArray[np.floating],
    shape: tuple[int, ...],
    half: int,
) -> Image:
    """Return the image (H, W) of ramp-filtered projections."""
    size = fft.next_fast_len(2 * error.shape[1], real=True)
    step = np.fft.rfftfreq(size)
    ramp = step * np.cos(np.pi * step) ** 2
    spectrum = fft.rfft(error.astype(np.float32), size, axis=1) * ramp
    fine = fft.irfft(spectrum, 2 * size, axis=1).astype(np.float32)
    rows = (np.arange(shape[0]) - (shape[0] - 1) / 2).astype(np.float32)[:, None]
    columns = (np.arange(shape[1]) - (shape[1] - 1) / 2).astype(np.float32)
    image = np.zeros(shape, np.float32)
    for line, angle in zip(fine, angles, strict=True):
        down = np.float32(2 * np.cos(angle)) * rows + np.float32(2 * half + 0.5)
        place = down + np.float32(2 * np.sin(angle)) * columns
        image += line.take(place.astype(np.int32), mode="clip")
    return image


def _unit(streaks: NDArray[np.floating], metal: Image) -> Image:
    """Return streaks of mean 0 and deviation 1 outside the metal itself."""
    outside = metal < 0.02
    centred = streaks - streaks[outside].mean()
    deviation = max(float(centred[outside].std()), 1e-6)
    far = 6 * np.tanh(centred / (6 * deviation))
    unit: Image = far.astype(np.float32)
    return unit


def _screws(spine: Mask, tip: Point, rng: Generator, lie: Lie) -> Image:
    """Return the distance to screws that enter from behind, and rods behind them."""
    radius = rng.uniform(1.3, 2.4)
    back = -shapes.way(lie.anterior, rng)
    if lie.upright is not None and not lies.shows(lie.anterior):
        return _dots(spine, tip, rng, lie)
    length = rng.uniform(18, 34)
    if lie.upright is not None:
        head = shapes.way(lie.superior, rng)
        count, pitch = int(rng.integers(1, 5)), rng.uniform(16, 26)
        parts = [
            _screw(spine.shape, tip + head * pitch * n, back, length, radius)
            for n in range(count)
        ]
        if rng.random() < 0.6:
            start = tip + back * (length + 2) - head * 8
            end = start + head * (pitch * count)
            parts.append(shapes.capsule(spine.shape, start, end, radius))
        return shapes.union(parts)
    side = shapes.way(lie.right, rng)
    middle = np.argwhere(spine).mean(axis=0) if spine.any() else tip
    spread, splay = rng.uniform(6, 12), rng.uniform(0, 0.6)
    signs = (-1, 1) if rng.random() < 0.7 else (int(rng.choice([-1, 1])),)
    parts = []
    for sign in signs:
        start = middle + side * sign * spread * 0.6 - back * rng.uniform(6, 14)
        way = back + side * sign * splay
        way /= np.hypot(*way)
        parts.append(_screw(spine.shape, start, way, length, radius))
    return shapes.union(parts)


def _dots(spine: Mask, tip: Point, rng: Generator, lie: Lie) -> Image:
    """Return the distance to screws or rods cut across, in rows of two."""
    side, head = shapes.way(lie.right, rng), shapes.way(lie.superior, rng)
    radius, apart = rng.uniform(1.3, 2.6), rng.uniform(12, 24)
    rods = lie.upright is not None and rng.random() < 0.4
    most = 2 if lie.upright is None else 5
    count, pitch = int(rng.integers(1, most)), rng.uniform(16, 26)
    parts = []
    for sign in (0, 1) if rng.random() < 0.75 else (0,):
        start = tip + side * sign * apart
        if rods:
            end = start + head * pitch * count
            parts.append(shapes.capsule(spine.shape, start, end, radius))
        else:
            places = [start + head * pitch * n for n in range(count)]
            parts += [shapes.capsule(spine.shape, p, p, radius) for p in places]
    return shapes.union(parts)


def _marker(spine: Mask, tip: Point, rng: Generator, lie: Lie) -> Image:
    """Return the distance to clips, cage markers or one large dense body."""
    del lie
    if rng.random() < 0.3:
        place = tip + rng.normal(0, 25, 2)
        return shapes.capsule(
            spine.shape, place, place + rng.normal(0, 6, 2), rng.uniform(3, 10)
        )
    places = [tip + rng.normal(0, 9, 2) for _ in range(int(rng.integers(1, 5)))]
    parts = [
        shapes.capsule(spine.shape, p, p + rng.normal(0, 2, 2), rng.uniform(0.6, 1.6))
        for p in places
    ]
    return shapes.union(parts)


def _cement(spine: Mask, tip: Point, rng: Generator, lie: Lie) -> Image:
    """Return the distance to cement in a body, a few round lumps."""
    del lie
    lumps = [tip + rng.normal(0, 2.5, 2) for _ in range(int(rng.integers(2, 6)))]
    parts = [shapes.capsule(spine.shape, p, p, rng.uniform(1.2, 4.5)) for p in lumps]
    away = np.where(ndimage.binary_dilation(spine), -99, 99) if spine.any() else -99
    distance: Image = np.maximum(shapes.union(parts), away).astype(np.float32)
    return distance


_KINDS = (_screws, _dots, _marker, _cement)
_CHANCES = (0.5, 0.15, 0.2, 0.15)


def _screw(
    shape: tuple[int, ...], tip: Point, back: Point, length: float, radius: float
) -> Image:
    """Return the distance to a screw with its head at the far end."""
    end = tip + back * length
    head = shapes.capsule(shape, end - back * 2, end + back * 2, radius * 1.8)
    return np.minimum(shapes.capsule(shape, tip, end, radius), head)
