"""A scan with what is known of its voxels, as alterations take it and give it back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import InapplicableError
from engines.geometry import Grid
from engines.preprocess import resample
from engines.preprocess.orient import reorient
from engines.volume import Volume

TRUTH, FOUND, LEFT_OUT = 1, 2, 4
"""Marks of a voxel: spine in the truth, spine in the mask of the scan as it is, not
to be scored. A voxel may carry several."""

AIR_HU = -1024


@dataclass(frozen=True, slots=True)
class Subject:
    """A scan and the marks of its voxels.

    Attributes:
        scan: in HU; along RAS until an alteration turns it.
        marks: uint8 on the scan's grid, sums of ``TRUTH``, ``FOUND``, ``LEFT_OUT``.
        levels_mm: how high above the lowest plane the centres of two neighbouring
            vertebrae lie, the lower one first.
    """

    scan: Volume
    marks: Volume
    levels_mm: tuple[float, float]

    @property
    def spine(self) -> NDArray[np.bool_]:
        """Where the truth is."""
        spine: NDArray[np.bool_] = (self.marks.voxels & TRUTH) > 0
        return spine

    def with_hu(self, hu: NDArray[Any]) -> "Subject":
        """Return the subject with other intensities, whole HU as scanners store."""
        stored = np.clip(np.rint(hu), -(1 << 15), (1 << 15) - 1).astype(np.int16)
        return Subject(self.scan.with_voxels(stored), self.marks, self.levels_mm)

    def moved(self, hu: NDArray[Any], marks: NDArray[Any], grid: Grid) -> "Subject":
        """Return the subject on another grid."""
        scan = Volume(hu, grid, None, self.scan.provenance)
        lies = Subject(scan, Volume(marks, grid), self.levels_mm)
        return lies.with_hu(hu)

    def on_grid(self, grid: Grid) -> "Subject":
        """Return the subject resampled to a grid along the same axes.

        Intensities are interpolated, without skipping any; marks are the nearest.
        """
        own = self.scan.grid
        hu = resample.cubic(self.scan.voxels, own, grid)
        return self.moved(hu, resample.nearest(self.marks.voxels, own, grid), grid)


def subject_of(scan: Volume, truth: Volume, scored: NDArray[np.bool_]) -> Subject:
    """Return a scan along RAS with its truth marked.

    Args:
        scan: in HU, along any axes.
        truth: label map on the same grid.
        scored: which of its voxels count.

    Raises:
        InapplicableError: there is no spine among the voxels that count.
    """
    bone = truth.voxels > 0
    if not (bone & scored).any():
        msg = "the truth marks no spine that could be scored"
        raise InapplicableError(msg)
    marks = bone * np.uint8(TRUTH) + ~scored * np.uint8(LEFT_OUT)
    turned = reorient(truth.with_voxels(marks))
    return Subject(reorient(scan), turned, levels_mm(reorient(truth)))


def levels_mm(truth: Volume) -> tuple[float, float]:
    """Return the heights of two neighbouring vertebrae at the middle of the truth.

    Without a label for each vertebra: two heights about the middle, a vertebra apart.

    Args:
        truth: along RAS.
    """
    step = truth.grid.spacing_mm[2]
    ids = np.unique(truth.voxels[truth.voxels > 0])
    centres = sorted(
        float(np.nonzero(truth.voxels == label)[2].mean()) * step for label in ids
    )
    if len(centres) > 1:
        upper = len(centres) // 2
        return centres[upper - 1], centres[upper]
    apart_mm = 35.0
    return centres[0] - apart_mm / 2, centres[0] + apart_mm / 2
