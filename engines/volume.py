"""Volumes, and the only reader and writer of image files.

``nifti``, ``nrrd`` and ``metaimage`` know the formats; what they read is checked here.
Voxels keep the type they are stored in unless the header scales them.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from isal import igzip, igzip_threaded
from numpy.typing import DTypeLike, NDArray

from engines import geometry, metaimage, nifti, nrrd, payload, units
from engines.errors import GeometryError, InputError, UnreadableError, UnsupportedError
from engines.extent import Extent
from engines.files import replacing, write_bytes
from engines.geometry import Grid
from engines.raster import FRAMES_HINT, Raster, three_axes
from engines.results import Note

NIFTI_SUFFIXES = nifti.SUFFIXES
SUFFIXES = NIFTI_SUFFIXES + nrrd.SUFFIXES + metaimage.SUFFIXES

UNREAD: tuple[str, ...] = (
    *(".hdr", ".img", ".hdr.gz", ".img.gz", ".mgh", ".mgz", ".mnc", ".gipl"),
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".nii.lz4", ".mif", ".mif.gz"),
)
"""Suffixes of images in formats that are not read."""

LABEL_TOLERANCE = 1e-3
"""So far beside a whole number a label may lie, after a header scaled it."""

HEADER_ERRORS: tuple[type[Exception], ...] = (InputError, *nifti.READ_ERRORS)
"""What ``extent_of`` raises for an image that cannot be read."""

COMMENT_CODE = 6
"""Code of a comment among NIfTI header extensions."""

COMPRESSION_LEVEL = 1
"""isal's level; 2 and 3 cost time and save about 3 % on label maps."""

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
"""Type of the voxels of a colour image, as NIfTI has it."""

COMPRESSORS = max(1, min(4, os.cpu_count() or 1))
"""Threads that compress one file; its bytes do not depend on how many."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A scan or a label map.

    Attributes:
        voxels: (I, J, K), in the order of the file.
        grid: where the voxels are, in RAS mm.
        header: the NIfTI header it came with, None for other formats.
        provenance: what this program wrote into the header when it made the file.
        notes: what was assumed or converted when it was read.
    """

    voxels: NDArray[Any]
    grid: Grid
    header: nib.Nifti1Header | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Volume":
        """Read the image at ``path``; lengths come in mm.

        Raises:
            UnreadableError: damaged, or not what its suffix says.
            UnsupportedError: 4-D, colour or complex.
            GeometryError: no usable position, orientation, unit or voxel size.
        """
        kind = suffix_of(path)
        if kind not in SUFFIXES:
            msg = f"{path.name}: unknown suffix; known are {' '.join(SUFFIXES)}"
            raise UnsupportedError(msg, hint="Convert the scan to NIfTI.")
        try:
            if path.stat().st_size == 0:
                msg = f"{path.name}: the file is empty (0 bytes)"
                raise UnreadableError(msg)
            with contextlib.suppress(*nifti.READ_ERRORS):  # the readers tell more
                extent_of(path).require_memory(path.name)
            if kind in NIFTI_SUFFIXES:
                return _volume(path, *nifti.read(path))
            reader = nrrd.read if kind in nrrd.SUFFIXES else metaimage.read
            return _volume(path, reader(path), None)
        except InputError:
            raise
        except nifti.READ_ERRORS as error:
            msg = f"{path.name}: cannot be read ({_first_line(error)})"
            raise UnreadableError(msg) from error

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


def is_unread_image(path: Path) -> bool:
    """Say whether ``path`` is called like an image of a format that is not read."""
    return path.name.lower().endswith(UNREAD)


def stem_of(path: Path) -> str:
    """Return the file name without its image suffix."""
    return path.name.removesuffix(path.name[len(path.name) - len(suffix_of(path)) :])


def extent_of(path: Path) -> Extent:
    """Return the size of the image at ``path`` by its header alone.

    Raises:
        InputError: as for ``Volume.read``.
        Exception: one of ``nifti.READ_ERRORS``, it is damaged.
    """
    kind = suffix_of(path)
    if kind in NIFTI_SUFFIXES:
        return nifti.extent(path)
    return nrrd.extent(path) if kind in nrrd.SUFFIXES else metaimage.extent(path)


def require_scan_size(path: Path) -> None:
    """Refuse an image, by its header alone, that is packed as no scan can be.

    What is damaged is left to ``Volume.read`` to refuse.

    Raises:
        UnsupportedError: nearly all of its voxels are of one value.
    """
    try:
        size = extent_of(path)
    except HEADER_ERRORS:
        return
    size.require_scan(path.name)


def data_files(path: Path) -> tuple[Path, ...]:
    """Return the file beside a header that holds its voxels; none if it has its own.

    They belong to the contents of the image. A name that cannot be used is left to
    ``Volume.read`` to refuse.
    """
    kind = suffix_of(path)
    if kind not in (*nrrd.SUFFIXES, *metaimage.SUFFIXES):
        return ()
    name_of = nrrd.data_name if kind in nrrd.SUFFIXES else metaimage.data_name
    try:
        named = name_of(path)
        found = payload.data_file(path, named) if named else path
    except (OSError, InputError):
        return ()
    return (found,) if found != path else ()


def read_mask(path: Path) -> Volume:
    """Read a label map; its voxels come back as integers.

    Values that scaling in a header left a hair beside whole numbers are rounded,
    with a note.

    Raises:
        UnsupportedError: values with a fraction, or a channel for each label.
        InputError: as for ``Volume.read``.
    """
    try:
        volume = Volume.read(path)
    except UnsupportedError as error:
        if error.hint == FRAMES_HINT:
            error.hint = (
                "Give one map of label ids; a channel for each label (one-hot) has to "
                "become one map first, by the channel that is largest."
            )
        raise
    if volume.voxels.dtype.kind in "iu":
        return volume
    return _rounded(path, volume)


def _rounded(path: Path, volume: Volume) -> Volume:
    voxels = volume.voxels
    finite = np.isfinite(voxels)
    whole = np.rint(voxels, where=finite, out=np.zeros_like(voxels))
    apart = np.where(finite, np.abs(voxels - whole), np.inf)
    odd = apart > LABEL_TOLERANCE
    if odd.any():
        msg = (
            f"{path.name}: a label map with fractions or non-finite values in "
            f"{int(odd.sum())} voxels, as {float(voxels[odd][0]):g}"
        )
        raise UnsupportedError(msg, hint="Give the label map, not probabilities.")
    made = volume.with_voxels(whole.astype(np.int32))
    moved = int(np.count_nonzero(apart))
    if not moved:
        return made
    value = float(voxels[apart > 0][0])
    msg = f"{moved} labels were rounded to whole numbers, as {value:.6g}"
    return replace(made, notes=(*made.notes, Note("rounded", msg)))


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


def _volume(path: Path, raster: Raster, header: nib.Nifti1Header | None) -> Volume:
    shape = three_axes(path.name, raster.voxels.shape)
    affine, notes = units.in_mm(path.name, raster.affine, shape, raster.unit)
    try:
        geometry.check_affine(affine)
    except GeometryError as error:
        raise GeometryError(f"{path.name}: {error}", hint=error.hint) from None
    voxels = raster.voxels.reshape(shape, order="F")
    told = _provenance(header) if header is not None else {}
    return Volume(voxels, Grid(shape, affine), header, told, (*raster.notes, *notes))


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


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(error).__name__
