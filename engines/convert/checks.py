"""What is wrong with a stack of slices, with the numbers, and what would mend it."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engines import geometry
from engines.convert import spacing, values
from engines.convert.findings import NONE, Finding, Repairs, fatal
from engines.convert.frames import GEOMETRY, Frame
from engines.convert.layout import (
    Layout,
    distinct,
    layout_of,
    off_axis,
    shifted,
    tilt_deg,
)
from engines.convert.placement import MIN_SLICES
from engines.convert.series import DIRECTION_TOLERANCE
from engines.convert.spacing import PLACE_TOLERANCE_MM, PLACE_TOLERANCE_STEPS
from engines.convert.stack import (
    Stack,
    direction_of,
    duplicate_mm,
    heights_mm,
    ordered,
    plane_of,
)
from engines.errors import (
    DuplicateSliceError,
    FewSlicesError,
    GeometryError,
    MixedSeriesError,
    SeriesGapError,
    TiltError,
    UnevenSlicesError,
)

TOLD_STEPS = 5
"""Of more different steps than these, messages give the range only."""


MIXED_HINT = (
    "Correct the headers and export the series again, or give the images of each "
    "volume as an input of its own."
)
FRAMES_HINT = "Export the series as single images or as an enhanced object."

SMALL_MM = 0.05
"""Shorter lengths are shown with two digits."""

TOLD_TILT_DEG = 0.5
"""A smaller tilt in the header is rounding."""


def require(stack: Stack, findings: Sequence[Finding]) -> None:
    """Refuse a stack with findings that nobody allowed, naming all of them.

    Raises:
        InputError: of the kind of the first.
    """
    fatal = [one.error for one in findings if one.fatal and one.error is not None]
    if not fatal:
        return
    hints = dict.fromkeys(error.hint for error in fatal if error.hint)
    message = "; ".join(str(error) for error in fatal)
    raise type(fatal[0])(f"{stack.name}: {message}", hint=" ".join(hints))


def findings_of(stack: Stack, repairs: Repairs = NONE) -> list[Finding]:
    """Return what is wrong with a stack, the worst first.

    The images at one place are not compared here: that needs their pixels.
    """
    broken = list(_broken(stack))
    if broken:
        return broken
    volume = ordered(stack.volumes[0])
    found = [
        *values.rescaling(stack, repairs),
        *values.undecodable(stack),
        *_few(stack, volume, repairs),
        *_repeated(volume),
    ]
    once = distinct(volume)
    if len(once) > 1:
        layout = layout_of(once)
        if (np.diff(layout.heights_mm) < duplicate_mm(once)).any():
            beside = MixedSeriesError("stacks that lie side by side")
            return [fatal(beside), *found]
        found += [*_tilt(layout, repairs), *_steps(layout, repairs)]
        found += _remarks(once, layout)
    return found


def _broken(stack: Stack) -> Iterator[Finding]:
    """Find what leaves no grid to speak of."""
    if any(frame.missing for frame in stack.frames):
        yield _unplaced(stack)
        return
    if stack.mixed:
        msg = (
            f"images of one series that differ in {stack.mixed}: parts of one volume, "
            "or several mixed up"
        )
        yield fatal(MixedSeriesError(msg, hint=MIXED_HINT))
        return
    nowhere = [f for f in stack.frames if f.pixels.frames > 1 and not f.placed]
    if len(nowhere) > 1:
        name, count = nowhere[0].path.name, nowhere[0].pixels.frames
        msg = f"{name} holds {count} frames and does not say where each of them lies"
        yield fatal(GeometryError(msg, hint=FRAMES_HINT))
        return
    if stack.orientations > 1:
        planes = Counter(plane_of(frame) for frame in stack.frames)
        counted = ", ".join(f"{count} {plane}" for plane, count in planes.items())
        msg = (
            f"slices that do not lie in parallel, or of different matrix or pixel "
            f"size: {stack.orientations} kinds ({counted}), none with "
            f"{MIN_SLICES} slices"
        )
        yield fatal(MixedSeriesError(msg))
        return
    across, down = direction_of(stack.volumes[0][0])
    lengths = np.array([np.linalg.norm(across), np.linalg.norm(down)])
    if (
        abs(across @ down) > DIRECTION_TOLERANCE
        or np.abs(lengths - 1).max() > DIRECTION_TOLERANCE
    ):
        msg = "the directions of rows and columns are no unit vectors at right angles"
        yield fatal(GeometryError(msg))
        return
    spacing = stack.volumes[0][0].spacing_mm or (0.0, 0.0)
    if min(spacing) <= 0:
        msg = f"the pixel size is {spacing[0]:g} x {spacing[1]:g} mm"
        yield fatal(GeometryError(msg))


def _unplaced(stack: Stack) -> Finding:
    """Tell which elements of the geometry are missing, or hold no numbers."""
    missing = [frame for frame in stack.frames if frame.missing]
    first = missing[0]
    unread = dict(first.unread)
    told = [f"no {keyword}" for keyword in first.missing if keyword not in unread]
    told += [
        f"no {keyword} of {GEOMETRY[keyword]} numbers ({text})"
        for keyword, text in unread.items()
    ]
    message = f"{first.path.name} has {' and '.join(told)}"
    if len(missing) > 1:
        message += f", nor have {len(missing) - 1} others"
    hint = "Export the original series, not a copy of it."
    return fatal(GeometryError(message, hint=hint))


def _few(stack: Stack, volume: Sequence[Frame], repairs: Repairs) -> Iterator[Finding]:
    places = len(distinct(volume))
    if places == len(volume) == 1:
        yield Finding("single_slice", "one slice only: an image, not a volume")
    elif places < MIN_SLICES and len(volume) > places:
        error = DuplicateSliceError(
            f"{len(volume)} images at {places} place(s): a time series or a "
            "monitoring scan, not a volume",
            hint="Leave it out, or give the series that holds the volume.",
        )
        yield fatal(error)
    elif places < MIN_SLICES:
        step = float(np.ptp(heights_mm(volume)))
        few = FewSlicesError(
            f"{places} slices only, {mm(step)} mm apart: nothing tells whether "
            "others are missing between them"
        )
        yield Finding(few.code, str(few), few, repairs.allow_few_slices)


def _repeated(volume: Sequence[Frame]) -> Iterator[Finding]:
    """Find images at one place; whether they are alike is seen when decoded."""
    once = distinct(volume)
    if MIN_SLICES <= len(once) < len(volume):
        twice = len(volume) - len(once)
        msg = f"{twice} of {len(volume)} slices lie where another one does"
        yield Finding("duplicate_slices", msg)


def _tilt(layout: Layout, repairs: Repairs) -> Iterator[Finding]:
    shifted_mm, count = shifted(layout)
    if off_axis(layout):
        error = TiltError(f"gantry tilt of {tilt_deg(layout):.1f} degrees")
        yield Finding(error.code, str(error), error, repairs.fix_tilt)
    if shifted_mm:
        which = "a slice is" if count == 1 else f"{count} slices are"
        error = TiltError(f"{which} shifted sideways by {mm(shifted_mm)} mm")
        yield Finding(error.code, str(error), error, repairs.fix_tilt)


def _steps(layout: Layout, repairs: Repairs) -> Iterator[Finding]:
    steps_mm = np.diff(layout.heights_mm)
    if layout.even:
        yield from _rounded(layout)
        return
    if not layout.gaps:
        uneven = UnevenSlicesError(
            f"slices are unevenly spaced, {_told_steps(steps_mm)} mm apart"
        )
        yield Finding(uneven.code, str(uneven), uneven, repairs.regrid)
        return
    missing = int(layout.steps[-1]) - (layout.steps.size - 1)
    usual_mm = float(np.ptp(layout.heights_mm)) / int(layout.steps[-1])
    wide = int((np.diff(layout.steps) > 1).sum())
    gap = SeriesGapError(
        f"{missing} slice(s) missing in {wide} gap(s), the widest "
        f"{mm(steps_mm.max())} mm where {mm(usual_mm)} mm was expected"
    )
    yield Finding(gap.code, str(gap), gap, repairs.allow_gaps or repairs.regrid)


def _rounded(layout: Layout) -> Iterator[Finding]:
    """Tell of slices that are even only because their header rounds coarsely."""
    off_mm = spacing.off_grid_mm(layout.heights_mm, layout.steps)
    step_mm = float(np.ptp(layout.heights_mm)) / int(layout.steps[-1])
    if off_mm > spacing.loose_mm(step_mm):
        msg = (
            f"slices lie up to {mm(off_mm)} mm off even steps of {mm(step_mm)} mm: "
            f"positions are rounded to {mm(2 * layout.rounding_mm[0])} mm"
        )
        yield Finding("rounded_positions", msg)


def _told_steps(steps_mm: NDArray[np.float64]) -> str:
    ranked = np.sort(steps_mm)
    apart_mm = min(PLACE_TOLERANCE_MM, PLACE_TOLERANCE_STEPS * float(ranked[0]))
    kinds = np.split(ranked, np.flatnonzero(np.diff(ranked) > apart_mm) + 1)
    if len(kinds) < 2 or len(kinds) > TOLD_STEPS:
        return f"{mm(steps_mm.min())} to {mm(steps_mm.max())}"
    told = [mm(float(np.median(kind))) for kind in kinds]
    return f"{', '.join(told[:-1])} and {told[-1]}"


def mm(value: float) -> str:
    """Return a length for messages: two decimals, or two digits of a small one."""
    return f"{value:.2f}" if value >= SMALL_MM or value <= 0 else f"{value:.2g}"


def _remarks(volume: Sequence[Frame], layout: Layout) -> Iterator[Finding]:
    first = volume[0]
    rows_mm, columns_mm = first.spacing_mm or (0.0, 0.0)
    if abs(rows_mm - columns_mm) > geometry.GRID_TOLERANCE_MM:
        msg = f"pixels are not square: {columns_mm:g} x {rows_mm:g} mm"
        yield Finding("non_square_pixels", msg)
    told = first.gantry_deg
    if told and np.isfinite(told) and abs(told) > TOLD_TILT_DEG and not layout.tilted:
        msg = (
            f"the header tells a gantry tilt of {told:g} degrees, but the slices are "
            "placed upright: if they were not corrected, the volume is sheared"
        )
        yield Finding("tilt_only_told", msg)
    step = float(np.median(np.diff(layout.heights_mm)))
    thick = first.thickness_mm
    if thick and np.isfinite(thick) and thick > step + PLACE_TOLERANCE_MM:
        msg = f"slices overlap: {thick:g} mm thick, {mm(step)} mm apart"
        yield Finding("overlapping_slices", msg)
