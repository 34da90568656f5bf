"""Vertebra names, the ids of each labelling scheme, regions and colours.

The only such table in the project. Inside it every vertebra has its VerSe id:
1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum, 27 coccyx, 28 T13.
Importing it imports nothing heavy.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Region = Literal["cervical", "thoracic", "lumbar", "sacral"]
Scheme = Literal[
    "verse",
    "totalsegmentator",
    "totalsegmentator-v1",
    "totalsegmentator-v2",
    "totalsegmentator-v3",
    "totalsegmentator-mr",
    "totalspineseg",
    "spider",
    "moose",
    "spine-segment",
    "binary",
]

BACKGROUND = 0


@dataclass(frozen=True, slots=True)
class Vertebra:
    """One row: VerSe id, name, region, colour for overlays (red, green, blue)."""

    id: int
    name: str
    region: Region
    colour: tuple[int, int, int]


def _rows() -> tuple[Vertebra, ...]:
    palette: Mapping[Region, tuple[tuple[int, int, int], ...]] = {
        "cervical": ((70, 130, 240), (110, 200, 250)),
        "thoracic": ((60, 180, 90), (170, 220, 90)),
        "lumbar": ((240, 150, 50), (250, 210, 80)),
        "sacral": ((220, 80, 160), (240, 140, 200)),
    }
    spans: tuple[tuple[int, str, int, int, Region], ...] = (
        (1, "C", 1, 7, "cervical"),
        (8, "T", 1, 12, "thoracic"),
        (20, "L", 1, 6, "lumbar"),
    )
    rows = [
        Vertebra(first + i, f"{letter}{start + i}", region, palette[region][i % 2])
        for first, letter, start, count, region in spans
        for i in range(count)
    ]
    rows += [
        Vertebra(26, "sacrum", "sacral", palette["sacral"][0]),
        Vertebra(27, "coccyx", "sacral", palette["sacral"][1]),
        Vertebra(28, "T13", "thoracic", palette["thoracic"][0]),
    ]
    return tuple(rows)


VERTEBRAE: Mapping[int, Vertebra] = MappingProxyType({v.id: v for v in _rows()})
BY_NAME: Mapping[str, Vertebra] = MappingProxyType(
    {v.name: v for v in VERTEBRAE.values()}
)
REGIONS: tuple[Region, ...] = ("cervical", "thoracic", "lumbar", "sacral")


def _upwards(first: int) -> dict[int, int]:
    """Return ids that count from ``first`` at L5 upwards to C1."""
    names = [f"L{n}" for n in range(5, 0, -1)]
    names += [f"T{n}" for n in range(12, 0, -1)] + [f"C{n}" for n in range(7, 0, -1)]
    return {first + i: BY_NAME[name].id for i, name in enumerate(names)}


def _downwards(**firsts: int) -> dict[int, int]:
    """Return ids that count downwards in each region, from its first vertebra."""
    counts = {"C": 7, "T": 12, "L": 5}
    return {
        first + i: BY_NAME[f"{letter}{i + 1}"].id
        for letter, first in firsts.items()
        for i in range(counts[letter])
    }


SACRUM = BY_NAME["sacrum"].id

SCHEMES: Mapping[Scheme, Mapping[int, int]] = MappingProxyType(
    {
        "verse": MappingProxyType({v: v for v in VERTEBRAE}),
        "totalsegmentator": MappingProxyType({25: SACRUM, 26: SACRUM} | _upwards(27)),
        "totalsegmentator-v2": MappingProxyType(
            {25: SACRUM, 26: SACRUM} | _upwards(27)
        ),
        "totalsegmentator-v3": MappingProxyType(
            {25: SACRUM, 26: BY_NAME["L6"].id} | _upwards(27)
        ),
        "totalsegmentator-v1": MappingProxyType({92: SACRUM} | _upwards(18)),
        "totalsegmentator-mr": MappingProxyType({1: SACRUM} | _upwards(2)),
        "totalspineseg": MappingProxyType({50: SACRUM} | _downwards(C=11, T=21, L=41)),
        "spider": MappingProxyType(_upwards(1)),
        "moose": MappingProxyType(
            {v: v for v in range(1, 25)} | {25: SACRUM, 28: SACRUM}
        ),
        "spine-segment": MappingProxyType({v: v for v in VERTEBRAE} | {28: SACRUM}),
        "binary": MappingProxyType({1: 1}),
    }
)
"""Scheme -> id in the file -> VerSe id. In "binary" the 1 means any spine bone.

