"""Unpack archives of scans into a temporary folder.

One call unpacks one archive; those inside it are files that the caller may unpack in
turn, as a search does, within the limits of the outermost one. The folder is removed
when the last record that holds it is gone, at the latest when the program ends; what
a killed program left is removed by the next one.
"""

import contextlib
import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from engines import owners, sniff
from engines.errors import OutputError, UnreadableError, UnsupportedError
from engines.files import FOREIGN_AGE_S, make_folder, remove_tree

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SUFFIXES = ZIP_SUFFIXES + TAR_SUFFIXES

_PEEKED = 20
"""Members of a zip file by which it is known."""

_BLOCK_BYTES = 1 << 20

SPARE_BYTES = 1 << 28
"""Left free on the disk that archives are unpacked to."""

MAX_NESTING = 3
"""Archives in archives in archives are opened, and no deeper ones."""

MAX_BYTES = 1 << 39
"""Bytes that an archive may hold, with those inside it: 512 GiB, many studies."""

MAX_MEMBERS = 1_000_000
"""Files that an archive may hold, with those in archives inside it."""

MAX_RATIO = 250
"""Bytes unpacked for each packed one; of scans they are 2 to 10."""

RATIO_FROM_BYTES = 1 << 26
"""Smaller contents may have any ratio, as empty images have."""

LIMIT_HINT = "If it is what it should be, unpack it and give its folder."

PREFIX = "spine-"
"""How temporary folders are called; their maker (see ``owners``) follows."""

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    LZMAError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Unpacked:
    """An archive's files, there as long as this record is.

    Attributes:
        archive: where they came from.
        root: the temporary folder.
    """

    archive: Path
    root: Path

    def __post_init__(self) -> None:
        weakref.finalize(self, remove_tree, self.root)

    def shown(self, path: Path) -> Path:
        """Return how a file of the folder is called to the user."""
        return self.archive / path.relative_to(self.root)


@dataclass(slots=True)
class Budget:
    """What may still come out of an archive and out of those inside it.

    Attributes:
        shown: what messages call the archive.
        packed: its bytes.
        unpacked: bytes that came out of it so far.
        members: files that did.
        nesting: how many archives are open, one inside the other.
    """

    shown: str
    packed: int
    unpacked: int = 0
    members: int = 0
    nesting: int = 0

    @classmethod
    def of(cls, path: Path) -> "Budget":
        """Return that of an archive that lies in no other."""
        try:
            return cls(path.name, path.stat().st_size)
        except OSError:
            return cls(path.name, 0)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Count the archive whose contents are looked at in the block.

        Raises:
            UnsupportedError: it lies in too many others.
        """
        if self.nesting == MAX_NESTING:
            msg = f"{self.shown}: archives in it lie in each other more than "
            raise UnsupportedError(f"{msg}{MAX_NESTING} deep", hint=LIMIT_HINT)
        self.nesting += 1
        try:
            yield
        finally:
            self.nesting -= 1

    def spend(self, count: int, members: int = 0) -> None:
        """Count bytes that come out.

        Raises:
            UnsupportedError: they are more than any archive of scans has.
        """
        self.unpacked += count
        self.members += members
        self.require(self.unpacked, self.members)

    def require(self, unpacked: int, members: int) -> None:
        """Refuse so many bytes and files.

        Raises:
            UnsupportedError: they are more than any archive of scans has.
        """
        ratio = unpacked / max(1, self.packed)
        if members > MAX_MEMBERS:
            told = f"{members} files, more than {MAX_MEMBERS}"
        elif unpacked > MAX_BYTES:
            told = f"{unpacked} bytes when unpacked, more than {MAX_BYTES}"
        elif unpacked > RATIO_FROM_BYTES and ratio > MAX_RATIO:
            told = (
                f"{unpacked} or more bytes when unpacked, {ratio:.0f} for each of its "
                f"{self.packed}; scans have less than {MAX_RATIO}"
            )
        else:
            return
        raise UnsupportedError(f"{self.shown}: it holds {told}", hint=LIMIT_HINT)


def is_archive(path: Path, kind: sniff.Kind = "other") -> bool:
    """Say whether ``path`` is called like an archive, or is one by ``kind``.

    Many documents and data files are zip files too: one that is called otherwise
    counts if it has no suffix, or if images lie in it.
    """
    if suffix_of(path) or kind == "tar":
        return True
    nameless = not path.suffix or path.suffix[1:].isdigit()
    return kind == "zip" and (nameless or _holds_dicom(path))


def stem_of(path: Path) -> str:
    """Return the archive's name without its suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def suffix_of(path: Path) -> str:
    """Return the archive's suffix in lower case, or an empty string."""
    name = path.name.lower()
    return next((s for s in sorted(SUFFIXES, key=len)[::-1] if name.endswith(s)), "")


