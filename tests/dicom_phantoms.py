"""DICOM of other shapes than a folder of slices, and edits that spoil a series."""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from engines.convert.headers import FrameReader, quiet
from engines.convert.series import series_in, stacks_of
from engines.convert.stack import Stack
from engines.volume import Volume
from tests import phantoms

Edit = Callable[[int, Dataset], None]

MARKS: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "temporal": ("time", (1, 2)),
    "echo": ("echo", (30.5, 60)),
    "b_value": ("b-value", (0, 1000)),
    "acquisition": ("acquisition", (1, 2)),
    "stack": ("", ("lower", "upper")),
    "kind": ("", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
}
"""What tells two volumes apart -> name of the fourth axis, and the two values."""

_KEYWORDS = {
    "temporal": "TemporalPositionIdentifier",
    "echo": "EchoTime",
    "b_value": "DiffusionBValue",
    "acquisition": "AcquisitionNumber",
    "kind": "ImageType",
}
_FRAME_GROUPS = {
    "temporal": ("FrameContentSequence", "TemporalPositionIndex"),
    "echo": ("MREchoSequence", "EffectiveEchoTime"),
    "b_value": ("MRDiffusionSequence", "DiffusionBValue"),
    "acquisition": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "stack": ("FrameContentSequence", "StackID"),
    "kind": ("MRImageFrameTypeSequence", "FrameType"),
}
_CSA_TAG = struct.Struct("<64si4siii")


def ct(
    axes: str = "LPS",
    turned_deg: Sequence[float] = (0, 0, 0),
    spacing_mm: Sequence[float] = phantoms.SPACING_MM,
) -> Volume:
    """Return a phantom whose voxels differ, in whole Hounsfield units."""
    voxels = phantoms.volume().voxels * np.int16(9) - np.int16(1000)
    return phantoms.volume(voxels, axes, spacing_mm, turned_deg)


def stack_of(paths: Sequence[Path]) -> Stack:
    """Return the only volume that files make."""
    (stack,) = series_in(paths).stacks
    return stack


def frames_of(path: Path) -> Any:
    """Return the images in a file, or why it is left out."""
    return FrameReader().read(path)


def as_is(_: int, dataset: Dataset) -> None:
    """Change nothing in ``dataset``."""


def all_of(*edits: Edit) -> Edit:
    """Return an edit that makes several, one after the other."""

    def edit(number: int, dataset: Dataset) -> None:
        for one in edits:
            one(number, dataset)

    return edit


def having(only: int | None = None, **values: Any) -> Edit:
    """Return an edit that sets values in all slices, or in one."""

    def edit(number: int, dataset: Dataset) -> None:
        for keyword, value in values.items():
            if only in (None, number):
                setattr(dataset, keyword, value)

    return edit


def each(keyword: str, values: Sequence[Any]) -> Edit:
    """Return an edit that gives every slice a value of its own."""
    return lambda number, dataset: setattr(dataset, keyword, values[number])


def without(*keywords: str, only: int | None = None) -> Edit:
    """Return an edit that removes elements."""

    def edit(number: int, dataset: Dataset) -> None:
        for keyword in keywords:
            if only in (None, number):
                delattr(dataset, keyword)

    return edit


def moved(mm_by_slice: Mapping[int, Sequence[float]]) -> Edit:
    """Return an edit that moves slices, in LPS mm."""

    def edit(number: int, dataset: Dataset) -> None:
        by = mm_by_slice.get(number, (0, 0, 0))
        place = np.array(dataset.ImagePositionPatient, float) + by
        dataset.ImagePositionPatient = place.tolist()

    return edit


def tilted(angle_deg: float, step_mm: float = phantoms.SPACING_MM[2]) -> Edit:
    """Return an edit that stacks axial slices ever more towards the back."""

    def edit(number: int, dataset: Dataset) -> None:
        by_mm = step_mm * number * np.tan(np.radians(angle_deg))
        moved({number: (0, by_mm, 0)})(number, dataset)

    return edit


def instances(label: str) -> Edit:
    """Return an edit that makes slices none that another folder holds."""

    def edit(number: int, dataset: Dataset) -> None:
        uid = generate_uid(entropy_srcs=[label, str(number)])
        dataset.SOPInstanceUID = uid
        dataset.file_meta.MediaStorageSOPInstanceUID = uid

    return edit


def as_mr(_: int, dataset: Dataset) -> None:
    """Make a slice one of an MR, without slope and intercept."""
    dataset.Modality = "MR"
    dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    del dataset.RescaleSlope, dataset.RescaleIntercept


