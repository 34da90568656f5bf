"""A damaged series becomes the volume it tells, or an error that says why."""

import hashlib
import json
import multiprocessing
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from engines.convert import sidecar
from engines.convert.assemble import Assembled, assemble
from engines.convert.convert import ConvertRun, ConvertSettings
from engines.convert.damage import DAMAGE
from engines.convert.stack import Stack
from engines.errors import SpineError
from engines.found import Survey
from engines.scans import survey
from tests import phantoms
from tests.engines.convert import test_syntaxes as syntaxes

SEEDS = 150
"""Damaged copies of each source."""

HANG_S = 30
PLACE_MM, CORNER_MM = 0.2, 0.4
RUN_EVERY = 12
"""One copy of so many is converted to a file too."""

PIXEL_TAG = b"\xe0\x7f\x10\x00"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
EXTENT = ("NumberOfFrames", "SamplesPerPixel", "Rows", "Columns")
SENSE = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    UID("1.2.840.10008.1.2.4.100"),
    UID("1.2.3.4"),
    UID("1.2.840.10008.9.9"),
)
VALUES = (
    b"",
    b"0",
    b"-1",
    b"1",
    b"nan",
    b"inf",
    b"1e308",
    b"-1e308",
    b"1e-300",
    b"999999999",
    b"12.5",
    b"none",
    b"\\\\",
    b"1\\0\\0\\0\\1\\0",
    b"0\\0\\0\\0\\0\\0",
    b"0.5\\0.5",
    b"1\\2\\3",
    b"nan\\nan\\nan",
    b"\0\0",
    b"\xff\xff",
    b"\x01\x80",
    b"\0" * 8,
    b"\xff" * 8,
    b"\xc3\x28" * 5,
    b"9" * 400,
)
DESCRIPTION = {
    "SpecificCharacterSet": "ISO_IR 192",
    "StudyDate": "20200229",
    "AcquisitionTime": "101112.5",
    "AcquisitionNumber": 4,
    "Manufacturer": "Philips",
    "SeriesDescription": "Wirbelsäule",
    "KVP": 120,
    "ExposureTime": 500,
    "SliceThickness": 1.5,
    "SpacingBetweenSlices": 1.5,
    "GantryDetectorTilt": 0,
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.2",
}
KINDS = ("DS", "IS", "US", "LO", "UI", "SQ", "OB", "FD", "UN", "PN")

Files = dict[str, bytes]
Rng = np.random.Generator


def single_frames(folder: Path, syntax: UID) -> None:
    for path in syntaxes.written(folder, syntax, syntaxes.crop(), "uint16"):
        describe(path)


def eight_bits(folder: Path, syntax: UID) -> None:
    for path in syntaxes.written(folder, syntax, syntaxes.grey_levels(), "uint8"):
        describe(path)


def describe(path: Path) -> None:
    """Add what sidecars tell to the header of a file."""
    dataset = pydicom.dcmread(path)
    for keyword, value in DESCRIPTION.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def enhanced(folder: Path, syntax: UID) -> None:
    """Write one object whose frames are the slices of the crop."""
    paths = phantoms.write_dicom(folder, syntaxes.crop())
    slices = [pydicom.dcmread(path) for path in paths]
    made = slices[0]
    for path in paths:
        path.unlink()
    made.SOPClassUID = EnhancedCTImageStorage
    made.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    made.PixelData = b"".join(one.PixelData for one in slices)
    made.NumberOfFrames = len(slices)
    made.SharedFunctionalGroupsSequence = [
        _items(
            PixelMeasuresSequence=_items(PixelSpacing=made.PixelSpacing),
            PlaneOrientationSequence=_items(
                ImageOrientationPatient=made.ImageOrientationPatient
            ),
            PixelValueTransformationSequence=_items(
                RescaleSlope=made.RescaleSlope, RescaleIntercept=made.RescaleIntercept
            ),
        )
    ]
    made.PerFrameFunctionalGroupsSequence = [
        _items(
            PlanePositionSequence=_items(ImagePositionPatient=one.ImagePositionPatient)
        )
        for one in slices
    ]
    for keyword in (
        "PixelSpacing",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(made, keyword)
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False)
    made.save_as(folder / "enhanced.dcm")
    describe(folder / "enhanced.dcm")


def _items(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, [value] if isinstance(value, Dataset) else value)
    return item


