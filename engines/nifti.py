"""NIfTI files, read with nibabel's headers; voxels keep the type they are stored in."""

import gzip
import zlib
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from engines import geometry
from engines.errors import GeometryError, UnreadableError, UnsupportedError
from engines.extent import Extent
from engines.geometry import Affine
from engines.payload import DENSEST, read_up_to
from engines.raster import Raster, three_axes
from engines.results import Note

SUFFIXES = (".nii", ".nii.gz")

READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    cast("type[Exception]", isal_zlib.error),
    HeaderDataError,
    WrapStructError,
    KeyError,  # a data type that NIfTI does not have
)
"""What reading a damaged file may raise."""

UNITS = {1: "m", 2: "mm", 3: "micron"}
"""Code of ``xyzt_units`` in its lowest three bits -> unit."""

GZIP_MAGIC = b"\x1f\x8b"

PADDING_BYTES = 511
"""So many zeros may follow the voxels, to fill a block."""

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}


def read(path: Path) -> tuple[Raster, nib.Nifti1Header]:
    """Read a NIfTI file, with its header.

    Raises:
        UnreadableError: not a NIfTI file, or truncated.
        UnsupportedError: 4-D, colour or complex.
        GeometryError: no usable position, orientation or voxel size.
        Exception: one of ``READ_ERRORS``, damaged in another way.
    """
    try:
        with closing(_open(path)) as file:
            return _read(path, file)
    except (gzip.BadGzipFile, EOFError):
        end = _end_of_gzip(path)
        if end is None:
            raise
        with path.open("rb") as packed:
            whole = BytesIO(packed.read(end))
    msg = "bytes that are no part of it follow the compressed file"
    with closing(igzip.open(whole, "rb")) as file:
        raster, header = _read(path, file)
    return replace(raster, notes=(Note("trailing_bytes", msg),)), header


def extent(path: Path) -> Extent:
    """Return the size of an image by its header alone.

    Raises:
        UnreadableError, UnsupportedError: as ``read``.
        Exception: one of ``READ_ERRORS``.
    """
    with closing(_open(path)) as file:
        header = _read_header(path, file)
    stored = header.get_data_dtype().itemsize
    slope, inter = header.get_slope_inter()
    scaled = slope not in (None, 1) or bool(inter)
    itemsize = max(stored, 4) if scaled else stored
    with path.open("rb") as plain:
        packed = plain.read(2) == GZIP_MAGIC
    held = path.stat().st_size
    most = held * itemsize // max(1, stored) * (DENSEST if packed else 1)
    return Extent(_shape(path, header), itemsize, held if packed else None, most)


def _read(path: Path, file: BinaryIO) -> tuple[Raster, nib.Nifti1Header]:
    header = _read_header(path, file)
    shape = _shape(path, header)
    affine = _nifti_affine(path, header, shape)
    voxels = _read_voxels(path, file, header, shape)
    _require_end(path, file)
    unit = UNITS.get(int(header["xyzt_units"]) & 7, "")
    return Raster(voxels, affine, unit), header


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    return cast("BinaryIO", igzip.open(path, "rb") if packed else path.open("rb"))


def _read_header(path: Path, file: BinaryIO) -> nib.Nifti1Header:
    start = file.read(4)
    sizes = {int.from_bytes(start, order) for order in ("little", "big")}
    found = sizes & set(_HEADERS)
    if len(start) < 4 or not found:
        msg = f"{path.name}: not a NIfTI file, whatever its name says"
        raise UnreadableError(msg)
    file.seek(0)
    return _HEADERS[found.pop()].from_fileobj(file, check=False)


def _shape(path: Path, header: nib.Nifti1Header) -> tuple[int, int, int]:
    dtype = header.get_data_dtype()
    if dtype.fields is not None:
        msg = f"{path.name}: a colour image (RGB), not a scan"
        raise UnsupportedError(msg, hint="Give the scan, not a screenshot of it.")
    if dtype.kind == "c":
        msg = f"{path.name}: complex values"
        raise UnsupportedError(msg, hint="Give the magnitude image.")
    return three_axes(path.name, header.get_data_shape())


def _nifti_affine(
    path: Path, header: nib.Nifti1Header, shape: tuple[int, int, int]
) -> Affine:
    sizes = np.asarray(header["pixdim"][1:4], float)
    if not (sizes > 0).all():
        told = " x ".join(f"{size:g}" for size in sizes)
        msg = f"{path.name}: the voxel size is {told} mm; each must be above zero"
        raise GeometryError(msg)
    qform = header.get_qform(coded=True)[0]
    sform = header.get_sform(coded=True)[0]
    affine: Affine | None = sform if sform is not None else qform
    if affine is None:
        msg = f"{path.name}: neither qform nor sform says how the patient lies"
        raise GeometryError(msg)
    if sform is not None and qform is not None:
        geometry.check_affine(qform)
        apart = geometry.disagreement_voxels(shape, sform, qform)
        if apart > geometry.DISAGREEMENT_VOXELS:
            msg = f"{path.name}: sform and qform disagree, by {apart:.1f} voxels"
            raise GeometryError(msg, hint="Find out which is right; clear the other.")
    return affine


def _read_voxels(
    path: Path,
    file: BinaryIO,
    header: nib.Nifti1Header,
    shape: tuple[int, int, int],
) -> NDArray[Any]:
    dtype = header.get_data_dtype()
    needed = int(np.prod(shape)) * dtype.itemsize
    file.seek(int(header["vox_offset"]) or int(header["sizeof_hdr"]) + 4)
    content = read_up_to(file, needed)
    if len(content) < needed:
        msg = f"{path.name}: truncated, {len(content)} of {needed} bytes of voxels"
        raise UnreadableError(msg)
    stored = np.frombuffer(content, dtype).reshape(shape, order="F")
    native = stored.astype(dtype.newbyteorder("="), copy=False)
    slope, inter = header.get_slope_inter()
    return _scaled(native, slope, inter)


def _require_end(path: Path, file: BinaryIO) -> None:
    """Read on to the end of the file, where gzip's checksum is compared.

    Raises:
        UnreadableError: more voxels than the header describes.
    """
    rest = read_up_to(file, PADDING_BYTES + 1)
    if len(rest) > PADDING_BYTES or any(rest):
        msg = (
            f"{path.name}: it holds more voxels than its header describes: "
            "the sizes or the type in the header are wrong"
        )
        raise UnreadableError(msg)


def _end_of_gzip(path: Path) -> int | None:
    """Return where a gzip file ends that is whole, None without anything behind it."""
    end = 0
    with path.open("rb") as file:
        while file.read(2) == GZIP_MAGIC:
            file.seek(end)
            unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            while not unpacker.eof:
                block = unpacker.unconsumed_tail or file.read(1 << 20)
                if not block:
                    return None
                unpacker.decompress(block, 1 << 22)
            end = file.tell() - len(unpacker.unused_data)
            file.seek(end)
        return end if end and end < path.stat().st_size else None


def _scaled(
    voxels: NDArray[Any], slope: float | None, inter: float | None
) -> NDArray[Any]:
    if slope in (None, 1) and not inter:
        return voxels
    scale, shift = float(slope or 1), float(inter or 0)
    scaled = voxels.astype(np.float32)
    scaled *= scale
    scaled += shift
    return scaled
