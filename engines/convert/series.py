"""DICOM series: which images make one volume.

Images are grouped by what can never be mixed (series, patient, frame of reference,
matrix, pixel size, orientation). Where several of one group lie at the same place, the
marks that tell them apart (echo, b-value, time, acquisition ...) make a fourth axis or
volumes of their own. Messages name a series by its number and a hash of its UID,
nobody's name.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.convert import marks
from engines.convert.frames import Frame, Origin
from engines.convert.headers import DAMAGE, FrameReader
from engines.convert.stack import (
    Grouped,
    LeftOut,
    Stack,
    direction_of,
    heights_mm,
    joined,
    normal_of,
    plane_of,
)
from engines.results import Note

DICOM_SUFFIX = ".dcm"

DUPLICATE_MM = 0.01
"""Slices closer than this lie at the same place."""

DIRECTION_TOLERANCE = 2e-3
"""Largest difference between direction cosines of slices that lie in parallel."""

SPACING_TOLERANCE_MM = 1e-3
"""Largest difference between the pixel sizes of slices of one volume."""

MIN_SLICES = 3
"""Of fewer slices nothing tells whether one is missing between them."""

EVEN_STEPS = 0.2
"""Steps of a stack may differ by this much of the usual one and still be even."""

ORIGIN_WORDS = {
    "study": "study",
    "number": "series number",
    "modality": "modality",
    "kind": "kind of object",
    "place": "frame of reference",
}
"""Fields of ``Origin`` in which images of one UID may differ, in words."""

_MAGIC_AT, _MAGIC = 128, b"DICM"
_BARE_STARTS = (
    b"\x08\x00\x00\x00",
    b"\x08\x00\x01\x00",
    b"\x08\x00\x05\x00",
    b"\x08\x00\x08\x00",
    b"\x08\x00\x16\x00",
    b"\x02\x00\x00\x00",
)


@dataclass(slots=True)
class Collector:
    """Takes files one by one, from many folders, and groups them at the end."""

    reader: FrameReader = field(default_factory=FrameReader)
    frames: list[Frame] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Read the header of ``path``."""
        try:
            found = self.reader.read(path)
        except DAMAGE:
            self.unreadable.append(path)
            return
        if isinstance(found, str):
            self.left_out.append(LeftOut(path, found))
        else:
            self.frames += found

    def grouped(self) -> Grouped:
        """Return what the files make."""
        stacks = tuple(stacks_of(self.frames))
        return Grouped(stacks, tuple(self.unreadable), tuple(self.left_out))


def is_dicom(path: Path) -> bool:
    """Say whether ``path`` is DICOM by its suffix or by how it begins.

    A file that cannot be opened counts, so that it is reported and not passed over.
    """
    if path.suffix.lower() == DICOM_SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            start = file.read(_MAGIC_AT + len(_MAGIC))
    except OSError:
        return True
    return start[_MAGIC_AT:] == _MAGIC or _begins_bare(start)


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
    by_uid: defaultdict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        by_uid[frame.origin.digest, frame.origin.patient].append(frame)
    for together in by_uid.values():
        for once in _without_copies(together):
            notes = _shared_uid_note(once)
            for origin, series in _by_origin(once):
                for stack in _of_series(origin, series):
                    yield replace(stack, notes=stack.notes + notes)


def _begins_bare(start: bytes) -> bool:
    """Say whether a file without a preamble begins with an element of DICOM."""
    if start[:4] not in _BARE_STARTS or len(start) < 16:
        return False
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return explicit or int.from_bytes(start[4:8], "little") <= 128


