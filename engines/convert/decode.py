"""Decode the pixels of frames.

Plain pixels are read straight from their place in the file; everything else goes
through pydicom and the decoders it finds (its own for RLE, Pillow for JPEG, and
those of the ``dicom`` extra). A file that does not name its transfer syntax, or
names a wrong one, is told by its first bytes.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import (
    encapsulate,
    generate_fragments,
    generate_frames,
    parse_basic_offsets,
)
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from engines.convert import bits, streams
from engines.convert.damage import DAMAGE, require_damage
from engines.convert.frames import Frame, Pixels
from engines.convert.headers import quiet
from engines.convert.syntax import ANEW, UNDEFINED, is_standard, name_syntax
from engines.errors import (
    InputError,
    MissingDecoderError,
    UnreadableError,
    UnsupportedError,
)

_CHECKED = ("gdcm", "pylibjpeg", "pyjpegls")
COMPRESSED = {
    RLELossless: ("pydicom",),
    JPEGBaseline8Bit: ("pillow", "pylibjpeg"),
    JPEGExtended12Bit: ("pillow", "pylibjpeg"),
    JPEGLossless: _CHECKED,
    JPEGLosslessSV1: _CHECKED,
    JPEGLSLossless: _CHECKED,
    JPEGLSNearLossless: _CHECKED,
    JPEG2000Lossless: ("pylibjpeg", "pillow"),
    JPEG2000: ("pylibjpeg", "pillow"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
}
"""Transfer syntax -> decoders, the preferred one first. gdcm ends the program on some
damaged streams: it gets only those that ``streams`` has checked, never JPEG 2000."""

UNKNOWN_HERE = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Transfer syntaxes of the standard that pydicom does not know -> their names."""


_PLAIN = (str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian))
_SHORT_HEAD, _LONG_HEAD = 8, 12
"""Bytes before the pixels where their kind is implicit, and where it is named."""

_PIXEL_KINDS = (b"OW", b"OB", b"UN")
_BYTE = 8
_DEEP_DECODER = "pylibjpeg"
_PIXEL_TAG = b"\xe0\x7f\x10\x00"
_GREY = ("MONOCHROME1", "MONOCHROME2", "")
_HALVED = "YBR_FULL_422"
"""Colour of which every second pixel has only a part."""

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def stored(frames: Sequence[Frame]) -> Iterator[tuple[Frame, NDArray[Any]]]:
    """Yield each frame with its stored pixels, (rows, columns) or (rows, columns, 3).

    To be called inside ``headers.quiet``. A file is opened once for neighbours that
    lie in it. Frames with a lookup table
    come back with the table applied.

    Raises:
        UnreadableError: truncated or damaged pixels.
        UnsupportedError: a palette, or a syntax that nothing decodes.
        MissingDecoderError: a decoder must be installed first.
    """
    for path, group in groupby(frames, key=lambda frame: frame.path):
        together = list(group)
        try:
            yield from _of_file(together)
        except InputError as error:
            msg = f"{path.name}: {error}"
            raise type(error)(msg, hint=error.hint) from None
        except streams.StreamError as error:
            msg = f"{path.name}: damaged pixels: {error}"
            raise UnreadableError(msg) from None
        except DAMAGE as error:
            require_damage(error)
            msg = f"{path.name}: truncated or damaged pixels ({type(error).__name__})"
            raise UnreadableError(msg) from None


def require_decoder(syntax: str, stored_bits: int = 8) -> None:
    """Refuse a transfer syntax that cannot be decoded here.

    Args:
        syntax: its UID; one that is not known is passed over.
        stored_bits: of each pixel.

    Raises:
        UnsupportedError: nothing decodes it.
        MissingDecoderError: a decoder must be installed first.
    """
    with quiet():
        uid = UID(syntax)
        name = uid.name
    if syntax in UNKNOWN_HERE:
        msg = f"compressed as {UNKNOWN_HERE[syntax]}, which cannot be decoded"
        raise UnsupportedError(msg, hint=ANEW)
    standard = is_standard(uid)
    if standard and not uid.is_compressed:
        return
    if not standard and not (syntax and uid.is_private):
        return  # told by the first bytes of the pixels
    if uid not in COMPRESSED:
        msg = f"compressed as {name}, which cannot be decoded"
        raise UnsupportedError(msg, hint="Convert the series to NIfTI first.")
    plugin = _plugin(uid)
    if not plugin:
        msg = f"compressed as {name}, and no decoder is installed"
        raise MissingDecoderError(msg)
    available = get_decoder(uid).available_plugins
    if (
        uid == JPEGExtended12Bit
        and stored_bits > _BYTE
        and _DEEP_DECODER not in available
    ):
        msg = (
            f"compressed as {name} with {stored_bits} bits, which nothing here decodes"
        )
        raise UnsupportedError(
            msg, hint="Run: pip install pylibjpeg-libjpeg (GPL), or export it anew."
        )


