"""DICOM files of one input, and where the user knows them to be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from engines import archives, sniff
from engines.archives import Budget, Unpacked
from engines.errors import UnreadableError
from engines.files import TEMPORARY_PREFIX, Stamps, files_below, stamp_of
from engines.sniff import DICOM_SUFFIX
from engines.volume import stem_of

if TYPE_CHECKING:
    from engines.convert.series import Collector

PEEKED = 50
"""Entries of a hidden folder that are looked at."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that is searched, as the user knows it.

    Attributes:
        root: what the input itself is called.
        parts: folders below the input.
        shown: path for messages.
    """

    root: str
    parts: tuple[str, ...]
    shown: Path

    @property
    def name(self) -> str:
        """Name of a scan that lies here."""
        return str(PurePosixPath(*self.parts)) if self.parts else self.root

    def below(self, part: str) -> "Place":
        """Return a folder in this one."""
        return Place(self.root, (*self.parts, part), self.shown / part)

    def name_of(self, path: Path) -> str:
        """Return the name of a scan that is the file ``path``."""
        stem = stem_of(path).removesuffix(DICOM_SUFFIX)
        return str(PurePosixPath(*self.parts, stem))


@dataclass(slots=True)
class DicomFiles:
    """DICOM files of one input, from all its folders.

    Attributes:
        places: file -> where it lies.
        held: archives that hold files; they stay unpacked as long as this.
        inflated: folder -> copies of its compressed files.
        stamps: file -> what it was when its header was read.
    """

    places: dict[Path, Place] = field(default_factory=dict)
    held: list[Unpacked] = field(default_factory=list)
    inflated: dict[Path, Unpacked] = field(default_factory=dict)
    stamps: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    _collector: "Collector | None" = None

    @property
    def collector(self) -> "Collector":
        """Reads headers; made with its library when the first file needs it."""
        if self._collector is None:
            from engines.convert.series import Collector

            self._collector = Collector()
        return self._collector

    def add(self, path: Path, place: Place) -> None:
        """Read the header of a file that lies at ``place``."""
        self.places[path] = place
        self.stamps[path] = stamp_of(path)
        self.collector.add(path)

    def stamps_of(self, files: Sequence[Path]) -> Stamps:
        """Return what files were when their headers were read."""
        return Stamps(tuple(files), tuple(self.stamps[path] for path in files))

    def add_packed(
        self, path: Path, place: Place, budget: Budget | None = None
    ) -> None:
        """Add a file that is compressed as a whole; a damaged one is unreadable.

        Raises:
            UnsupportedError: it is larger than any image, for its bytes.
            OutputError: the temporary disk is too small.
        """
        folder = self.inflated.get(path.parent)
        if folder is None:
            folder = self.inflated[path.parent] = archives.temporary(path.parent)
            self.held.append(folder)
        try:
            self.add(archives.inflate(path, folder, budget), place)
        except UnreadableError:
            self.places[path] = place
            self.collector.unreadable.append(path)


def common(places: Sequence[Place]) -> Place:
    """Return the folder that holds all ``places``."""
    first = places[0]
    depth = min(len(place.parts) for place in places)
    while any(place.parts[:depth] != first.parts[:depth] for place in places):
        depth -= 1
    shown = first.shown
    for _ in range(len(first.parts) - depth):
        shown = shown.parent
    return Place(first.root, first.parts[:depth], shown)


def is_hidden(path: Path) -> bool:
    """Say whether a file or a folder is hidden."""
    return path.name.startswith(".")


def holds_dicom(folder: Path) -> bool:
    """Say whether there is DICOM among the first files of a hidden folder."""
    if folder.name.startswith(TEMPORARY_PREFIX):
        return False
    try:
        files = [p for p in islice(files_below(folder), PEEKED) if p.is_file()]
    except OSError:
        return False
    return any(sniff.kind_of(path) in ("dicom", "packed") for path in files)
