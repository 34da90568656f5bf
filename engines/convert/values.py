"""What is wrong with the values of a stack: units, slopes, tables, compression."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from engines.convert import decode
from engines.convert.findings import Finding, Repairs, fatal
from engines.convert.frames import Frame
from engines.convert.stack import Stack
from engines.errors import (
    MissingDecoderError,
    RescaleError,
    UnreadableError,
    UnsupportedError,
)

HOUNSFIELD = ("HU", "HU_MOD")
"""Rescale types of CT; values of other types are told."""


MAX_SCALE = 1e9
"""A larger slope or intercept comes from a damaged header."""


TOLD_FILES = 3


def rescaling(stack: Stack, repairs: Repairs) -> Iterator[Finding]:
    """Find what makes values other than they seem."""
    frames = stack.frames
    bad = [f for f in frames if not _sane(f.slope) or not _sane(f.intercept)]
    if bad or any(frame.slope == 0 for frame in frames):
        name = (bad or [f for f in frames if f.slope == 0])[0].path.name
        msg = f"{name}: the rescale slope or intercept is no sane number"
        yield fatal(UnreadableError(msg))
        return
    units = sorted({frame.units for frame in frames if frame.units})
    pairs = Counter((frame.slope, frame.intercept) for frame in frames)
    if len(units) > 1:
        msg = f"slices in different units: {', '.join(units)}"
        yield fatal(RescaleError(msg, hint="Export each kind as a series of its own."))
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


def undecodable(stack: Stack) -> Iterator[Finding]:
    """Find pixels that cannot be read as the header says."""
    real = [frame for frame in stack.frames if frame.pixels.real]
    if real:
        msg = f"{real[0].path.name}: floating-point pixels, which are not read"
        hint = "Export the series with whole numbers and a rescale slope."
        yield fatal(UnsupportedError(msg, hint=hint))
        return
    both = [frame for frame in stack.frames if frame.pixels.lut and _scaled(frame)]
    if both:
        msg = (
            f"{both[0].path.name}: a table of real values and a rescale slope or "
            "intercept, of which only one can be right"
        )
        hint = "Export the series again with one of them."
        yield fatal(RescaleError(msg, hint=hint))
    kinds = ((f.pixels.syntax, f.pixels.bits_stored) for f in stack.frames)
    for syntax, bits in dict.fromkeys(kinds):
        try:
            decode.require_decoder(syntax, bits)
        except (UnsupportedError, MissingDecoderError) as error:
            yield fatal(error)


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


def _scaled(frame: Frame) -> bool:
    return frame.slope not in (None, 1) or frame.intercept not in (None, 0)
