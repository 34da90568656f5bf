"""DICOM series: which images make one volume.

Images are grouped by what can never be mixed (series, patient, frame of reference,
matrix, pixel size, orientation). Where groups of one series lie on one grid, and
nothing tells that they are volumes of their own, they are joined or refused, see
``together``; images at the same places are told apart by their marks, see ``parts``.
Messages name a series by its number and a hash of its UID, nobody's name.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engines.convert.damage import DAMAGE, is_damage
from engines.convert.frames import Frame
from engines.convert.headers import FrameReader
from engines.convert.left_out import DISC_DIRECTORY, NO_IMAGE, LeftOut
from engines.convert.parts import parts_of, single
from engines.convert.placement import MIN_SLICES, on_one_grid
from engines.convert.stack import (
    Grouped,
    Stack,
    direction_of,
    plane_of,
)
from engines.convert.together import Batch, batches_of, series_of, without_copies
from engines.results import Note

DIRECTION_TOLERANCE = 2e-3
"""Largest difference between direction cosines of slices that lie in parallel."""

SPACING_TOLERANCE_MM = 1e-3
"""Largest difference between the pixel sizes of slices of one volume."""

MAX_SHOWN = 4
"""Of more kinds of images, messages show the first ones."""

Shape = list[Frame]


@dataclass(slots=True)
class Collector:
    """Takes files one by one, from many folders, and groups them at the end."""

    reader: FrameReader = field(default_factory=FrameReader)
    frames: list[Frame] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    faults: list[tuple[Path, Exception]] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Read the header of ``path``; a fault of the program is kept, not raised."""
        try:
            found = self.reader.read(path)
        except DAMAGE as error:
            if not is_damage(error):
                self.faults.append((path, error))
            elif path.name.upper() == DISC_DIRECTORY:
                self.left_out.append(LeftOut(path, NO_IMAGE))
            else:
                self.unreadable.append(path)
            return
        if isinstance(found, str):
            self.left_out.append(LeftOut(path, found))
        else:
            self.frames += found

    def grouped(self) -> Grouped:
        """Return what the files make."""
        stacks = tuple(stacks_of(self.frames))
        return Grouped(
            stacks,
            tuple(self.unreadable),
            tuple(self.left_out),
            tuple(self.faults),
        )


def series_in(files: Iterable[Path]) -> Grouped:
    """Group DICOM ``files`` by volume.

    Localizers and objects that are no images (reports, presentation states) are
    left out and listed.
    """
    collector = Collector()
    for path in files:
        collector.add(path)
    return collector.grouped()


def stacks_of(frames: Iterable[Frame]) -> Iterator[Stack]:
    """Yield the volumes that ``frames`` make, in the order of their first files."""
    for series in series_of(list(frames)):
        for once in without_copies(series.frames):
            for batch in batches_of(once.frames):
                notes = batch.notes + once.notes + series.notes
                for stack in _of_batch(batch):
                    yield replace(stack, notes=stack.notes + notes)


def _of_batch(batch: Batch) -> Iterator[Stack]:
    frames = batch.frames
    origin = frames[0].origin
    if batch.mixed:
        yield replace(single(origin, "", frames), mixed=batch.mixed)
        return
    if any(frame.missing for frame in frames):
        yield single(origin, "", frames)  # refused, with the names of the files
        return
    shapes = _by_shape(frames)
    large = [shape for shape in shapes if len(shape) >= MIN_SLICES]
    mixed = list(_mixed_shapes(shapes))
    if len(shapes) > 1 and not large and not mixed:
        yield replace(single(origin, "", frames), orientations=len(shapes))
        return
    yield from _of_shapes(shapes if len(shapes) == 1 else large, shapes, mixed)


def _of_shapes(
    kept: Sequence[Shape], shapes: Sequence[Shape], mixed: Sequence[Sequence[Shape]]
) -> Iterator[Stack]:
    """Yield the volumes of each shape, and those that mix several."""
    in_mixed = [shape for several in mixed for shape in several]
    kept = [shape for shape in kept if not _among(shape, in_mixed)]
    strays = [s for s in shapes if not _among(s, kept) and not _among(s, in_mixed)]
    notes = tuple(_stray_note(group) for group in strays)
    groups = [*kept, *([f for s in several for f in s] for several in mixed)]
    if len(groups) > 1:
        notes += (_split_note(groups),)
    names = _shape_names(groups)
    for group, name in zip(groups[: len(kept)], names, strict=False):
        for stack in parts_of(group[0].origin, name, group):
            yield replace(stack, notes=stack.notes + notes)
    for several, name in zip(mixed, names[len(kept) :], strict=True):
        frames = [frame for shape in several for frame in shape]
        told = _differing(several)
        made = single(frames[0].origin, name, frames)
        yield replace(made, mixed=told, notes=notes)


