"""Turn a volume so that its axes run right, anterior, superior."""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from engines.geometry import Grid
from engines.volume import Volume

CANONICAL = "RAS"


def reorient(volume: Volume, codes: str = CANONICAL) -> Volume:
    """Return ``volume`` with its axes permuted and flipped to ``codes``.

    No voxel is interpolated: an oblique scan stays oblique and gets the closest
    axis order. Voxels are a view where that is possible.

    Raises:
        ValueError: ``codes`` is not one letter of each pair LR, AP, SI.
    """
    wanted = _orientation(codes)
    held = nib.orientations.io_orientation(volume.grid.affine)
    turn = nib.orientations.ornt_transform(held, wanted)
    voxels = nib.orientations.apply_orientation(volume.voxels, turn)
    affine = volume.grid.affine @ nib.orientations.inv_ornt_aff(turn, volume.grid.shape)
    return Volume(voxels, Grid(voxels.shape, affine), None, volume.provenance)


def undo(voxels: NDArray[Any], native: Grid, codes: str = CANONICAL) -> NDArray[Any]:
    """Return ``voxels``, which lie along ``codes``, in the axis order of ``native``."""
    held = _orientation(codes)
    wanted = nib.orientations.io_orientation(native.affine)
    turn = nib.orientations.ornt_transform(held, wanted)
    turned: NDArray[Any] = nib.orientations.apply_orientation(voxels, turn)
    return np.ascontiguousarray(turned)


def _orientation(codes: str) -> NDArray[np.float64]:
    pairs = ["".join(sorted(pair)) for pair in ("LR", "AP", "SI")]
    found = sorted(p for c in codes for p in pairs if c in p)
    if len(codes) != 3 or found != sorted(pairs):
        msg = f"{codes!r} is not an orientation: give one letter of each pair LR AP SI"
        raise ValueError(msg)
    wanted: NDArray[np.float64] = nib.orientations.axcodes2ornt(codes)
    return wanted
