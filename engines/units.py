"""Lengths in mm, whatever unit a header names, and whether it can be believed.

Headers say micron or metre and mean it, or say so over lengths that are in mm. The
size of the field of view tells which: it is that of something a scanner can hold in
one reading only. Where it fits both, or neither, nobody but the user can know.
"""

import numpy as np
from numpy.typing import NDArray

from engines.errors import GeometryError
from engines.results import Note

MM = {"mm": 1.0, "cm": 10.0, "m": 1e3, "um": 1e-3, "nm": 1e-6}
"""Unit -> mm."""

_NAMES = {
    "": "mm",
    "?": "mm",
    "unknown": "mm",
    "millimeter": "mm",
    "millimetre": "mm",
    "centimeter": "cm",
    "centimetre": "cm",
    "meter": "m",
    "metre": "m",
    "micron": "um",
    "micrometer": "um",
    "micrometre": "um",
    "\N{MICRO SIGN}m": "um",
    "\N{GREEK SMALL LETTER MU}m": "um",
    "nanometer": "nm",
    "nanometre": "nm",
}

SHOWN = {"um": "micron", "m": "metre"}

FIELD_MM = (2.0, 2500.0)
"""Limits for the longest side of a scan."""

BORE_MM = 1000.0
"""Limit for the second longest side, which has to fit into a scanner."""

MIXED_UP = ("um", "m", "nm")
"""Units that headers name wrongly; nobody writes cm who does not mean it."""

VOXEL_MM = (1e-4, 30.0)
"""Limits for the sides of a voxel, from micro-CT to scouts."""

HINT = "Write the right unit, or lengths in mm, into the header."


def in_mm(
    name: str, affine: NDArray[np.float64], shape: tuple[int, ...], unit: str
) -> tuple[NDArray[np.float64], tuple[Note, ...]]:
    """Return an affine in mm, with a note unless the header says mm or nothing.

    Args:
        name: of the file, for messages.
        affine: (4, 4), in what the header calls ``unit``.
        shape: voxels along each axis.
        unit: as the header spells it; empty where it tells none.

    Raises:
        GeometryError: an unknown unit, or lengths that fit both the header's unit and
            mm, or neither.
    """
    told = unit.strip().lower()
    known = _NAMES.get(told, _NAMES.get(told.removesuffix("s"), told))
    if known not in MM:
        msg = f"{name}: lengths in {unit[:20]!r}, an unknown unit"
        raise GeometryError(msg, hint=HINT)
    if known == "mm":
        return affine, ()
    voxel = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not (np.isfinite(voxel).all() and (voxel > 0).all()):
        return affine, ()  # refused as such
    field = float((voxel * shape).max())
    shown = SHOWN.get(known, known)
    fits = [_plausible(voxel * mm, shape) for mm in (MM[known], 1.0)]
    if fits[0] and known not in MIXED_UP:
        fits[1] = False
    sizes = f"{field * MM[known]:.4g} mm in {shown}, {field:.4g} mm if they are in mm"
    if fits == [True, False]:
        scaled = affine.copy()
        scaled[:3] *= MM[known]
        msg = f"the header's lengths are in {shown}; they were converted to mm"
        return scaled, (Note("unit", msg),)
    if fits == [False, True]:
        msg = (
            f"the header says {shown}, but its longest side would be "
            f"{field * MM[known]:.4g} mm: its lengths were taken for mm"
        )
        return affine, (Note("unit", msg),)
    why = "both are possible" if all(fits) else "no scan has either size"
    msg = f"{name}: the header says {shown}; the longest side is {sizes}: {why}"
    raise GeometryError(msg, hint=HINT)


def _plausible(voxel_mm: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    *_, second, longest = sorted((voxel_mm * shape).tolist())
    sides = VOXEL_MM[0] <= voxel_mm.min() and voxel_mm.max() <= VOXEL_MM[1]
    fits = FIELD_MM[0] <= longest <= FIELD_MM[1] and second <= BORE_MM
    return bool(sides) and fits
