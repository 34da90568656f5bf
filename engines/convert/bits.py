"""Which bits of a stored pixel hold its value.

A header names how many bits are used and the highest of them. The rest may hold an
overlay, where the header says so; otherwise they must be empty, or extend the sign.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from engines.convert.frames import Frame, Pixels
from engines.errors import UnreadableError

HINT = "Export the series again: the header does not fit the pixels."


def used(image: NDArray[Any], pixels: Pixels) -> NDArray[Any]:
    """Return the values of stored pixels, without the bits around them.

    Raises:
        UnreadableError: values need more bits than the header says.
    """
    held = 8 * image.dtype.itemsize
    if pixels.samples > 1 or image.dtype.kind not in "iu" or pixels.bits_stored >= held:
        return image
    spare = held - pixels.bits_stored
    values: NDArray[Any] = (image << (held - 1 - pixels.high_bit)) >> spare
    if not pixels.overlay and not is_high(pixels):
        _check(image, values, pixels)
    return values


def is_high(pixels: Pixels) -> bool:
    """Say whether the header puts values above the lowest bits."""
    return pixels.samples == 1 and pixels.high_bit + 1 > pixels.bits_stored


def raw(frame: Frame) -> Frame:
    """Return a frame whose pixels are all of their bits, unsigned."""
    bits = frame.pixels.bits_allocated
    every = replace(
        frame.pixels, bits_stored=bits, high_bit=bits - 1, signed=False, lut=False
    )
    return replace(frame, pixels=every)


def lowered(
    frames: Sequence[Frame], images: Iterator[NDArray[Any]]
) -> tuple[Frame, ...] | None:
    """Return frames with their values in the lowest bits, None if the header is right.

    Args:
        frames: whose headers put values above the lowest bits.
        images: all bits of their pixels.

    Raises:
        UnreadableError: neither fits.
    """
    pixels = frames[0].pixels
    low_mask = (1 << (pixels.high_bit + 1 - pixels.bits_stored)) - 1
    low = high = False
    extended = True
    for image in images:
        low |= bool((image & low_mask).any())
        above = image >> (pixels.bits_stored - (1 if pixels.signed else 0))
        full = (1 << (8 * image.dtype.itemsize)) - 1 >> (
            pixels.bits_stored - (1 if pixels.signed else 0)
        )
        high |= bool((image >> pixels.bits_stored).any())
        extended &= pixels.signed and bool(((above == 0) | (above == full)).all())
    if not low or pixels.overlay:
        return None
    if high and not extended:
        first = pixels.high_bit + 1 - pixels.bits_stored
        msg = (
            f"the header says that values lie in bits {first} to {pixels.high_bit}, "
            "but lower bits are used too"
        )
        raise UnreadableError(msg, hint=HINT)
    return tuple(
        replace(f, pixels=replace(f.pixels, high_bit=f.pixels.bits_stored - 1))
        for f in frames
    )


def _check(image: NDArray[Any], values: NDArray[Any], pixels: Pixels) -> None:
    """Refuse pixels with bits above the highest that are neither empty nor a sign."""
    changed = image != values
    if not changed.any():
        return
    unsigned = image[changed].view(f"u{image.dtype.itemsize}")
    if pixels.signed and not (unsigned >> pixels.bits_stored).any():
        return
    needed = int(unsigned.max()).bit_length()
    msg = f"values need {needed} bits where the header says {pixels.bits_stored}"
    raise UnreadableError(msg, hint=HINT)