Sources: VerSe's own; class maps of TotalSegmentator (v1, v2 and v3 "total",
"vertebrae_mr"); the README of totalspineseg; SPIDER counts vertebrae from L5 upwards;
MOOSE's table of "clin_ct_vertebrae", whose 26 and 27 are hips; spine-segment 0.1.6
writes VerSe's ids but 28 for the sacrum.
"""

EITHER: Mapping[str, tuple[int, str, str]] = MappingProxyType(
    {
        "totalsegmentator": (
            26,
            "S1 in version 2 and L6 in version 3",
            "Say which: --scheme totalsegmentator-v2 or totalsegmentator-v3.",
        )
    }
)
"""Scheme -> an id of which nobody can tell what it is, what it may be, and a hint."""

STRUCTURES: Mapping[str, int] = MappingProxyType(
    {f"vertebrae_{v.name}": v.id for v in VERTEBRAE.values() if v.id < SACRUM}
    | {"sacrum": SACRUM, "vertebrae_S1": SACRUM}
)
"""Name of a file that holds one structure, as TotalSegmentator has it -> VerSe id."""

_PREFIX = re.compile(r"vertebrae?_", re.IGNORECASE)
_PREFIXED = {v.name.lower(): v.id for v in VERTEBRAE.values()} | {"s1": SACRUM}
_PLAIN = re.compile(r"L[1-6]|T(\d|1[0-3])|C[1-7]|sacrum|coccyx")
_DOUBTFUL = re.compile(r"T[12]|C[1-7]")
"""Names of vertebrae that cases and MR scans have too."""


def structures(stems: Iterable[str]) -> dict[str, int]:
    """Return VerSe ids of the files of a folder that hold a vertebra each, by name.

    ``vertebrae_L2``, ``vertebra_L2`` and ``L2`` are known. Where ``T1``, ``T2`` or
    names like ``C3`` stand alone they are more likely scans and cases.
    """
    found, certain = {}, False
    for stem in stems:
        bare = _PREFIX.sub("", stem, count=1)
        prefixed = bare != stem and bare.lower() in _PREFIXED
        if prefixed or (_PLAIN.fullmatch(stem) and stem.lower() in _PREFIXED):
            found[stem] = _PREFIXED[bare.lower()]
            certain = certain or prefixed or not _DOUBTFUL.fullmatch(stem)
    return found if certain else {}


SPINE_CLASSES: Mapping[str, int] = MappingProxyType({"background": 0, "spine": 1})
REGION_CLASSES: Mapping[str, int] = MappingProxyType(
    {"background": 0} | {region: i for i, region in enumerate(REGIONS, start=1)}
)
VERTEBRA_CLASSES: Mapping[str, int] = MappingProxyType(
    {"background": 0} | {v.name: v.id for v in VERTEBRAE.values()}
)
MR_CLASSES: Mapping[str, int] = MappingProxyType(
    {"background": 0, "vertebra": 1, "disc": 2, "canal": 3}
)
CLASS_SETS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "spine": SPINE_CLASSES,
        "regions": REGION_CLASSES,
        "vertebrae": VERTEBRA_CLASSES,
        "mr": MR_CLASSES,
    }
)
"""What a network can be trained to tell apart: class name -> index of its channel.

The indices of "vertebrae" are VerSe ids. Masks for "mr" hold its indices themselves.
"""


def class_of(verse_id: int, classes: Mapping[str, int]) -> int:
    """Return the class index that a vertebra belongs to in ``classes``.

    Raises:
        KeyError: the class set has no place for it.
    """
    vertebra = VERTEBRAE[verse_id]
    if "spine" in classes:
        return classes["spine"]
    return classes[vertebra.name if vertebra.name in classes else vertebra.region]
