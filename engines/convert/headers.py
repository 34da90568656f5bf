"""Read the header of a DICOM file into records of its images.

A header is read once; a frame of plain pixels knows where they begin in the file.
"""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from engines.convert import mosaic, multiframe, persons
from engines.convert.frames import (
    GEOMETRY,
    Frame,
    Origin,
    Pixels,
    Shared,
    decimal,
    decimals,
    digest,
    floats,
    integer,
    items,
    unread,
    whole,
)
from engines.convert.identity import IMAGE, PERSON, person
from engines.convert.left_out import LOCALIZER, NO_IMAGE, SCREENSHOT
from engines.convert.marks import marks_of

"""Why an object is left out."""

SLICED_MODALITIES = ("CT", "MR", "PT", "NM")
"""Whose slices must say where they lie; other images without a place are left out."""

SLICED_KINDS = re.compile(
    "(Legacy Converted )?(Enhanced )?(CT|MR|PET|Positron) .*Image"
)
"""The same by the names of SOP classes, where no modality is given."""

MAX_PIXELS = 1 << 28
"""More pixels in an image than any scanner makes: the header is damaged."""


@dataclass(slots=True)
class _Quiet:
    lock: threading.Lock = field(default_factory=threading.Lock)
    switches: ExitStack = field(default_factory=ExitStack)
    inside: int = 0


_QUIET = _Quiet()
MAX_FRAMES = 100_000

