"""One scan and its masks, prepared by a recipe, and the record of what was done.

orient -> resample or resize -> smooth -> clamp -> normalise. Masks follow through
the first two, each voxel taking the value of the nearest one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engines import __version__, geometry
from engines.errors import MaskError, UnsupportedError
from engines.geometry import Grid
from engines.preprocess import intensity, resample
from engines.preprocess.intensity import Floats, Line, Normalisation
from engines.preprocess.modality import guess_modality
from engines.preprocess.orient import reorient
from engines.preprocess.recipe import Recipe
from engines.preprocess.restore import PREPROCESSED, smoothed_mm
from engines.volume import Volume

SMOOTHING_VOXELS = 4
"""The recursive Gaussian needs so many along each axis."""

ACROSS_SLICES = {"ct": "IS", "mr": "LR"}
"""Modality -> the ends of the axis across its slices: axial for CT, sagittal for MR."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared scan.

    Attributes:
        volume: float32, or int16 where nothing made fractions of its values; its
            provenance holds what ``restore.to_hounsfield`` needs.
        record: what was done, for the record of the case.
    """

    volume: Volume
    record: Mapping[str, Any]


def prepare(scan: Volume, recipe: Recipe) -> Prepared:
    """Prepare a scan by ``recipe``.

    Raises:
        UnsupportedError: too few voxels to smooth.
    """
    _, grid, values = on_recipe_grid(scan, recipe)
    values, line = normalised(values, recipe)
    kept = {
        "shift": line.shift,
        "scale": line.scale,
        "clamp": _limits(recipe, line),
    }
    smoothing_mm = math.hypot(smoothed_mm(scan), recipe.smoothing_mm)
    provenance = {
        "kind": PREPROCESSED,
        "recipe": recipe.as_json() | {"smoothing_mm": smoothing_mm},
        "modality": _modality(scan, recipe),
        "intensity": kept,
        "version": __version__,
    }
    record = {
        "axes": {"from": scan.grid.axes, "to": grid.axes},
        "shape": {"from": list(scan.grid.shape), "to": list(grid.shape)},
        "spacing_mm": {"from": _mm(scan.grid), "to": _mm(grid)},
        "smoothing_mm": smoothing_mm,
        "normalisation": recipe.normalisation,
        **kept,
    }
    stored = _compact(values) if recipe.normalisation == "none" else values
    return Prepared(Volume(stored, grid, None, provenance), record)


def on_recipe_grid(scan: Volume, recipe: Recipe) -> tuple[Grid, Grid, Floats]:
    """Turn, resample and smooth a scan.

    Returns:
        the scan's own grid along the recipe's orientation, the recipe's grid, and
        the values on it in the scan's units.

    Raises:
        UnsupportedError: too few voxels to smooth.
    """
    turned = reorient(scan, recipe.orientation)
    grid = target_grid(turned.grid, recipe)
    values = _on_grid(turned, grid)
    if recipe.smoothing_mm:
        values = _smoothed(values, recipe.smoothing_mm, grid)
    return turned.grid, grid, values


def normalised(values: Floats, recipe: Recipe) -> tuple[Floats, Line]:
    """Clamp and normalise values; return them with the line that was used."""
    if recipe.clamp:
        values = intensity.clamp(values, recipe.clamp)
    name = cast("Normalisation", recipe.normalisation)
    return intensity.normalise(values, name, recipe.clamp)


def prepare_mask(
    mask: Volume, scan: Grid, prepared: Grid, recipe: Recipe
) -> NDArray[Any]:
    """Bring a mask to the grid of its prepared scan.

    Args:
        mask: label map on the scan's own grid.
        scan: grid of the scan as it was read.
        prepared: grid of the scan after ``prepare``.
        recipe: the one that the scan was prepared by.

    Raises:
        MaskError: the mask lies on another grid than its scan.
    """
    if not mask.grid.matches(scan):
        if mask.grid.shape != scan.shape:
            told = f"{_by(mask.grid.shape)} voxels, the scan {_by(scan.shape)}"
        else:
            far_mm = np.abs(mask.grid.corners_mm() - scan.corners_mm()).max()
            told = f"as many voxels, but up to {far_mm:.2f} mm away from the scan's"
        msg = f"the mask does not fit its scan: it has {told}"
        raise MaskError(msg, hint="Resample the mask to its scan first.")
    turned = reorient(mask, recipe.orientation)
    return resample.nearest(turned.voxels, turned.grid, prepared)


def target_grid(grid: Grid, recipe: Recipe) -> Grid:
    """Return the grid that ``recipe`` asks for, for a scan along its orientation."""
    if recipe.spacing_mm:
        return geometry.resampled(grid, (recipe.spacing_mm,) * 3)
    if not recipe.size:
        return grid
    across = slice_axis(grid, recipe.modality)
    i, j, k = (
        n if axis == across else recipe.size for axis, n in enumerate(grid.shape)
    )
    return geometry.resized(grid, (i, j, k))


def slice_axis(grid: Grid, modality: str) -> int:
    """Return the axis across the slices: up for CT, from side to side for MR."""
    ends = ACROSS_SLICES[modality]
    return next(axis for axis, code in enumerate(grid.axes) if code in ends)


def _modality(scan: Volume, recipe: Recipe) -> str:
    """Return what the values are; MR cannot be told from much else, CT can."""
    found = guess_modality(scan)
    return "mr" if recipe.modality == "mr" and found != "ct" else found


def _on_grid(turned: Volume, grid: Grid) -> Floats:
    if grid.matches(turned.grid):
        return turned.voxels.astype(np.float32)
    return resample.cubic(turned.voxels, turned.grid, grid)


def _smoothed(values: Floats, sigma_mm: float, grid: Grid) -> Floats:
    if min(grid.shape) < SMOOTHING_VOXELS:
        msg = f"{_by(grid.shape)} voxels are too few to smooth"
        raise UnsupportedError(msg, hint="Leave the smoothing out (--smoothing 0).")
    return intensity.smooth(values, sigma_mm, grid.spacing_mm)


def _limits(recipe: Recipe, line: Line) -> list[float] | None:
    """Return what the values were cut to, in the scan's own units."""
    if recipe.normalisation != "maximum":
        return list(recipe.clamp) if recipe.clamp else None
    low = max(0.0, recipe.clamp[0]) if recipe.clamp else 0.0
    return [low, line.scale]


def _compact(values: Floats) -> NDArray[Any]:
    """Return int16 where that loses nothing."""
    info = np.iinfo(np.int16)
    fits = values.min() >= info.min and values.max() <= info.max
    return values.astype(np.int16) if fits and (values % 1 == 0).all() else values


def _mm(grid: Grid) -> list[float]:
    return [round(mm, 4) for mm in grid.spacing_mm]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
