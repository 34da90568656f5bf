"""Check compressed pixels before a decoder gets them.

Some decoders end the whole program, or return pixels shorn of an edge, when one byte
of a stream is wrong. What they trust is checked here first: that a JPEG stream is
whole, says of itself what the header of the file says, and names only tables that it
has (ITU-T T.81, annex B; JPEG-LS, T.87, has the same markers), and that RLE segments
(DICOM part 5, annex G) unpack to as many bytes as the image has pixels.
"""

from collections.abc import Iterator
from itertools import pairwise

_START, _END = b"\xff\xd8", b"\xd9"
_TABLES, _SCAN = 0xC4, 0xDA
_FRAMES = (0xC0, 0xC1, 0xC3, 0xF7)
"""Markers that begin a frame: baseline, extended, lossless, JPEG-LS."""

_NO_FRAMES = (0xC4, 0xC8, 0xCC)
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))
_STARTS = (_START, b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")
"""How images begin: JPEG and JPEG-LS, JPEG 2000, the same in a box."""

_RLE = "1.2.840.10008.1.2.5"
_UNSAMPLED = 0x11
_RLE_HEADER, _RLE_SEGMENTS = 64, 15


class StreamError(ValueError):
    """A compressed stream is damaged, or not the image that the header tells of."""


def begins_image(fragment: bytes, pixels: int, syntax: str) -> bool:
    """Say whether a fragment is the beginning of an image of its own.

    Args:
        fragment: of the pixels of a file.
        pixels: of one image.
        syntax: transfer syntax.
    """
    if syntax != _RLE:
        return fragment.startswith(_STARTS)
    try:
        check_rle(fragment, pixels)
    except StreamError:
        return False
    return True


def check_jpeg(
    stream: bytes, shape: tuple[int, int], samples: int, bits_allocated: int
) -> None:
    """Refuse a JPEG or JPEG-LS stream that a decoder might stumble over.

    Args:
        stream: one image.
        shape: rows, columns that the file's header tells.
        samples: colours of a pixel.
        bits_allocated: for each of them.

    Raises:
        StreamError: it is damaged, or not the image that the header tells of.
    """
    if not stream.startswith(_START) or not stream.rstrip(b"\0\xff").endswith(_END):
        msg = "a JPEG stream without beginning or end"
        raise StreamError(msg)
    frame, tables = 0, set[int]()
    for marker, content in _segments(stream):
        if marker == _TABLES:
            tables |= set(_tables(content))
        elif marker == _SCAN:
            _check_scan(content, samples, tables if frame != _FRAMES[-1] else None)
        elif marker in _FRAMES and not frame:
            _check_frame(content, shape, samples, bits_allocated)
            frame = marker
        elif marker in _FRAMES or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES):
            msg = "a JPEG frame of another kind, or a second one"
            raise StreamError(msg)
    if not frame:
        msg = "a JPEG stream without a frame"
        raise StreamError(msg)


def check_rle(stream: bytes, pixels: int) -> None:
    """Refuse RLE segments that unpack to other than ``pixels`` bytes each.

    Raises:
        StreamError: they do.
    """
    words = [int.from_bytes(stream[at : at + 4], "little") for at in range(0, 64, 4)]
    count = words[0]
    if len(stream) < _RLE_HEADER or not 0 < count <= _RLE_SEGMENTS:
        msg = "an RLE stream without a header"
        raise StreamError(msg)
    starts = [*words[1 : count + 1], len(stream)]
    for start, end in pairwise(starts):
        unpacked = _unpacked(stream[start:end])
        if not pixels <= unpacked <= pixels + 1:
            msg = f"an RLE segment of {unpacked} bytes where {pixels} were expected"
            raise StreamError(msg)


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment up to the scan, which comes last."""
    place = len(_START)
    marker = 0
    while marker != _SCAN:
        while stream[place : place + 2] == b"\xff\xff":
            place += 1
        head = stream[place : place + 4]
        if len(head) < 4 or head[0] != 0xFF or head[1] in _WITHOUT_LENGTH:
            msg = "a JPEG stream whose markers do not follow each other"
            raise StreamError(msg)
        marker, length = head[1], int.from_bytes(head[2:], "big")
        content = stream[place + 4 : place + 2 + length]
        if length < 2 or len(content) < length - 2:
            msg = "a JPEG segment longer than its stream"
            raise StreamError(msg)
        yield marker, content
        place += 2 + length


def _check_frame(
    content: bytes, shape: tuple[int, int], samples: int, bits_allocated: int
) -> None:
    if len(content) < 6:
        msg = "a JPEG frame that says too little of itself"
        raise StreamError(msg)
    bits, components = content[0], content[5]
    rows, columns = (int.from_bytes(content[at : at + 2], "big") for at in (1, 3))
    same = (rows, columns) == shape and components == samples
    if not same or not 2 <= bits <= bits_allocated:
        msg = f"a JPEG frame of {rows} x {columns} pixels with {bits} bits"
        raise StreamError(msg)
    factors = content[7 : 6 + 3 * components : 3]
    if len(content) != 6 + 3 * components:
        msg = "a JPEG frame with other components than it tells"
        raise StreamError(msg)
    if samples == 1 and any(factor != _UNSAMPLED for factor in factors):
        msg = "a JPEG frame with sampled grey values"
        raise StreamError(msg)


def _tables(content: bytes) -> Iterator[int]:
    """Yield the names of Huffman tables."""
    place = 0
    while place < len(content):
        codes = sum(content[place + 1 : place + 17])
        end = place + 17 + codes
        if codes > 256 or end > len(content) or content[place] & 0x0F > 3:
            msg = "a damaged table in a JPEG stream"
            raise StreamError(msg)
        yield content[place]
        place = end


def _check_scan(content: bytes, samples: int, tables: set[int] | None) -> None:
    """Check what a scan names; ``tables`` is None for JPEG-LS, which has none."""
    parts = content[0] if content else 0
    if not 1 <= parts <= samples or len(content) != 4 + 2 * parts:
        msg = "a damaged scan in a JPEG stream"
        raise StreamError(msg)
    if tables is None:
        return
    named = content[2 : 1 + 2 * parts : 2]
    if not tables or any(name >> 4 not in tables for name in named):
        msg = "a JPEG scan that names tables which are not there"
        raise StreamError(msg)


def _unpacked(segment: bytes) -> int:
    """Return how many bytes a segment unpacks to (PackBits)."""
    count = place = 0
    length = len(segment)
    while place < length:
        head = segment[place]
        if head < 128:
            count += min(head + 1, length - place - 1)
            place += head + 2
        elif head > 128:
            count += 257 - head if place + 1 < length else 0
            place += 2
        else:
            place += 1
    return count
