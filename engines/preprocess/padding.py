"""What fills a scan where nothing was measured, and where its values were cut off."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.preprocess.hounsfield import AIR_HU, FLOOR_SHARE, sample
from engines.results import Note

AIR = -1000
"""What takes the place of padding in CT."""

PADDING_SHARE = 0.01
"""Share of the voxels that padding has at least, where its value could be tissue."""

LEAST_CORNERS = 4
"""So many of the eight corners lie in a field of view's padding at least."""

CEILING_HU = 1500.0
"""Where a CT is cut off below this, dense bone is missing."""


def without_padding(voxels: NDArray[Any]) -> tuple[NDArray[Any], tuple[Note, ...]]:
    """Return CT in Hounsfield units with air where padding was.

    Padding has one value: one below air, as -2048, -3024 or -32768, or any other that
    fills the corners of the volume and what is connected to them.
    """
    low = float(voxels.min())
    if low < AIR_HU[0] and (voxels == low).mean() >= FLOOR_SHARE:
        outside = voxels < AIR_HU[0]
        return _filled(voxels, outside, low)
    value = _at_corners(voxels)
    if value is None or AIR_HU[0] <= value <= AIR_HU[1] or value <= low:
        return voxels, ()
    same = voxels == value
    if same.mean() < PADDING_SHARE:
        return voxels, ()
    outside = _from_corners(same)
    if outside.mean() < PADDING_SHARE:
        return voxels, ()
    return _filled(voxels, outside, value)


def without_negatives(voxels: NDArray[Any]) -> tuple[NDArray[Any], tuple[Note, ...]]:
    """Return MR with 0 where padding below it was; magnitudes are never negative."""
    low = float(voxels.min())
    if low >= 0:
        return voxels, ()
    outside = voxels == low
    if outside.mean() < PADDING_SHARE or voxels[~outside].min(initial=0) < 0:
        return voxels, ()
    return _filled(voxels, outside, low, 0)


def cut_off(voxels: NDArray[Any]) -> tuple[Note, ...]:
    """Return a note where CT was cut off above air, or below dense bone."""
    some = sample(voxels)
    low, high = float(some.min()), float(some.max())
    notes = []
    if low > AIR_HU[1] and (some == low).mean() >= FLOOR_SHARE:
        msg = f"what lay below {low:g} HU was cut off before: neither air nor lung"
        notes.append(Note("cut_off", msg))
    if high < CEILING_HU and (some == high).mean() >= FLOOR_SHARE:
        msg = f"what lay above {high:g} HU was cut off before: no dense bone"
        notes.append(Note("cut_off", msg))
    return tuple(notes)


def _at_corners(voxels: NDArray[Any]) -> float | None:
    ends = voxels[tuple(slice(None, None, max(1, n - 1)) for n in voxels.shape)]
    values, counts = np.unique(ends, return_counts=True)
    most = int(counts.argmax())
    return float(values[most]) if counts[most] >= LEAST_CORNERS else None


def _from_corners(same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what of ``same`` is connected to a corner."""
    parts, _ = ndimage.label(same)
    ends = parts[tuple(slice(None, None, max(1, n - 1)) for n in same.shape)]
    wanted = np.unique(ends[ends > 0])
    outside: NDArray[np.bool_] = np.isin(parts, wanted)
    return outside


def _filled(
    voxels: NDArray[Any], outside: NDArray[np.bool_], value: float, by: int = AIR
) -> tuple[NDArray[Any], tuple[Note, ...]]:
    made = voxels.copy(order="K")
    made[outside] = by
    share = outside.mean()
    what = "air (-1000 HU)" if by == AIR else "0"
    msg = f"{share:.1%} of the voxels are padding of {value:g}: set to {what}"
    return made, (Note("padding", msg),)
