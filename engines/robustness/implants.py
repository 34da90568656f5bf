"""Metal in the spine, the same in all slices, with the streaks that it throws.

Screws and a cage are placed by the truth, about the size of those that are used
(pedicle screws of 6 x 45 mm, rods of 5.5 mm, a cage of 26 mm). The streaks of an
axial slice are those of ``engines.train.metal``: the reconstruction of beam hardening
and of few photons behind metal. Bone under metal is still bone.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.preprocess import resample
from engines.robustness.looks import BODY_HU, pixel_grid
from engines.robustness.subject import Subject
from engines.train import metal, shapes

Image = NDArray[np.float32]
Point = tuple[float, float, float]
"""To the right, to the front and to the head of the spine's middle, mm."""

STREAKS_HU = 50.0
"""Deviation of the streaks in a slice with much metal; most of it near the metal."""

LEAST_SHARE = 0.02
"""A slice with less metal than this in every pixel has no streaks."""

SCREW_MM, ROD_MM, HEAD_MM, BAR_MM = 3.0, 2.75, 5.0, 2.5
"""Radii."""


def screws(subject: Subject, rng: Generator) -> Subject:
    """Put two screws into each of two neighbouring vertebrae, and rods behind them."""
    low, high = subject.levels_mm
    parts = []
    for side in (-1.0, 1.0):
        heads: list[Point] = [(side * 22, -26.0, at) for at in (low, high)]
        for right, front, at in heads:
            parts.append(((side * 9, 18.0, at), (right, front, at), SCREW_MM))
            parts.append(((right, front, at), (right, front - 6, at), HEAD_MM))
        beyond = [
            (r, f - 6, at + d) for (r, f, at), d in zip(heads, (-8, 8), strict=True)
        ]
        parts.append((beyond[0], beyond[1], ROD_MM))
    return _implanted(subject, parts, rng)


def cage(subject: Subject, rng: Generator) -> Subject:
    """Put a cage between two bodies: a frame of four bars of titanium."""
    at = float(np.mean(subject.levels_mm))
    corners: list[Point] = [(-13, 6, at), (13, 6, at), (13, 24, at), (-13, 24, at)]
    ends = zip(corners, corners[1:] + corners[:1], strict=True)
    return _implanted(subject, [(a, b, BAR_MM) for a, b in ends], rng)


def _implanted(
    subject: Subject, parts: list[tuple[Point, Point, float]], rng: Generator
) -> Subject:
    own = subject.scan.grid
    hu = subject.scan.voxels.astype(np.float32)
    share = _shares(subject, parts)
    inside = ndimage.binary_closing(hu > BODY_HU, iterations=2) | subject.spine
    share *= inside
    fine = pixel_grid(own)
    in_pixels = resample.linear(share, own, fine)
    streaks = np.zeros(fine.shape, np.float32)
    for at in range(fine.shape[2]):
        slice_ = in_pixels[..., at]
        if float(slice_.max()) > LEAST_SHARE:
            area = min(1.0, float(slice_.sum()) / metal.FULL_PIXELS)
            streaks[..., at] = STREAKS_HU * area * metal.radial(slice_, rng)
    hu += resample.linear(streaks, fine, own)
    hu += share * (np.float32(metal.HIGHEST_HU) - hu)
    return subject.with_hu(np.clip(hu, metal.LOWEST_HU, metal.HIGHEST_HU))


def _shares(subject: Subject, parts: list[tuple[Point, Point, float]]) -> Image:
    """Return how much of each voxel is metal."""
    grid = subject.scan.grid
    spacing = np.array(grid.spacing_mm)
    rows, columns, planes = np.nonzero(subject.spine)
    low, high = np.array(subject.levels_mm) / spacing[2]
    near = (planes > low - 10 / spacing[2]) & (planes < high + 10 / spacing[2])
    near = near if near.any() else np.ones_like(near)
    middle = np.array([rows[near].mean(), columns[near].mean(), 0.0]) * spacing
    places = np.ogrid[tuple(slice(0, n) for n in grid.shape)]
    at = [(p * mm).astype(np.float32) for p, mm in zip(places, spacing, strict=True)]
    nearest = np.full(grid.shape, np.float32(1e3))
    for start, end, radius in parts:
        begin = np.array(start) + middle
        way = np.array(end) - np.array(start)
        along = sum((p - b) * w for p, b, w in zip(at, begin, way, strict=True))
        along = np.clip(along / float(way @ way), 0, 1)
        apart = sum(
            (p - b - along * w) ** 2 for p, b, w in zip(at, begin, way, strict=True)
        )
        nearest = np.minimum(nearest, np.sqrt(apart) - np.float32(radius))
    return shapes.inside(nearest / np.float32(spacing.min()))
