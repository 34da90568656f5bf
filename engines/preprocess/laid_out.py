"""Cases of a data set that is laid out in a known way, and how files are paired."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines.errors import InputError, MaskError, NameClashError
from engines.files import walk
from engines.preprocess.mask_files import MaskFiles
from engines.preprocess.split import subject_of
from engines.results import Note
from engines.volume import suffix_of

Named = tuple[str, Path]
"""What a file is the image or the mask of, and the file."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What a finder looks through.

    Attributes:
        root: as the user gave it.
        scheme: how vertebrae are numbered, one of ``labels.SCHEMES``.
        avoid: the output folder, resolved; it is not searched.
    """

    root: Path
    scheme: str = "verse"
    avoid: Path | None = None

    def folders(self, below: str = "") -> Iterator[tuple[Path, list[Path]]]:
        """Yield each folder and the image files in it; links count once."""
        for place, inner, entries in walk(self.root / below, links=True):
            if place.resolve() == self.avoid:
                inner.clear()
                continue
            inner[:] = [path for path in inner if not path.name.startswith(".")]
            shown = [path for path in entries if not path.name.startswith(".")]
            yield place, [path for path in shown if suffix_of(path)]

    def images(self, below: str = "") -> list[Path]:
        """Return all image files, label maps among them."""
        return [path for _, paths in self.folders(below) for path in paths]


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A scan with its masks, or a part of the data set that cannot be used.

    Attributes:
        name: ``NAME`` of the files that it becomes; whom it shows is
            ``split.subject_of(name)``.
        path: the scan, or what there is of the case without one.
        masks: kind -> mask.
        modality: ``ct`` or ``mr`` where the data set tells.
        problem: why it cannot be used, None as far as can be told from outside.
    """

    name: str
    path: Path
    masks: Mapping[str, MaskFiles] = field(default_factory=dict)
    modality: str | None = None
    problem: InputError | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found in a data set, and what concerns the whole of it."""

    cases: tuple[LaidOut, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """An image and a mask that belong together, or what stands alone.

    Attributes:
        path: the image, or the mask where there is none.
        mask: None with a ``problem``.
    """

    key: str
    path: Path
    mask: Path | None
    problem: InputError | None = None


def matches(
    images: Iterable[Named], masks: Iterable[Named], places: tuple[str, str]
) -> Iterator[Match]:
    """Yield what has the same key, by key; what stands alone has a problem.

    Args:
        images: key and path of each.
        masks: key and path of each.
        places: where images and masks were searched, for messages.
    """
    by_key: defaultdict[str, tuple[list[Path], list[Path]]] = defaultdict(
        lambda: ([], [])
    )
    for key, path in images:
        by_key[key][0].append(path)
    for key, path in masks:
        by_key[key][1].append(path)
    for key, (scans, maps) in sorted(by_key.items()):
        first, problem = (scans or maps)[0], _problem(key, scans, maps, places)
        yield Match(key, first, maps[0] if not problem else None, problem)


def named_after(name: str, subject: str) -> str:
    """Return ``name``, with ``sub-X`` before it unless it tells the subject itself.

    The name alone says whom a scan shows when a training deals its scans.
    """
    bare = subject.removeprefix("sub-")
    if subject_of(name) in (bare, f"sub-{bare}"):
        return name
    letters = re.sub(r"[^A-Za-z0-9]", "", bare)
    content = bare.encode(errors="surrogateescape")
    return f"sub-{letters or hashlib.sha256(content).hexdigest()[:8]}_{name}"


def _problem(
    key: str, scans: list[Path], maps: list[Path], places: tuple[str, str]
) -> InputError | None:
    for paths, what in ((scans, "images"), (maps, "masks")):
        if len(paths) > 1:
            told = " and ".join(str(path) for path in paths)
            msg = f"{told} are both {what} of {key}"
            return NameClashError(msg, hint="Keep one of them, or rename one.")
    if not maps:
        msg = f"{scans[0]} has no mask: none is called {key} in {places[1]}"
        return MaskError(msg, hint="Add its mask, or leave it out with --exclude.")
    if not scans:
        msg = f"{maps[0]} has no image: none is called {key} in {places[0]}"
        return MaskError(msg, hint="Add its image, or leave it out with --exclude.")
    return None
