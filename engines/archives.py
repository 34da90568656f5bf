"""Unpack archives of scans into a temporary folder.

One call unpacks one archive; those inside it are files that the caller may unpack in
turn, as a search does. The folder is removed when the last record that holds it is
gone, at the latest when the program ends.
"""

import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from engines import sniff
from engines.errors import OutputError, UnreadableError, UnsupportedError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SUFFIXES = ZIP_SUFFIXES + TAR_SUFFIXES

_PEEKED = 20
"""Members of a zip file by which it is known."""

_BLOCK_BYTES = 1 << 20

SPARE_BYTES = 1 << 28
"""Left free on the disk that archives are unpacked to."""

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
        weakref.finalize(self, shutil.rmtree, self.root, ignore_errors=True)

    def shown(self, path: Path) -> Path:
        """Return how a file of the folder is called to the user."""
        return self.archive / path.relative_to(self.root)


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


def unpack(archive: Path) -> Unpacked:
    """Unpack the ordinary files of ``archive``, none of them outside the folder.

    Raises:
        UnreadableError: damaged.
        UnsupportedError: locked with a password.
        OutputError: the temporary disk is too small.
    """
    root = Path(tempfile.mkdtemp(prefix="spine-"))
    unpacked = Unpacked(archive, root)
    suffix = suffix_of(archive)
    zipped = suffix in ZIP_SUFFIXES or (not suffix and zipfile.is_zipfile(archive))
    steps: Callable[[Path, Path], None] = _unzip if zipped else _untar
    try:
        steps(archive, root)
    except _DAMAGE as error:
        shutil.rmtree(root, ignore_errors=True)
        msg = f"{archive.name}: cannot be unpacked ({type(error).__name__})"
        raise UnreadableError(msg) from None
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return unpacked


def inflate(path: Path, folder: Unpacked) -> Path:
    """Return an inflated copy of a compressed file in ``folder``, of the same name.

    Raises:
        UnreadableError: damaged.
        OutputError: the temporary disk is too small.
    """
    inflated = folder.root / path.name
    try:
        with path.open("rb") as packed:
            opened = sniff.packer_of(packed.read(sniff.START_BYTES))
        if opened is None:
            msg = f"{path.name}: not compressed in a way that is known"
            raise UnreadableError(msg)
        with opened(path) as source, inflated.open("wb") as target:
            while block := source.read(_BLOCK_BYTES):
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
    return Unpacked(folder, Path(tempfile.mkdtemp(prefix="spine-")))


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


def _unzip(archive: Path, root: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [
            member
            for member in packed.infolist()
            if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16)
        ]
        if any(member.flag_bits & 1 for member in members):
            msg = f"{archive.name}: locked with a password"
            raise UnsupportedError(msg, hint="Unlock the archive and give its folder.")
        _require_room(archive, root, sum(member.file_size for member in members))
        taken: set[str] = set()
        for member in members:
            member.filename = _free(_inside(member.filename), taken)
            packed.extract(member, root)


def _untar(archive: Path, root: Path) -> None:
    taken: set[str] = set()
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isfile():
                _require_room(archive, root, member.size)
                named = member.replace(
                    name=_free(member.name.lstrip("/"), taken), deep=False
                )
                packed.extract(named, root, filter="data")


def _require_room(archive: Path, root: Path, needed: int) -> None:
    if needed + SPARE_BYTES > shutil.disk_usage(root).free:
        msg = f"{archive.name}: no room in {root.parent} to unpack {needed} bytes"
        raise OutputError(msg, hint="Set TMPDIR to a folder on a larger disk.")
