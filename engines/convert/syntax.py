"""The transfer syntax of a file that names none, or a wrong one."""

from collections.abc import Mapping
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from engines.errors import UnsupportedError

UNDEFINED = 0xFFFFFFFF
"""Length of an element that is as long as its content shows."""

ANEW = "Export the series again without compression."


_JPEG_KINDS: Mapping[int, UID] = {
    0xC0: JPEGBaseline8Bit,
    0xC1: JPEGExtended12Bit,
    0xC3: JPEGLossless,
    0xF7: JPEGLSLossless,
}
"""Second byte of the marker that begins a frame -> transfer syntax."""


def is_standard(uid: UID) -> bool:
    """Say whether a transfer syntax is one of the standard that is known here."""
    return bool(uid) and not uid.is_private and uid.is_transfer_syntax


def name_syntax(dataset: Dataset) -> None:
    """Put the right transfer syntax into a header that has none or a wrong one."""
    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        meta = dataset.file_meta = pydicom.dataset.FileMetaDataset()
    named = UID(str(meta.get("TransferSyntaxUID") or ""))
    element: Any = dataset.get_item("PixelData")
    packed = element is not None and element.length in (UNDEFINED, None)
    if element is None or (is_standard(named) and named.is_compressed == packed):
        return
    if packed:
        meta.TransferSyntaxUID = _told_by_pixels(dataset.PixelData)
        dataset["PixelData"].is_undefined_length = True
        return
    implicit, little = dataset.original_encoding
    plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian


def _told_by_pixels(content: bytes) -> UID:
    """Return the transfer syntax that the first bytes of compressed pixels show.

    Raises:
        UnsupportedError: none that is known.
    """
    fragments = list(generate_fragments(content))
    start = next((part for part in fragments[1:] if len(part) > 4), b"")
    if start.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")):
        return JPEG2000Lossless
    if start.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        msg = "compressed as JPEG XL, which cannot be decoded"
        raise UnsupportedError(msg, hint=ANEW)
    if start.startswith(b"\xff\xd8"):
        return _kind_of_jpeg(start)
    if len(start) >= 64 and 1 <= int.from_bytes(start[:4], "little") <= 15:
        return RLELossless
    msg = "compressed in a way that neither the header nor the pixels tell"
    raise UnsupportedError(msg, hint=ANEW)


def _kind_of_jpeg(start: bytes) -> UID:
    place = 2
    while place + 4 <= len(start) and start[place] == 0xFF:
        if start[place + 1] in _JPEG_KINDS:
            return _JPEG_KINDS[start[place + 1]]
        place += 2 + int.from_bytes(start[place + 2 : place + 4], "big")
    msg = "a kind of JPEG that cannot be decoded"
    raise UnsupportedError(msg, hint=ANEW)
