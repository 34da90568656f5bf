"""Headers of NRRD files (``.nrrd``, ``.nhdr``), read with every number bounded.

Source: "Definition of NRRD File Format" (http://teem.sourceforge.net/nrrd/format.html),
and what SimpleITK reads from files of each kind, which the tests compare.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines import payload
from engines.errors import GeometryError, UnreadableError, UnsupportedError
from engines.extent import Extent
from engines.payload import HEADER_BYTES, Packing, Payload
from engines.raster import FRAMES_HINT, Raster, assumed, counted, whole

SUFFIXES = (".nrrd", ".nhdr")

_NAMES = (
    ("i1", "signed char", "int8", "int8_t"),
    ("u1", "uchar", "unsigned char", "uint8", "uint8_t"),
    ("i2", "short", "short int", "signed short", "signed short int", "int16"),
    ("i2", "int16_t"),
    ("u2", "ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    ("i4", "int", "signed int", "int32", "int32_t"),
    ("u4", "uint", "unsigned int", "uint32", "uint32_t"),
    ("i8", "longlong", "long long", "long long int", "signed long long"),
    ("i8", "signed long long int", "int64", "int64_t"),
    ("u8", "ulonglong", "unsigned long long", "unsigned long long int", "uint64"),
    ("u8", "uint64_t"),
    ("f4", "float"),
    ("f8", "double"),
)
TYPES: Mapping[str, str] = {name: code for code, *names in _NAMES for name in names}
"""Type -> NumPy's code without its byte order."""

PACKINGS: Mapping[str, Packing] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
"""Encoding -> how the bytes are compressed; text encodings are not read."""

SPACES: Mapping[str, tuple[int, int, int]] = {
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
}
"""Space -> signs that turn it to RAS."""

SPACE_AXES = 3

_VECTOR = re.compile(r"none|\(([^()]*)\)")
_SAME = {"centerings": "centers", "datafile": "data file", "lineskip": "line skip"}
_SAME["byteskip"] = "byte skip"
_PLAIN = ("domain", "space", "list", "time", "???", "none", "stub", "scalar")
"""Kinds of axes whose elements are not parts of one voxel."""

_UNITS = "space units"


def read(path: Path) -> Raster:
    """Read a NRRD file.

    Raises:
        UnreadableError: damaged, or fewer or more voxels than the header describes.
        UnsupportedError: colour, complex or vector voxels, a text encoding, voxels in
            several files, or in one outside the header's folder.
        GeometryError: the header does not say how the patient lies.
    """
    fields, start = _fields(path)
    shape, dtype = _sizes(path, fields)
    affine, inner = _affine(path, fields, len(shape))
    held = _in_space(path, shape, inner)
    needed = payload.bytes_of(shape, dtype.itemsize)
    content = payload.read(path.name, _payload(path, fields, start), needed)
    left_out = () if "space origin" in fields else ("space origin: 0, 0, 0",)
    voxels = whole(content, dtype, held)
    return Raster(voxels, affine, _unit(path, fields), assumed(*left_out))


def extent(path: Path) -> Extent:
    """Return the size of an image by its header alone; raises as ``read`` does."""
    fields, start = _fields(path)
    shape, dtype = _sizes(path, fields)
    return payload.extent(shape, dtype.itemsize, _payload(path, fields, start))


def _sizes(
    path: Path, fields: Mapping[str, str]
) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    axes = _number(path, fields, "dimension", "", least=1)
    if axes > payload.MOST_AXES:
        msg = f"{path.name}: cannot be read (dimension is {axes})"
        raise UnreadableError(msg)
    shape = counted(path, "sizes", fields.get("sizes", "").split(), axes)
    _require_scalars(path, fields, shape)
    return shape, _dtype(path, fields)


def _in_space(
    path: Path, shape: tuple[int, ...], spatial: Sequence[bool]
) -> tuple[int, ...]:
    """Return the voxels along the axes of space; others may have one element."""
    others = [n for n, is_spatial in zip(shape, spatial, strict=True) if not is_spatial]
    count = math.prod(others)
    if count > 1:
        msg = f"{path.name}: {len(shape)}-D with {count} frames; one is needed"
        raise UnsupportedError(msg, hint=FRAMES_HINT)
    return tuple(n for n, inside in zip(shape, spatial, strict=True) if inside)


