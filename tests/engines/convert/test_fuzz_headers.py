"""Headers whose fields change from slice to slice: right, refused or noted.

Each seed makes a series of one patient in which one to three fields take turns between
values, in some pattern over the slices: spelled otherwise, left blank, or different.
Only headers are made, and nothing is written to a disk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, MRImageStorage

from engines.convert.checks import findings_of
from engines.convert.frames import Frame
from engines.convert.headers import FrameReader, quiet
from engines.convert.series import stacks_of
from engines.convert.stack import Stack
from tests import dicom_phantoms as made

SEEDS = 2000
MOST_SLICES = 14
SECRETS = ("Secret", "Person", "Other", "4711", "4712", "1970", "1971", "1.2.3.4")

Rng = np.random.Generator
Pattern = Callable[[int, Rng], list[int]]

PATTERNS: Mapping[str, Pattern] = {
    "in turns": lambda count, _: [n % 2 for n in range(count)],
    "by threes": lambda count, _: [n % 3 for n in range(count)],
    "two and two": lambda count, _: [n // 2 % 2 for n in range(count)],
    "halves": lambda count, _: [int(2 * n >= count) for n in range(count)],
    "thirds": lambda count, _: [3 * n // count for n in range(count)],
    "last": lambda count, _: [int(n == count - 1) for n in range(count)],
    "first": lambda count, _: [int(n == 0) for n in range(count)],
    "middle": lambda count, _: [int(n == count // 2) for n in range(count)],
    "any": lambda count, rng: rng.integers(0, 2, count).tolist(),
}

SPELLED: Mapping[str, Sequence[Any]] = {
    "PatientName": ("Secret^Person", "Secret^Person^^^", "SECRET^PERSON", ""),
    "PatientID": ("4711", "4711 ", None),
    "PatientBirthDate": ("19700102", "", None),
    "StudyInstanceUID": ("1.2.3", "", None),
    "SeriesNumber": (3, None),
    "FrameOfReferenceUID": ("1.2.3.9", "", None),
    "Modality": ("CT", "ct", "", "CT "),
    "SOPClassUID": (CTImageStorage, "", None, "1.2.840.10008.5.1.9"),
    "ImageType": (["ORIGINAL", "PRIMARY"], ["original", "primary"], None, ""),
    "AcquisitionNumber": (1, None),
    "RescaleType": ("HU", "hu", "", None),
    "SpacingBetweenSlices": ("2.5", "", None),
    "PixelSpacing": ([0.7, 0.7], [0.7004, 0.7]),
    "ImageOrientationPatient": ([1, 0, 0, 0, 1, 0], [1, 0.0004, 0, -0.0004, 1, 0]),
    "EchoTime": ("30", "30.0", "", None),
    "SeriesDescription": ("spine", "Spine ", "", None),
}
"""Values that mean the same, or nothing."""

DIFFERENT: Mapping[str, Sequence[Any]] = {
    "PatientName": ("Secret^Person", "Other^Person"),
    "PatientID": ("4711", "4712", "4713"),
    "PatientBirthDate": ("19700102", "19710102"),
    "StudyInstanceUID": ("1.2.3", "1.2.5"),
    "SeriesNumber": (3, 4, 5),
    "FrameOfReferenceUID": ("1.2.3.9", "1.2.3.8"),
    "Modality": ("CT", "MR"),
    "SOPClassUID": (CTImageStorage, MRImageStorage, EnhancedCTImageStorage),
    "ImageType": (["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY", "MIP"]),
    "PixelSpacing": ([0.7, 0.7], [0.702, 0.702], [0.9, 0.9]),
    "ImageOrientationPatient": (
        [1, 0, 0, 0, 1, 0],
        [1, 0.003, 0, -0.003, 1, 0],
        [0, 1, 0, 0, 0, -1],
    ),
    "Rows": (12, 24),
    "EchoTime": ("30", "80"),
    "TemporalPositionIdentifier": (1, 2),
    "DiffusionBValue": (0.0, 800.0),
    "RescaleSlope": ("1", "2", None),
    "RescaleIntercept": ("-1024", "0", None),
    "RescaleType": ("HU", "OD"),
    "SeriesInstanceUID": ("1.2.3.4", "1.2.3.5"),
}
"""Values of images that are not one volume, or not for certain."""

HARMLESS: Mapping[str, Sequence[Any]] = {
    "AcquisitionNumber": (1, 2),
    "AcquisitionTime": ("101010", "101020", None),
    "ContentTime": ("101010", "101020.5", ""),
    "SOPInstanceUID": ("1.2.9", "1.2.8"),
    "InstanceNumber": (1, 2, None),
}
"""Values that slices of one volume may have in turns."""

NEW = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""What anonymizers make anew for every file."""

