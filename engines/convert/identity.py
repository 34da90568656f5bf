"""What images of one series should agree on, without differences of spelling.

Patients and UIDs are known by hashes alone, so that no message can name them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engines.convert.frames import Frame, Origin, digest

PERSON = ("PatientID", "PatientName", "PatientBirthDate")
"""Keywords of what names a patient, in the order of ``Origin.person``."""

IMAGE = "Image Storage"
"""Part of the name of every SOP class of images; other kinds are damage."""

FIELDS: Mapping[str, Callable[[Origin], str]] = {
    "patient ID": lambda origin: origin.person[0],
    "patient name": lambda origin: origin.person[1],
    "birth date": lambda origin: origin.person[2],
    "study UID": lambda origin: origin.study,
    "series number": lambda origin: "" if origin.number is None else str(origin.number),
    "modality": lambda origin: origin.modality,
    "SOP class": lambda origin: origin.kind if IMAGE in origin.kind else "",
    "frame of reference": lambda origin: origin.place,
}
"""What origins are compared by -> its value, empty where there is none."""

UIDS = ("study UID", "frame of reference")
"""Fields that some anonymizers make anew for every file."""

SHOWN = ("series number", "modality", "SOP class")
"""Fields whose values name nobody."""

MAX_SHOWN = 4
"""Of more values, messages give the number only."""

MIN_NEW = 3
"""Of fewer files nothing tells that a UID is made anew for each."""

Key = tuple[str, ...]


def person(patient_id: str, name: str, birth_date: str) -> tuple[str, str, str]:
    """Return hashes of what names a patient, the same for every spelling.

    Case, blanks, separators and trailing carets make no difference in names and IDs;
    of a name in several scripts the first one counts.
    """
    spelled = name.split("=")
    alphabetic = next((part for part in spelled if _words(part)), "")
    return (
        digest(_words(patient_id)),
        digest(_words(alphabetic)),
        digest(re.sub(r"\D", "", birth_date)),
    )


def keys_of(frames: Sequence[Frame]) -> list[Key]:
    """Return for each image the values of ``FIELDS`` that tell it from others.

    Blanks count as the only value that others have, and UIDs that no two files share
    as none.
    """
    columns = []
    for name, value in FIELDS.items():
        values = [value(frame.origin) for frame in frames]
        known = {one for one in values if one}
        if len(known) == 1:
            values = [next(iter(known))] * len(values)
        if name in UIDS and _made_anew(frames, values):
            values = [""] * len(values)
        columns.append(values)
    return list(zip(*columns, strict=True))


def differing(keys: Sequence[Key]) -> str:
    """Say in what keys differ, with values where these name nobody."""
    told = []
    for name, values in zip(FIELDS, zip(*keys, strict=True), strict=True):
        distinct = sorted({value or "blank" for value in values})
        if len(distinct) < 2:
            continue
        shown = name in SHOWN and len(distinct) <= MAX_SHOWN
        told.append(f"{name} ({' and '.join(distinct)})" if shown else name)
    return ", ".join(told)


def spelled_apart(frames: Sequence[Frame]) -> str:
    """Say which fields are blank, spelled otherwise or new in some of ``frames``."""
    origins = list({frame.origin: None for frame in frames})
    told = [
        name
        for name, value in FIELDS.items()
        if len({value(origin) for origin in origins}) > 1
    ]
    spelled = len({origin.patient for origin in origins}) > 1
    if spelled and not any(name in told for name in tuple(FIELDS)[: len(PERSON)]):
        told.insert(0, "spelling of the patient")
    kinds = len({origin.kind for origin in origins}) > 1
    if kinds and "SOP class" not in told:
        told.append("SOP class")
    return ", ".join(told)


def common(frames: Sequence[Frame]) -> list[Frame]:
    """Return ``frames`` with one origin: the commonest, its blanks filled."""
    counted = Counter(frame.origin for frame in frames)
    origin = max(counted, key=lambda one: (known(one), counted[one]))
    for other in counted:
        origin = replace(
            origin,
            study=origin.study or other.study,
            number=other.number if origin.number is None else origin.number,
            modality=origin.modality or other.modality,
            kind=origin.kind if IMAGE in origin.kind else other.kind or origin.kind,
            place=origin.place or other.place,
        )
    return [replace(frame, origin=origin) for frame in frames]


def known(origin: Origin) -> int:
    """Return how many of ``FIELDS`` an image says something of."""
    return sum(bool(value(origin)) for value in FIELDS.values())


def _made_anew(frames: Sequence[Frame], values: Sequence[str]) -> bool:
    """Say whether each file that has a value has one of its own."""
    by_file = {frame.path: value for frame, value in zip(frames, values, strict=True)}
    known = [value for value in by_file.values() if value]
    return len(known) >= MIN_NEW and len(set(known)) == len(known)


def _words(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", plain))