SOURCES: Mapping[str, tuple[Callable[[Path, UID], None], UID]] = {
    "plain": (single_frames, ExplicitVRLittleEndian),
    "implicit": (single_frames, ImplicitVRLittleEndian),
    "deflated": (single_frames, DeflatedExplicitVRLittleEndian),
    "rle": (single_frames, RLELossless),
    "jpeg2000": (single_frames, JPEG2000Lossless),
    "jpeg": (single_frames, JPEGLosslessSV1),
    "jpegls": (single_frames, JPEGLSLossless),
    "jpeg_lossy": (eight_bits, JPEGBaseline8Bit),
    "enhanced": (enhanced, ExplicitVRLittleEndian),
    "enhanced_rle": (enhanced, RLELossless),
}


def pixels_begin(content: bytes) -> int:
    return content.rfind(PIXEL_TAG)


def any_of(files: Files, rng: Rng) -> str:
    return sorted(files)[rng.integers(len(files))]


def truncate(files: Files, rng: Rng) -> None:
    name = any_of(files, rng)
    files[name] = files[name][: rng.integers(len(files[name]))]


def flip(content: bytes, low: int, high: int, rng: Rng) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(low, max(high, low + 1), rng.integers(1, 9)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def flip_header(files: Files, rng: Rng) -> None:
    name = any_of(files, rng)
    content = files[name]
    files[name] = flip(content, 128, pixels_begin(content), rng)


def flip_pixels(files: Files, rng: Rng) -> None:
    name = any_of(files, rng)
    content = files[name]
    files[name] = flip(content, pixels_begin(content), len(content), rng)


def flip_start_of_pixels(files: Files, rng: Rng) -> None:
    name = any_of(files, rng)
    begin = pixels_begin(files[name])
    files[name] = flip(files[name], begin, min(begin + 120, len(files[name])), rng)


def flip_anywhere(files: Files, rng: Rng) -> None:
    name = any_of(files, rng)
    files[name] = flip(files[name], 0, len(files[name]), rng)


def zero_block(files: Files, rng: Rng) -> None:
    name = any_of(files, rng)
    content = bytearray(files[name])
    low = rng.integers(len(content))
    high = min(len(content), low + rng.integers(1, 600))
    content[low:high] = bytes(high - low)
    files[name] = bytes(content)


def duplicate(files: Files, rng: Rng) -> None:
    files[f"copy{rng.integers(9)}.dcm"] = files[any_of(files, rng)]


def drop(files: Files, rng: Rng) -> None:
    if len(files) > 1:
        del files[any_of(files, rng)]


def rename_syntax(files: Files, rng: Rng) -> None:
    """Name another transfer syntax, in one file or in all, and touch nothing else."""
    named = SYNTAXES[rng.integers(len(SYNTAXES))]
    names = [any_of(files, rng)] if rng.random() < 0.5 else sorted(files)
    for name in names:
        files[name] = syntaxes.with_syntax(files[name], named)


def edit(files: Files, names: Sequence[str], change: Callable[[Dataset], None]) -> None:
    for name in names:
        dataset = pydicom.dcmread(BytesIO(files[name]), force=True)
        change(dataset)
        content = BytesIO()
        pydicom.dcmwrite(content, dataset, enforce_file_format=False)
        files[name] = content.getvalue()


def some(files: Files, rng: Rng) -> list[str]:
    return [any_of(files, rng)] if rng.random() < 0.7 else sorted(files)


def within(dataset: Dataset, rng: Rng) -> Dataset:
    """Return the dataset or one of those nested in it."""
    items = [item for e in dataset if e.VR == "SQ" for item in e.value]
    if items and rng.random() < 0.6:
        return within(items[rng.integers(len(items))], rng)
    return dataset


def any_tag(dataset: Dataset, rng: Rng) -> pydicom.tag.BaseTag:
    tags = sorted(dataset.keys())
    return tags[rng.integers(len(tags))]


def delete_tag(files: Files, rng: Rng) -> None:
    seed = rng.integers(1 << 30)

    def change(dataset: Dataset) -> None:
        same = np.random.default_rng(seed)
        where = within(dataset, same)
        del where[any_tag(where, same)]

    edit(files, some(files, rng), change)


def replace_value(files: Files, rng: Rng) -> None:
    value = VALUES[rng.integers(len(VALUES))]
    kind = KINDS[rng.integers(len(KINDS))] if rng.random() < 0.2 else None
    seed = rng.integers(1 << 30)

    def change(dataset: Dataset) -> None:
        same = np.random.default_rng(seed)
        where = within(dataset, same)
        tag = any_tag(where, same)
        known = where[tag].VR if kind is None else kind
        content = value + b" " * (len(value) % 2)
        implicit, little = dataset.original_encoding
        where[tag] = RawDataElement(
            tag, known, len(content), content, 0, bool(implicit), bool(little)
        )

    edit(files, some(files, rng), change)


def nudge(files: Files, rng: Rng) -> None:
    """Change one number a little, or a lot."""
    seed = rng.integers(1 << 30)
    by = rng.choice([1e-5, 1e-3, 0.01, 0.05, 0.3, 1.0, 1.5, 3.0, 100.0])
    by *= rng.choice([-1, 1])

    def change(dataset: Dataset) -> None:
        same = np.random.default_rng(seed)
        where = within(dataset, same)
        numbers = [element for element in where if element.VR in ("DS", "IS", "US")]
        if not numbers:
            return
        element = numbers[same.integers(len(numbers))]
        several = element.value if element.VM > 1 else [element.value]
        values = [float(value) for value in several if value is not None]
        if values:
            values[same.integers(len(values))] += by
            whole = element.VR != "DS"
            element.value = [max(0, round(v)) if whole else v for v in values]

    edit(files, some(files, rng), change)


def swap_values(files: Files, rng: Rng) -> None:
    """Give a tag of one slice the value that it has in another."""
    names = sorted(files)
    pick = rng.permutation(len(names))[:2]
    datasets = [pydicom.dcmread(BytesIO(files[names[i]])) for i in pick]
    if len(names) == 1:
        frames = datasets[0].get("PerFrameFunctionalGroupsSequence") or []
        one, other = (frames[i] for i in rng.permutation(len(frames))[:2])
        holders = [x.PlanePositionSequence[0] for x in (one, other)]
    else:
        holders = datasets
    tag = any_tag(holders[0], rng)
    if all(tag in holder for holder in holders):
        holders[0][tag], holders[1][tag] = holders[1][tag], holders[0][tag]
    for i, dataset in zip(pick, datasets, strict=True):
        content = BytesIO()
        pydicom.dcmwrite(content, dataset, enforce_file_format=False)
        files[names[i]] = content.getvalue()


MUTATIONS: Sequence[Callable[[Files, Rng], None]] = (
    truncate,
    flip_header,
    flip_pixels,
    flip_start_of_pixels,
    flip_anywhere,
    zero_block,
    duplicate,
    drop,
    rename_syntax,
    delete_tag,
    delete_tag,
    replace_value,
    replace_value,
    replace_value,
    nudge,
    nudge,
    swap_values,
)


def damaged(source: Path, seed: int) -> Files:
    """Return the files of a source after one or two mutations."""
    rng = np.random.default_rng(seed)
    files = {path.name: path.read_bytes() for path in sorted(source.iterdir())}
    first = MUTATIONS[seed % len(MUTATIONS)]
    second = MUTATIONS[rng.integers(len(MUTATIONS))]
    for mutation in (first, second) if rng.random() < 0.2 else (first,):
        try:
            mutation(files, rng)
        except Exception:  # noqa: BLE001  the first one left files that do not parse
            flip_anywhere(files, rng)
    return files


@dataclass(frozen=True)
class Slice:
    """An image as pydicom reads it from the damaged file, in LPS mm."""

    shape: tuple[int, int]
    position: NDArray[np.float64]
    opposite: NDArray[np.float64]
    slope: float
    intercept: float
    stored: NDArray[Any] | None


@dataclass(frozen=True)
class Known:
    """Pixels of an undamaged file, and the header that they are decoded with."""

    images: NDArray[Any]
    extent: tuple[int, ...]
    sense: tuple[str, ...]


@cache
def known_pixels(source: Path) -> Mapping[bytes, Known]:
    """Return the pixels of the undamaged files, by a digest of their bytes."""
    known = {}
    for path in sorted(source.iterdir()):
        dataset = pydicom.dcmread(path)
        images = dataset.pixel_array
        images = images if images.ndim == 3 else images[None]
        digest = hashlib.sha256(dataset.PixelData).digest()
        known[digest] = Known(images, extent_of(dataset), sense_of(dataset))
    return known


def extent_of(dataset: Dataset) -> tuple[int, ...]:
    return tuple(int(dataset.get(keyword) or 1) for keyword in EXTENT)


def sense_of(dataset: Dataset) -> tuple[str, ...]:
    syntax = str(dataset.file_meta.get("TransferSyntaxUID"))
    return syntax, *(str(dataset.get(keyword)) for keyword in SENSE)


def known_of(dataset: Dataset, source: Path) -> Known | None:
    """Return what is known of the pixels of a file, None if they were damaged."""
    try:
        digest = hashlib.sha256(dataset.PixelData).digest()
    except Exception:  # noqa: BLE001  pydicom has many kinds for a damaged element
        return None
    return known_pixels(source).get(digest)


def slices_in(path: Path, source: Path) -> list[Slice]:
    dataset = pydicom.dcmread(path, force=True)
    known = known_of(dataset, source)
    same = known is not None and known.sense == sense_of(dataset)
    images = known.images if known is not None and same else None
    if "ModalityLUTSequence" in dataset:
        images = None
    each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.get("NumberOfFrames") or 1)
    stored = [*images] if images is not None else []
    shape = (int(dataset.Rows), int(dataset.Columns))
    return [
        _slice(
            shape,
            _told(dataset, each[i : i + 1]),
            stored[i] if i < len(stored) else None,
        )
        for i in range(count)
    ]


