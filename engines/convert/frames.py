"""Records of the images in DICOM files.

A file holds one image, or many: enhanced multi-frame objects and Siemens mosaics. All
become ``Frame`` records, so that everything after ``headers`` knows one kind only.
Coordinates stay in DICOM's LPS mm.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from engines.convert.marks import Marks, text

DIGEST_LENGTH = 8

MAX_SHOWN = 40
"""Characters of a value that messages show."""

MAX_NUMBER = 1e7
"""No patient lies further away than this, in mm."""

GEOMETRY = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
}
"""Keyword -> how many numbers it holds."""

_NUMERIC = re.compile(r"[\d\s.,;+\-eE\\]*|nan|inf", re.ASCII)

Shared = Callable[[Any], Any]
"""Returns the first of equal records, so that files share what they agree on."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What all slices of one series share; hashes stand for names and UIDs.

    Attributes:
        digest: the end of a hash of the series' UID, stable and nobody's name.
        patient: hash of what names the patient.
        study: hash of the study's UID.
        number: what the scanner numbered the series, None if it did not.
        modality: ``CT``, ``MR`` and so on, empty if the header does not say.
        kind: name of the SOP class.
        place: hash of the frame of reference.
        description: what the scanner's user called the series; may differ.
        person: hashes of the patient's ID, name and birth date without differences
            of spelling, each empty where the header is silent.
        nameless: whether the header holds no UID of a series.
    """

    digest: str
    patient: str
    study: str
    number: int | None
    modality: str
    kind: str
    place: str
    description: str = field(compare=False)
    person: tuple[str, str, str] = field(default=("", "", ""), compare=False)
    nameless: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the pixels of a file are stored.

    Attributes:
        syntax: UID of the transfer syntax, empty if the file does not say.
        shape: rows, columns of one stored image, a mosaic as a whole.
        samples: 1, or 3 for colour.
        frames: images in the file.
        signed: whether stored values are.
        lut: whether a table leads from stored to real values.
        overlay: whether unused bits hold an overlay, as the header says.
        real: whether pixels are floating-point numbers.
    """

    syntax: str
    shape: tuple[int, int]
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    frames: int
    lut: bool
    overlay: bool = False
    real: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One image, in DICOM's LPS mm.

    Attributes:
        index: frame of a multi-frame file, or tile of a mosaic, counted from 0.
        tiles: tiles along a side of a mosaic, 0 for other images.
        at: byte at which the element of the pixels begins, -1 if not known.
        shape: rows, columns.
        spacing_mm: between rows, between columns.
        position_mm: centre of the first pixel.
        directions: along a row, then down a column.
        slope: with ``intercept``, stored value to HU (or to the MR's own units);
            None where the header is silent, NaN where it holds no number.
        units: rescale type, empty if not given.
        number: instance number.
        instance: hash of the instance UID, empty if there is none.
        gantry_deg: tilt of the gantry as the header tells it.
        decimals: how many each number of the position is written with, empty where
            that is not known.
        placed: whether the position is the image's own, not one for a whole file.
        unread: keywords of the geometry whose text holds other than numbers, with
            that text.
    """

    path: Path
    index: int
    tiles: int
    at: int
    origin: Origin
    pixels: Pixels
    shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    position_mm: tuple[float, float, float] | None
    directions: tuple[float, float, float, float, float, float] | None
    slope: float | None
    intercept: float | None
    units: str
    thickness_mm: float | None
    number: int | None
    instance: str
    marks: Marks
    gantry_deg: float | None = None
    decimals: tuple[int, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    placed: bool = True

    @property
    def missing(self) -> tuple[str, ...]:
        """Keywords of the geometry that the header does not hold."""
        held = (self.position_mm, self.directions, self.spacing_mm)
        named = zip(GEOMETRY, held, strict=True)
        return tuple(keyword for keyword, values in named if values is None)


def digest(uid: object) -> str:
    """Return a short hash that stands for a UID or a name, empty for none."""
    text = str(uid or "").strip(" \0")
    return hashlib.sha256(text.encode()).hexdigest()[-DIGEST_LENGTH:] if text else ""


def floats(dataset: Dataset, keyword: str, count: int) -> Any:  # noqa: ANN401
    """Return ``count`` sane numbers, or None if the header does not hold them."""
    try:
        values = tuple(float(value) for value in dataset.get(keyword) or ())
    except (ValueError, TypeError):
        return None
    sane = np.isfinite(values).all() and all(abs(v) < MAX_NUMBER for v in values)
    return values if len(values) == count and sane else None


def decimals(dataset: Dataset, keyword: str) -> tuple[int, ...]:
    """Return how many decimals each number of an element is written with."""
    try:
        texts = [str(value).strip() for value in dataset.get(keyword) or ()]
        exponents = [Decimal(text).as_tuple().exponent for text in texts]
    except (ArithmeticError, TypeError, ValueError):
        return ()
    return tuple(max(0, -one) for one in exponents if isinstance(one, int))


def unread(dataset: Dataset, keywords: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return elements that hold other than numbers, with what they hold.

    Texts that no number is written with are damage, and may name anybody.
    """
    held = ((keyword, text(dataset.get(keyword))) for keyword in keywords)
    return tuple(
        (keyword, repr(told[:MAX_SHOWN]) if _NUMERIC.fullmatch(told) else "other text")
        for keyword, told in held
        if told
    )


def whole(dataset: Dataset, keyword: str, otherwise: int) -> int:
    """Return a whole number, ``otherwise`` where there is none or it is 0.

    Raises:
        ValueError: something else is there.
    """
    value = dataset.get(keyword) or otherwise
    try:
        return int(value)
    except TypeError:
        msg = f"{keyword} is no number"
        raise ValueError(msg) from None


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence, none where it is missing.

    Raises:
        ValueError: something else is there.
    """
    value = dataset.get(keyword)
    if value is None or isinstance(value, Items):
        return value or ()
    if not value:
        return ()
    msg = f"{keyword} holds no items"
    raise ValueError(msg)


def decimal(value: object) -> float | None:
    """Return a number, None if there is none and NaN if it cannot be read."""
    if value in (None, ""):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return float("nan")


def integer(value: object) -> int | None:
    """Return a whole number, None if there is none or it cannot be read."""
    try:
        return None if value in (None, "") else int(value)  # type: ignore[call-overload]
    except (ValueError, TypeError):
        return None