def _among(shape: Shape, shapes: Sequence[Shape]) -> bool:
    return any(shape is one for one in shapes)


def _mixed_shapes(shapes: Sequence[Shape]) -> Iterator[Sequence[Shape]]:
    """Yield images of different pixel size or direction that lie on one grid."""
    rest = list(shapes)
    while len(rest) > 1:
        first = max(rest, key=len)
        others = [one for one in rest if one is not first]
        near = [one for one in others if _parallel(one[0], first[0])]
        few = sum(map(len, near)) < MIN_SLICES
        if near and not few and on_one_grid([first, *near]):
            yield [first, *near]
            rest = [one for one in others if not _among(one, near)]
            continue
        large = [one for one in near if len(one) >= MIN_SLICES]
        fitting = [one for one in large if on_one_grid([first, one])]
        if fitting:
            yield [first, *fitting]
        rest = [one for one in others if not _among(one, fitting)]


def _parallel(one: Frame, other: Frame) -> bool:
    return plane_of(one) == plane_of(other)


def _by_shape(frames: Sequence[Frame]) -> list[Shape]:
    """Group images of the same matrix, pixel size and orientation."""
    groups: list[Shape] = []
    known: dict[object, Shape] = {}
    for frame in frames:
        exact = (frame.shape, frame.spacing_mm, frame.directions, frame.pixels.samples)
        group = known.get(exact)
        if group is None:
            group = next((g for g in groups if _alike(g[0], frame)), None)
            if group is None:
                group = []
                groups.append(group)
            known[exact] = group
        group.append(frame)
    return groups


def _alike(one: Frame, other: Frame) -> bool:
    apart = np.abs(direction_of(one) - direction_of(other)).max()
    spacings = np.array(one.spacing_mm) - np.array(other.spacing_mm)
    same_mm = min(SPACING_TOLERANCE_MM, min(one.spacing_mm or (0.0,)) / 100)
    return (
        one.shape == other.shape
        and one.pixels.samples == other.pixels.samples
        and bool(apart <= DIRECTION_TOLERANCE)
        and bool(np.abs(spacings).max() <= max(same_mm, 0.0))
    )


def _shape_names(groups: Sequence[Sequence[Frame]]) -> list[str]:
    """Name groups by plane, and by a count where planes are alike."""
    if len(groups) == 1:
        return [""]
    planes = [plane_of(group[0]) for group in groups]
    seen: Counter[str] = Counter()
    names = []
    for plane in planes:
        seen[plane] += 1
        several = planes.count(plane) > 1
        names.append(f"{plane}{seen[plane]}" if several else plane)
    return names


def _differing(shapes: Sequence[Shape]) -> str:
    """Say in what images of several shapes differ, with the values."""
    firsts = [shape[0] for shape in shapes]
    told = {
        "matrix": [f"{one.shape[1]} x {one.shape[0]}" for one in firsts],
        "samples": [str(one.pixels.samples) for one in firsts],
        "pixel size": [
            " x ".join(f"{mm:g}" for mm in (one.spacing_mm or ())[::-1]) + " mm"
            for one in firsts
        ],
        "direction": [
            "\\".join(f"{value:g}" for value in one.directions or ()) for one in firsts
        ],
    }
    parts = []
    for name, values in told.items():
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            more = " ..." if len(distinct) > MAX_SHOWN else ""
            parts.append(f"{name} ({' and '.join(distinct[:MAX_SHOWN])}{more})")
    return ", ".join(parts)


def _split_note(groups: Sequence[Sequence[Frame]]) -> Note:
    told = ", ".join(
        f"{len(group)} {plane_of(group[0])} of {group[0].shape[1]} x "
        f"{group[0].shape[0]}"
        for group in groups
    )
    message = (
        f"the series holds {len(groups)} stacks of other orientation, matrix or pixel "
        f"size ({told} pixels): each becomes a volume"
    )
    return Note("split_series", message)


def _stray_note(group: Sequence[Frame]) -> Note:
    first = group[0]
    rows, columns = first.shape
    files = ", ".join(sorted({frame.path.name for frame in group}))
    message = (
        f"left out {len(group)} {plane_of(first)} image(s) of another orientation, "
        f"matrix or pixel size ({columns} x {rows}): {files}"
    )
    return Note("stray_slices", message)