def cut_short(path: Path, source: Path) -> Iterator[str]:
    """Yield a file whose header tells of other images than its pixels hold."""
    dataset = pydicom.dcmread(path, force=True)
    known = known_of(dataset, source)
    if known is not None and extent_of(dataset) != known.extent:
        yield f"{path.name} holds {known.extent}, taken for {extent_of(dataset)}"


def _told(dataset: Dataset, own: Sequence[Dataset]) -> dict[str, Any]:
    """Return what holds for one frame: its own groups, else shared ones, else all."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    told = {}
    for keyword, group in GROUPS.items():
        items = [(level.get(group) or [])[:1] for level in (*own, *shared[:1])]
        for holder in (dataset, *(item[0] for item in reversed(items) if item)):
            if holder.get(keyword) not in (None, ""):
                told[keyword] = holder.get(keyword)
    return told


def _slice(
    shape: tuple[int, int], told: Mapping[str, Any], stored: NDArray[Any] | None
) -> Slice:
    rows, columns = shape
    across, down = np.array(told["ImageOrientationPatient"], float).reshape(2, 3)
    between_rows, between_columns = (float(mm) for mm in told["PixelSpacing"])
    position = np.array(told["ImagePositionPatient"], float)
    opposite = position + across * between_columns * (columns - 1)
    opposite = opposite + down * between_rows * (rows - 1)
    slope = float(told.get("RescaleSlope", 1))
    intercept = float(told.get("RescaleIntercept", 0))
    return Slice(shape, position, opposite, slope, intercept, stored)


def wrong_with_volume(stack: Stack, made: Assembled, source: Path) -> Iterator[str]:
    """Yield where a volume is not what its files say, read again with pydicom."""
    lps = LPS_TO_RAS @ made.grid.affine
    columns, rows, count, *_ = made.planes.shape
    voxels = made.voxels.reshape((columns, rows, count, -1), order="F")
    starts = (lps @ [0, 0, 0, 1])[:3] + np.arange(count)[:, None] * lps[:3, 2]
    read = {path: slices_in(path, source) for path in stack.files}
    for step, volume in enumerate(stack.volumes):
        at: defaultdict[int, list[Slice]] = defaultdict(list)
        for frame in volume:
            one = read[frame.path][frame.index]
            off = np.linalg.norm(starts - one.position, axis=1)
            place = int(off.argmin())
            at[place].append(one)
            far = (lps @ [columns - 1, rows - 1, place, 1])[:3] - one.opposite
            if one.shape != (rows, columns):
                yield f"{frame.path.name} is {one.shape}, the volume {voxels.shape}"
            if off[place] > PLACE_MM or np.linalg.norm(far) > CORNER_MM:
                yield f"{frame.path.name} lies {off[place]}, {far} mm off"
        if len(at) != count:
            yield f"{count - len(at)} slices come from no file"
        for place, same in at.items():
            if not any(_holds(voxels[:, :, place, step], one) for one in same):
                yield f"slice {place} holds other values than its file"
    for path in stack.files:
        yield from cut_short(path, source)


def _holds(plane: NDArray[Any], one: Slice) -> bool:
    if one.stored is None or one.stored.shape != plane.T.shape:
        return one.stored is None
    expected = one.stored * np.float64(one.slope) + one.intercept
    return bool(np.allclose(plane.T, expected.astype(np.float32), rtol=1e-6))


def wrong_with_survey(seen: Survey, folder: Path) -> Iterator[str]:
    """Yield files that are neither converted nor reported."""
    told = {one.path for one in seen.left_out}
    notes = []
    for one in seen.found:
        told |= {*one.files}
        notes += [note.message for note in one.stack.notes] if one.stack else []
        if one.problem is not None:
            yield from wrong_with_error(one.problem)
    for path in folder.iterdir():
        if path not in told and not any(path.name in note for note in notes):
            yield f"{path.name} is passed over in silence"


def wrong_with_error(error: Exception) -> Iterator[str]:
    if not isinstance(error, SpineError) or error.code == "bug" or not str(error):
        yield f"{type(error).__name__}: {error}"


def wrong_with_run(
    folder: Path, output: Path, volumes: Mapping[str, Assembled]
) -> Iterator[str]:
    run = ConvertRun([folder], output, ConvertSettings(threads=1))
    for result in run.results():
        json.dumps(result.as_json(), allow_nan=False)
        if result.error is not None:
            if result.error.code in ("bug", "memory", "output"):
                yield f"{result.error.code}: {result.error.message}"
            continue
        made = volumes[result.name]
        image = nib.load(result.outputs["nifti"])
        if not np.allclose(image.affine, made.grid.affine, atol=1e-3):
            yield "the file lies elsewhere"
        if not np.array_equal(np.asanyarray(image.dataobj), made.voxels):
            yield "the file holds other values"


def verdict(source: Path, seed: int, folder: Path, output: Path) -> list[str]:
    """Return what is wrong with what a damaged copy becomes, if anything."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        for name, content in damaged(source, seed).items():
            (folder / name).write_bytes(content)
    found = []
    volumes = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = survey([folder], images=False)
        found += wrong_with_survey(seen, folder)
        for one in seen.found:
            if one.stack is None:
                continue
            try:
                made = assemble(one.stack)
            except SpineError as error:
                found += wrong_with_error(error)
                continue
            volumes[one.name] = made
            tell(one.stack, made)
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        for one in seen.found:
            if one.name in volumes and one.stack is not None:
                found += wrong_with_volume(one.stack, volumes[one.name], source)
    if seed % RUN_EVERY == 0:
        shutil.rmtree(output, ignore_errors=True)
        found += wrong_with_run(folder, output, volumes)
    return found