_SHARED, _EACH = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "ImageType",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "StudyDate",
    "StudyTime",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientIdentityRemoved",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
    "TriggerTime",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "SliceThickness",
    "SpacingBetweenSlices",
    "GantryDetectorTilt",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    *GEOMETRY,
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    _SHARED,
    _EACH,
)
_SIEMENS_CSA = (0x00290010, 0x00291010)
_OVERLAYS = range(0x6000, 0x601F, 2)
_OVERLAY_BIT = 0x0102
_REAL_PIXELS = (b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00")
"""How elements of floating-point pixels begin."""

_WANTED = [
    *map(Tag, _TAGS),
    *map(Tag, _SIEMENS_CSA),
    *(Tag(group, _OVERLAY_BIT) for group in _OVERLAYS),
]

Item = TypeVar("Item")


@dataclass(slots=True)
class FrameReader:
    """Reads headers; equal records of different files become the same object.

    Attributes:
        persons: words that name the patients of what was read -> field.
    """

    _pool: dict[Any, Any] = field(default_factory=dict)
    persons: dict[str, str] = field(default_factory=dict)

    def read(self, path: Path) -> list[Frame] | str:
        """Return the images in ``path``, or in a word why it is left out.

        Raises:
            one of ``damage.DAMAGE``: the file is no intact DICOM.
        """
        header, at, real = _header(path)
        return self.frames_of(path, header, at, real=real)

    def frames_of(
        self, path: Path, header: Dataset, at: int = -1, *, real: bool = False
    ) -> list[Frame] | str:
        """Return the images of a header as ``read`` does.

        Args:
            path: where it was read from.
            header: of one file, without pixels.
            at: byte at which the element of the pixels begins, -1 if not known.
            real: whether pixels are floating-point numbers.
        """
        with quiet():
            self._name(header)
            left_out = _left_out(header)
            return left_out or self._frames(path, header, at, real=real)

    def _frames(
        self, path: Path, header: Dataset, at: int, *, real: bool
    ) -> list[Frame]:
        pixels = self._shared(_pixels(header, real=real))
        origin = self._shared(_origin(header, path))
        base = Frame(
            path,
            0,
            0,
            at,
            origin,
            pixels,
            pixels.shape,
            _geometry(header, "PixelSpacing", self._shared),
            _geometry(header, "ImagePositionPatient", self._shared),
            _geometry(header, "ImageOrientationPatient", self._shared),
            decimal(header.get("RescaleSlope")),
            decimal(header.get("RescaleIntercept")),
            str(header.get("RescaleType") or "").strip().upper(),
            decimal(header.get("SliceThickness")),
            integer(header.get("InstanceNumber")),
            digest(header.get("SOPInstanceUID")),
            self._shared(marks_of(header)),
            decimal(header.get("GantryDetectorTilt")),
            self._shared(decimals(header, "ImagePositionPatient")),
        )
        if base.missing:
            base = replace(base, unread=unread(header, base.missing))
        if mosaic.is_mosaic(header):
            return mosaic.tiles(base, header)
        if header.get(_EACH) or pixels.frames > 1:
            return multiframe.frames(base, header, self._shared)
        return [base]

    def _name(self, header: Dataset) -> None:
        """Note who is named, once for all files of a patient."""
        seen = tuple(str(header.get(key) or "") for key in persons.FIELDS)
        if ("person", *seen) not in self._pool:
            self._pool["person", *seen] = seen
            self.persons.update(persons.words_of(header))

    def _shared(self, item: Item) -> Item:
        kept: Item = self._pool.setdefault(item, item)
        return kept


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from printing header values, which may name a patient.

    Python's and pydicom's switches hold for all threads: the first one in turns them
    off, the last one out turns them back.
    """
    with _QUIET.lock:
        if _QUIET.inside == 0:
            _QUIET.switches.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            off = pydicom.config.disable_value_validation()
            _QUIET.switches.enter_context(off)
        _QUIET.inside += 1
    try:
        yield
    finally:
        with _QUIET.lock:
            _QUIET.inside -= 1
            if _QUIET.inside == 0:
                _QUIET.switches.close()


def _header(path: Path) -> tuple[Dataset, int, bool]:
    """Return the header of ``path``, where its pixels begin and whether they are real.

    Raises:
        ValueError: an image whose header ends too early.
    """
    with quiet(), path.open("rb") as file:
        header = pydicom.dcmread(
            file, stop_before_pixels=True, specific_tags=[*_WANTED], force=True
        )
        for keyword in _TAGS:  # values are parsed here, where pydicom is quiet
            header.get(keyword)
        deflated = _syntax(header) == DeflatedExplicitVRLittleEndian
        at = -1 if deflated else file.tell()
        real = at >= 0 and file.read(4) in _REAL_PIXELS
        pixels = at >= 0 and file.tell() > at
        ended = not header.get("Rows") and (pixels or _like_image(header))
    if ended:
        msg = "the header ends too early"
        raise ValueError(msg)
    return header, at, real


def _like_image(header: Dataset) -> bool:
    """Say whether a header without a matrix is that of an image, or of nothing known.

    A SOP class that is neither in the standard nor a maker's own is damaged.
    """
    meta = getattr(header, "file_meta", None) or {}
    uids = (header.get("SOPClassUID"), meta.get("MediaStorageSOPClassUID"))
    kinds = [UID(str(uid)) for uid in uids if uid]
    if any(IMAGE in kind.name for kind in kinds):
        return True
    if any(kind.name != kind for kind in kinds):
        return False
    placed = any(header.get(keyword) for keyword in GEOMETRY)
    return placed or not any(_is_private(kind) for kind in kinds)


def _is_private(kind: UID) -> bool:
    return kind.is_valid and kind.is_private


def _syntax(header: Dataset) -> str:
    meta = getattr(header, "file_meta", None)
    return str((meta or {}).get("TransferSyntaxUID") or "")


def _kind(header: Dataset) -> str:
    meta = getattr(header, "file_meta", None) or {}
    uid = header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    return UID(str(uid)).name if uid else ""


def _left_out(header: Dataset) -> str:
    if not header.get("Rows") or header.get("Modality") in ("SEG", "RTDOSE"):
        return NO_IMAGE
    kinds = header.get("ImageType") or ()
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if any(str(kind).upper() == "LOCALIZER" for kind in kinds):
        return LOCALIZER
    placed = header.get("ImagePositionPatient") or _EACH in header
    kind = _kind(header)
    modality = header.get("Modality")
    sliced = modality in SLICED_MODALITIES or (
        not modality and SLICED_KINDS.match(kind) is not None
    )
    if not placed and (not sliced or "Secondary Capture" in kind):
        return SCREENSHOT
    return ""


def _pixels(header: Dataset, *, real: bool) -> Pixels:
    rows, columns = whole(header, "Rows", 0), whole(header, "Columns", 0)
    if not 0 < rows * columns <= MAX_PIXELS:
        msg = f"{rows} x {columns} pixels"
        raise ValueError(msg)
    frames = max(1, whole(header, "NumberOfFrames", 1))
    if frames > MAX_FRAMES:
        msg = f"{frames} frames"
        raise ValueError(msg)
    bits = whole(header, "BitsAllocated", 16)
    stored = whole(header, "BitsStored", bits)
    high = whole(header, "HighBit", 0)
    return Pixels(
        _syntax(header),
        (rows, columns),
        whole(header, "SamplesPerPixel", 1),
        str(header.get("PhotometricInterpretation") or ""),
        whole(header, "PlanarConfiguration", 0),
        bits,
        stored,
        high if stored - 1 <= high < bits else stored - 1,
        bool(whole(header, "PixelRepresentation", 0)),
        frames,
        any("LUTData" in item for item in items(header, "ModalityLUTSequence")),
        any((group, _OVERLAY_BIT) in header for group in _OVERLAYS),
        real,
    )


def _origin(header: Dataset, path: Path) -> Origin:
    """Return what tells the series; without a UID, folder and texts stand for it.

    What may be blank or spelled otherwise in some images is no part of these.
    """
    number = integer(header.get("SeriesNumber"))
    description = str(header.get("SeriesDescription") or "")
    texts = [str(header.get(name) or "") for name in PERSON]
    patient = "\0".join(texts)
    uid = str(header.get("SeriesInstanceUID") or "")
    if not uid:
        when = (str(header.get(key) or "") for key in ("StudyDate", "StudyTime"))
        uid = "\0".join((path.parent.name, *when, description))
    return Origin(
        digest(uid),
        digest(patient.strip("\0")),
        digest(header.get("StudyInstanceUID")),
        number,
        str(header.get("Modality") or "").strip().upper(),
        _kind(header),
        digest(header.get("FrameOfReferenceUID")),
        description,
        person(*texts),
        nameless=not header.get("SeriesInstanceUID"),
    )


def _geometry(header: Dataset, keyword: str, shared: Shared) -> Any:  # noqa: ANN401
    return shared(floats(header, keyword, GEOMETRY[keyword]))
