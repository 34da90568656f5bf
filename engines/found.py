"""What a search for scans finds: records, names, and what each entry of a folder is."""

import errno
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from engines.archives import Unpacked
from engines.convert.left_out import LOCALIZER, NO_IMAGE, SCREENSHOT, LeftOut
from engines.convert.persons import Hidden
from engines.errors import NameClashError, SpineError
from engines.files import NO_STAMPS, Stamps
from engines.results import Note
from engines.volume import suffix_of

if TYPE_CHECKING:
    from engines.convert.stack import Stack

SHOWN = Hidden()
"""Hides nothing."""


OBJECTS = (LOCALIZER, NO_IMAGE, SCREENSHOT)
"""Why DICOM objects are left out."""


SPECIAL = ("FIFO", "socket", "device")
"""What is neither file nor folder, and never opened."""


@dataclass(frozen=True, slots=True)
class Found:
    """A scan to work on, or an input that cannot be worked on.

    Attributes:
        name: path below the input root, without suffix, with forward slashes.
        path: the image file, or the folder of the DICOM series; in an archive, below
            the archive's own path.
        files: all files that hold the scan; they identify its contents.
        problem: why it cannot be read, None as far as can be told from outside; a
            ``SpineError`` but for faults of this program.
        stack: the DICOM images, None for an image file.
        held: archives that hold ``files``; they stay unpacked as long as this.
        stamps: what DICOM files were when their headers were read.
        real: its name before what names the patient was replaced; not to be shown.
        hidden: replaces it in messages.
        notes: what the user should know of its name.
    """

    name: str
    path: Path
    files: tuple[Path, ...] = ()
    problem: Exception | None = None
    stack: "Stack | None" = None
    held: tuple[Unpacked, ...] = ()
    stamps: Stamps = NO_STAMPS
    real: str = ""
    hidden: Hidden = SHOWN
    notes: tuple[Note, ...] = ()


@dataclass(slots=True)
class Search:
    """What one search has seen so far: each real folder and file counts once.

    Attributes:
        left_out: files that hold no scan.
        images: whether image files are wanted, or DICOM only.
        shown: whether names of patients may be in names and messages.
        persons: words that name patients -> field of the header.
    """

    avoid: tuple[int, int] | None
    images: bool
    shown: bool
    folders: set[tuple[int, int]] = field(default_factory=set)
    files: set[tuple[tuple[int, int] | None, str]] = field(default_factory=set)
    label_maps: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    repeats: int = 0
    persons: dict[str, str] = field(default_factory=dict)

    @property
    def hidden(self) -> Hidden:
        """What replaces the names of the patients that were seen so far."""
        return SHOWN if self.shown else Hidden(dict(self.persons))

    @property
    def objects(self) -> int:
        """How many DICOM objects were left out."""
        return sum(one.why in OBJECTS for one in self.left_out)


@dataclass(frozen=True, slots=True)
class Survey:
    """All that a search came upon.

    Attributes:
        found: scans and problems, by name in natural order.
        left_out: files that hold no scan, as the user knows their paths.
        hidden: replaces the names of patients.
    """

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]
    hidden: Hidden = SHOWN


def identity(folder: Path) -> tuple[int, int] | None:
    """Return what is the same for all paths to a folder, None if it is not there."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_seen(path: Path, search: Search) -> bool:
    """Say whether a file was come upon before, and mark it."""
    file = path.resolve() if path.is_symlink() else path
    real = identity(file.parent), file.name
    if real in search.files:
        search.repeats += 1
        return True
    search.files.add(real)
    return False


def entry_of(path: Path) -> str:
    """Return what an entry of a folder is, by where it leads, as one of ``SPECIAL``.

    Raises:
        OSError: it cannot be told.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return "dead link" if path.is_symlink() else "gone"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "dead link"
        raise
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO"}
    kinds |= {stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def is_wanted(one: Found, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Say whether globs take a scan, by its name, that of its file or its real one."""
    names = (one.name, one.path.name, *([one.real] if one.real else []))

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob) for name in names for glob in patterns)

    return (not include or matches(include)) and not matches(exclude)


def clashing(found: Sequence[Found]) -> Iterator[Found]:
    """Yield what was found, with a problem for each name that is not unique."""
    by_name: defaultdict[str, list[Found]] = defaultdict(list)
    for one in found:
        by_name[one.name].append(one)
    for one in found:
        same = by_name[one.name]
        if len(same) == 1 or one.problem is not None:
            yield one
            continue
        told = " and ".join(str(other.path) for other in same)
        yield replace(
            one, problem=NameClashError(f"{told} would both be called {one.name!r}")
        )


def without_persons(one: Found, hidden: Hidden) -> Found:
    """Return what was found as it may be shown; image files keep their names."""
    problem = one.problem
    if one.stack is None and (problem is None or suffix_of(one.path)):
        return one
    return replace(
        one,
        name=hidden.name(one.name),
        path=hidden.path(one.path),
        problem=hidden.error(problem) if isinstance(problem, SpineError) else problem,
        hidden=hidden,
    )


def root_name(root: Path) -> str:
    """Return what an input is called."""
    return root.resolve().name or "scans"


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that puts ``scan2`` before ``scan10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]