def tell(stack: Stack, made: Assembled) -> None:
    """Make both kinds of sidecar, unless the header ends where its pixels begin."""
    try:
        header = sidecar.facts(stack.volumes[0][0].path)
    except DAMAGE:
        return
    for kept in (True, False):
        told = sidecar.record(stack, header, made, keep_identifiers=kept)
        json.dumps(told, allow_nan=False)


def awaited(pending: Future[list[str]]) -> list[str]:
    """Return a verdict; what breaks off, hangs or ends the interpreter is one too."""
    try:
        return pending.result(HANG_S)
    except BrokenProcessPool:
        return ["the interpreter died"]
    except TimeoutError:
        return ["it hangs"]
    except Exception as error:  # noqa: BLE001  every kind of failure is reported
        return [f"{type(error).__name__}: {error}"]


def judged(source: Path, seeds: range, folder: Path) -> dict[int, list[str]]:
    """Return the verdicts on damaged copies, judged in a process that may die."""
    context = multiprocessing.get_context("spawn")
    wrong: dict[int, list[str]] = {}
    with ProcessPoolExecutor(1, context) as pool:
        for seed in seeds:
            task = (source, seed, folder / "in" / "series", folder / "out")
            if found := awaited(pool.submit(verdict, *task)):
                wrong[seed] = found
            if found in (["the interpreter died"], ["it hangs"]):
                for process in (pool._processes or {}).values():
                    process.kill()
                break
    return wrong


@pytest.mark.parametrize("name", SOURCES)
def test_undamaged_source_is_right(tmp_path: Path, name: str) -> None:
    write, syntax = SOURCES[name]
    write(tmp_path, syntax)
    [one] = survey([tmp_path], images=False).found
    assert one.stack is not None
    made = assemble(one.stack)

    assert list(wrong_with_volume(one.stack, made, tmp_path)) == []
    assert known_pixels(tmp_path)
    assert made.planes.shape == syntaxes.SHAPE


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_series_is_right_or_refused(tmp_path: Path, name: str) -> None:
    write, syntax = SOURCES[name]
    write(tmp_path / "source", syntax)

    assert judged(tmp_path / "source", range(SEEDS), tmp_path) == {}
