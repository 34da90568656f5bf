"""Records of what DICOM images make, and how images of one stack lie.

Coordinates are DICOM's LPS mm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.convert import marks
from engines.convert.frames import Frame, Origin
from engines.convert.left_out import LeftOut
from engines.results import Note

DUPLICATE_MM = 0.01
"""Slices closer than this lie at the same place, but for very fine ones."""

DUPLICATE_PIXELS = 0.1
"""The same in pixels, for images as fine as micro-CT."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Images that make one volume, or one volume for each step of a fourth axis.

    Attributes:
        origin: what the images have in common.
        part: what tells this volume from others of its series, as part of a name.
        mark: field of ``Marks`` that tells the volumes apart, empty for one volume.
        steps: value of the fourth axis for each volume; one for a single volume.
        volumes: the images of each step, from foot to head of the slice normal
            once ordered; images at one place follow each other.
        notes: what the user should know of how they were grouped.
        orientations: above 1 where the images lie in too many planes for a volume.
        mixed: why the images make no volume, empty if they may.
    """

    origin: Origin
    part: str
    mark: str
    steps: tuple[str, ...]
    volumes: tuple[tuple[Frame, ...], ...]
    notes: tuple[Note, ...] = ()
    orientations: int = 1
    mixed: str = ""

    @property
    def axis(self) -> str:
        """What the fourth axis counts, empty for one volume."""
        return marks.AXES.get(self.mark, "")

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All images, one volume after the other."""
        return tuple(frame for volume in self.volumes for frame in volume)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the images, each once."""
        return tuple(dict.fromkeys(frame.path for frame in self.frames))

    @property
    def name(self) -> str:
        """What messages call it: number and hash of the series, and its folder."""
        number = self.origin.number
        told = "series " if number is None else f"series {number} "
        folder = self.volumes[0][0].path.parent.name
        return f"{told}(..{self.origin.digest}) in {folder!r}"

    def split(self) -> tuple["Stack", ...]:
        """Return one stack per step of the fourth axis."""
        if len(self.volumes) == 1:
            return (self,)
        letter = self.axis[0] if self.axis else "t"
        return tuple(
            replace(
                self,
                part=joined(self.part, f"{letter}{count:02d}"),
                mark="",
                steps=(step,),
                volumes=(volume,),
            )
            for count, (step, volume) in enumerate(
                zip(self.steps, self.volumes, strict=True), start=1
            )
        )


@dataclass(frozen=True, slots=True)
class Grouped:
    """What DICOM files turned out to be.

    Attributes:
        stacks: volumes, in the order of their first files.
        unreadable: files that are no intact DICOM.
        left_out: localizers, and objects that are no scans.
        faults: files whose headers this program fails on, and its errors.
    """

    stacks: tuple[Stack, ...]
    unreadable: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]
    faults: tuple[tuple[Path, Exception], ...] = ()


def direction_of(frame: Frame) -> NDArray[np.float64]:
    """Return the unit vectors along a row and down a column, (2, 3)."""
    return np.array(frame.directions, float).reshape(2, 3)


def normal_of(frame: Frame) -> NDArray[np.float64]:
    """Return the direction in which slices are ordered, (3,)."""
    normal: NDArray[np.float64] = np.cross(*direction_of(frame))
    return normal


def plane_of(frame: Frame) -> str:
    """Return the plane closest to an image: axial, coronal or sagittal."""
    largest = int(np.abs(normal_of(frame)).argmax())
    return ("sagittal", "coronal", "axial")[largest]


def heights_mm(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return how far each image lies along the slice normal."""
    positions = np.array([frame.position_mm for frame in frames], float)
    heights: NDArray[np.float64] = positions @ normal_of(frames[0])
    return heights


def rounding_mm(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return how far headers round each coordinate, (3,), as far as they show it.

    The finest number that an image has counts for all, since zeros at the end of a
    number need not be written.
    """
    written = [frame.decimals for frame in frames if len(frame.decimals) == 3]
    if len(written) < len(frames):
        return np.zeros(3)
    rounded: NDArray[np.float64] = 0.5 * 10.0 ** -np.max(written, axis=0)
    return rounded


def height_rounding_mm(frames: Sequence[Frame]) -> float:
    """Return how far headers round what ``heights_mm`` returns."""
    return float(np.abs(normal_of(frames[0])) @ rounding_mm(frames))


def duplicate_mm(frames: Sequence[Frame]) -> float:
    """Return below which distance images of a stack lie at the same place."""
    pixel_mm = min(frames[0].spacing_mm or (1.0, 1.0))
    return min(DUPLICATE_MM, DUPLICATE_PIXELS * pixel_mm) if pixel_mm > 0 else 0.0


def joined(part: str, name: str) -> str:
    """Return the name of a part of a part."""
    return f"{part}_{name}" if part else name


def ordered(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Return images by their place along the slice normal."""
    places = [round(float(height), 5) for height in heights_mm(frames)]
    keyed = sorted(
        zip(places, frames, strict=True),
        key=lambda pair: (
            pair[0],
            math.inf if pair[1].number is None else pair[1].number,
            pair[1].path,
            pair[1].index,
        ),
    )
    return tuple(frame for _, frame in keyed)