def missing_decoders() -> list[str]:
    """Return the names of compressed transfer syntaxes that nothing here decodes."""
    return [uid.name for uid in COMPRESSED if not _plugin(uid)]


def _plugin(syntax: UID) -> str:
    """Return the decoder to use for a transfer syntax, empty if none is there."""
    there = get_decoder(syntax).available_plugins
    return next((name for name in COMPRESSED[syntax] if name in there), "")


def _of_file(frames: Sequence[Frame]) -> Iterator[tuple[Frame, NDArray[Any]]]:
    first = frames[0]
    _check_kind(first)
    if is_plain(first):
        read = _plain(frames)
    else:
        require_decoder(first.pixels.syntax, first.pixels.bits_stored)
        read = _decoded(frames)
    for frame, image in zip(frames, read, strict=True):
        yield frame, _tile(frame, image)


def _check_kind(frame: Frame) -> None:
    photometric = frame.pixels.photometric
    if frame.pixels.samples == 1 and photometric in _GREY:
        return
    if frame.pixels.samples == 3 and photometric in _COLOUR:
        return
    msg = f"{photometric or 'unknown'} pixels with {frame.pixels.samples} sample(s)"
    raise UnsupportedError(msg, hint="Give the original images, not pictures of them.")


def is_plain(frame: Frame) -> bool:
    """Say whether a frame can be read straight from its place in the file."""
    pixels = frame.pixels
    return (
        frame.at >= 0
        and pixels.syntax in _PLAIN
        and pixels.samples == 1
        and not pixels.lut
        and pixels.bits_allocated in (8, 16)
        and 0 < pixels.bits_stored <= pixels.high_bit + 1 <= pixels.bits_allocated
    )


