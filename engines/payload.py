"""Voxels that a text header describes: where they lie, how packed, how many bytes.

What MetaImage and NRRD have in common. The bytes are counted exactly: a file that
holds fewer or more than its header promises is refused, since a header that is off
by one row would shift every voxel after it. Nothing is allocated on the word of a
header alone.
"""

import bz2
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from engines.errors import UnreadableError, UnsupportedError
from engines.extent import Extent

Packing = Literal["raw", "zlib", "gzip", "bzip2"]

HEADER_BYTES = 1 << 20
"""No header is longer; some carry a DICOM header as text."""

MOST_AXES = 16
"""NRRD allows as many; a scan has three."""

DENSEST = 1100
"""Deflate packs no more than 1032 bytes into one; bzip2's runs may be denser."""

BLOCK = 1 << 20

LOCAL_HINT = "Put the voxels beside the header, or store both in one file."


@dataclass(frozen=True, slots=True)
class Payload:
    """Where the bytes of an image are.

    Attributes:
        path: the file.
        start: offset of the first byte.
        packing: how they are compressed.
        size: bytes that they take as they are stored; None where the header does not
            say, and they end with the file.
        skipped: bytes to drop at their start, after decompression.
        from_end: the last bytes of the file are meant, whatever ``start`` says.
    """

    path: Path
    start: int = 0
    packing: Packing = "raw"
    size: int | None = None
    skipped: int = 0
    from_end: bool = False


class _Unpacker(Protocol):
    """What bz2 and zlib offer, as far as both have it."""

    @property
    def eof(self) -> bool: ...

    def give(self, data: bytes, most: int) -> bytes: ...

    def left(self) -> bytes: ...


class _Zlib:
    def __init__(self, window: int) -> None:
        self._inner = zlib.decompressobj(window)
        self._tail = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def give(self, data: bytes, most: int) -> bytes:
        made = self._inner.decompress(self._tail + data, most)
        self._tail = self._inner.unconsumed_tail
        return made

    def left(self) -> bytes:
        return self._inner.unused_data