SHIFTS_MM = (0.04, 0.3, 1.25)
SHIFT_ALLOWED_MM = 0.1


@dataclass
class Series:
    """Slices with what was done to them.

    Attributes:
        uneven: whether they do not lie on an even grid.
        touched: fields that take turns.
        differing: those of which that say that the images are not one volume.
    """

    slices: list[Dataset]
    folders: list[int]
    uneven: bool = False
    touched: set[str] = field(default_factory=set)
    differing: set[str] = field(default_factory=set)

    @property
    def of_several_uids(self) -> bool:
        """Whether they are series that differ in more than their UIDs."""
        spread = len(set(self.folders)) > 1
        more = len(self.differing) > 1 or spread or self.uneven
        return "SeriesInstanceUID" in self.differing and more

    @property
    def count(self) -> int:
        return len(self.slices)


@cache
def usual(number: int) -> Dataset:
    return made.slice_of(number, PixelData=None)


def put(dataset: Dataset, keyword: str, value: Any) -> None:
    if keyword in dataset:
        delattr(dataset, keyword)
    if value is not None:
        setattr(dataset, keyword, value)


def any_of(items: Sequence[Any], rng: Rng) -> Any:
    return items[int(rng.integers(len(items)))]


def change(series: Series, values: Mapping[str, Sequence[Any]], rng: Rng) -> str:
    """Let a field take turns between its values; return it if more than one occurs."""
    keyword = any_of(sorted({*values} - series.touched), rng)
    series.touched.add(keyword)
    pattern = PATTERNS[any_of(sorted(PATTERNS), rng)](series.count, rng)
    held = [values[keyword][int(i)] for i in rng.permutation(len(values[keyword]))]
    for dataset, turn in zip(series.slices, pattern, strict=True):
        put(dataset, keyword, held[turn % len(held)])
    several = len({turn % len(held) for turn in pattern}) > 1
    return keyword if several else ""


def spell(series: Series, rng: Rng) -> None:
    change(series, SPELLED, rng)


def differ(series: Series, rng: Rng) -> None:
    if keyword := change(series, DIFFERENT, rng):
        series.differing.add(keyword)


def vary(series: Series, rng: Rng) -> None:
    change(series, HARMLESS, rng)


def renew(series: Series, rng: Rng) -> None:
    for keyword in NEW:
        if rng.random() < 0.6 and keyword not in series.touched:
            series.touched.add(keyword)
            for number, dataset in enumerate(series.slices):
                put(dataset, keyword, f"1.2.77.{len(keyword)}.{number}")


def shift(series: Series, rng: Rng) -> None:
    by_mm = any_of(SHIFTS_MM, rng)
    pattern = PATTERNS[any_of(["in turns", "last", "first", "middle"], rng)]
    turns = pattern(series.count, rng)
    for dataset, turn in zip(series.slices, turns, strict=True):
        x, y, z = dataset.ImagePositionPatient
        put(dataset, "ImagePositionPatient", [x, y, round(z + by_mm * turn, 3)])
    series.uneven |= by_mm > SHIFT_ALLOWED_MM


