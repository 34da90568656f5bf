"""Which images of a series belong together although their headers differ.

Headers of one volume may differ in blanks and spelling, and anonymizers may give each
file a UID of its own. Images that then lie on one grid are joined, with a note. Where
headers differ in more, images on one grid are parts of one volume or two volumes
mixed up, which nothing can tell: they make no volume. All others are kept apart.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from engines.convert import identity
from engines.convert.frames import Frame, digest
from engines.convert.identity import MIN_NEW, Key
from engines.convert.placement import (
    MIN_SLICES,
    Group,
    is_even,
    on_one_grid,
    share_places,
)
from engines.results import Note

MAX_COMPARED = 60
"""Groups of images that are compared with each other; more are a data set."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with one origin.

    Attributes:
        notes: what the user should know of how they were brought together.
        mixed: why they make no volume, empty if they may.
    """

    frames: Sequence[Frame]
    notes: tuple[Note, ...] = ()
    mixed: str = ""


def series_of(frames: Sequence[Frame]) -> Iterator[Batch]:
    """Yield the images of each series, in the order of their first files.

    Images without a series UID go with the series whose grid they fill; where every
    file of a folder has a UID of its own, those on one grid are a series.
    """
    by_uid: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_uid[frame.origin.digest].append(frame)
    series = [Batch(group) for group in by_uid.values()]
    for merged in (_with_new_uids, _without_uids, _beside_others):
        series = list(merged(series))
    yield from series


def batches_of(frames: Sequence[Frame]) -> Iterator[Batch]:
    """Yield the images of one series by what they have in common."""
    located = [frame for frame in frames if not frame.missing]
    if len(located) < len(frames):
        yield from (Batch(group) for group in _by_origin(frames))
        return
    keys = identity.keys_of(frames)
    by_key: defaultdict[Key, list[Frame]] = defaultdict(list)
    for frame, key in zip(frames, keys, strict=True):
        by_key[key].append(frame)
    batches = [(key, one) for key in by_key for one in _joined(by_key[key])]
    clusters = _clusters([batch.frames for _, batch in batches])
    split = _split_note(frames, list(by_key), len(clusters))
    for cluster in clusters:
        members = [batches[number] for number in cluster]
        if len(members) == 1:
            batch = members[0][1]
            yield replace(batch, notes=batch.notes + split)
            continue
        told = identity.differing([key for key, _ in members])
        yield Batch(
            [frame for _, batch in members for frame in batch.frames],
            tuple(note for _, batch in members for note in batch.notes) + split,
            told or identity.spelled_apart([b.frames[0] for _, b in members]),
        )


def without_copies(frames: Sequence[Frame]) -> Iterator[Batch]:
    """Yield images that may make one volume: those of all folders but for copies.

    A folder whose images all lie in another one too, at the same places, is a copy
    or an extract, and a case of its own.
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
        yield Batch(rest)
    for folder in copies:
        count = len(by_folder[folder])
        message = f"its {count} image(s) lie in another folder too: a copy or a part"
        yield Batch(by_folder[folder], (Note("copied_series", message),))


def _identity(frame: Frame) -> object:
    """Return what an image has in common with its copies only."""
    told = frame.instance or (frame.number, frame.marks)
    return told, frame.position_mm, frame.directions, frame.index


def _with_new_uids(series: Sequence[Batch]) -> Iterator[Batch]:
    """Yield series, with images that have UIDs of their own joined."""
    alone: defaultdict[object, list[Frame]] = defaultdict(list)
    for batch in series:
        first = batch.frames[0]
        if len(batch.frames) == 1 and not first.missing and first.instance:
            alone[first.shape].append(first)
    joined: dict[int, Batch] = {}
    for frames in alone.values():
        for group in _on_grids(frames):
            message = (
                f"{len(group)} images were joined although each has a series UID of "
                "its own: they lie on one grid"
            )
            batch = Batch(group, (Note("joined_images", message),))
            joined |= {id(frame): batch for frame in group}
    given: set[int] = set()
    for batch in series:
        whole = joined.get(id(batch.frames[0]))
        if whole is None:
            yield batch
        elif id(whole) not in given:
            given.add(id(whole))
            yield _with_one_uid(whole)


