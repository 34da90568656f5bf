"""Bring slices to a regular grid, each repair only when it was asked for.

The order is tilt, then gaps or uneven steps. All interpolation is linear: between
neighbouring pixels of a slice, and between neighbouring slices.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.convert.findings import Repairs
from engines.convert.frames import Frame
from engines.convert.layout import Layout, tilt_deg
from engines.convert.spacing import PLACE_TOLERANCE_STEPS
from engines.convert.stack import direction_of
from engines.errors import UnsupportedError
from engines.geometry import Affine, Grid

MOST_SLICES = 2
"""Uneven slices become at most so many times as many even ones."""

WHOLE_PIXELS = 1e-3
"""A shift this close to whole pixels needs no interpolation."""

MAX_GROWTH = 4
"""An image that shearing makes so many times wider is no gantry tilt."""


def mend(
    voxels: NDArray[Any],
    grid: Grid,
    layout: Layout | None,
    volume: Sequence[Frame],
    repairs: Repairs,
) -> tuple[NDArray[Any], Grid, dict[str, Any]]:
    """Return voxels and grid with the repairs that are needed and allowed.

    Args:
        voxels: (I, J, K) or (I, J, K, T).
        grid: of the slices, its step their mean distance.
        layout: where the slices lie; None for one slice.
        volume: the slices.
        repairs: what may be mended.

    Returns:
        Voxels, their grid, and what was done, for the record.
    """
    done: dict[str, Any] = {}
    if layout is None:
        return voxels, grid, done
    if repairs.fix_tilt and layout.tilted:
        done["tilt_deg"] = round(tilt_deg(layout), 3)
        voxels, grid, grown = _sheared(voxels, grid, layout, volume[0])
        done["tilt_padding_pixels"] = grown
    if layout.gaps:
        places = layout.steps
        done["filled_slices"] = sorted(set(range(places[-1])) - set(places.tolist()))
        voxels, grid = _interpolated(voxels, grid, places, int(places[-1]) + 1)
    elif not layout.even:
        steps_mm = np.diff(layout.heights_mm)
        done["uneven_steps_mm"] = [round(float(step), 3) for step in steps_mm]
        count = _even_count(layout.heights_mm)
        rise = layout.heights_mm - layout.heights_mm[0]
        voxels, grid = _interpolated(voxels, grid, rise / rise[-1] * (count - 1), count)
        done["step_mm"] = round(float(rise[-1]) / (count - 1), 4)
    return voxels, grid, done


def _sheared(
    voxels: NDArray[Any], grid: Grid, layout: Layout, first: Frame
) -> tuple[NDArray[Any], Grid, list[int]]:
    """Shift each slice within its plane, so that the stack stands upright."""
    between_rows_mm, between_columns_mm = first.spacing_mm or (1.0, 1.0)
    across, down = direction_of(first)
    shifts = np.stack(
        [
            layout.sideways_mm @ across / between_columns_mm,
            layout.sideways_mm @ down / between_rows_mm,
        ],
        axis=1,
    )
    low = np.floor(shifts.min(axis=0) + PLACE_TOLERANCE_STEPS).astype(int)
    high = np.ceil(shifts.max(axis=0) - PLACE_TOLERANCE_STEPS).astype(int)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    shape = (grid.shape[0] + high[0] - low[0], grid.shape[1] + high[1] - low[1])
    if max(shape[0] / grid.shape[0], shape[1] / grid.shape[1]) > MAX_GROWTH:
        msg = f"shearing it would need {shape[0]} x {shape[1]} pixels"
        raise UnsupportedError(msg, hint="Export the series again from the scanner.")
    outside = voxels.min() if voxels.dtype.names is None else np.zeros((), voxels.dtype)
    made = np.full((*shape, *voxels.shape[2:]), outside, voxels.dtype, order="F")
    for place in range(grid.shape[2]):
        for index in np.ndindex(voxels.shape[3:]):
            source = voxels[(..., place, *index)]
            made[(..., place, *index)] = _shifted(
                source, shifts[place] - low, shape, outside
            )
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :2] @ low
    grown = [int(shape[0] - grid.shape[0]), int(shape[1] - grid.shape[1])]
    return made, Grid((int(shape[0]), int(shape[1]), grid.shape[2]), affine), grown


def _shifted(
    image: NDArray[Any],
    shift: NDArray[np.float64],
    shape: tuple[int, int],
    outside: Any,  # noqa: ANN401
) -> NDArray[Any]:
    """Return a slice (I, J) moved by ``shift`` pixels, on a larger one."""
    for axis, (moved, count) in enumerate(zip(shift, shape, strict=True)):
        image = _moved(image, axis, float(moved), count, outside)
    return image


def _moved(
    image: NDArray[Any],
    axis: int,
    shift: float,
    count: int,
    outside: Any,  # noqa: ANN401
) -> NDArray[Any]:
    whole = math.floor(shift + WHOLE_PIXELS)
    part = shift - whole
    lines = np.moveaxis(image, axis, 0)
    made = np.full((count, lines.shape[1]), outside, image.dtype)
    if part < WHOLE_PIXELS:
        last = min(count, whole + len(lines))
        made[whole:last] = lines[: last - whole]
    else:
        mixed = _mixed(lines[:-1], lines[1:], 1 - part)
        last = min(count, whole + 1 + len(mixed))
        made[whole + 1 : last] = mixed[: last - whole - 1]
    return np.moveaxis(made, 0, axis)


def _mixed(one: NDArray[Any], other: NDArray[Any], weight: float) -> NDArray[Any]:
    """Return ``one`` and ``other`` interpolated; ``weight`` is that of ``other``."""
    values = one.astype(np.float32)
    values *= 1 - weight
    values += weight * other.astype(np.float32)
    if one.dtype.kind in "iu":
        np.rint(values, out=values)
    return values.astype(one.dtype)


def _even_count(heights_mm: NDArray[np.float64]) -> int:
    """Return how many even slices keep the smallest step, within reason."""
    steps_mm = np.diff(heights_mm)
    wanted = round(float(np.ptp(heights_mm)) / float(steps_mm.min())) + 1
    return min(wanted, MOST_SLICES * len(heights_mm))


def _interpolated(
    voxels: NDArray[Any], grid: Grid, places: NDArray[Any], count: int
) -> tuple[NDArray[Any], Grid]:
    """Return ``count`` even slices from slices at ``places``, 0 to ``count - 1``."""
    if voxels.dtype.names is not None:
        msg = "colour slices cannot be interpolated"
        raise UnsupportedError(msg)
    shape = (*grid.shape[:2], count)
    made = np.empty((*shape, *voxels.shape[3:]), voxels.dtype, order="F")
    for place in range(count):
        after = min(int(np.searchsorted(places, place - 1e-6)), len(places) - 1)
        if abs(places[after] - place) < 1e-6 or after == 0:
            made[:, :, place] = voxels[:, :, after]
            continue
        before = after - 1
        weight = (place - places[before]) / (places[after] - places[before])
        made[:, :, place] = _mixed(voxels[:, :, before], voxels[:, :, after], weight)
    affine: Affine = grid.affine.copy()
    affine[:3, 2] *= (grid.shape[2] - 1) / (count - 1)
    return made, Grid(shape, affine)