class _Bzip2:
    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def give(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(data, most)

    def left(self) -> bytes:
        return self._inner.unused_data


_UNPACKERS: dict[Packing, Callable[[], _Unpacker]] = {
    # MetaIO inflates either wrapping, and so does this.
    "zlib": lambda: _Zlib(zlib.MAX_WBITS | 32),
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "bzip2": _Bzip2,
}


def bytes_of(shape: Sequence[int], itemsize: int) -> int:
    """Return the bytes that voxels take, of whatever size the numbers are."""
    return math.prod(int(n) for n in shape) * itemsize


def extent(shape: Sequence[int], itemsize: int, payload: Payload) -> Extent:
    """Return the size of an image whose voxels lie at ``payload``.

    Raises:
        OSError: the file is gone.
    """
    held = max(0, payload.path.stat().st_size - payload.start)
    if payload.packing == "raw":
        return Extent(tuple(shape), itemsize, None, held)
    most = None if payload.packing == "bzip2" else DENSEST * held
    return Extent(tuple(shape), itemsize, held, most)


def data_file(header: Path, named: str) -> Path:
    """Return the file that a header names for its voxels.

    It has to lie in the folder of the header, or below it: a header that comes from
    elsewhere must not make this program read and show any other file.

    Raises:
        UnsupportedError: it lies outside that folder.
        UnreadableError: there is no such file.
    """
    folders = {header.parent.resolve(), header.resolve().parent}
    try:
        path = header.parent / named
        real = path.resolve()
        inside = any(real.is_relative_to(folder) for folder in folders)
        here = inside and real.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"{header.name}: cannot be read (it names no file for its voxels)"
        raise UnreadableError(msg) from error
    if not inside:
        msg = f"{header.name}: its voxels lie outside its folder, in {named}"
        raise UnsupportedError(msg, hint=LOCAL_HINT)
    if not here:
        msg = f"{header.name}: cannot be read (its voxels, {named}, are not there)"
        raise UnreadableError(msg)
    return path


def read(name: str, payload: Payload, needed: int) -> bytearray:
    """Return the ``needed`` bytes of an image.

    Args:
        name: of the image, for messages.
        payload: where they are.
        needed: what shape and type ask for.

    Raises:
        UnreadableError: fewer or more bytes, or a damaged stream.
        OSError: the file cannot be opened.
    """
    total = payload.path.stat().st_size - payload.start
    if payload.size is not None and payload.size != total:
        msg = (
            f"{name}: the header promises {payload.size} bytes of compressed voxels, "
            f"the file holds {max(0, total)}"
        )
        raise UnreadableError(msg)
    if payload.packing == "raw":
        return _raw(name, payload, needed, total)
    if needed > DENSEST * max(0, total) and payload.packing != "bzip2":
        raise _wrong_count(name, f"at most {DENSEST * max(0, total)}", needed)
    with payload.path.open("rb") as file:
        file.seek(payload.start)
        return _unpacked(name, file, payload, needed)


def _raw(name: str, payload: Payload, needed: int, total: int) -> bytearray:
    start = payload.start + payload.skipped
    there = total - payload.skipped
    if payload.from_end and there >= needed:
        start, there = start + there - needed, needed
    if there != needed:
        raise _wrong_count(name, str(max(0, there)), needed, over=there > needed)
    with payload.path.open("rb") as file:
        file.seek(start)
        content = read_up_to(file, needed)
    if len(content) != needed:  # it shrank meanwhile
        raise _wrong_count(name, str(len(content)), needed)
    return content


def read_up_to(file: BinaryIO, count: int) -> bytearray:
    """Read ``count`` bytes, fewer at the end of the file, in blocks.

    Growing with the data, a header that promises terabytes costs nothing.
    """
    content = bytearray()
    while len(content) < count:
        block = file.read(min(1 << 24, count - len(content)))
        if not block:
            break
        content += block
    return content


def _unpacked(name: str, file: BinaryIO, payload: Payload, needed: int) -> bytearray:
    """Decompress to the end of the stream, whose checksum is compared there."""
    content = bytearray()
    wanted = needed + payload.skipped
    try:
        rest = b""
        while True:
            unpacker = _UNPACKERS[payload.packing]()
            rest = _one_stream(unpacker, file, rest, content, wanted)
            if len(content) > wanted:
                raise _wrong_count(name, "more", wanted, over=True)
            if not unpacker.eof:
                break
            rest = rest or file.read(BLOCK)
            if not rest:
                if len(content) != wanted:
                    raise _wrong_count(name, str(len(content)), wanted)
                return content[payload.skipped :] if payload.skipped else content
            if payload.packing == "zlib":
                msg = f"{name}: bytes follow the end of the compressed voxels"
                raise UnreadableError(msg)
    except (zlib.error, OSError, ValueError, EOFError) as error:
        msg = f"{name}: the compressed voxels are damaged ({error})"
        raise UnreadableError(msg) from error
    msg = f"{name}: truncated, the compressed voxels end too early"
    raise UnreadableError(msg)


def _one_stream(
    unpacker: _Unpacker, file: BinaryIO, rest: bytes, content: bytearray, wanted: int
) -> bytes:
    """Add what one stream holds to ``content``; return what was read beyond it."""
    block = rest or file.read(BLOCK)
    while not unpacker.eof and len(content) <= wanted:
        made = unpacker.give(block, BLOCK)
        content += made
        if len(made) == BLOCK:
            block = b""  # what the unpacker holds back comes out before more is read
        elif not unpacker.eof:
            block = file.read(BLOCK)
            if not block:
                break  # the file ends within the stream
    return unpacker.left() if unpacker.eof else b""


def _wrong_count(
    name: str, there: str, needed: int, *, over: bool = False
) -> UnreadableError:
    if over:
        msg = (
            f"{name}: it holds {there} bytes of voxels where the header describes "
            f"{needed}: its sizes or its type are wrong"
        )
        return UnreadableError(msg)
    return UnreadableError(f"{name}: truncated, {there} of {needed} bytes of voxels")
