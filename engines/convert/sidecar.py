"""The JSON file beside a converted volume, in the key names of BIDS and dcm2niix.

Nothing that names a patient, a place or a day gets into it unless asked for. Free
texts (series description, protocol) are dropped when they hold a part of what the
header tells about the patient.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from engines import __version__
from engines.convert.assemble import Assembled
from engines.convert.damage import DAMAGE, require_damage
from engines.convert.headers import quiet
from engines.convert.stack import Stack

MILLI = 1e-3

KEYS: Mapping[str, tuple[str, float | None]] = {
    "Modality": ("Modality", None),
    "MagneticFieldStrength": ("MagneticFieldStrength", 1),
    "ImagingFrequency": ("ImagingFrequency", 1),
    "Manufacturer": ("Manufacturer", None),
    "ManufacturersModelName": ("ManufacturerModelName", None),
    "BodyPart": ("BodyPartExamined", None),
    "PatientPosition": ("PatientPosition", None),
    "SoftwareVersions": ("SoftwareVersions", None),
    "MRAcquisitionType": ("MRAcquisitionType", None),
    "SeriesDescription": ("SeriesDescription", None),
    "ProtocolName": ("ProtocolName", None),
    "ScanningSequence": ("ScanningSequence", None),
    "SequenceVariant": ("SequenceVariant", None),
    "ScanOptions": ("ScanOptions", None),
    "SequenceName": ("SequenceName", None),
    "PulseSequenceName": ("PulseSequenceName", None),
    "SeriesNumber": ("SeriesNumber", 1),
    "AcquisitionNumber": ("AcquisitionNumber", 1),
    "ContrastBolusAgent": ("ContrastBolusAgent", None),
    "KVP": ("KVP", 1),
    "ConvolutionKernel": ("ConvolutionKernel", None),
    "ExposureTime": ("ExposureTime", MILLI),
    "XRayTubeCurrent": ("XRayTubeCurrent", 1),
    "XRayExposure": ("Exposure", 1),
    "CTDIvol": ("CTDIvol", 1),
    "GantryDetectorTilt": ("GantryDetectorTilt", 1),
    "ReconstructionDiameter": ("ReconstructionDiameter", 1),
    "SliceThickness": ("SliceThickness", 1),
    "SpacingBetweenSlices": ("SpacingBetweenSlices", 1),
    "EchoTime": ("EchoTime", MILLI),
    "RepetitionTime": ("RepetitionTime", MILLI),
    "InversionTime": ("InversionTime", MILLI),
    "FlipAngle": ("FlipAngle", 1),
    "EchoTrainLength": ("EchoTrainLength", 1),
    "PixelBandwidth": ("PixelBandwidth", 1),
    "PhotometricInterpretation": ("PhotometricInterpretation", None),
    "RescaleType": ("RescaleType", None),
    "LossyImageCompression": ("LossyImageCompression", None),
}
"""Key of the sidecar -> keyword of DICOM, and what its number is multiplied by."""

ENHANCED = {
    "EchoTime": "EffectiveEchoTime",
    "XRayTubeCurrent": "XRayTubeCurrentInmA",
    "ExposureTime": "ExposureTimeInms",
    "Exposure": "ExposureInmAs",
}
"""Keyword of ordinary objects -> what enhanced ones call the same."""

IDENTIFIERS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientWeight",
    "AccessionNumber",
    "StudyID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyDescription",
    "StudyDate",
    "StudyTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "ReferringPhysicianName",
    "StationName",
    "DeviceSerialNumber",
)
"""What gets into the sidecar only when asked for."""

TIMES_OF_DAY = ("acquired", "content")
UNITS = {"acquired": "s", "content": "s", "trigger": "ms", "b_value": "s/mm2"}
"""Mark -> unit of the values of the fourth axis."""

_WHOLE = ("SeriesNumber", "AcquisitionNumber", "EchoTrainLength")
_PHILIPS = {
    "PhilipsRescaleSlope": "RescaleSlope",
    "PhilipsRescaleIntercept": "RescaleIntercept",
}
_PHILIPS_SCALE = 0x2005100E
_PHILIPS_FRAME = 0x2005140F
_LONG_ENOUGH = 3
"""Shorter parts of a name are found in too many harmless words."""


def facts(path: Path) -> Dataset:
    """Return the whole header of a file without its pixels.

    Raises:
        one of ``damage.DAMAGE``: it cannot be read.
    """
    with quiet():
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)


def record(
    stack: Stack, header: Dataset, made: Assembled, *, keep_identifiers: bool
) -> dict[str, Any]:
    """Return what the sidecar of a converted stack says.

    Args:
        stack: the images.
        header: of the first of them.
        made: the volume.
        keep_identifiers: whether names, dates and UIDs may be in it.
    """
    first = stack.volumes[0][0]
    with quiet():
        hidden = frozenset() if keep_identifiers else secrets(header)
        told = dict(_plain(header, hidden))
        if keep_identifiers:
            told |= dict(_identifiers(header))
        if str(_value(header, "Manufacturer") or "").lower().startswith("philips"):
            told |= dict(_philips(header))
    told["ImageType"] = [part for part in first.marks.kind.split("\\") if part]
    if first.directions is not None:
        told["ImageOrientationPatientDICOM"] = list(first.directions)
    told["ConversionSoftware"] = "spine"
    told["ConversionSoftwareVersion"] = __version__
    with quiet():
        told["Spine"] = _spine(stack, made)
    return told


def secrets(header: Dataset) -> frozenset[str]:
    """Return the parts of what names patient, staff, visit or day, in lower case."""
    found: set[str] = set()
    for element in _named(header):
        text = str(element.value)
        words = re.split(r"[\W_]+", text)
        found |= {word.lower() for word in words if len(word) >= _LONG_ENOUGH}
        day = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", text)
        if element.VR == "DA" and day is not None:
            year, month, date = day.groups()
            found |= {f"{year}{gap}{month}{gap}{date}" for gap in "-./_"}
            found |= {f"{date}{gap}{month}{gap}{year}" for gap in ("-", ".", "/", "")}
    return frozenset(found)


def scrubbed(text: str, hidden: frozenset[str]) -> str:
    """Return ``text``, or nothing if it holds one of ``hidden``."""
    low = text.lower()
    return "" if any(word in low for word in hidden) else text


def _named(header: Dataset) -> Iterator[pydicom.DataElement]:
    """Yield what names somebody; words like sex or hospital are no secrets here."""
    ids = ("PatientID", "OtherPatientIDs", "AccessionNumber")
    for element in _sound(header):
        if element.VR in ("PN", "DA") or element.keyword in ids:
            yield element


def _plain(header: Dataset, hidden: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for key, (keyword, factor) in KEYS.items():
        value = _find(header, keyword)
        if value in (None, ""):
            continue
        if factor is not None:
            number = _number(value)
            if number is not None:
                value = round(number * factor, 9)
                yield key, int(value) if key in _WHOLE else value
            continue
        text = scrubbed(_texts(value), hidden)
        if text:
            yield key, text


def _identifiers(header: Dataset) -> Iterator[tuple[str, Any]]:
    for keyword in IDENTIFIERS:
        value = _value(header, keyword)
        if value not in (None, ""):
            yield keyword, _texts(value)


def _philips(header: Dataset) -> Iterator[tuple[str, float]]:
    each = _value(header, "PerFrameFunctionalGroupsSequence")
    each = each if _is_items(each) else [Dataset()]
    own = each[0].get(_PHILIPS_FRAME)
    private = own.value[0] if own is not None and _is_items(own.value) else Dataset()
    numbers = {key: _number(_find(header, word)) for key, word in _PHILIPS.items()}
    scale = header.get(_PHILIPS_SCALE) or private.get(_PHILIPS_SCALE)
    numbers["PhilipsScaleSlope"] = None if scale is None else _number(scale.value)
    for key, number in numbers.items():
        if number is not None:
            yield key, number


def _sound(dataset: Dataset) -> Iterator[pydicom.DataElement]:
    """Yield the elements that can be read; a damaged one is none to rely on."""
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
        except DAMAGE as error:
            require_damage(error)
            continue
        yield element


def _value(dataset: Dataset, keyword: str) -> Any:  # noqa: ANN401
    """Return a value, None where it is missing or damaged."""
    try:
        return dataset.get(keyword)
    except DAMAGE as error:
        require_damage(error)
        return None


def _is_items(value: object) -> bool:
    return isinstance(value, Items) and len(value) > 0


def _spine(stack: Stack, made: Assembled) -> dict[str, Any]:
    """Return what no other converter has a key for."""
    syntaxes = dict.fromkeys(frame.pixels.syntax for frame in stack.frames)
    told: dict[str, Any] = {
        "Series": stack.origin.digest,
        "Files": len(stack.files),
        "TransferSyntax": [UID(s).name if s else "not named" for s in syntaxes],
        "Repairs": dict(made.repairs),
        "Warnings": [note.code for note in made.warnings],  # messages name files
    }
    if stack.part:
        told["Part"] = stack.part
    if len(stack.steps) > 1:
        told["FourthAxis"] = stack.axis
        told["FourthAxisUnit"] = UNITS.get(stack.mark, "")
        told["FourthAxisValues"] = _axis_values(stack)
    return told


def _axis_values(stack: Stack) -> list[Any]:
    """Return the values of the fourth axis; times of day count from the first."""
    if stack.mark in TIMES_OF_DAY:
        seconds = [_seconds(step) for step in stack.steps]
        if all(second is not None for second in seconds):
            start = seconds[0] or 0.0
            return [round((second or 0.0) - start, 6) for second in seconds]
    numbers = [_number(step) for step in stack.steps]
    return [
        step if number is None else number
        for step, number in zip(stack.steps, numbers, strict=True)
    ]


def _seconds(time: str) -> float | None:
    """Return a DICOM time of day (HHMMSS.F, perhaps after a date) in seconds."""
    found = re.fullmatch(r"(?:\d{8})?(\d\d)(\d\d)(\d\d(?:\.\d+)?)?(?:[+-]\d{4})?", time)
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds or 0)


def _find(header: Dataset, keyword: str) -> Any:  # noqa: ANN401
    """Return a value of the header, or of the groups that frames share, or frame 1."""
    for name in (keyword, ENHANCED.get(keyword)):
        if name is None:
            continue
        for dataset in _levels(header):
            value = _value(dataset, name)
            if value not in (None, ""):
                return value
    return None


def _levels(header: Dataset) -> Iterator[Dataset]:
    yield header
    for group in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        items = _value(header, group)
        if not _is_items(items):
            continue
        for element in _sound(items[0]):
            if _is_items(element.value):
                yield element.value[0]


def _number(value: Any) -> float | None:  # noqa: ANN401
    if isinstance(value, bytes) and len(value) == 4:  # a private value without a type
        return float(struct.unpack("<f", value)[0])
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if len(value) else None
    try:
        number = float("nan" if value is None else value)
    except (ValueError, TypeError):
        return None
    return number if math.isfinite(number) else None


def _texts(value: Any) -> str:  # noqa: ANN401
    """Return several values as dcm2niix does, with ``_`` between them."""
    several = isinstance(value, MultiValue | list | tuple)
    return "_".join(str(part) for part in value) if several else str(value)