def lose(series: Series, rng: Rng) -> None:
    if series.count > 5:
        lost = int(rng.integers(1, series.count - 1))
        del series.slices[lost], series.folders[lost]
        series.uneven = True


def spread(series: Series, rng: Rng) -> None:
    series.folders = PATTERNS[any_of(sorted(PATTERNS), rng)](series.count, rng)


CHANGES = (spell, spell, spell, differ, differ, vary, renew, shift, lose, spread)


def series_of(seed: int) -> Series:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(6, MOST_SLICES + 1))
    slices = [Dataset(dict(usual(number).items())) for number in range(count)]
    series = Series(slices, [0] * count)
    with quiet():
        for one in rng.permutation(len(CHANGES))[: rng.integers(1, 4)]:
            CHANGES[one](series, rng)
    return series


def frames_of(series: Series, rng: Rng) -> tuple[list[Frame], int]:
    """Return the images in any order, and how many slices are left out and listed."""
    reader, frames, listed = FrameReader(), [], 0
    for number in rng.permutation(series.count):
        path = Path(f"in/{series.folders[number]}/{number}.dcm")
        found = reader.frames_of(path, series.slices[number])
        if isinstance(found, str):
            listed += 1
        else:
            frames += found
    return frames, listed


def wrong_with(series: Series, stacks: Sequence[Stack], listed: int) -> Iterator[str]:
    """Yield what is neither right, nor refused, nor noted."""
    held = [frame.path for stack in stacks for frame in stack.frames]
    told = " ".join(note.message for stack in stacks for note in stack.notes)
    strays = {f"{n}.dcm" for n in range(series.count)} - {path.name for path in held}
    if len(held) != len(set(held)):
        yield "an image lies in two volumes"
    if any(name not in told for name in strays) and len(strays) > listed:
        yield f"{strays} are lost"
    for stack in stacks:
        findings = findings_of(stack)
        messages = [one.message for one in findings] + [told]
        if any(secret in text for secret in SECRETS for text in messages):
            yield "a message names the patient"
        if any(one.fatal for one in findings):
            continue
        noted = bool(stack.notes) or bool(findings)
        whole = len(stack.frames) == series.count
        if not whole and not noted and not series.of_several_uids:
            yield f"{len(stack.frames)} of {series.count} slices without a word"
        if whole and series.differing and not noted:
            yield "different images are one volume without a word"
        if whole and series.uneven:
            yield "uneven slices are a volume"
        if whole and len(stack.volumes) > 1:
            yield "slices at different places make a fourth axis"


@pytest.mark.parametrize("part", range(4))
def test_alternating_headers_are_right_refused_or_noted(part: int) -> None:
    wrong = {}
    for seed in range(part * SEEDS // 4, (part + 1) * SEEDS // 4):
        series = series_of(seed)
        frames, listed = frames_of(series, np.random.default_rng(seed))
        found = list(wrong_with(series, list(stacks_of(frames)), listed))
        if found:
            wrong[seed] = (found, sorted(series.touched))

    assert wrong == {}


@pytest.mark.parametrize("part", range(2))
def test_spelling_alone_parts_no_volume(part: int) -> None:
    parted = {}
    for seed in range(part * 200, (part + 1) * 200):
        rng = np.random.default_rng(seed)
        slices = [Dataset(dict(usual(number).items())) for number in range(12)]
        series = Series(slices, [0] * 12)
        with quiet():
            for _ in range(rng.integers(1, 5)):
                spell(series, rng)
        stacks = list(stacks_of(frames_of(series, rng)[0]))
        whole = [len(stack.frames) for stack in stacks] == [12]
        if not whole or any(one.fatal for one in findings_of(stacks[0])):
            parted[seed] = ([len(s.frames) for s in stacks], sorted(series.touched))

    assert parted == {}
