"""What is wrong with a stack of slices, with the numbers, and what would mend it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines import geometry
from engines.convert import decode
from engines.convert.frames import Frame
from engines.convert.series import DIRECTION_TOLERANCE, DUPLICATE_MM, MIN_SLICES
from engines.convert.stack import (
    Stack,
    direction_of,
    heights_mm,
    normal_of,
    ordered,
    plane_of,
)
from engines.errors import (
    DuplicateSliceError,
    FewSlicesError,
    GeometryError,
    InputError,
    MissingDecoderError,
    MixedSeriesError,
    RescaleError,
    SeriesGapError,
    TiltError,
    UnevenSlicesError,
    UnreadableError,
    UnsupportedError,
)
from engines.results import Note

PLACE_TOLERANCE_MM = 0.1
"""How far a slice may lie from its place in an even stack: headers round to 0.1 mm."""

PLACE_TOLERANCE_STEPS = 0.2
"""The same in slice steps, for stacks so fine that 0.1 mm would hide a gap."""

SMALLEST_STEP = 0.5
"""Steps below this part of the usual one are uneven, not the unit of a gap."""

MAX_PLACES = 10_000
"""A grid of more slices than any scan has comes from a damaged header."""

MAX_SCALE = 1e9
"""A larger slope or intercept comes from a damaged header."""

TOLD_STEPS = 5
"""Of more different steps than these, messages give the range only."""

TOLD_FILES = 3

TOLD_TILT_DEG = 0.5
"""A smaller tilt in the header is rounding."""

Duplicates = Literal["error", "first", "last"]


@dataclass(frozen=True, slots=True)
class Repairs:
    """What may be mended knowingly; all of it is recorded.

    Attributes:
        allow_gaps: fill missing slices by interpolation.
        regrid: interpolate unevenly spaced slices to even steps.
        fix_tilt: shear slices that are stacked sideways to a grid at right angles.
        allow_few_slices: take the distance of two slices for their step.
        allow_slopes: let CT slices differ in rescale slope and intercept.
        duplicates: which of several different images at one place to keep.
    """

    allow_gaps: bool = False
    regrid: bool = False
    fix_tilt: bool = False
    allow_few_slices: bool = False
    allow_slopes: bool = False
    duplicates: Duplicates = "error"


NONE = Repairs()


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the slices of a volume lie, in LPS mm.

    Attributes:
        heights_mm: (K,), along the slice normal, growing.
        sideways_mm: (K, 3), across it, from the first slice.
        steps: (K,), places on an even grid, whole numbers where slices are missing
            or evenly spaced; empty where they are uneven.
    """

    heights_mm: NDArray[np.float64]
    sideways_mm: NDArray[np.float64]
    steps: NDArray[np.int64]

    @property
    def tilted(self) -> bool:
        """Whether slices are stacked sideways."""
        return bool(_off_axis(self) or _shifted(self))

    @property
    def gaps(self) -> bool:
        """Whether slices are missing in an otherwise even stack."""
        return bool(self.steps.size) and int(self.steps[-1]) >= self.steps.size

    @property
    def even(self) -> bool:
        """Whether steps are even, as far as headers round."""
        return bool(self.steps.size) and not self.gaps


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a stack that a user should know.

    Attributes:
        error: of the kind it raises; None for a remark.
        allowed: whether a repair was asked for that mends it.
    """

    code: str
    message: str
    error: InputError | None = None
    allowed: bool = False

    @property
    def fatal(self) -> bool:
        """Whether the stack is refused for it."""
        return self.error is not None and not self.allowed

    def note(self) -> Note:
        """Return it as a warning."""
        return Note(self.code, self.message)


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
        *_rescaling(stack, repairs),
        *_undecodable(stack),
        *_few(stack, volume, repairs),
        *_repeated(volume),
    ]
    once = distinct(volume)
    if len(once) > 1:
        layout = layout_of(once)
        if (np.diff(layout.heights_mm) < DUPLICATE_MM).any():
            beside = MixedSeriesError("stacks that lie side by side")
            return [_fatal(beside), *found]
        found += [*_tilt(layout, repairs), *_steps(layout, repairs)]
        found += _remarks(once, layout)
    return found


def layout_of(volume: Sequence[Frame]) -> Layout:
    """Return where ordered slices, one at each place, lie."""
    heights = heights_mm(volume)
    normal = normal_of(volume[0])
    positions = np.array([frame.position_mm for frame in volume], float)
    moved = positions - positions[0]
    sideways = moved - (moved @ normal)[:, None] * normal
    return Layout(heights, sideways, _places(heights))


def distinct(volume: Sequence[Frame]) -> tuple[Frame, ...]:
    """Return one image for each place, the first of those that lie there."""
    kept = [volume[0]]
    for frame in volume[1:]:
        if _apart_mm(kept[-1], frame) >= DUPLICATE_MM:
            kept.append(frame)
    return tuple(kept)


def tilt_deg(layout: Layout) -> float:
    """Return the angle between the way slices are stacked and their normal."""
    rise = float(layout.heights_mm[-1] - layout.heights_mm[0])
    drift = float(np.linalg.norm(layout.sideways_mm[-1]))
    return float(np.degrees(np.arctan2(drift, rise)))


def _apart_mm(one: Frame, other: Frame) -> float:
    return float(
        np.abs(np.subtract(one.position_mm or 0, other.position_mm or 0)).max()
    )


def _broken(stack: Stack) -> Iterator[Finding]:
    """Find what leaves no grid to speak of."""
    missing = [frame for frame in stack.frames if frame.missing]
    if missing:
        first = missing[0]
        told = f"{first.path.name} has no {' and no '.join(first.missing)}"
        if len(missing) > 1:
            told += f", nor have {len(missing) - 1} others"
        hint = "Export the original series, not a copy of it."
        yield _fatal(GeometryError(told, hint=hint))
        return
    if stack.orientations > 1:
        planes = Counter(plane_of(frame) for frame in stack.frames)
        counted = ", ".join(f"{count} {plane}" for plane, count in planes.items())
        msg = (
            f"slices that do not lie in parallel, or of different matrix or pixel "
            f"size: {stack.orientations} kinds ({counted}), none with "
            f"{MIN_SLICES} slices"
        )
        yield _fatal(MixedSeriesError(msg))
        return
    across, down = direction_of(stack.volumes[0][0])
    lengths = np.array([np.linalg.norm(across), np.linalg.norm(down)])
    if (
        abs(across @ down) > DIRECTION_TOLERANCE
        or np.abs(lengths - 1).max() > DIRECTION_TOLERANCE
    ):
        msg = "the directions of rows and columns are no unit vectors at right angles"
        yield _fatal(GeometryError(msg))
        return
    spacing = stack.volumes[0][0].spacing_mm or (0.0, 0.0)
    if min(spacing) <= 0:
        msg = f"the pixel size is {spacing[0]:g} x {spacing[1]:g} mm"
        yield _fatal(GeometryError(msg))


def _fatal(error: InputError) -> Finding:
    return Finding(error.code, str(error), error)


def _rescaling(stack: Stack, repairs: Repairs) -> Iterator[Finding]:
    frames = stack.frames
    bad = [f for f in frames if not _sane(f.slope) or not _sane(f.intercept)]
    if bad or any(frame.slope == 0 for frame in frames):
        name = (bad or [f for f in frames if f.slope == 0])[0].path.name
        msg = f"{name}: the rescale slope or intercept is no sane number"
        yield _fatal(UnreadableError(msg))
        return
    units = sorted({frame.units for frame in frames if frame.units})
    pairs = Counter((frame.slope, frame.intercept) for frame in frames)
    if len(units) > 1:
        msg = f"slices in different units: {', '.join(units)}"
        yield _fatal(RescaleError(msg, hint="Export each kind as a series of its own."))
    elif len(pairs) > 1 and stack.origin.modality == "CT":
        told = ", ".join(
            f"{_shown(slope)} and {_shown(shift)} in {count} slices"
            for (slope, shift), count in pairs.most_common(TOLD_FILES)
        )
        error = RescaleError(f"inconsistent rescale slope and intercept: {told}")
        yield Finding(error.code, str(error), error, repairs.allow_slopes)
    if stack.origin.modality == "CT" and (None, None) in pairs and len(pairs) == 1:
        msg = "no rescale slope and intercept: values may not be Hounsfield units"
        yield Finding("no_rescale", msg)


def _sane(value: float | None) -> bool:
    return value is None or (bool(np.isfinite(value)) and abs(value) <= MAX_SCALE)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _undecodable(stack: Stack) -> Iterator[Finding]:
    kinds = ((f.pixels.syntax, f.pixels.bits_stored) for f in stack.frames)
    for syntax, bits in dict.fromkeys(kinds):
        try:
            decode.require_decoder(syntax, bits)
        except (UnsupportedError, MissingDecoderError) as error:
            yield _fatal(error)


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
        yield _fatal(error)
    elif places < MIN_SLICES:
        step = float(np.ptp(heights_mm(volume)))
        few = FewSlicesError(
            f"{places} slices only, {step:.2f} mm apart: nothing tells whether "
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


def _off_axis(layout: Layout) -> bool:
    drift = float(np.linalg.norm(layout.sideways_mm[-1]))
    angle = np.radians(tilt_deg(layout))
    return drift > PLACE_TOLERANCE_MM and np.sin(angle) > geometry.SHEAR_TOLERANCE


def _shifted(layout: Layout) -> float:
    """Return how far a slice lies off the line from the first to the last, or 0."""
    rise = layout.heights_mm - layout.heights_mm[0]
    if rise[-1] <= 0:
        return 0.0
    line = (rise / rise[-1])[:, None] * layout.sideways_mm[-1]
    off = float(np.linalg.norm(layout.sideways_mm - line, axis=1).max())
    return off if off > PLACE_TOLERANCE_MM else 0.0


def _tilt(layout: Layout, repairs: Repairs) -> Iterator[Finding]:
    shifted_mm = _shifted(layout)
    if _off_axis(layout):
        error = TiltError(f"gantry tilt of {tilt_deg(layout):.1f} degrees")
        yield Finding(error.code, str(error), error, repairs.fix_tilt)
    if shifted_mm:
        error = TiltError(f"a slice is shifted sideways by {shifted_mm:.2f} mm")
        yield Finding(error.code, str(error), error, repairs.fix_tilt)


def _steps(layout: Layout, repairs: Repairs) -> Iterator[Finding]:
    steps_mm = np.diff(layout.heights_mm)
    if layout.even:
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
        f"{steps_mm.max():.2f} mm where {usual_mm:.2f} mm was expected"
    )
    yield Finding(gap.code, str(gap), gap, repairs.allow_gaps or repairs.regrid)


def _told_steps(steps_mm: NDArray[np.float64]) -> str:
    ranked = np.sort(steps_mm)
    kinds = np.split(ranked, np.flatnonzero(np.diff(ranked) > PLACE_TOLERANCE_MM) + 1)
    if len(kinds) < 2 or len(kinds) > TOLD_STEPS:
        return f"{steps_mm.min():.2f} to {steps_mm.max():.2f}"
    told = [f"{np.median(kind):.2f}" for kind in kinds]
    return f"{', '.join(told[:-1])} and {told[-1]}"


def _places(heights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the place of each slice on an even grid, empty if there is none.

    The step of the grid is the smallest there is, so that slices left out between
    others are gaps; a much smaller step than usual is no unit to count in.
    """
    steps_mm = np.diff(heights)
    smallest = float(steps_mm.min())
    if smallest < max(DUPLICATE_MM, SMALLEST_STEP * float(np.median(steps_mm))):
        return np.empty(0, np.int64)
    rise = heights - heights[0]
    if rise[-1] > MAX_PLACES * smallest:
        return np.empty(0, np.int64)
    unit = smallest
    for _ in range(3):  # the unit is refined by all slices that it has placed
        places = np.rint(rise / unit).astype(np.int64)
        unit = float(rise[-1]) / int(places[-1])
    off = np.abs(rise - places * unit).max()
    even = off <= min(PLACE_TOLERANCE_MM, PLACE_TOLERANCE_STEPS * unit)
    alone = bool((np.diff(places) > 0).all())
    return places if even and alone else np.empty(0, np.int64)


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
        msg = f"slices overlap: {thick:g} mm thick, {step:.2f} mm apart"
        yield Finding("overlapping_slices", msg)