def as_colour(_: int, dataset: Dataset) -> None:
    """Make a slice a picture of itself with three different colours."""
    rows, columns = dataset.Rows, dataset.Columns
    grey = np.frombuffer(dataset.PixelData, np.uint16).reshape(rows, columns)
    red = grey.astype(np.uint8)
    dataset.PixelData = np.stack([red, 255 - red, red // 2], axis=-1).tobytes()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    del dataset.RescaleSlope, dataset.RescaleIntercept


def write_marked(
    folder: Path, scans: Sequence[Volume], mark: str, edit: Edit = as_is
) -> list[Path]:
    """Write volumes at the same place as one series of single-frame files.

    Args:
        folder: for all the files.
        scans: volumes on one grid.
        mark: what tells them apart, of ``MARKS``.
        edit: of each slice of each volume.
    """
    paths = []
    for count, scan in enumerate(scans):
        value = MARKS[mark][1][count]

        def marked(
            number: int, dataset: Dataset, value: Any = value, count: int = count
        ) -> None:
            dataset.InstanceNumber += 1 + count * scans[0].grid.shape[2]
            setattr(dataset, _KEYWORDS[mark], value)
            instances(str(value))(number, dataset)
            edit(number, dataset)

        written = phantoms.write_dicom(folder / "part", scan, edit=marked)
        paths += [path.rename(folder / f"{count}{path.name}") for path in written]
    (folder / "part").rmdir()
    return paths


def write_enhanced(
    path: Path,
    scans: Sequence[Volume],
    mark: str = "",
    *,
    modality: str = "CT",
    slope: float = 1.0,
    intercept: float = -1024.0,
    edit: Callable[[Dataset], None] = lambda dataset: None,
) -> Path:
    """Write volumes on one grid as one multi-frame file, its frames shuffled.

    Args:
        path: of the file.
        scans: one volume, or two that ``mark`` tells apart.
        mark: of ``MARKS``.
        modality: CT or MR.
        slope: with ``intercept``, shared by all frames.
        intercept: value of stored zero.
        edit: of the whole dataset, at the end.
    """
    dataset = _base(modality, scans[0])
    count = scans[0].grid.shape[2]
    every = [(volume, place) for volume in range(len(scans)) for place in range(count)]
    order = np.random.default_rng(2).permutation(len(every))
    shared, lps = Dataset(), phantoms.LPS_TO_RAS @ scans[0].grid.affine
    spacing_mm = scans[0].grid.spacing_mm
    across, down = lps[:3, 0] / spacing_mm[0], lps[:3, 1] / spacing_mm[1]
    _put(shared, "PlaneOrientationSequence", ImageOrientationPatient=[*across, *down])
    _put(
        shared,
        "PixelMeasuresSequence",
        PixelSpacing=[spacing_mm[1], spacing_mm[0]],
        SliceThickness=spacing_mm[2],
    )
    _put(
        shared,
        "PixelValueTransformationSequence",
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        RescaleType="HU" if modality == "CT" else "US",
    )
    frames, pixels = [], []
    for volume, place in (every[index] for index in order):
        frame = Dataset()
        position = (lps @ [0, 0, place, 1])[:3].tolist()
        _put(frame, "PlanePositionSequence", ImagePositionPatient=position)
        values = {"DimensionIndexValues": [volume + 1, place + 1]}
        _put(frame, "FrameContentSequence", InStackPositionNumber=place + 1, **values)
        if mark:
            group, keyword = _FRAME_GROUPS[mark]
            value = MARKS[mark][1][volume]
            _put(frame, group, **{keyword: value})
        frames.append(frame)
        stored = (scans[volume].voxels[:, :, place].T - intercept) / slope
        pixels.append(np.rint(stored).astype(np.uint16))
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = np.stack(pixels).tobytes()
    edit(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_mosaic(
    path: Path,
    scan: Volume,
    *,
    csa: Mapping[str, tuple[str, Sequence[object]]] | None = None,
    flipped: bool = False,
    edit: Edit = as_is,
) -> Path:
    """Write a volume as a Siemens mosaic.

    Args:
        path: of the file.
        scan: the volume; its third axis runs along the slice normal.
        csa: name -> type and values of the private header, in place of the right one.
        flipped: whether the private header turns the slice normal round.
        edit: of the dataset, called with slice 0.
    """
    columns, rows, count = scan.grid.shape
    side = ceil(sqrt(count))
    sheet = np.zeros((side * rows, side * columns), np.uint16)
    for tile in range(count):
        top, left = tile // side * rows, tile % side * columns
        image = scan.voxels[:, :, count - 1 - tile if flipped else tile].T
        sheet[top : top + rows, left : left + columns] = image
    lps, spacing_mm = phantoms.LPS_TO_RAS @ scan.grid.affine, scan.grid.spacing_mm
    first = lps @ [0, 0, count - 1 if flipped else 0, 1]
    corner = (
        first[:3]
        - lps[:3, 0] * columns * (side - 1) / 2
        - lps[:3, 1] * rows * (side - 1) / 2
    )
    normal = lps[:3, 2] / spacing_mm[2] * (-1 if flipped else 1)
    dataset = _base("MR", scan)
    dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    dataset.Manufacturer = "SIEMENS"
    dataset.Rows, dataset.Columns = sheet.shape
    dataset.ImagePositionPatient = corner.tolist()
    dataset.ImageOrientationPatient = [
        *(lps[:3, 0] / spacing_mm[0]).tolist(),
        *(lps[:3, 1] / spacing_mm[1]).tolist(),
    ]
    dataset.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
    dataset.SliceThickness = spacing_mm[2] / 2
    dataset.SpacingBetweenSlices = spacing_mm[2]
    dataset.PixelData = sheet.tobytes()
    told = csa or {
        "NumberOfImagesInMosaic": ("US", [count]),
        "SliceNormalVector": ("FD", normal.tolist()),
    }
    block = dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa_header(told))
    edit(0, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def csa_header(tags: Mapping[str, tuple[str, Sequence[object]]]) -> bytes:
    """Return Siemens' private header in its second form."""
    made = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, (kind, values) in tags.items():
        texts = [f"{value}".encode() + b"\0" for value in values]
        name_and_kind = name.encode(), len(texts), kind.encode()
        made += _CSA_TAG.pack(*name_and_kind, 0, len(texts), 77)
        for text in texts:
            made += struct.pack("<4i", len(text), len(text), 77, len(text))
            made += text + bytes(-len(text) % 4)
    return made + bytes(-len(made) % 2)


def rewrite(path: Path, syntax: UID, edit: Edit = as_is) -> Path:
    """Store an uncompressed file again in another transfer syntax."""
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(dataset.PixelData)
    edit(0, dataset)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)
    if syntax == ExplicitVRBigEndian:
        words = np.frombuffer(dataset.PixelData, f"u{dataset.BitsAllocated // 8}")
        dataset.PixelData = words.byteswap().tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def rewrite_header(path: Path, edit: Edit) -> Path:
    """Change the header of a file and leave its pixels as they are."""
    dataset = pydicom.dcmread(path)
    edit(0, dataset)
    pydicom.dcmwrite(path, dataset)
    return path


def _put(dataset: Dataset, group: str, **values: Any) -> None:
    if group not in dataset:
        setattr(dataset, group, [Dataset()])
    for keyword, value in values.items():
        setattr(dataset[group][0], keyword, value)


def _base(modality: str, scan: Volume) -> Dataset:
    columns, rows, _ = scan.grid.shape
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind = EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    uid = "1.2.826.0.1.3680043.8.498.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.Modality = modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.PatientName, dataset.PatientID = "Secret^Person", "4711"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.6"
    dataset.SeriesNumber, dataset.InstanceNumber = 5, 1
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    return dataset


SLICES = 12


def slice_of(number: int, z_mm: float | None = None, **values: Any) -> Dataset:
    """Return one CT slice of 12 x 16 pixels, 2.5 mm above the one before it.

    Args:
        number: of the slice, from 0.
        z_mm: where it lies; the usual place if not given.
        values: of other elements; None leaves one out.
    """
    uid = f"1.2.3.4.{number + 1}"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    height_mm = 100 + 2.5 * number if z_mm is None else z_mm
    usual: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": uid,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientName": "Secret^Person",
        "PatientID": "4711",
        "PatientBirthDate": "19700102",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesNumber": 3,
        "InstanceNumber": number + 1,
        "AcquisitionNumber": 1,
        "FrameOfReferenceUID": "1.2.3.9",
        "SliceThickness": "2.5",
        "ImagePositionPatient": [-10, -20, height_mm],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.7],
        "Rows": 12,
        "Columns": 16,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        "RescaleType": "HU",
        "PixelData": stored_of(number).tobytes(),
    }
    with quiet():
        for keyword, value in (usual | values).items():
            if value is not None:
                setattr(dataset, keyword, value)
    return dataset


