"""What is wrong with a stack of slices, with the numbers, and what would mend it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines import geometry
from engines.convert import decode, spacing
from engines.convert.frames import GEOMETRY, Frame
from engines.convert.placement import MIN_SLICES
from engines.convert.series import DIRECTION_TOLERANCE
from engines.convert.spacing import PLACE_TOLERANCE_MM, PLACE_TOLERANCE_STEPS
from engines.convert.stack import (
    Stack,
    direction_of,
    duplicate_mm,
    height_rounding_mm,
    heights_mm,
    normal_of,
    ordered,
    plane_of,
    rounding_mm,
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

ASIDE_ROUNDING_MM = 0.05
"""Headers that round more coarsely than this excuse no more of a sideways shift."""

HOUNSFIELD = ("HU", "HU_MOD")
"""Rescale types of CT; values of other types are told."""

MAX_SCALE = 1e9
"""A larger slope or intercept comes from a damaged header."""

TOLD_STEPS = 5
"""Of more different steps than these, messages give the range only."""

TOLD_FILES = 3

MIXED_HINT = (
    "Correct the headers and export the series again, or give the images of each "
    "volume as an input of its own."
)
FRAMES_HINT = "Export the series as single images or as an enhanced object."

SMALL_MM = 0.05
"""Shorter lengths are shown with two digits."""

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
        rounding_mm: how far headers round positions, along the normal and across.
    """

    heights_mm: NDArray[np.float64]
    sideways_mm: NDArray[np.float64]
    steps: NDArray[np.int64]
    rounding_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def tilted(self) -> bool:
        """Whether slices are stacked sideways."""
        return bool(_off_axis(self) or _shifted(self)[1])

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
        if (np.diff(layout.heights_mm) < duplicate_mm(once)).any():
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
    along_mm = height_rounding_mm(volume)
    across = np.minimum(rounding_mm(volume), ASIDE_ROUNDING_MM)
    rounded = (along_mm, float(np.linalg.norm(across)))
    return Layout(heights, sideways, spacing.places_of(heights, along_mm), rounded)


def distinct(volume: Sequence[Frame]) -> tuple[Frame, ...]:
    """Return one image for each place, the first of those that lie there."""
    kept, same_mm = [volume[0]], duplicate_mm(volume)
    for frame in volume[1:]:
        if _apart_mm(kept[-1], frame) >= same_mm:
            kept.append(frame)
    return tuple(kept)


def tilt_deg(layout: Layout) -> float:
    """Return the angle between the way slices are stacked and their normal.

    A few slices that are shifted sideways do not change it.
    """
    return float(np.degrees(np.arctan(np.linalg.norm(_lean(layout)))))


def _lean(layout: Layout) -> NDArray[np.float64]:
    """Return how far slices move sideways for each mm along the normal, (3,)."""
    rises = np.diff(layout.heights_mm)[:, None]
    moves = np.diff(layout.sideways_mm, axis=0)
    usual: NDArray[np.float64] = np.median(moves / rises, axis=0)
    line = layout.sideways_mm[-1] / np.sum(rises)
    off_mm = _aside_mm(layout, line)
    return line if off_mm.max() <= _aside_tolerance_mm(layout) else usual


def _aside_mm(layout: Layout, lean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each slice lies off the line that most of them lie on, (K,)."""
    rise = layout.heights_mm - layout.heights_mm[0]
    off = layout.sideways_mm - rise[:, None] * lean
    asides = [np.linalg.norm(off - off[one], axis=1) for one in (0, len(off) // 2, -1)]
    fitting = [int((aside <= _aside_tolerance_mm(layout)).sum()) for aside in asides]
    most: NDArray[np.float64] = asides[int(np.argmax(fitting))]
    return most


def _aside_tolerance_mm(layout: Layout) -> float:
    return PLACE_TOLERANCE_MM + 2 * layout.rounding_mm[1]


def _apart_mm(one: Frame, other: Frame) -> float:
    return float(
        np.abs(np.subtract(one.position_mm or 0, other.position_mm or 0)).max()
    )


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
        yield _fatal(MixedSeriesError(msg, hint=MIXED_HINT))
        return
    nowhere = [f for f in stack.frames if f.pixels.frames > 1 and not f.placed]
    if len(nowhere) > 1:
        name, count = nowhere[0].path.name, nowhere[0].pixels.frames
        msg = f"{name} holds {count} frames and does not say where each of them lies"
        yield _fatal(GeometryError(msg, hint=FRAMES_HINT))
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
    return _fatal(GeometryError(message, hint=hint))


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
    if stack.origin.modality == "CT" and not any(f.pixels.lut for f in frames):
        yield from _unscaled(pairs)
    if stack.origin.modality == "CT" and units and units[0] not in HOUNSFIELD:
        msg = f"values are in units called {units[0]}, not in Hounsfield units"
        yield Finding("other_units", msg)


def _unscaled(pairs: Counter[tuple[float | None, float | None]]) -> Iterator[Finding]:
    """Find CT that says too little of what its values are."""
    slope = any(slope is None for slope, _ in pairs)
    intercept = any(intercept is None for _, intercept in pairs)
    names = [*(["slope"] if slope else []), *(["intercept"] if intercept else [])]
    if names:
        told = " and ".join(names)
        msg = f"no rescale {told}: values may not be Hounsfield units"
        yield Finding("no_rescale", msg)


def _sane(value: float | None) -> bool:
    return value is None or (bool(np.isfinite(value)) and abs(value) <= MAX_SCALE)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _undecodable(stack: Stack) -> Iterator[Finding]:
    real = [frame for frame in stack.frames if frame.pixels.real]
    if real:
        msg = f"{real[0].path.name}: floating-point pixels, which are not read"
        hint = "Export the series with whole numbers and a rescale slope."
        yield _fatal(UnsupportedError(msg, hint=hint))
        return
    both = [frame for frame in stack.frames if frame.pixels.lut and _scaled(frame)]
    if both:
        msg = (
            f"{both[0].path.name}: a table of real values and a rescale slope or "
            "intercept, of which only one can be right"
        )
        hint = "Export the series again with one of them."
        yield _fatal(RescaleError(msg, hint=hint))
    kinds = ((f.pixels.syntax, f.pixels.bits_stored) for f in stack.frames)
    for syntax, bits in dict.fromkeys(kinds):
        try:
            decode.require_decoder(syntax, bits)
        except (UnsupportedError, MissingDecoderError) as error:
            yield _fatal(error)


def _scaled(frame: Frame) -> bool:
    return frame.slope not in (None, 1) or frame.intercept not in (None, 0)


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


def _off_axis(layout: Layout) -> bool:
    lean = float(np.linalg.norm(_lean(layout)))
    drift_mm = lean * float(np.ptp(layout.heights_mm))
    angle = np.arctan(lean)
    far = drift_mm > _aside_tolerance_mm(layout)
    return far and bool(np.sin(angle) > geometry.SHEAR_TOLERANCE)


def _shifted(layout: Layout) -> tuple[float, int]:
    """Return how far slices lie off the line of the others, and how many do, or 0."""
    off_mm = _aside_mm(layout, _lean(layout))
    count = int((off_mm > _aside_tolerance_mm(layout)).sum())
    return (float(off_mm.max()), count) if count else (0.0, 0)


def _tilt(layout: Layout, repairs: Repairs) -> Iterator[Finding]:
    shifted_mm, count = _shifted(layout)
    if _off_axis(layout):
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
