"""A scan to time where none is given: a phantom like a CT of the chest.

No scan of a person comes with the program. The phantom has about as many voxels, as
much body and as much spine as a chest CT, so that every stage has its usual share of
the work. What is found in it tells nothing of how well a network labels people.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.geometry import Grid
from engines.volume import Planes, Volume, write_scan

NAME = "sample"
SHAPE = (512, 512, 133)
SPACING_MM = (0.7, 0.7, 2.5)
SEED = 0
NOISE_HU = 20.0

AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU = -1000.0, -850.0, -100.0, 50.0
DISC_HU, MARROW_HU, SHELL_HU, ARCH_HU = 90.0, 190.0, 480.0, 400.0

VERTEBRA_MM = 28.0
"""From one disc to the next."""

DISC_MM, SHELL_MM = 5.0, 1.8
PEDICLES_MM, LAMINA_MM = (14.0, 25.0), (7.0, 20.0)
"""Between these heights, counted from the disc below."""

SLANT = 0.4
"""Of the spinous processes, down over back."""

BLUR_VOXELS = 0.7
"""Deviation of the scanner's blur within a plane."""

BODY_MM = (18.0, 14.0)
"""Half widths of a vertebral body, to the side and to the front."""

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]


def phantom(
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> Volume:
    """Return the phantom, int16 in HU; the same arguments give the same voxels.

    Args:
        shape: voxels to the left, to the back and to the head, as a scanner has them.
        spacing_mm: their size.
    """
    rng = np.random.default_rng(SEED)
    i, j, k = shape
    left = (np.arange(i, dtype=np.float32)[:, None] - (i - 1) / 2) * spacing_mm[0]
    back = (np.arange(j, dtype=np.float32)[None, :] - (j - 1) / 2) * spacing_mm[1]
    voxels = np.empty(shape, np.int16)
    for index in range(k):
        up_mm = (index - (k - 1) / 2) * spacing_mm[2]
        plane = _plane(left, back, up_mm)
        plane += NOISE_HU * rng.standard_normal((i, j), np.float32)
        voxels[..., index] = np.rint(np.clip(plane, AIR_HU - 24, 3000))
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    return Volume(voxels, Grid(shape, affine))


def write(folder: Path) -> Path:
    """Write the phantom into ``folder`` and return its file.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / f"{NAME}_ct.nii.gz"
    made = phantom(SHAPE, SPACING_MM)
    write_scan(path, Planes.of(made.voxels), made.grid, {})
    return path


def _plane(left: Plane, back: Plane, up_mm: float) -> Plane:
    """Return an axial plane (I, J) of the phantom; places are in mm."""
    plane = np.full(np.broadcast_shapes(left.shape, back.shape), AIR_HU, np.float32)
    plane[_ellipse(left, back, (0, 0), (165, 110))] = FAT_HU
    plane[_ellipse(left, back, (0, 0), (148, 94))] = MUSCLE_HU
    for side in (-1, 1):
        plane[_ellipse(left, back, (side * 78, -8), (56, 70))] = LUNG_HU
    bent = back - (48 + 12 * np.cos(up_mm / 110))  # the thoracic spine is bent
    _vertebra(plane, left, bent, up_mm)
    blurred: Plane = ndimage.gaussian_filter(plane, BLUR_VOXELS)
    return blurred


def _vertebra(plane: Plane, left: Plane, back: Plane, up_mm: float) -> None:
    """Draw what of a vertebra lies at a height; its body is at the origin."""
    above_disc = up_mm % VERTEBRA_MM
    body = _ellipse(left, back, (0, 0), BODY_MM)
    if above_disc < DISC_MM:
        plane[body] = DISC_HU
    else:
        edge = min(above_disc - DISC_MM, VERTEBRA_MM - above_disc)
        inner = (BODY_MM[0] - SHELL_MM, BODY_MM[1] - SHELL_MM)
        plane[body] = SHELL_HU
        if edge > SHELL_MM:
            plane[_ellipse(left, back, (0, 0), inner)] = MARROW_HU
    if PEDICLES_MM[0] < above_disc < PEDICLES_MM[1]:
        plane[(abs(abs(left) - 12) < 4) & (back > 8) & (back < 20)] = ARCH_HU
        plane[(abs(left) < 34) & (abs(back - 26) < 5)] = ARCH_HU
    if LAMINA_MM[0] < above_disc < LAMINA_MM[1]:
        plane[_ellipse(left, back, (0, 21), (16, 13)) & (back > 18)] = ARCH_HU
    behind = above_disc + SLANT * (np.maximum(back, 30) - 30)
    process = (LAMINA_MM[0] < behind) & (behind < LAMINA_MM[1])
    plane[process & (abs(left) < 4) & (back > 30) & (back < 56)] = ARCH_HU
    plane[_ellipse(left, back, (0, 21), (9, 7.5)) & ~body] = MUSCLE_HU  # the canal


def _ellipse(
    left: Plane, back: Plane, centre: tuple[float, float], half: tuple[float, float]
) -> Mask:
    inside: Mask = ((left - centre[0]) / half[0]) ** 2 + (
        (back - centre[1]) / half[1]
    ) ** 2 < 1
    return inside
