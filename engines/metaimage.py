"""Headers of MetaImage files (``.mha``, ``.mhd``), read with every number bounded.

ITK's own reader ends the process, or never returns, on headers that are damaged in
certain ways, and takes a payload of the wrong length for voxels; so it is not asked.

Source: MetaIO's documentation of its tags (https://docs.itk.org, "MetaIO"), and what
SimpleITK reads from files of each kind, which the tests compare.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines import payload
from engines.errors import GeometryError, UnreadableError, UnsupportedError
from engines.extent import Extent
from engines.payload import HEADER_BYTES, Payload
from engines.raster import LPS_TO_RAS, Raster, assumed, counted, whole
from engines.results import Note

SUFFIXES = (".mha", ".mhd")

TYPES: Mapping[str, str] = {
    "MET_CHAR": "i1",
    "MET_ASCII_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
"""ElementType -> NumPy's code without its byte order; MET_LONG has four bytes."""

LOCAL = "local"

_SAME = {
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
}
"""Other names of a tag."""

LINE_BYTES = 1 << 16


def read(path: Path) -> Raster:
    """Read a MetaImage.

    Raises:
        UnreadableError: damaged, or fewer or more voxels than the header describes.
        UnsupportedError: channels, text, an intensity function, voxels in several
            files, or in one outside the header's folder.
        GeometryError: no voxel size.
    """
    tags, start = _tags(path)
    shape, dtype = _sizes(path, tags)
    axes, where = len(shape), _payload(path, tags, start)
    needed = payload.bytes_of(shape, dtype.itemsize)
    affine, notes = _affine(path, tags, axes)
    content = payload.read(path.name, where, needed)
    return Raster(
        whole(content, dtype, shape), affine, tags.get("DistanceUnits", "mm"), notes
    )


def extent(path: Path) -> Extent:
    """Return the size of an image by its header alone; raises as ``read`` does."""
    tags, start = _tags(path)
    shape, dtype = _sizes(path, tags)
    return payload.extent(shape, dtype.itemsize, _payload(path, tags, start))


def _sizes(
    path: Path, tags: Mapping[str, str]
) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    shape = counted(path, "DimSize", tags.get("DimSize", "").split(), _axes(path, tags))
    return shape, _dtype(path, tags)


def data_name(path: Path) -> str:
    """Return what the header names for its voxels; empty where they follow it.

    Raises:
        UnreadableError: the header is damaged.
        OSError: the file cannot be opened.
    """
    named = _tags(path)[0]["ElementDataFile"]
    return "" if named.lower() == LOCAL else named


def _tags(path: Path) -> tuple[dict[str, str], int]:
    """Return the tags, and where the header ends; it does with ElementDataFile."""
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    tags: dict[str, str] = {}
    place = 0
    while "ElementDataFile" not in tags:
        end = content.find(b"\n", place, place + LINE_BYTES)
        end = end if end >= 0 else min(len(content), place + LINE_BYTES)
        line = content[place:end]
        apart = re.search(rb"[=:]", line)
        if apart is None and (line.strip() or end == len(content)):
            msg = f"{path.name}: cannot be read (no MetaImage header)"
            raise UnreadableError(msg)
        place = end + 1
        if apart is None:
            continue
        name = line[: apart.start()].strip().decode("latin-1")
        name = _SAME.get(name, name)
        value = line[apart.end() :].strip().decode("utf-8", "surrogateescape")
        if tags.setdefault(name, value) != value:
            msg = f"{path.name}: cannot be read (its header has {name} twice)"
            raise UnreadableError(msg)
    if tags.get("ObjectType", "Image") != "Image":
        msg = f"{path.name}: a MetaIO object of the type {tags['ObjectType'][:40]!r}"
        raise UnsupportedError(msg, hint="Give an image.")
    return tags, min(place, len(content))


def _axes(path: Path, tags: Mapping[str, str]) -> int:
    told = tags.get("NDims", "")
    if not re.fullmatch(r"\d{1,2}", told) or not 1 <= int(told) <= payload.MOST_AXES:
        msg = f"{path.name}: cannot be read (NDims is {told[:20]!r})"
        raise UnreadableError(msg)
    return int(told)