def data_name(path: Path) -> str:
    """Return what the header names for its voxels; empty where they follow it.

    Raises:
        UnreadableError: the header is damaged.
        OSError: the file cannot be opened.
    """
    return _fields(path)[0].get("data file", "")


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields, and where the voxels begin: after the first empty line."""
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    if not re.match(rb"NRRD000[1-5]\r?\n", content):
        msg = f"{path.name}: cannot be read (no NRRD header)"
        raise UnreadableError(msg)
    end = re.search(rb"\r?\n\r?\n", content)
    head = content[: end.start() if end else len(content)]
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "surrogateescape").split("\n")[1:]:
        if not line.strip() or line.startswith("#") or ":=" in line:
            continue  # comments, and keys of the user
        name, colon, value = line.partition(":")
        if not colon:
            msg = f"{path.name}: cannot be read (a line of its header is no field)"
            raise UnreadableError(msg)
        name = " ".join(name.lower().split())
        name = _SAME.get(name, name)
        if fields.setdefault(name, value.strip()) != value.strip():
            msg = f"{path.name}: cannot be read (its header has {name!r} twice)"
            raise UnreadableError(msg)
    if end is None and "data file" not in fields:
        msg = f"{path.name}: cannot be read (its header does not end)"
        raise UnreadableError(msg)
    return fields, end.end() if end else len(content)


def _require_scalars(
    path: Path, fields: Mapping[str, str], shape: Sequence[int]
) -> None:
    """Refuse axes that are not of space, as those of colours, unless of one element."""
    kinds = fields.get("kinds", "").lower().split()
    if kinds and len(kinds) != len(shape):
        msg = f"{path.name}: cannot be read ({len(kinds)} kinds, {len(shape)} axes)"
        raise UnreadableError(msg)
    inner = [
        kind
        for kind, n in zip(kinds, shape, strict=False)
        if kind not in _PLAIN and n > 1
    ]
    if "complex" in inner:
        msg = f"{path.name}: complex values"
        raise UnsupportedError(msg, hint="Give the magnitude image.")
    if inner:
        msg = f"{path.name}: a colour or vector image, not a scan ({inner[0]})"
        raise UnsupportedError(msg, hint="Give the scan, not a screenshot of it.")


def _dtype(path: Path, fields: Mapping[str, str]) -> np.dtype[np.generic]:
    told = " ".join(fields.get("type", "").lower().split())
    if told not in TYPES:
        msg = f"{path.name}: cannot be read (type is {told[:20]!r})"
        raise UnreadableError(msg)
    order = fields.get("endian", "").lower()
    single = np.dtype(TYPES[told]).itemsize == 1
    if order not in ("little", "big") and not single:
        msg = f"{path.name}: cannot be read (endian is {order[:20]!r})"
        raise UnreadableError(msg)
    return np.dtype((">" if order == "big" else "<") + TYPES[told])


def _payload(path: Path, fields: Mapping[str, str], start: int) -> Payload:
    encoding = fields.get("encoding", "").lower()
    if encoding in ("txt", "text", "ascii", "hex"):
        msg = f"{path.name}: voxels written as text"
        raise UnsupportedError(msg, hint="Store them as raw or gzip.")
    if encoding not in PACKINGS:
        msg = f"{path.name}: cannot be read (encoding is {encoding[:20]!r})"
        raise UnreadableError(msg)
    named = fields.get("data file", "")
    if re.match(r"LIST\b", named) or "%" in named:
        msg = f"{path.name}: voxels in a list of files"
        raise UnsupportedError(msg, hint="Store them in one file.")
    held = payload.data_file(path, named) if named else path
    lines = _number(path, fields, "line skip", "0", least=0)
    skipped = _number(path, fields, "byte skip", "0", least=-1)
    packing = PACKINGS[encoding]
    if skipped < 0 and packing != "raw":
        msg = f"{path.name}: cannot be read (byte skip -1 with {encoding})"
        raise UnreadableError(msg)
    begin = _after_lines(path, held, 0 if named else start, lines)
    return Payload(
        held,
        begin,
        packing,
        skipped=max(0, skipped),
        from_end=skipped < 0 and bool(named),
    )


def _after_lines(path: Path, held: Path, start: int, lines: int) -> int:
    with held.open("rb") as file:
        file.seek(start)
        for _ in range(lines):
            if not file.readline(HEADER_BYTES):
                msg = f"{path.name}: cannot be read (line skip is {lines})"
                raise UnreadableError(msg)
        return file.tell()


def _number(
    path: Path, fields: Mapping[str, str], name: str, default: str, *, least: int
) -> int:
    told = fields.get(name, default)
    if not re.fullmatch(r"-?\d{1,12}", told) or int(told) < least:
        msg = f"{path.name}: cannot be read ({name} is {told[:20]!r})"
        raise UnreadableError(msg)
    return int(told)


def _unit(path: Path, fields: Mapping[str, str]) -> str:
    units = {unit.strip() for unit in re.findall(r'"([^"]*)"', fields.get(_UNITS, ""))}
    if len(units) > 1:
        msg = f"{path.name}: axes of different units ({', '.join(sorted(units))})"
        raise GeometryError(msg)
    return units.pop() if units else ""


def _affine(
    path: Path, fields: Mapping[str, str], axes: int
) -> tuple[NDArray[np.float64], list[bool]]:
    """Return voxel index to RAS, and which axes are those of space."""
    space = fields.get("space", "").lower()
    if space not in SPACES or "space directions" not in fields:
        told = f"its space is {space[:30]!r}" if space else "it names no space"
        msg = f"{path.name}: the header does not say how the patient lies ({told})"
        raise GeometryError(msg)
    vectors = _vectors(path, fields["space directions"], axes)
    spatial = [vector for vector in vectors if vector is not None]
    if len(spatial) != SPACE_AXES:
        msg = f"{path.name}: {len(spatial)} axes in space; 3-D is needed"
        raise UnsupportedError(msg, hint="Give the whole scan, not a single slice.")
    (first,) = _vectors(path, fields.get("space origin", "(0,0,0)"), 1)
    affine = np.eye(4)
    affine[:3, :3] = np.array(spatial).T
    affine[:3, 3] = first if first is not None else np.nan
    turned = np.diag([*SPACES[space], 1.0]) @ affine
    return turned, [vector is not None for vector in vectors]


def _vectors(path: Path, text: str, count: int) -> list[list[float] | None]:
    """Return vectors in space, None for ``none``."""
    found = [*_VECTOR.finditer(text)]
    if len(found) != count or _VECTOR.sub("", text).strip():
        msg = f"{path.name}: cannot be read (directions are {text[:60]!r})"
        raise UnreadableError(msg)
    return [None if one[1] is None else _numbers(path, one[1]) for one in found]


def _numbers(path: Path, text: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != SPACE_AXES or not all(map(math.isfinite, numbers)):
        msg = f"{path.name}: cannot be read (a direction is {text[:40]!r})"
        raise UnreadableError(msg)
    return numbers