def _on_grids(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Yield images of one patient on one grid, of all folders or else of one.

    Where headers name no patient, images of different folders may be anyone's.
    """
    if len(frames) < MIN_NEW:
        return
    by_key: defaultdict[Key, list[Frame]] = defaultdict(list)
    for frame, key in zip(frames, identity.keys_of(frames), strict=True):
        by_key[key].append(frame)
    for key, group in by_key.items():
        by_folder: defaultdict[Path, list[Frame]] = defaultdict(list)
        for frame in group:
            by_folder[frame.path.parent].append(frame)
        named = any(key[: len(identity.PERSON)])
        whole = named and on_one_grid([[frame] for frame in group])
        for several in [group] if whole else by_folder.values():
            if len(several) >= MIN_NEW and on_one_grid([[one] for one in several]):
                yield several


def _with_one_uid(batch: Batch) -> Batch:
    """Return images with UIDs of their own as one series."""
    uid = digest("".join(sorted(frame.origin.digest for frame in batch.frames)))
    frames = [
        replace(frame, origin=replace(frame.origin, digest=uid))
        for frame in batch.frames
    ]
    return replace(batch, frames=frames)


def _without_uids(series: Sequence[Batch]) -> Iterator[Batch]:
    """Yield series, each with the images without a UID that fill its grid."""
    named = [batch for batch in series if not batch.frames[0].origin.nameless]
    grown: dict[int, Batch] = {}
    taken: set[int] = set()
    for bare in series:
        if not bare.frames[0].origin.nameless or any(f.missing for f in bare.frames):
            continue
        folder = bare.frames[0].path.parent
        fitting = [one for one in named if _fits(one.frames, bare.frames, folder)]
        if len(fitting) == 1:
            (whole,) = fitting
            origin = whole.frames[0].origin
            added = [
                replace(f, origin=replace(f.origin, digest=origin.digest))
                for f in bare.frames
            ]
            message = f"{len(added)} images without a series UID fill its grid"
            notes = (*whole.notes, Note("joined_images", message))
            grown[id(whole)] = Batch([*whole.frames, *added], notes)
            taken.add(id(bare))
    for batch in series:
        if id(batch) not in taken:
            yield grown.get(id(batch), batch)


def _fits(series: Group, bare: Group, folder: Path) -> bool:
    if any(frame.missing for frame in series):
        return False
    if all(frame.path.parent != folder for frame in series):
        return False
    alike = len(set(identity.keys_of([*series, *bare]))) == 1
    return alike and on_one_grid([series, bare])


def _beside_others(series: Sequence[Batch]) -> Iterator[Batch]:
    """Yield series, with a note where two of a folder look like parts of one."""
    by_folder: defaultdict[object, list[Batch]] = defaultdict(list)
    for batch in series:
        first = batch.frames[0]
        if not any(frame.missing for frame in batch.frames):
            by_folder[first.path.parent, first.shape].append(batch)
    noted: dict[int, Note] = {}
    for group in by_folder.values():
        for one, other in combinations(group[:MAX_COMPARED], 2):
            if _alike(one, other) and on_one_grid([one.frames, other.frames]):
                noted[id(one)] = _beside_note(other)
                noted[id(other)] = _beside_note(one)
    for batch in series:
        note = noted.get(id(batch))
        yield replace(batch, notes=(*batch.notes, note)) if note else batch


def _alike(one: Batch, other: Batch) -> bool:
    return len(set(identity.keys_of([one.frames[0], other.frames[0]]))) == 1


def _beside_note(other: Batch) -> Note:
    message = (
        f"images of another series (..{other.frames[0].origin.digest}) of this folder "
        "lie between or beside these on one grid"
    )
    return Note("adjoining_series", message)


def _joined(frames: Sequence[Frame]) -> Iterator[Batch]:
    """Yield images that differ in blanks and spelling alone, joined if they may be."""
    groups = _by_origin(frames)
    if len(groups) == 1:
        yield Batch(frames)
    elif share_places(groups) or not (on_one_grid(groups) or _incomplete(groups)):
        yield from (Batch(group) for group in groups)
    else:
        counts = " and ".join(str(len(group)) for group in groups)
        told = counts if len(groups) <= identity.MAX_SHOWN else f"{len(groups)} kinds"
        message = (
            f"images that differ in spelling, blanks or new UIDs were joined ({told}): "
            f"{identity.spelled_apart(frames)}"
        )
        told_most = sorted(frames, key=lambda frame: -identity.known(frame.origin))
        yield Batch(identity.common(told_most), (Note("joined_images", message),))


def _incomplete(groups: Sequence[Group]) -> bool:
    """Say whether any group makes no even volume for itself."""
    return any(len(group) < MIN_SLICES or not is_even(group) for group in groups)


def _by_origin(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: defaultdict[object, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.origin].append(frame)
    return list(groups.values())


def _clusters(groups: Sequence[Group]) -> list[list[int]]:
    """Return the numbers of groups, those on one grid together."""
    every = list(range(len(groups)))
    if len(groups) < 2:
        return [every]
    if on_one_grid(groups):
        return [every]
    clusters = [[number] for number in every]
    large = [number for number in every if len(groups[number]) > 1][:MAX_COMPARED]
    for number in large:
        for other in large[large.index(number) + 1 :]:
            one = next(c for c in clusters if number in c)
            two = next(c for c in clusters if other in c)
            if one is not two and on_one_grid([groups[number], groups[other]]):
                one += two
                clusters.remove(two)
    sizes = {len(group) for group in groups}
    if max(sizes) < MIN_SLICES and sizes != {1} and len(clusters) == len(groups):
        return [every]  # refused together: images of many kinds under one name
    return clusters


def _split_note(
    frames: Sequence[Frame], keys: Sequence[Key], count: int
) -> tuple[Note, ...]:
    """Say in what images under one UID differ that become volumes of their own."""
    if count < 2:
        return ()
    told = identity.differing(keys) or identity.spelled_apart(frames)
    message = (
        f"{count} kinds of images have the UID of this series; they differ in "
        f"{told} and are kept apart"
    )
    return (Note("shared_uid", message),)
