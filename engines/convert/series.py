"""DICOM series: which files belong together, and their voxels as one volume.

Only ordinary single-frame CT and MR is read. Slices are ordered by where they lie
along the slice normal, never by name or number. DICOM's LPS world is turned to RAS
here, once. Messages name a series by its number and a hash of its UID, nobody's name.
"""

import hashlib
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from engines import geometry
from engines.errors import (
    DuplicateSliceError,
    GeometryError,
    InputError,
    MissingDecoderError,
    MixedSeriesError,
    NotFoundError,
    SeriesGapError,
    UnreadableError,
    UnsupportedError,
)
from engines.geometry import Affine, Grid
from engines.volume import Volume

DICOM_SUFFIX = ".dcm"

READABLE_MODALITIES = ("CT", "MR")

PLACE_TOLERANCE_MM = 0.1
"""How far a slice may lie from its place in an even stack: headers round to 0.1 mm."""

PLACE_TOLERANCE_STEPS = 0.2
"""The same in slice steps, for stacks so fine that 0.1 mm would hide a gap."""

DUPLICATE_MM = 0.01
"""Slices closer than this lie at the same place."""

DIRECTION_TOLERANCE = 2e-3
"""Largest difference between direction cosines of slices that lie in parallel."""

SPACING_TOLERANCE_MM = 1e-3
"""Largest difference between the pixel sizes of slices of one series."""

GAP_STEPS = 1.5
"""From this many usual steps on, slices are missing rather than unevenly spaced."""