def _without_copies(frames: Sequence[Frame]) -> Iterator[Sequence[Frame]]:
    """Yield images that may make one volume: those of all folders but for copies.

    A folder whose images all lie in another one too is a copy or an extract, and a
    case of its own.
    """
    by_folder: defaultdict[Path, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_folder[frame.path.parent].append(frame)
    held = {folder: {_identity(f) for f in by_folder[folder]} for folder in by_folder}
    copies = [
        folder
        for folder, own in held.items()
        if any(own <= other for where, other in held.items() if where != folder)
    ]
    rest = [frame for frame in frames if frame.path.parent not in copies]
    if rest:
        yield rest
    for folder in copies:
        yield by_folder[folder]


def _identity(frame: Frame) -> object:
    """Return what an image has in common with its copies only."""
    return frame.instance or (frame.position_mm, frame.number, frame.marks), frame.index


def _by_origin(frames: Sequence[Frame]) -> Iterator[tuple[Origin, Sequence[Frame]]]:
    """Yield images of one UID by all that their series have in common.

    Where that leaves too few for any volume they stay together, so that it is told
    what they are: images of many kinds under one name.
    """
    if len({frame.origin.place for frame in frames}) == len(frames) >= MIN_SLICES:
        frames = [replace(f, origin=replace(f.origin, place="")) for f in frames]
    groups: defaultdict[Origin, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.origin].append(frame)
    largest = max(len(group) for group in groups.values())
    if len(frames) > len(groups) > 1 and largest < MIN_SLICES:
        yield frames[0].origin, frames
        return
    yield from groups.items()


def _shared_uid_note(frames: Sequence[Frame]) -> tuple[Note, ...]:
    """Say in what images under one UID differ that become volumes of their own."""
    origins = list({frame.origin: None for frame in frames})
    names = [item.name for item in fields(Origin) if item.compare]
    differing = [n for n in names if len({getattr(o, n) for o in origins}) > 1]
    if not differing:
        return ()
    told = ", ".join(ORIGIN_WORDS[name] for name in differing)
    message = (
        f"{len(origins)} kinds of images have the UID of this series; they differ in "
        f"{told} and are kept apart"
    )
    return (Note("shared_uid", message),)


def _of_series(origin: Origin, frames: Sequence[Frame]) -> Iterator[Stack]:
    placed = [frame for frame in frames if not frame.missing]
    if len(placed) < len(frames):  # refused by the checks, with the names of the files
        yield Stack(origin, "", "", ("",), (tuple(frames),))
        return
    shapes = _by_shape(placed)
    large = [group for group in shapes if len(group) >= MIN_SLICES]
    if len(shapes) > 1 and not large:
        largest = Stack(origin, "", "", ("",), (tuple(placed),))
        yield replace(largest, orientations=len(shapes))
        return
    kept = large if len(shapes) > 1 else shapes
    strays = [group for group in shapes if not any(group is one for one in kept)]
    notes = tuple(_stray_note(group) for group in strays)
    names = _shape_names(kept)
    for group, name in zip(kept, names, strict=True):
        for stack in _of_group(origin, name, group):
            yield replace(stack, notes=stack.notes + notes)


def _by_shape(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group images of the same matrix, pixel size and orientation."""
    groups: list[list[Frame]] = []
    known: dict[object, list[Frame]] = {}
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
    return (
        one.shape == other.shape
        and one.pixels.samples == other.pixels.samples
        and bool(apart <= DIRECTION_TOLERANCE)
        and bool(np.abs(spacings).max() <= SPACING_TOLERANCE_MM)
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


def _stray_note(group: Sequence[Frame]) -> Note:
    first = group[0]
    rows, columns = first.shape
    files = ", ".join(sorted({frame.path.name for frame in group}))
    message = (
        f"left out {len(group)} {plane_of(first)} image(s) of another orientation, "
        f"matrix or pixel size ({columns} x {rows}): {files}"
    )
    return Note("stray_slices", message)


def _of_group(origin: Origin, part: str, frames: Sequence[Frame]) -> Iterator[Stack]:
    places = _places(frames)
    counted = Counter(places.values())
    repeated = max(counted.values()) > 1
    if len(counted) < MIN_SLICES or (not repeated and _even(frames)):
        yield _single(origin, part, frames)
    else:
        yield from _told_apart(origin, part, list(frames), places)


def _single(origin: Origin, part: str, frames: Sequence[Frame]) -> Stack:
    return Stack(origin, part, "", ("",), (tuple(frames),))


def _places(frames: Sequence[Frame]) -> Mapping[int, int]:
    """Return ``id`` of each image -> number of the place where it lies."""
    normal = normal_of(frames[0])
    positions = np.array([frame.position_mm for frame in frames], float)
    order = np.argsort(positions @ normal, kind="stable")
    places: dict[int, int] = {}
    corners: list[NDArray[np.float64]] = []
    recent: list[int] = []
    for index in order:
        position = positions[index]
        recent = [
            place
            for place in recent
            if (position - corners[place]) @ normal < DUPLICATE_MM
        ]
        here = next(
            (
                place
                for place in recent
                if np.abs(position - corners[place]).max() < DUPLICATE_MM
            ),
            None,
        )
        if here is None:
            here = len(corners)
            corners.append(position)
            recent.append(here)
        places[id(frames[index])] = here
    return places


def _told_apart(
    origin: Origin, part: str, frames: list[Frame], places: Mapping[int, int]
) -> Iterator[Stack]:
    """Yield the volumes of images that lie at the same places, or between others."""
    for mark in marks.Marks._fields:
        groups = _by_mark(frames, mark)
        if len(groups) < 2:
            continue
        seats = [{places[id(f)] for f in group} for group in groups.values()]
        sizes = [len(group) for group in groups.values()]
        same = all(seat == seats[0] for seat in seats)
        once = same and all(size == len(seats[0]) for size in sizes)
        if once and mark in marks.AXES:
            volumes = tuple(tuple(group) for group in groups.values())
            yield Stack(origin, part, mark, tuple(groups), volumes)
            return
        whole = all(_whole(group, places) for group in groups.values())
        if whole and (same or _overlap(list(groups.values()))):
            note = () if same else (_apart_note(mark, groups),)
            for stack in _each(origin, part, mark, groups, places):
                yield replace(stack, notes=stack.notes + note)
            return
    yield _single(origin, part, frames)


def _whole(group: Sequence[Frame], places: Mapping[int, int]) -> bool:
    """Say whether each place is taken equally often, by enough slices."""
    counted = Counter(places[id(frame)] for frame in group)
    return len(counted) >= MIN_SLICES and len(set(counted.values())) == 1


def _overlap(groups: Sequence[Sequence[Frame]]) -> bool:
    """Say whether groups are even stacks, each for itself, that overlap in space.

    That proves scans of their own; a gap between them proves nothing, since it may
    be made of missing slices.
    """
    if not all(_even(group) for group in groups):
        return False
    normal = normal_of(groups[0][0])
    heights = [[float(normal @ np.array(f.position_mm)) for f in g] for g in groups]
    ranges = sorted((min(one), max(one)) for one in heights)
    return all(later[0] <= earlier[1] for earlier, later in pairwise(ranges))


def _apart_note(mark: str, groups: Mapping[str, Sequence[Frame]]) -> Note:
    counts = " and ".join(str(len(group)) for group in groups.values())
    message = (
        f"the series holds {len(groups)} overlapping scans, told apart by their "
        f"{marks.AXES.get(mark, mark)}, of {counts} slices: each becomes a volume"
    )
    return Note("overlapping_scans", message)


def _even(group: Sequence[Frame]) -> bool:
    heights = np.unique(np.round(heights_mm(group), 2))
    steps = np.diff(heights)
    return bool(steps.size) and bool(np.ptp(steps) <= EVEN_STEPS * np.median(steps))


def _each(
    origin: Origin,
    part: str,
    mark: str,
    groups: Mapping[str, list[Frame]],
    places: Mapping[int, int],
) -> Iterator[Stack]:
    """Yield volumes of their own for each value of a mark."""
    names = _mark_names(mark, list(groups))
    for name, group in zip(names, groups.values(), strict=True):
        yield from _of_marked(origin, joined(part, name), group, places)


def _of_marked(
    origin: Origin, part: str, group: list[Frame], places: Mapping[int, int]
) -> Iterator[Stack]:
    counted = Counter(places[id(frame)] for frame in group)
    if max(counted.values()) == 1:
        yield _single(origin, part, group)
    else:
        yield from _told_apart(origin, part, group, places)


def _by_mark(frames: Sequence[Frame], mark: str) -> dict[str, list[Frame]]:
    groups: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[getattr(frame.marks, mark)].append(frame)
    return {value: groups[value] for value in sorted(groups, key=marks.order)}


def _mark_names(mark: str, values: Sequence[str]) -> list[str]:
    """Name groups by a word that tells their marks apart, or by a count."""
    if mark != "kind":
        return [f"{mark[0]}{count}" for count in range(1, len(values) + 1)]
    words = [value.upper().split("\\") for value in values]
    own = [
        [
            word
            for word in one
            if all(word not in other for other in words if other != one)
        ]
        for one in words
    ]
    names = ["-".join(word.lower() for word in one if word.isalnum()) for one in own]
    distinct = len(set(names)) == len(names) and all(names)
    return names if distinct else [f"k{n}" for n in range(1, len(values) + 1)]
