"""Parts of a series: images at the same places, or between others.

The marks that tell them apart (echo, b-value, time, acquisition ...) make a fourth
axis or volumes of their own.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from engines.convert import marks
from engines.convert.frames import Frame, Origin
from engines.convert.placement import (
    MIN_SLICES,
    Group,
    interleave,
    is_even,
    places_of,
)
from engines.convert.stack import Stack, heights_mm, joined
from engines.results import Note

UNLIKE = ("kind", "stack", "echo", "b_value", "temporal")
"""Marks in which images of one volume never alternate."""

TIMES = ("acquisition", "trigger", "acquired", "content")
"""Marks in which they may: slices that are acquired in turns."""

RUNS = "run"
"""Stands for the order of instance numbers, where no mark tells images apart."""

MAX_VALUES = 4
"""Of more values, messages name the mark alone."""

MAX_SHOWN = 60
"""Characters of a mark's value that messages show."""


def parts_of(origin: Origin, part: str, frames: Group) -> Iterator[Stack]:
    """Yield the volumes of parallel images of one matrix and pixel size."""
    places = places_of(frames)
    counted = Counter(places.values())
    if len(counted) < MIN_SLICES:
        yield single(origin, part, frames)
    elif max(counted.values()) == 1 and is_even(frames):
        yield from _alternating(origin, part, frames)
    else:
        yield from _told_apart(origin, part, list(frames), places)


def single(origin: Origin, part: str, frames: Group) -> Stack:
    """Return a stack of one volume."""
    return Stack(origin, part, "", ("",), (tuple(frames),))


def _alternating(origin: Origin, part: str, frames: Group) -> Iterator[Stack]:
    """Yield even slices as one volume, or as several that lie between each other.

    Kinds of images that alternate are volumes of their own. So are acquisitions whose
    slices are thicker than they would lie apart together; thinner ones are slices of
    one volume, acquired in turns.
    """
    notes: list[Note] = []
    for mark in (*marks.Marks._fields, RUNS):
        groups = _by_run(frames) if mark == RUNS else _by_value(frames, mark)
        if len(groups) < 2:
            continue
        told = _values(mark, groups)
        between: bool | None = _between(list(groups.values()))
        if between and mark in (*TIMES, RUNS):
            between = _thick(list(groups.values()), frames)
        if between is None and mark != RUNS:
            yield replace(single(origin, part, frames), mixed=told)
            return
        if between:
            message = (
                f"{len(groups)} sets of images lie between each other and differ in "
                f"{told}: each becomes a volume"
            )
            for name, group in zip(_names(mark, groups), groups.values(), strict=True):
                made = single(origin, joined(part, name), group)
                yield replace(made, notes=(Note("interleaved_images", message),))
            return
        if mark in UNLIKE or between is None:
            message = f"images of one volume differ in {told}"
            notes.append(Note("unlike_images", message))
    yield replace(single(origin, part, frames), notes=tuple(notes))


def _between(groups: Sequence[Group]) -> bool:
    """Say whether groups, each an even stack, lie between each other."""
    whole = all(len(group) >= MIN_SLICES and is_even(group) for group in groups)
    return whole and interleave(groups)


def _thick(groups: Sequence[Group], frames: Group) -> bool | None:
    """Say whether slices are too thick for one volume, None if nothing tells."""
    thick = [frame.thickness_mm for frame in frames if frame.thickness_mm]
    if not thick or not np.isfinite(thick).all():
        return None
    apart, together = _step_mm(groups[0]), _step_mm(frames)
    return bool(np.median(thick) > (apart + together) / 2)


def _step_mm(group: Group) -> float:
    return float(np.ptp(heights_mm(group))) / (len(group) - 1)


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
            note = _same_note(mark, groups) if same else _apart_note(mark, groups)
            for stack in _each(origin, part, mark, groups, places):
                yield replace(stack, notes=(*stack.notes, note))
            return
    yield single(origin, part, frames)


def _whole(group: Sequence[Frame], places: Mapping[int, int]) -> bool:
    """Say whether each place is taken equally often, by enough slices."""
    counted = Counter(places[id(frame)] for frame in group)
    return len(counted) >= MIN_SLICES and len(set(counted.values())) == 1


