"""Volumes, and the only reader and writer of image files.

NIfTI is read and written with nibabel's headers, NRRD and MetaImage are read with
SimpleITK, whose LPS world is turned to RAS here. Voxels keep the type they are
stored in unless the header scales them.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from isal import igzip, igzip_threaded, isal_zlib
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import DTypeLike, NDArray

from engines import geometry
from engines.errors import GeometryError, InputError, UnreadableError, UnsupportedError
from engines.files import replacing, write_bytes
from engines.geometry import Affine, Grid

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".mha", ".mhd")
SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES

COMMENT_CODE = 6
"""Code of a comment among NIfTI header extensions."""

COMPRESSION_LEVEL = 1
"""isal's level; 2 and 3 cost time and save about 3 % on label maps."""

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
"""Type of the voxels of a colour image, as NIfTI has it."""

COMPRESSORS = max(1, min(4, os.cpu_count() or 1))
"""Threads that compress one file; its bytes do not depend on how many."""

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    cast("type[Exception]", isal_zlib.error),
    HeaderDataError,
    WrapStructError,
    KeyError,  # a data type that NIfTI does not have
)


@dataclass(frozen=True, slots=True)
class Volume:
    """A scan or a label map.

    Attributes:
        voxels: (I, J, K), in the order of the file.
        grid: where the voxels are, in RAS mm.
        header: the NIfTI header it came with, None for other formats.
        provenance: what this program wrote into the header when it made the file.
    """

    voxels: NDArray[Any]
    grid: Grid
    header: nib.Nifti1Header | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Volume":
        """Read the image at ``path``.

        Raises:
            UnreadableError: damaged, or not what its suffix says.
            UnsupportedError: 4-D, colour or complex.
            GeometryError: no usable position, orientation or voxel size.
        """
        kind = suffix_of(path)
        if kind in NIFTI_SUFFIXES:
            return _read_nifti(path)
        if kind in ITK_SUFFIXES:
            return _read_itk(path)
        msg = f"{path.name}: unknown suffix; known are {' '.join(SUFFIXES)}"
        raise UnsupportedError(msg, hint="Convert the scan to NIfTI.")

    def with_voxels(self, voxels: NDArray[Any]) -> "Volume":
        """Return a volume on the same grid with other voxels."""
        return replace(self, voxels=voxels)


