"""Alterations of what the scanner shows: kernels, noise, streaks, contrast agent.

Noise and streaks are drawn in axial slices with pixels of ``PIXEL_MM``, for which the
generators of ``engines.train`` are made, and what they change is brought to the scan's
own grid. No strength is drawn: the same seed and scan give the same alteration.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.geometry import Grid, sharing_centre
from engines.preprocess import resample
from engines.robustness.subject import Subject
from engines.train import agent, scanner
from engines.train.lie import AXIAL

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

PIXEL_MM = 1.5
"""Edge of the pixels that noise and streaks are drawn in."""

SHARP_MM, SHARP_GAINS = (0.7, 2.0), (1.5, 0.5)
"""Unsharp masks of a bone kernel: the kernel's own edge enhancement, and a wider one.
Edges overshoot as in reconstructions with kernels of the class B70 or Lung."""

SOFT_MM = 1.0
"""Deviation of the blur that a soft kernel adds, 2.4 mm full width at half maximum."""

NOISE_HU = 60.0
"""Deviation of the noise inside the body: a ninth of the dose that gives 20 HU."""

NOISE_CUT, NOISE_ROLL = 1.0, 1.0
"""Kernel of the noise: it ends at the highest frequency that the pixels show."""

STARVED_HU = 150.0
"""A scale: lines through most of the body get streaks of 0.3 to 1.2 times this."""

BODY_HU = -300.0

VESSEL_MM = 11.0
"""Radius of the aorta and the vena cava."""

KIDNEY_MM = (28.0, 25.0, 55.0)
"""Half axes of a kidney along R, A and S."""

AORTA_HU, CAVA_HU, CORTEX_HU, CHALK_HU = 350.0, 200.0, 220.0, 900.0
"""An arterial to portal venous phase; calcified plaques in the wall of the aorta."""


def sharp(subject: Subject, rng: Generator) -> Subject:
    """Show the axial slices as a bone kernel does, noise and all."""
    del rng
    spacing = subject.scan.grid.spacing_mm
    sigmas = [(mm / spacing[0], mm / spacing[1], 0.0) for mm in SHARP_MM]
    hu = subject.scan.voxels.astype(np.float32)
    return subject.with_hu(scanner.enhanced(hu, sigmas, SHARP_GAINS))


def soft(subject: Subject, rng: Generator) -> Subject:
    """Blur the axial slices as a soft kernel does."""
    del rng
    spacing = subject.scan.grid.spacing_mm
    sigma = (SOFT_MM / spacing[0], SOFT_MM / spacing[1], 0.0)
    hu = subject.scan.voxels.astype(np.float32)
    return subject.with_hu(ndimage.gaussian_filter(hu, sigma))


def noisy(subject: Subject, rng: Generator) -> Subject:
    """Add the noise of a low dose: correlated, strongest deep in the body.

    Its deviation inside the body, in the scan's own voxels, is ``NOISE_HU``.
    """

    def add(hu: Image) -> Image:
        noise = scanner.projected_noise(hu.shape, NOISE_CUT, NOISE_ROLL, rng)
        return noise * scanner.attenuation(hu, 31)

    noise = in_slices(subject, add)
    hu = subject.scan.voxels
    body = hu > BODY_HU
    deviation = float(noise[body if body.any() else slice(None)].std())
    return subject.with_hu(hu + noise * (NOISE_HU / max(deviation, 1e-6)))


def starved(subject: Subject, rng: Generator) -> Subject:
    """Add streaks from side to side, where rays through much body left few photons."""

    def add(hu: Image) -> Image:
        return scanner.starved(hu, STARVED_HU, rng, AXIAL) - hu

    return subject.with_hu(subject.scan.voxels + in_slices(subject, add))


def agent_given(subject: Subject, rng: Generator) -> Subject:
    """Fill an aorta with plaques, a vena cava and two kidneys with contrast agent.

    The vessels touch the front of the bodies. Nothing is drawn over bone, lung or the
    truth; what lies outside the field of view is not seen. Noise stays as it was.
    """
    grid = subject.scan.grid
    across, deep, up = (
        np.arange(n, dtype=np.float32) * np.float32(mm)
        for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)
    )
    noisy_hu = subject.scan.voxels.astype(np.float32)
    plain: Image = ndimage.gaussian_filter(noisy_hu, [1 / mm for mm in grid.spacing_mm])
    hu = plain.copy()
    free = (hu > agent.SOFT_HU[0]) & (hu < agent.SOFT_HU[1]) & ~subject.spine
    middle, front, back = _course(subject.spine, grid)
    pixel = np.float32(min(grid.spacing_mm[:2]))
    right = across[:, None, None] - middle
    ahead = deep[None, :, None] - front
    for side_mm, value in ((-12.0, AORTA_HU), (14.0, CAVA_HU)):
        apart = np.hypot(right - side_mm, ahead - (VESSEL_MM - 1)) - VESSEL_MM
        agent.pour(hu, apart / pixel, free, value)
        if value == AORTA_HU:
            wall = np.abs(apart + 1) - 1
            patches = ndimage.gaussian_filter(rng.normal(0, 1, hu.shape), 4)
            spots = free & (patches > np.quantile(patches, 0.8))
            agent.pour(hu, wall / pixel, spots, CHALK_HU)
    height = float(np.mean(subject.levels_mm))
    for side_mm in (-60.0, 60.0):
        parts = right - side_mm, deep[None, :, None] - back, up - height
        share = sum((p / r) ** 2 for p, r in zip(parts, KIDNEY_MM, strict=True))
        apart = (np.sqrt(share) - 1) * min(KIDNEY_MM)
        agent.pour(hu, apart.astype(np.float32) / pixel, free, CORTEX_HU)
    return subject.with_hu(noisy_hu + hu - plain)


def in_slices(subject: Subject, draw: Callable[[Image], Image]) -> Image:
    """Return on the scan's grid what is drawn for each axial slice.

    Args:
        subject: along RAS.
        draw: gets a slice (R, A) with square pixels and returns what is to be added.
    """
    own = subject.scan.grid
    fine = pixel_grid(own)
    slices = resample.linear(subject.scan.voxels, own, fine)
    drawn = np.stack([draw(slices[..., at]) for at in range(slices.shape[2])], axis=-1)
    return resample.linear(drawn, fine, own)


def pixel_grid(own: Grid) -> Grid:
    """Return the grid with square axial pixels; those of coarser scans stay coarse."""
    edge = max(PIXEL_MM, min(own.spacing_mm[:2]))
    rows, columns = (
        max(2, round(n * mm / edge))
        for n, mm in zip(own.shape[:2], own.spacing_mm[:2], strict=True)
    )
    size = edge, edge, own.spacing_mm[2]
    return sharing_centre(own, (rows, columns, own.shape[2]), size)


def _course(spine: Mask, grid: Grid) -> tuple[Image, Image, Image]:
    """Return the spine's middle along R, its front and its middle along A, in mm.

    There is a value for each axial plane, smooth, and level where the truth ends.
    """
    heights = np.flatnonzero(spine.any(axis=(0, 1)))
    across, deep = grid.spacing_mm[:2]
    found = []
    for height in heights:
        rows, columns = np.nonzero(spine[..., height])
        found.append(
            (rows.mean() * across, columns.max() * deep, columns.mean() * deep)
        )
    every = np.arange(spine.shape[2])
    wide = 10.0 / grid.spacing_mm[2]
    lines = [
        ndimage.gaussian_filter1d(
            np.interp(every, heights, line), wide, mode="nearest"
        ).astype(np.float32)
        for line in zip(*found, strict=True)
    ]
    return lines[0], lines[1], lines[2]
