"""Unpack archives of scans into a temporary folder.

Archives in archives are not opened. The folder is removed when the last record that
holds it is gone, at the latest when the program ends.
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
from pathlib import Path

from engines.errors import OutputError, UnreadableError, UnsupportedError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SUFFIXES = ZIP_SUFFIXES + TAR_SUFFIXES

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


def is_archive(path: Path) -> bool:
    """Say whether ``path`` is called like an archive."""
    return bool(suffix_of(path))


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
    zipped = suffix_of(archive) in ZIP_SUFFIXES
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
        for member in members:
            packed.extract(member, root)


def _untar(archive: Path, root: Path) -> None:
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isfile():
                _require_room(archive, root, member.size)
                packed.extract(member, root, filter="data")


def _require_room(archive: Path, root: Path, needed: int) -> None:
    if needed + SPARE_BYTES > shutil.disk_usage(root).free:
        msg = f"{archive.name}: no room in {root.parent} to unpack {needed} bytes"
        raise OutputError(msg, hint="Set TMPDIR to a folder on a larger disk.")