DIGEST_LENGTH = 8

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_QUIET = threading.Lock()  # Python's and pydicom's switches hold for all threads
_MAGIC_AT, _MAGIC = 128, b"DICM"
_TAGS = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "SeriesInstanceUID",
    "SeriesNumber",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
)
_GEOMETRY = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
}
_DAMAGE = (
    InvalidDicomError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Series:
    """Files of one series in one folder.

    Attributes:
        digest: the end of a hash of the series' UID, stable and nobody's name.
        number: what the scanner numbered it, None if it did not.
    """

    digest: str
    number: int | None
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Grouped:
    """What DICOM files turned out to be.

    Attributes:
        series: images by series, in the order of their first files.
        unreadable: files that are no intact DICOM.
        left_out: number of localizers, and of objects that are no images.
    """

    series: tuple[Series, ...]
    unreadable: tuple[Path, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class _Slice:
    """Header of one slice, in DICOM's LPS mm.

    Attributes:
        shape: rows, columns.
        spacing_mm: between rows, between columns.
        position_mm: (3,), centre of the first pixel.
        directions: (2, 3), along a row and down a column.
        slope: with ``intercept``, stored value to HU (or to the MR's own units).
    """

    path: Path
    shape: tuple[int, int]
    spacing_mm: NDArray[np.float64]
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    slope: float
    intercept: float


def is_dicom(path: Path) -> bool:
    """Say whether ``path`` is DICOM by its suffix or by its first 132 bytes.

    A file that cannot be opened counts, so that it is reported and not passed over.
    """
    if path.suffix.lower() == DICOM_SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return True


def series_in(files: Sequence[Path]) -> Grouped:
    """Group DICOM ``files`` by series.

    Localizers and objects that are no images (reports, presentation states) are
    left out and counted.
    """
    groups: dict[str, tuple[int | None, list[Path]]] = {}
    unreadable, left_out = [], 0
    for path in files:
        try:
            header = _header(path)
            wanted = _is_image(header) and not _is_localizer(header)
            digest, number = _digest(header), _series_number(header)
        except _DAMAGE:
            unreadable.append(path)
            continue
        if wanted:
            groups.setdefault(digest, (number, []))[1].append(path)
        else:
            left_out += 1
    found = (
        Series(key, number, tuple(paths)) for key, (number, paths) in groups.items()
    )
    return Grouped(tuple(found), tuple(unreadable), left_out)


def read_series(files: Sequence[Path]) -> Volume:
    """Read the slices of one series as a volume.

    Voxels are (I, J, K) = (column, row, slice), K growing along the slice normal;
    int16 or int32 where the rescaled values are whole, else float32.

    Raises:
        UnsupportedError: not single-frame CT or MR, or a single slice.
        MissingDecoderError: compressed in a way that needs another package.
        GeometryError: missing positions, tilt, gaps, duplicates, mixed slices.
        UnreadableError: a damaged or truncated file.
    """
    headers = {path: _readable_header(path) for path in files}
    kept = {p: h for p, h in headers.items() if not _is_localizer(h)} or headers
    if not kept:
        msg = "no DICOM files were given"
        raise NotFoundError(msg)
    name = _name(kept)
    try:
        slices = [_slice(path, header) for path, header in kept.items()]
        _check_alike(slices, kept)
        ordered = _ordered(slices)
        grid = Grid(_shape(ordered), _affine(ordered))
    except InputError as error:
        raise type(error)(f"{name}: {error}", hint=error.hint) from None
    return Volume(_voxels(ordered, name), grid)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom from printing header values, which may name a patient."""
    with _QUIET, warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def _header(path: Path) -> Dataset:
    with _quiet():
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_TAGS])
        for keyword in _TAGS:  # values are parsed here, where pydicom is quiet
            header.get(keyword)
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    if not kind or ("Image Storage" in UID(kind).name and not header.get("Rows")):
        msg = "the header ends too early"
        raise ValueError(msg)
    return header


def _readable_header(path: Path) -> Dataset:
    try:
        return _header(path)
    except _DAMAGE as error:
        msg = f"{path.name}: not an intact DICOM file ({type(error).__name__})"
        raise UnreadableError(msg) from None


def _is_image(header: Dataset) -> bool:
    return bool(header.get("Rows")) and header.get("Modality") not in ("SEG", "RTDOSE")


def _is_localizer(header: Dataset) -> bool:
    kinds = header.get("ImageType") or ()
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return any(str(kind).upper() == "LOCALIZER" for kind in kinds)


def _digest(header: Dataset) -> str:
    uid = str(header.get("SeriesInstanceUID") or "")
    return hashlib.sha256(uid.encode()).hexdigest()[-DIGEST_LENGTH:]


def _series_number(header: Dataset) -> int | None:
    number = header.get("SeriesNumber")
    return None if number in (None, "") else int(number)


def _name(headers: dict[Path, Dataset]) -> str:
    path, header = next(iter(headers.items()))
    number = header.get("SeriesNumber")
    told = f"series {number} " if number not in (None, "") else "series "
    return f"{told}(..{_digest(header)}) in {path.parent.name!r}"


def _slice(path: Path, header: Dataset) -> _Slice:
    _check_kind(path, header)
    numbers = {key: _numbers(header, key, count) for key, count in _GEOMETRY.items()}
    missing = [key for key, values in numbers.items() if values is None]
    if missing:
        msg = f"{path.name} has no {' and no '.join(missing)}"
        raise GeometryError(msg, hint="Export the original series, not a copy of it.")
    try:
        slope = float(header.get("RescaleSlope") or 1)
        intercept = float(header.get("RescaleIntercept") or 0)
    except (ValueError, TypeError):
        msg = f"{path.name}: the rescale slope or intercept is not a number"
        raise UnreadableError(msg) from None
    return _Slice(
        path,
        (int(header.Rows), int(header.Columns)),
        np.array(numbers["PixelSpacing"]),
        np.array(numbers["ImagePositionPatient"]),
        np.array(numbers["ImageOrientationPatient"]).reshape(2, 3),
        slope,
        intercept,
    )


def _check_kind(path: Path, header: Dataset) -> None:
    modality = header.get("Modality")
    if modality not in READABLE_MODALITIES:
        msg = f"{path.name}: modality {modality or 'unknown'}; CT or MR is needed"
        raise UnsupportedError(msg)
    if "Enhanced" in UID(str(header.get("SOPClassUID") or "")).name or (
        int(header.get("NumberOfFrames") or 1) > 1
    ):
        msg = f"{path.name}: an enhanced multi-frame object"
        raise UnsupportedError(msg, hint="Convert the series to NIfTI first.")
    if int(header.get("SamplesPerPixel") or 1) > 1:
        msg = f"{path.name}: a colour image, not a scan"
        raise UnsupportedError(msg, hint="Give the scan, not a screenshot of it.")
    if "ModalityLUTSequence" in header:
        msg = f"{path.name}: values behind a modality lookup table"
        raise UnsupportedError(msg, hint="Convert the series to NIfTI first.")


def _numbers(header: Dataset, keyword: str, count: int) -> list[float] | None:
    try:
        values = [float(value) for value in header.get(keyword) or ()]
    except (ValueError, TypeError):
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _check_directions(first: _Slice) -> None:
    across, down = first.directions
    lengths = np.linalg.norm(first.directions, axis=1)
    if (
        abs(across @ down) > DIRECTION_TOLERANCE
        or np.abs(lengths - 1).max() > DIRECTION_TOLERANCE
    ):
        msg = "the directions of rows and columns are no unit vectors at right angles"
        raise GeometryError(msg)


def _check_alike(slices: Sequence[_Slice], headers: dict[Path, Dataset]) -> None:
    first = slices[0]
    _check_directions(first)
    digests = {_digest(header) for header in headers.values()}
    if len(digests) > 1:
        msg = f"the files belong to {len(digests)} series"
        raise MixedSeriesError(msg, hint="Give the folder, or the files of one series.")
    sizes = sorted({f"{s.shape[1]} x {s.shape[0]}" for s in slices})
    if len(sizes) > 1:
        msg = f"slices of different sizes: {', '.join(sizes)}"
        raise MixedSeriesError(msg)
    if any(
        np.abs(s.directions - first.directions).max() > DIRECTION_TOLERANCE
        for s in slices
    ):
        msg = "slices that do not lie in parallel (several orientations)"
        raise MixedSeriesError(msg)
    if any(
        np.abs(s.spacing_mm - first.spacing_mm).max() > SPACING_TOLERANCE_MM
        for s in slices
    ):
        msg = "slices with different pixel sizes"
        raise MixedSeriesError(msg)
    if len(slices) < 2:
        msg = "one slice only; 3-D is needed"
        raise UnsupportedError(msg, hint="Give the whole series.")


def _ordered(slices: Sequence[_Slice]) -> list[_Slice]:
    """Return ``slices`` by their place along the slice normal, evenly spaced."""
    normal = np.cross(*slices[0].directions)
    ordered = sorted(slices, key=lambda s: (float(normal @ s.position_mm), s.path))
    heights_mm = np.array([normal @ s.position_mm for s in ordered])
    steps_mm = np.diff(heights_mm)
    same = int((steps_mm < DUPLICATE_MM).sum())
    if same:
        msg = f"{same} of {len(slices)} slices lie where another one does"
        raise DuplicateSliceError(msg)
    _check_tilt(ordered, normal)
    _check_even(heights_mm, steps_mm)
    return ordered


def _check_tilt(ordered: Sequence[_Slice], normal: NDArray[np.float64]) -> None:
    """Refuse slices that are stacked sideways, evenly or not."""
    moved = np.array([s.position_mm - ordered[0].position_mm for s in ordered])
    heights_mm = moved @ normal
    sideways_mm = moved - heights_mm[:, None] * normal
    drift_mm = float(np.linalg.norm(sideways_mm[-1]))
    tilt = np.arctan2(drift_mm, heights_mm[-1])
    if drift_mm > PLACE_TOLERANCE_MM and np.sin(tilt) > geometry.SHEAR_TOLERANCE:
        msg = f"gantry tilt of {np.degrees(tilt):.1f} degrees"
        raise GeometryError(
            msg, hint="Convert it with a tool that corrects gantry tilt first."
        )
    line = heights_mm[:, None] / heights_mm[-1] * sideways_mm[-1]
    off_mm = np.linalg.norm(sideways_mm - line, axis=1).max()
    if off_mm > PLACE_TOLERANCE_MM:
        msg = f"a slice is shifted sideways by {off_mm:.2f} mm"
        raise GeometryError(msg, hint="Export the series again from the scanner.")


def _check_even(heights_mm: NDArray[np.float64], steps_mm: NDArray[np.float64]) -> None:
    """Refuse missing slices and uneven steps."""
    usual_mm = float(np.median(steps_mm))
    gaps = steps_mm[steps_mm >= GAP_STEPS * usual_mm]
    if gaps.size:
        msg = (
            f"slices are missing: {gaps.size} gap(s), the widest {gaps.max():.2f} mm "
            f"where {usual_mm:.2f} mm was expected"
        )
        raise SeriesGapError(msg)
    even_mm = np.linspace(heights_mm[0], heights_mm[-1], len(heights_mm))
    off_mm = float(np.abs(heights_mm - even_mm).max())
    if off_mm > min(PLACE_TOLERANCE_MM, PLACE_TOLERANCE_STEPS * usual_mm):
        msg = (
            f"slices are unevenly spaced: {steps_mm.min():.2f} to "
            f"{steps_mm.max():.2f} mm apart"
        )
        raise SeriesGapError(msg)


def _shape(ordered: Sequence[_Slice]) -> tuple[int, int, int]:
    rows, columns = ordered[0].shape
    return columns, rows, len(ordered)


def _affine(ordered: Sequence[_Slice]) -> Affine:
    first, last = ordered[0], ordered[-1]
    across, down = first.directions
    between_rows_mm, between_columns_mm = first.spacing_mm
    moved = last.position_mm - first.position_mm
    normal = np.cross(across, down)
    sideways_mm = np.linalg.norm(moved - (moved @ normal) * normal)
    if sideways_mm <= PLACE_TOLERANCE_MM:  # rounding in the header, not a tilt
        moved = (moved @ normal) * normal
    affine = np.eye(4)
    affine[:3, 0] = across * between_columns_mm
    affine[:3, 1] = down * between_rows_mm
    affine[:3, 2] = moved / (len(ordered) - 1)
    affine[:3, 3] = first.position_mm
    turned: Affine = _LPS_TO_RAS @ affine
    geometry.check_affine(turned)
    return turned


def _voxels(ordered: Sequence[_Slice], name: str) -> NDArray[Any]:
    """Return the rescaled voxels (I, J, K), one slice decoded at a time."""
    whole = all(s.slope.is_integer() and s.intercept.is_integer() for s in ordered)
    kind = np.dtype(np.int16 if whole else np.float32)
    voxels = np.empty(_shape(ordered), kind, order="F")
    for place, one in enumerate(ordered):
        stored = _stored(one, name)
        values: NDArray[Any]
        if whole and stored.dtype.kind in "iu":
            values = stored.astype(np.int64) * int(one.slope) + int(one.intercept)
            needed = _fitting(values, voxels.dtype)
        else:
            values = stored.astype(np.float64) * one.slope + one.intercept
            needed = np.dtype(np.float32)
        if needed != voxels.dtype:
            voxels = voxels.astype(needed, order="F")
        voxels[:, :, place] = values.T
    return voxels


def _fitting(values: NDArray[np.int64], held: np.dtype[Any]) -> np.dtype[Any]:
    """Return the smallest signed type, from ``held`` up, that takes ``values``."""
    low, high = int(values.min()), int(values.max())
    for kind in (np.int16, np.int32):
        info = np.iinfo(kind)
        if info.min <= low and high <= info.max:
            return np.promote_types(held, kind)
    return np.dtype(np.int64)


def _stored(one: _Slice, name: str) -> NDArray[Any]:
    """Return the stored pixels (rows, columns) of one slice."""
    try:
        with _quiet():
            dataset = pydicom.dcmread(one.path)
            _require_decoder(dataset, name)
            pixels: NDArray[Any] = dataset.pixel_array
    except InputError:
        raise
    except _DAMAGE as error:
        told = "truncated or damaged pixels"
        msg = f"{name}: {one.path.name}: {told} ({type(error).__name__})"
        raise UnreadableError(msg) from None
    if pixels.shape != one.shape:
        msg = f"{name}: {one.path.name}: pixels of another size than its header says"
        raise UnreadableError(msg)
    return pixels


def _require_decoder(dataset: Dataset, name: str) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        ready = get_decoder(syntax).is_available
    except NotImplementedError:
        msg = f"{name}: compressed as {syntax.name}, which cannot be decoded"
        raise UnsupportedError(msg, hint="Convert the series to NIfTI first.") from None
    if not ready:
        msg = f"{name}: compressed as {syntax.name}, and no decoder is installed"
        raise MissingDecoderError(msg)