@dataclass(frozen=True, slots=True)
class Planes:
    """Voxels of a scan slice by slice, so that not all need be held to write them.

    Attributes:
        shape: (I, J, K) or (I, J, K, T).
        dtype: of the voxels; ``RGB`` for colour.
        planes: gives the slices, each (J, I) in C order, K growing before T.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    planes: Callable[[], Iterator[NDArray[Any]]]

    @classmethod
    def of(cls, voxels: NDArray[Any]) -> "Planes":
        """Return the slices of voxels that are in memory."""
        i, j, *_ = voxels.shape
        flat = voxels.reshape((i, j, -1), order="F")
        return cls(voxels.shape, voxels.dtype, lambda: iter(flat.T))

    def array(self) -> NDArray[Any]:
        """Return all voxels in memory."""
        i, j, *_ = self.shape
        flat = np.stack(list(self.planes()), axis=-1).transpose(1, 0, 2)
        return flat.reshape((i, j, *self.shape[2:]), order="F")


def suffix_of(path: Path) -> str:
    """Return the image suffix of ``path`` in lower case, or an empty string."""
    name = path.name.lower()
    return next((s for s in sorted(SUFFIXES, key=len)[::-1] if name.endswith(s)), "")


def stem_of(path: Path) -> str:
    """Return the file name without its image suffix."""
    return path.name.removesuffix(path.name[len(path.name) - len(suffix_of(path)) :])


def read_mask(path: Path) -> Volume:
    """Read a label map; its voxels come back as integers.

    Raises:
        UnsupportedError: values with a fraction.
        InputError: as for ``Volume.read``.
    """
    volume = Volume.read(path)
    voxels = volume.voxels
    if voxels.dtype.kind not in "iu":
        whole = np.rint(voxels)
        if not (np.isfinite(voxels).all() and np.array_equal(whole, voxels)):
            msg = f"{path.name}: a label map with fractions or non-finite values"
            raise UnsupportedError(msg, hint="Give the label map, not probabilities.")
        return volume.with_voxels(whole.astype(np.int32))
    return volume


def nifti_bytes(
    voxels: NDArray[Any], like: Volume, provenance: Mapping[str, Any]
) -> bytes:
    """Return a compressed NIfTI file with ``voxels`` on the grid of ``like``.

    Position, orientation codes and units are those of ``like``; texts of its
    header that might name a patient are left out. The same input gives the same
    bytes: the gzip header carries no time.
    """
    header = _header_for(like, voxels.dtype)
    _add_provenance(header, provenance)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    content = kind(voxels, None, header).to_bytes()
    packed: bytes = igzip.compress(content, COMPRESSION_LEVEL, mtime=0)
    return packed


def _add_provenance(header: nib.Nifti1Header, provenance: Mapping[str, Any]) -> None:
    text = json.dumps({"spine": dict(provenance)}, ensure_ascii=False, sort_keys=True)
    header.extensions.append(nib.nifti1.Nifti1Extension(COMMENT_CODE, text.encode()))


def write_nifti(
    path: Path, voxels: NDArray[Any], like: Volume, provenance: Mapping[str, Any]
) -> None:
    """Write ``nifti_bytes`` to ``path``, whole or not at all."""
    write_bytes(path, nifti_bytes(voxels, like, provenance))


def write_scan(
    path: Path,
    planes: Planes,
    grid: Grid,
    provenance: Mapping[str, Any],
    *,
    timed: bool = False,
) -> None:
    """Write a scan that no NIfTI header came with, whole or not at all.

    Args:
        path: with the suffix ``.nii.gz``.
        planes: the voxels.
        grid: of each volume.
        provenance: what the header says of how the file was made.
        timed: whether the fourth axis is one of time.
    """
    large = max(planes.shape) > np.iinfo(np.int16).max
    header = nib.Nifti2Header() if large else nib.Nifti1Header()
    header.set_data_shape(planes.shape)
    header.set_data_dtype(planes.dtype)
    header.set_qform(grid.affine, code=1)
    header.set_sform(grid.affine, code=1)
    header.set_xyzt_units("mm", "sec" if timed else None)
    header["scl_slope"], header["scl_inter"] = 1, 0
    _add_provenance(header, provenance)
    head = BytesIO()
    header.write_to(head)
    start = int(header["sizeof_hdr"]) + 4 + header.extensions.get_sizeondisk()
    with replacing(path) as part, _threaded(part) as file:
        file.write(head.getvalue().ljust(start, b"\0"))
        for plane in planes.planes():
            file.write(np.ascontiguousarray(plane).reshape(-1).view("u1").data)


def _threaded(path: Path) -> IO[bytes]:
    """Open a gzip file whose blocks are compressed side by side; it holds no time."""
    return cast(
        "IO[bytes]",
        igzip_threaded.open(
            path, "wb", compresslevel=COMPRESSION_LEVEL, threads=COMPRESSORS
        ),
    )


def _header_for(like: Volume, dtype: DTypeLike) -> nib.Nifti1Header:
    if like.header is None:
        header = nib.Nifti1Header()
        header.set_data_shape(like.grid.shape)
        header.set_qform(like.grid.affine, code=1)
        header.set_sform(like.grid.affine, code=1)
        header.set_xyzt_units("mm")
    else:
        header = like.header.copy().as_byteswapped("<")
        header.set_data_shape(like.grid.shape)
        header["vox_offset"] = 0
        for text in ("descrip", "aux_file", "intent_name", "db_name"):
            if text in header:
                header[text] = b""
        header["cal_min"] = header["cal_max"] = 0
    header.extensions.clear()
    header.set_data_dtype(dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    return header


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", igzip.open(path, "rb") if packed else path.open("rb"))


def _read_nifti(path: Path) -> Volume:
    try:
        if path.stat().st_size == 0:
            msg = f"{path.name}: the file is empty (0 bytes)"
            raise UnreadableError(msg)
        with closing(_open(path)) as file:
            header = _read_header(path, file)
            shape = _shape(path, header)
            affine = _nifti_affine(path, header, shape)
            voxels = _read_voxels(path, file, header, shape)
    except InputError:
        raise
    except _READ_ERRORS as error:
        msg = f"{path.name}: cannot be read ({_first_line(error)})"
        raise UnreadableError(msg) from error
    return Volume(voxels, Grid(shape, affine), header, _provenance(header))


def _read_header(path: Path, file: IO[bytes]) -> nib.Nifti1Header:
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
    return _three_axes(path, header.get_data_shape())


def _three_axes(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        msg = f"{path.name}: {len(shape)}-D with {shape[3]} frames; one is needed"
        raise UnsupportedError(msg, hint="Split the series and give one frame.")
    if len(shape) < 3 or min(shape) < 1:
        msg = (
            f"{path.name}: {' x '.join(map(str, shape)) or 'no'} voxels; 3-D is needed"
        )
        raise UnsupportedError(msg, hint="Give the whole scan, not a single slice.")
    return int(shape[0]), int(shape[1]), int(shape[2])


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
    affine = sform if sform is not None else qform
    if affine is None:
        msg = f"{path.name}: neither qform nor sform says how the patient lies"
        raise GeometryError(msg)
    if sform is not None and qform is not None:
        geometry.check_affine(qform)
        apart = geometry.disagreement_voxels(shape, sform, qform)
        if apart > geometry.DISAGREEMENT_VOXELS:
            msg = f"{path.name}: sform and qform disagree, by {apart:.1f} voxels"
            raise GeometryError(msg, hint="Find out which is right; clear the other.")
    return _checked(path, affine)


def _checked(path: Path, affine: Affine) -> Affine:
    try:
        geometry.check_affine(affine)
    except GeometryError as error:
        raise GeometryError(f"{path.name}: {error}", hint=error.hint) from None
    return affine


def _read_voxels(
    path: Path,
    file: IO[bytes],
    header: nib.Nifti1Header,
    shape: tuple[int, int, int],
) -> NDArray[Any]:
    dtype = header.get_data_dtype()
    needed = int(np.prod(shape)) * dtype.itemsize
    file.seek(int(header["vox_offset"]) or int(header["sizeof_hdr"]) + 4)
    content = _read_up_to(file, needed)
    if len(content) < needed:
        msg = f"{path.name}: truncated, {len(content)} of {needed} bytes of voxels"
        raise UnreadableError(msg)
    stored = np.frombuffer(content, dtype).reshape(shape, order="F")
    native = stored.astype(dtype.newbyteorder("="), copy=False)
    slope, inter = header.get_slope_inter()
    return _scaled(native, slope, inter)


def _read_up_to(file: IO[bytes], count: int) -> bytearray:
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


def _provenance(header: nib.Nifti1Header) -> Mapping[str, Any]:
    for extension in header.extensions:
        if extension.get_code() != COMMENT_CODE:
            continue
        content = extension.get_content()
        text = content if isinstance(content, str) else content.decode(errors="replace")
        try:
            record = json.loads(text.rstrip("\0"))
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("spine"), dict):
            return cast("dict[str, Any]", record["spine"])
    return {}


def _read_itk(path: Path) -> Volume:
    import SimpleITK as sitk  # 90 MB that programs which read no such file are spared

    try:
        if path.stat().st_size == 0:
            msg = f"{path.name}: the file is empty (0 bytes)"
            raise UnreadableError(msg)
        image = _quietly(lambda: sitk.ReadImage(str(path)))
    except (RuntimeError, OSError) as error:
        msg = f"{path.name}: cannot be read ({_first_line(error)})"
        raise UnreadableError(msg) from error
    if "complex" in image.GetPixelIDTypeAsString():
        msg = f"{path.name}: complex values"
        raise UnsupportedError(msg, hint="Give the magnitude image.")
    if image.GetNumberOfComponentsPerPixel() > 1:
        msg = f"{path.name}: a colour or vector image, not a scan"
        raise UnsupportedError(msg, hint="Give the scan, not a screenshot of it.")
    shape = _three_axes(path, image.GetSize())
    voxels = sitk.GetArrayFromImage(image).T
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)
    affine[:3, :3] = direction[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    affine = _checked(path, _LPS_TO_RAS @ affine)
    return Volume(voxels.reshape(shape, order="F"), Grid(shape, affine))


def _quietly(read: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Read with ITK's own warnings, which go to stderr, switched off."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return read()
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(error).__name__