def _plain(frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    first = frames[0]
    pixels = first.pixels
    sign = "i" if pixels.signed else "u"
    dtype = np.dtype(f"<{sign}{pixels.bits_allocated // 8}")
    size = pixels.shape[0] * pixels.shape[1] * dtype.itemsize
    with first.path.open("rb") as file:
        file.seek(first.at)
        head = file.read(_SHORT_HEAD)
        if head[4:6] in _PIXEL_KINDS:  # whatever syntax the file names
            head += file.read(_LONG_HEAD - _SHORT_HEAD)
        length = int.from_bytes(head[-4:], "little")
        if head[:4] != _PIXEL_TAG or length == UNDEFINED:
            yield from _decoded(frames)
            return
        file.seek(size * pixels.frames, os.SEEK_CUR)
        _check_rest(file.read(max(0, length - size * pixels.frames)))
        if length < size * pixels.frames:
            msg = f"truncated: {length} of {size * pixels.frames} bytes of pixels"
            raise UnreadableError(msg)
        for _, tiles in groupby(frames, key=_image_of):
            same = list(tiles)
            file.seek(first.at + len(head) + size * _image_of(same[0]))
            content = file.read(size)
            if len(content) < size:
                msg = f"truncated: {len(content)} of {size} bytes of pixels"
                raise UnreadableError(msg)
            image = np.frombuffer(content, dtype).reshape(pixels.shape)
            image = bits.used(image, pixels)
            yield from (image for _ in same)


def _image_of(frame: Frame) -> int:
    """Return which stored image a frame is, or is a tile of."""
    return 0 if frame.tiles else frame.index


def _decoded(frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    dataset = pydicom.dcmread(frames[0].path, force=True)
    if "PixelData" not in dataset:
        msg = "truncated: the file ends before its pixels"
        raise UnreadableError(msg)
    name_syntax(dataset)
    require_decoder(
        str(dataset.file_meta.TransferSyntaxUID), frames[0].pixels.bits_stored
    )
    for frame, image in zip(frames, _images(dataset, frames), strict=True):
        if image.shape[:2] != frame.pixels.shape:
            msg = "pixels of another size than the header says"
            raise UnreadableError(msg)
        image = bits.used(_signed(image, frame.pixels), frame.pixels)
        yield _by_table(image, dataset) if frame.pixels.lut else image


def _signed(image: NDArray[Any], pixels: Pixels) -> NDArray[Any]:
    """Return pixels of the sign that is asked for, where they are whole numbers."""
    if image.dtype.kind not in "iu" or pixels.samples > 1:
        return image
    native = image.astype(image.dtype.newbyteorder("="), copy=False)
    return native.view(f"{'i' if pixels.signed else 'u'}{image.dtype.itemsize}")


def _by_table(image: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Return the real values that the header's table has for stored ones."""
    real: NDArray[Any] = apply_modality_lut(image, dataset)
    return real


def _images(dataset: Dataset, frames: Sequence[Frame]) -> Iterator[NDArray[Any]]:
    wanted = [_image_of(frame) for frame in frames]
    pixels = frames[0].pixels
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = _plugin(syntax) if syntax.is_compressed else ""
    if plugin:
        _one_stream_each(dataset, pixels)
    if plugin == _CHECKED[0] and syntax != JPEGLSLossless:
        dataset.BitsStored = pixels.bits_allocated  # or it would clear bits above
        dataset.HighBit = pixels.bits_allocated - 1
    _check_stored(dataset, pixels, plugin)
    if pixels.frames > 1:
        return iter_pixels(
            dataset,
            indices=wanted,
            decoding_plugin=plugin,
            correct_unused_bits=False,
        )
    dataset.pixel_array_options(decoding_plugin=plugin, correct_unused_bits=False)
    return iter([dataset.pixel_array] * len(wanted))


def _one_stream_each(dataset: Dataset, pixels: Pixels) -> None:
    """Refuse a table of places that does not fit the images, or do without it.

    The fragments of a single image follow each other, whatever a table says of them.
    """
    places = parse_basic_offsets(dataset.PixelData)
    if len(places) in (0, pixels.frames):
        return
    if pixels.frames > 1:
        msg = f"a table of {len(places)} places for {pixels.frames} images"
        raise streams.StreamError(msg)
    _, *fragments = generate_fragments(dataset.PixelData)
    syntax = dataset.file_meta.TransferSyntaxUID
    count = pixels.shape[0] * pixels.shape[1]
    starts = [streams.begins_image(part, count, syntax) for part in fragments]
    if sum(starts) > 1:
        msg = f"{sum(starts)} images where the header tells of one"
        raise streams.StreamError(msg)
    dataset.PixelData = encapsulate([b"".join(fragments)], has_bot=False)
    dataset["PixelData"].is_undefined_length = True


def _check_stored(dataset: Dataset, pixels: Pixels, plugin: str) -> None:
    """Refuse pixels that their decoder cannot be trusted with."""
    syntax = dataset.file_meta.TransferSyntaxUID
    count = pixels.shape[0] * pixels.shape[1]
    if not plugin:
        size = count * pixels.samples * pixels.bits_allocated // 8 * pixels.frames
        if pixels.photometric != _HALVED:
            _check_rest(dataset.PixelData[size:])
        return
    if syntax != RLELossless and COMPRESSED[syntax] != _CHECKED:
        return
    for stream in generate_frames(dataset.PixelData, number_of_frames=pixels.frames):
        if syntax == RLELossless:
            streams.check_rle(stream, count)
        else:
            streams.check_jpeg(
                stream, pixels.shape, pixels.samples, pixels.bits_allocated
            )


def _check_rest(rest: bytes) -> None:
    """Refuse more pixels than the header tells of; padding is no pixels.

    Raises:
        UnreadableError: there are more.
    """
    if len(rest) > 1 and rest.strip(b"\0"):
        msg = f"{len(rest)} bytes more of pixels than the header tells of"
        raise UnreadableError(msg)


def _tile(frame: Frame, image: NDArray[Any]) -> NDArray[Any]:
    if not frame.tiles:
        return image
    rows, columns = frame.shape
    top = frame.index // frame.tiles * rows
    left = frame.index % frame.tiles * columns
    return image[top : top + rows, left : left + columns]