def unpack(archive: Path, budget: Budget | None = None) -> Unpacked:
    """Unpack the ordinary files of ``archive``, none of them outside the folder.

    Args:
        archive: the file.
        budget: of the archive that it came out of; None for one that lies in no other.

    Raises:
        UnreadableError: damaged.
        UnsupportedError: locked with a password, or more than any archive of scans.
        OutputError: the temporary disk is too small.
    """
    budget = budget or Budget.of(archive)
    unpacked = temporary(archive)
    root = unpacked.root
    suffix = suffix_of(archive)
    zipped = suffix in ZIP_SUFFIXES or (not suffix and zipfile.is_zipfile(archive))
    steps: Callable[[Path, Path, Budget], None] = _unzip if zipped else _untar
    try:
        steps(archive, root, budget)
    except _DAMAGE as error:
        remove_tree(root)
        msg = f"{archive.name}: cannot be unpacked ({type(error).__name__})"
        raise UnreadableError(msg) from None
    except BaseException:
        remove_tree(root)
        raise
    return unpacked


def inflate(path: Path, folder: Unpacked, budget: Budget | None = None) -> Path:
    """Return an inflated copy of a compressed file in ``folder``, of the same name.

    Args:
        path: the file.
        folder: where the copy goes.
        budget: of the archive that it came out of, None for one that did not.

    Raises:
        UnreadableError: damaged.
        UnsupportedError: more bytes than any image's, for those that it has.
        OutputError: the temporary disk is too small.
    """
    inflated = folder.root / path.name
    budgets = [Budget.of(path), *([budget] if budget else [])]
    try:
        with path.open("rb") as packed:
            opened = sniff.packer_of(packed.read(sniff.START_BYTES))
        if opened is None:
            msg = f"{path.name}: not compressed in a way that is known"
            raise UnreadableError(msg)
        with opened(path) as source, inflated.open("wb") as target:
            while block := source.read(_BLOCK_BYTES):
                for one in budgets:
                    one.spend(len(block))
                _require_room(path, folder.root, len(block))
                target.write(block)
    except sniff.PACKER_DAMAGE as error:
        inflated.unlink(missing_ok=True)
        msg = f"{path.name}: cannot be inflated ({type(error).__name__})"
        raise UnreadableError(msg) from None
    except BaseException:
        inflated.unlink(missing_ok=True)
        raise
    return inflated


def temporary(folder: Path) -> Unpacked:
    """Return an empty temporary folder for files that come from ``folder``."""
    prefix = f"{PREFIX}{owners.own()}-"
    return Unpacked(folder, Path(tempfile.mkdtemp(prefix=prefix)))


def sweep() -> None:
    """Remove the temporary folders of programs that were killed; voxels lie in them."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        with contextlib.suppress(OSError):
            word = path.name.removeprefix(PREFIX).partition("-")[0]
            alive = owners.is_alive(word)
            old = owners.is_owner(word) and owners.age_s(path) > FOREIGN_AGE_S
            left = alive is False or (alive is None and old)
            if left and path.is_dir() and not path.is_symlink():
                remove_tree(path)


def _inside(name: str) -> str:
    """Return the path to which ``zipfile`` unpacks a member."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _free(name: str, taken: set[str]) -> str:
    """Return ``name``, changed where another file has it, and mark it as taken."""
    path, count = PurePosixPath(name), 1
    free = name
    while str(PurePosixPath(free)) in taken:
        count += 1
        free = str(path.with_name(f"{path.stem}~{count}{path.suffix}"))
    taken.add(str(PurePosixPath(free)))
    return free


def _holds_dicom(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist()[:_PEEKED]:
                if member.is_dir() or member.flag_bits & 1:
                    continue
                with packed.open(member) as file:
                    if sniff.begins_as_dicom(file.read(sniff.START_BYTES)):
                        return True
    except _DAMAGE:
        pass
    return False


def _unzip(archive: Path, root: Path, budget: Budget) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [
            member
            for member in packed.infolist()
            if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16)
        ]
        if any(member.flag_bits & 1 for member in members):
            msg = f"{archive.name}: locked with a password"
            raise UnsupportedError(msg, hint="Unlock the archive and give its folder.")
        promised = sum(member.file_size for member in members)
        budget.require(budget.unpacked + promised, budget.members + len(members))
        _require_room(archive, root, promised)
        taken: set[str] = set()
        for member in members:
            target = root / _free(_inside(member.filename), taken)
            with packed.open(member) as source:
                _store(source, target, budget)


def _untar(archive: Path, root: Path, budget: Budget) -> None:
    taken: set[str] = set()
    with tarfile.open(archive) as packed:
        for member in packed:
            if not member.isfile():
                continue
            budget.require(budget.unpacked + member.size, budget.members + 1)
            _require_room(archive, root, member.size)
            name = _free(member.name.lstrip("/"), taken)
            safe = tarfile.data_filter(member.replace(name=name, deep=False), str(root))
            source = packed.extractfile(member)
            if source is not None:
                with source:
                    _store(source, root / safe.name, budget)


def _store(source: IO[bytes], target: Path, budget: Budget) -> None:
    """Write a member to the disk, counting what really comes out of it."""
    make_folder(target.parent)
    budget.spend(0, members=1)
    with target.open("xb") as file:
        while block := source.read(_BLOCK_BYTES):
            budget.spend(len(block))
            file.write(block)


def _require_room(archive: Path, root: Path, needed: int) -> None:
    if needed + SPARE_BYTES > shutil.disk_usage(root).free:
        msg = f"{archive.name}: no room in {root.parent} to unpack {needed} bytes"
        raise OutputError(msg, hint="Set TMPDIR to a folder on a larger disk.")
