"""Vertebra names, the ids of each labelling scheme, regions and colours.

The only such table in the project. Inside it every vertebra has its VerSe id:
1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum, 27 coccyx, 28 T13.
Importing it imports nothing heavy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Region = Literal["cervical", "thoracic", "lumbar", "sacral"]
Scheme = Literal[
    "verse",
    "totalsegmentator",
    "totalsegmentator-v1",
    "totalsegmentator-mr",
    "totalspineseg",
    "spider",
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
        "totalsegmentator-v1": MappingProxyType({92: SACRUM} | _upwards(18)),
        "totalsegmentator-mr": MappingProxyType({1: SACRUM} | _upwards(2)),
        "totalspineseg": MappingProxyType({50: SACRUM} | _downwards(C=11, T=21, L=41)),
        "spider": MappingProxyType(_upwards(1)),
        "binary": MappingProxyType({1: 1}),
    }
)
"""Scheme -> id in the file -> VerSe id. In "binary" the 1 means any spine bone.

Sources: VerSe's own; class maps of TotalSegmentator (v2 "total", v1, "vertebrae_mr");
the README of totalspineseg; SPIDER counts vertebrae from L5 upwards.
"""

STRUCTURES: Mapping[str, int] = MappingProxyType(
    {f"vertebrae_{v.name}": v.id for v in VERTEBRAE.values() if v.id < SACRUM}
    | {"sacrum": SACRUM, "vertebrae_S1": SACRUM}
)
"""Name of a file that holds one structure, as TotalSegmentator has it -> VerSe id."""

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
