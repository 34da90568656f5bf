"""What a file is, by how it begins and whatever it is called."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Kind = Literal["dicom", "packed", "zip", "tar", "foreign", "empty", "closed", "other"]
"""What files are told apart.

``packed`` is one DICOM file, compressed; ``foreign`` an archive of a kind that is not
opened; ``closed`` a file that cannot be opened.
"""

DICOM_SUFFIX = ".dcm"

START_BYTES = 1024
_STEP_BYTES = 128

_MAGIC_AT, _MAGIC = 128, b"DICM"
_META = b"\x02\x00"
_TAR_AT, _TAR = 257, b"ustar"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_FOREIGN = (
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"\x28\xb5\x2f\xfd",  # Zstandard
    b"\x04\x22\x4d\x18",  # LZ4
    b"\x1f\x9d",  # compress
)
FOREIGN_SUFFIXES = (".7z", ".rar", ".zst", ".lz4", ".lz", ".cab", ".arj", ".ace")
"""How archives that are not opened are called."""

Packer = type[gzip.GzipFile] | type[bz2.BZ2File] | type[lzma.LZMAFile]

PACKERS: Mapping[bytes, Packer] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""How a compressed file begins -> what opens it."""

PACKER_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
"""What a damaged compressed file raises."""

_DAMAGED_NAMES = (".dcm.", ".ima.")

_GROUPS = (0x0002, 0x0008)
_SMALL_GROUPS = (0x0010, 0x0018, 0x0020, 0x0028)
_MAX_LENGTH = 1 << 16


def kind_of(path: Path) -> Kind:
    """Return what ``path`` is by its first bytes, inflated where it is compressed."""
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return "closed"
    opened = packer_of(start)
    if opened is None:
        return _kind(start)
    inside = _kind(_inflated(path, opened))
    named = any(part in path.name.lower() for part in _DAMAGED_NAMES)
    if inside == "dicom" or (inside == "empty" and named):
        return "packed"
    return "tar" if inside == "tar" else "other"


def packer_of(start: bytes) -> Packer | None:
    """Return what opens a compressed file that begins with ``start``."""
    return next((PACKERS[magic] for magic in PACKERS if start.startswith(magic)), None)


def is_dicom(path: Path) -> bool:
    """Say whether ``path`` is DICOM by its suffix or by how it begins.

    A file that cannot be opened counts, so that it is reported and not passed over.
    """
    named = path.suffix.lower() == DICOM_SUFFIX
    return named or kind_of(path) in ("dicom", "closed")


def begins_as_dicom(start: bytes) -> bool:
    """Say whether a file that begins with ``start`` is DICOM.

    Either mark of the preamble will do, so that damage to one is not passed over.
    """
    marked = start[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC
    meta = start[_MAGIC_AT + len(_MAGIC) :]
    preamble = meta[:2] == _META and meta[4:6].isalpha() and meta[4:6].isupper()
    return marked or preamble or _begins_bare(start)


def _inflated(path: Path, opened: Packer) -> bytes:
    """Return how a compressed file begins, as far as it can be inflated."""
    start = b""
    try:
        with opened(path) as file:
            while len(start) < START_BYTES and (byte := file.read(_STEP_BYTES)):
                start += byte
    except PACKER_DAMAGE:
        pass
    return start


def _kind(start: bytes) -> Kind:
    if not start:
        return "empty"
    if begins_as_dicom(start):
        return "dicom"
    if start.startswith(_ZIP):
        return "zip"
    if start[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return "tar"
    return "foreign" if start.startswith(_FOREIGN) else "other"


def _begins_bare(start: bytes) -> bool:
    """Say whether a file without a preamble begins with elements of DICOM.

    The first two must be in order, and their lengths sane.
    """
    first = _element(start, 0)
    if first is None:
        return False
    tag, end = first
    group = tag >> 16
    if group not in (*_GROUPS, *_SMALL_GROUPS):
        return False
    if end + 8 > len(start):
        return group in _GROUPS and end > len(start)
    second = _element(start, end)
    return second is not None and tag < second[0]


def _element(start: bytes, at: int) -> tuple[int, int] | None:
    """Return tag and end of the element at a place, None if there is no sane one."""
    head = start[at : at + 12]
    if len(head) < 8:
        return None
    tag = int.from_bytes(head[:2], "little") << 16 | int.from_bytes(head[2:4], "little")
    if head[4:6].isalpha() and head[4:6].isupper():
        if head[4:6] in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OF"):
            return tag, at + 12 + int.from_bytes(head[8:12], "little")
        return tag, at + 8 + int.from_bytes(head[6:8], "little")
    length = int.from_bytes(head[4:8], "little")
    return (tag, at + 8 + length) if length < _MAX_LENGTH else None