def _overlap(groups: Sequence[Group]) -> bool:
    """Say whether groups are even stacks, each for itself, that overlap in space.

    That proves scans of their own; a gap between them proves nothing, since it may
    be made of missing slices.
    """
    return all(is_even(group) for group in groups) and interleave(groups)


def _apart_note(mark: str, groups: Mapping[str, Group]) -> Note:
    counts = " and ".join(str(len(group)) for group in groups.values())
    message = (
        f"the series holds {len(groups)} overlapping scans, told apart by their "
        f"{marks.AXES.get(mark, mark)}, of {counts} slices: each becomes a volume"
    )
    return Note("overlapping_scans", message)


def _same_note(mark: str, groups: Mapping[str, Group]) -> Note:
    message = (
        f"the series holds {len(groups)} sets of images at the same places that differ "
        f"in {_values(mark, groups)}: each becomes a volume"
    )
    return Note("sets_of_images", message)


def _each(
    origin: Origin,
    part: str,
    mark: str,
    groups: Mapping[str, list[Frame]],
    places: Mapping[int, int],
) -> Iterator[Stack]:
    """Yield volumes of their own for each value of a mark."""
    for name, group in zip(_names(mark, groups), groups.values(), strict=True):
        yield from _of_marked(origin, joined(part, name), group, places)


def _of_marked(
    origin: Origin, part: str, group: list[Frame], places: Mapping[int, int]
) -> Iterator[Stack]:
    counted = Counter(places[id(frame)] for frame in group)
    if max(counted.values()) == 1:
        yield single(origin, part, group)
    else:
        yield from _told_apart(origin, part, group, places)


def _by_mark(frames: Group, mark: str) -> dict[str, list[Frame]]:
    groups: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[getattr(frame.marks, mark)].append(frame)
    return {value: groups[value] for value in sorted(groups, key=marks.order)}


def _by_value(frames: Group, mark: str) -> dict[str, list[Frame]]:
    """Group images by a mark without differences of spelling.

    Blanks count as the only value that others have.
    """
    groups: defaultdict[str, list[Frame]] = defaultdict(list)
    spelled: dict[str, str] = {}
    for frame in frames:
        value = getattr(frame.marks, mark)
        groups[spelled.setdefault(marks.plain(value), value)].append(frame)
    if len(groups) == 2 and "" in groups:
        return {max(groups): list(frames)}
    return {value: groups[value] for value in sorted(groups, key=marks.order)}


def _by_run(frames: Group) -> dict[str, list[Frame]]:
    """Group images by runs of their instance numbers that lie in one direction.

    Numbers that are given twice begin a second run of their own.
    """
    if any(frame.number is None for frame in frames):
        return {}
    heights = dict(zip(map(id, frames), heights_mm(frames), strict=True))
    counted: Counter[int | None] = Counter()
    numbered = []
    for frame in sorted(frames, key=lambda one: heights[id(one)]):
        counted[frame.number] += 1
        numbered.append((counted[frame.number], frame.number or 0, frame))
    numbered.sort(key=lambda item: item[:2])
    runs: list[list[Frame]] = []
    rising: bool | None = None
    for _, _, frame in numbered:
        up = bool(runs) and heights[id(frame)] > heights[id(runs[-1][-1])]
        if not runs or (rising is not None and up != rising):
            runs.append([])
            rising = None
        elif rising is None:
            rising = up
        runs[-1].append(frame)
    return {str(count): run for count, run in enumerate(runs, start=1)}


def _values(mark: str, groups: Mapping[str, Group]) -> str:
    """Name a mark with its values and how often each occurs, but for times."""
    word = marks.WORDS.get(mark, "the order of their instance numbers")
    if mark == RUNS or mark in marks.PRIVATE or len(groups) > MAX_VALUES:
        return word
    told = " and ".join(
        f"{value[:MAX_SHOWN] or 'blank'} in {len(group)}"
        for value, group in groups.items()
    )
    return f"{word} ({told})"


def _names(mark: str, groups: Mapping[str, Group]) -> list[str]:
    """Name groups by a word that tells their marks apart, or by a count."""
    values = list(groups)
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
