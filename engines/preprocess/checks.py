"""Refuse what cannot be an intact scan, before anything is computed from it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import GeometryError, IntensityError, UnsupportedError
from engines.volume import Volume

FEWEST_VOXELS = 2
"""Along each axis; a single slice is a picture, not a scan."""

FIELD_MM = (2.0, 4000.0)
"""Limits for the longest side of a scan; beyond them its unit was not mm."""

BLOCK_VOXELS = 1 << 22
"""Voxels looked at together, so that a large scan needs no second copy."""


def require_scan(volume: Volume, name: str) -> None:
    """Refuse a volume from which no spine can be read.

    Raises:
        UnsupportedError: fewer than two voxels along an axis.
        GeometryError: a size that no patient has.
        IntensityError: NaN or infinite voxels, or the same value everywhere.
    """
    shape = volume.grid.shape
    if min(shape) < FEWEST_VOXELS:
        msg = f"{name}: {_by(shape)} voxels, one slice only; 3-D is needed"
        raise UnsupportedError(msg, hint="Give the whole scan, not a single slice.")
    sides_mm = [n * mm for n, mm in zip(shape, volume.grid.spacing_mm, strict=True)]
    if not FIELD_MM[0] <= max(sides_mm) <= FIELD_MM[1]:
        msg = f"{name}: {_by(sides_mm)} mm in size, which no scan has"
        raise GeometryError(msg, hint="Check that the header's voxel size is in mm.")
    _require_finite(volume.voxels, name)
    _require_contrast(volume.voxels, name)


def _require_finite(voxels: NDArray[Any], name: str) -> None:
    if voxels.dtype.kind != "f":
        return
    bad = sum(int((~np.isfinite(block)).sum()) for block in _blocks(voxels))
    if bad:
        msg = f"{name}: {bad} of {voxels.size} voxels are NaN or infinite"
        raise IntensityError(
            msg, hint="Set them to the value of air, or convert the scan again."
        )


def _require_contrast(voxels: NDArray[Any], name: str) -> None:
    first = voxels.flat[0]
    if any((block != first).any() for block in _blocks(voxels)):
        return
    told = "empty, every voxel is 0" if first == 0 else f"every voxel is {first:g}"
    msg = f"{name}: {told}"
    raise IntensityError(msg, hint="Export the scan again.")


def _blocks(voxels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut ``voxels`` across the axis along which memory is laid out."""
    axis = int(np.argmax(np.abs(voxels.strides)))
    moved = np.moveaxis(voxels, axis, 0)
    step = max(1, BLOCK_VOXELS // max(1, moved[0].size))
    for start in range(0, len(moved), step):
        yield moved[start : start + step]


def _by(numbers: tuple[int, ...] | list[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
