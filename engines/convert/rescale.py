"""From stored pixels to real values, in the smallest type that holds them all.

Whole values stay whole: uint8 for unscaled bytes, else int16 or int32. Values with a
fraction become float32. Each slice is rescaled with its own slope and intercept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.convert.frames import Frame
from engines.errors import MixedSeriesError, UnsupportedError
from engines.volume import RGB

FLOAT = np.dtype(np.float32)

_WIDER = tuple(map(np.dtype, (np.uint8, np.int16, np.int32)))


def narrowest(frames: Sequence[Frame]) -> np.dtype[Any]:
    """Return the type to try first, as far as headers tell."""
    first = frames[0]
    if first.pixels.samples > 1:
        return RGB
    whole = all(_is_whole(frame.slope, 1) for frame in frames)
    whole &= all(_is_whole(frame.intercept, 0) for frame in frames)
    if not whole or first.pixels.lut or first.pixels.bits_allocated > 32:
        return FLOAT
    scaled = any(frame.slope not in (None, 1) or frame.intercept for frame in frames)
    byte = first.pixels.bits_allocated == 8 and not first.pixels.signed
    return np.dtype(np.uint8 if byte and not scaled else np.int16)


def needed(frame: Frame, image: NDArray[Any], held: np.dtype[Any]) -> np.dtype[Any]:
    """Return the smallest type from ``held`` up that takes the values of a frame.

    Args:
        frame: with slope and intercept.
        image: its stored pixels.
        held: type of the frames so far.

    Raises:
        MixedSeriesError: colour among grey slices.
        UnsupportedError: colour of another kind than 8-bit RGB.
    """
    colour = image.ndim == 3
    if colour != (held == RGB):
        msg = f"{frame.path.name}: colour among grey slices, or the other way round"
        raise MixedSeriesError(msg)
    if colour:
        if image.dtype != np.uint8:
            msg = f"{frame.path.name}: colour of another kind than 8-bit RGB"
            raise UnsupportedError(msg)
        return RGB
    if held == FLOAT or image.dtype.kind not in "iu":
        return FLOAT
    low, high = _extremes(frame, image)
    for kind in (held, *_WIDER):
        room = np.iinfo(kind)
        if room.min <= low and high <= room.max:
            return kind
    return FLOAT


def rescaled(frame: Frame, image: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return the real values of a frame, of a type that ``needed`` found to fit."""
    if kind == RGB:
        return np.ascontiguousarray(image).view(RGB)[..., 0]
    slope = 1.0 if frame.slope is None else frame.slope
    intercept = frame.intercept or 0.0
    if kind == FLOAT:
        values: NDArray[np.float64] = image.astype(np.float64) * slope + intercept
        return values.astype(np.float32)
    if slope == 1 and intercept == 0:
        return image.astype(kind, copy=False)
    room = np.int64 if image.dtype.itemsize > 2 or abs(slope) > 1 else np.int32
    whole: NDArray[Any] = image.astype(room)
    if slope != 1:
        np.multiply(whole, int(slope), out=whole)
    np.add(whole, int(intercept), out=whole)
    return whole.astype(kind)


def _extremes(frame: Frame, image: NDArray[Any]) -> tuple[int, int]:
    slope = 1 if frame.slope is None else int(frame.slope)
    edges = (int(image.min()) * slope, int(image.max()) * slope)
    shift = int(frame.intercept or 0)
    return min(edges) + shift, max(edges) + shift


def _is_whole(value: float | None, otherwise: float) -> bool:
    return float(otherwise if value is None else value).is_integer()