def _dtype(path: Path, tags: Mapping[str, str]) -> np.dtype[np.generic]:
    told = tags.get("ElementType", "")
    if told.endswith("_ARRAY") and told.removesuffix("_ARRAY") in TYPES:
        raise _colour(path)
    if told not in TYPES:
        msg = f"{path.name}: cannot be read (ElementType is {told[:20]!r})"
        raise UnreadableError(msg)
    if tags.get("ElementNumberOfChannels", "1") != "1":
        raise _colour(path)
    for name, neutral in (
        ("ElementToIntensityFunctionSlope", 1.0),
        ("ElementToIntensityFunctionOffset", 0.0),
    ):
        if _numbers(path, name, tags.get(name, str(neutral)), 1) != [neutral]:
            msg = f"{path.name}: {name} is {tags[name][:20]}; programs differ about it"
            raise UnsupportedError(msg, hint="Store the values themselves.")
    big = _flag(path, tags, "BinaryDataByteOrderMSB", default=False)
    return np.dtype((">" if big else "<") + TYPES[told])


def _colour(path: Path) -> UnsupportedError:
    msg = f"{path.name}: a colour or vector image, not a scan"
    return UnsupportedError(msg, hint="Give the scan, not a screenshot of it.")


def _payload(path: Path, tags: Mapping[str, str], start: int) -> Payload:
    if not _flag(path, tags, "BinaryData", default=True):
        msg = f"{path.name}: voxels written as text"
        raise UnsupportedError(msg, hint="Store them as binary data.")
    named = tags["ElementDataFile"]
    if re.match(r"LIST\b", named) or "%" in named:
        msg = f"{path.name}: voxels in a list of files"
        raise UnsupportedError(msg, hint="Store them in one file.")
    local = named.lower() == LOCAL
    held = path if local else payload.data_file(path, named)
    packed = _flag(path, tags, "CompressedData", default=False)
    skipped = _count(path, tags, "HeaderSize", least=-1)
    if packed and skipped:
        msg = f"{path.name}: cannot be read (HeaderSize with compressed voxels)"
        raise UnreadableError(msg)
    size = _count(path, tags, "CompressedDataSize", least=0) if packed else 0
    begin = start if local else 0
    if skipped > 0:
        begin = skipped
    return Payload(
        held,
        begin,
        "zlib" if packed else "raw",
        size or None,
        from_end=skipped < 0 and not local,
    )


def _count(path: Path, tags: Mapping[str, str], name: str, *, least: int) -> int:
    told = tags.get(name, "0")
    if not re.fullmatch(r"-?\d{1,15}", told) or int(told) < least:
        msg = f"{path.name}: cannot be read ({name} is {told[:20]!r})"
        raise UnreadableError(msg)
    return int(told)


def _flag(path: Path, tags: Mapping[str, str], name: str, *, default: bool) -> bool:
    told = tags.get(name, str(default)).lower()
    if told not in ("true", "t", "1", "false", "f", "0"):
        msg = f"{path.name}: cannot be read ({name} is {told[:20]!r})"
        raise UnreadableError(msg)
    return told[0] in "t1"


def _affine(
    path: Path, tags: Mapping[str, str], axes: int
) -> tuple[NDArray[np.float64], tuple[Note, ...]]:
    """Return voxel index to RAS, and what was assumed."""
    sizes = tags.get("ElementSpacing", tags.get("ElementSize"))
    if sizes is None:
        msg = f"{path.name}: the header tells no voxel size (ElementSpacing)"
        raise GeometryError(msg)
    spacing = np.array(_numbers(path, "ElementSpacing", sizes, axes))[:3]
    if not (spacing > 0).all():
        msg = f"{path.name}: the voxel size is {sizes[:40]}; each must be above zero"
        raise GeometryError(msg)
    left_out = (
        f"{name}: {what}"
        for name, what in (
            ("TransformMatrix", "axes to the left, back and head"),
            ("Offset", "the first voxel at 0, 0, 0"),
        )
        if name not in tags
    )
    unit = " ".join(map(str, np.eye(axes).ravel()))
    turned = tags.get("TransformMatrix", unit)
    # Each run of numbers is the direction of one axis.
    turn = np.reshape(
        _numbers(path, "TransformMatrix", turned, axes * axes), (axes, axes)
    ).T
    first = _numbers(path, "Offset", tags.get("Offset", "0 " * axes), axes)
    n = min(3, axes)
    affine = np.eye(4)
    affine[:n, :n] = turn[:n, :n] * spacing
    affine[:n, 3] = first[:n]
    return LPS_TO_RAS @ affine, assumed(*left_out)


def _numbers(path: Path, name: str, text: str, count: int) -> list[float]:
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        msg = f"{path.name}: cannot be read ({name} is {text[:40]!r})"
        raise UnreadableError(msg)
    return found