def stored_of(number: int) -> NDArray[np.uint16]:
    """Return the stored pixels of ``slice_of``, (12, 16)."""
    return np.random.default_rng(number).integers(0, 2000, (12, 16), np.uint16)


def hu_of(numbers: Sequence[int] = range(SLICES)) -> NDArray[np.int16]:
    """Return the volume that slices make, (16, 12, K), in Hounsfield units."""
    stored = [stored_of(number).T.astype(np.int16) - 1024 for number in numbers]
    return np.stack(stored, axis=-1)


def write_slices(folder: Path, slices: Iterable[Dataset]) -> list[Path]:
    """Write datasets to ``folder``, named by their order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for count, dataset in enumerate(slices):
        path = folder / f"{count}.dcm"
        with quiet():
            pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        paths.append(path)
    return paths


def alternating(**values: tuple[Any, ...]) -> list[Dataset]:
    """Return slices whose values of some elements take turns."""
    return [
        slice_of(n, **{key: turns[n % len(turns)] for key, turns in values.items()})
        for n in range(SLICES)
    ]


def stacks_in(slices: Iterable[Dataset]) -> list[Stack]:
    """Return what the headers of slices make, without any file.

    Values are as they would be read: numbers as texts.
    """
    reader, frames = FrameReader(), []
    for count, dataset in enumerate(slices):
        found = reader.frames_of(Path(f"folder/{count}.dcm"), dataset)
        if not isinstance(found, str):
            frames += found
    return list(stacks_of(frames))
