"""Write a file whole or not at all; folders of any depth."""

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engines import owners
from engines.errors import OutputError, UnreadableError

if sys.platform != "win32":
    import fcntl

TEMPORARY_PREFIX = ".spine-part-"
"""How a file is called while it is being written, beside its final name.

Its writer (see ``owners``) and a token follow, then a dash and the final name.
"""

LOCK_SUFFIX = ".lock"

FOREIGN_AGE_S = 24 * 3600.0
"""Parts whose writer cannot be looked up are swept when they were left so long ago."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` at the end.

    After an error, or Ctrl-C, nothing is left of the temporary file and whatever
    stood at ``path`` before is untouched.

    Raises:
        OutputError: the folder or the disk does not take the file.
    """
    own = f"{owners.own()}.{secrets.token_hex(3)}"
    part = path.with_name(f"{TEMPORARY_PREFIX}{own}-{path.name}")
    try:
        make_folder(path.parent)
        yield part
        _store(part)
        part.replace(path)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}"
        raise OutputError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _store(path: Path) -> None:
    """Have the disk store a file, so that its name never comes before its content."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def lock(path: Path, *, wait: bool = True) -> BinaryIO:
    """Return the lock file, locked until it is closed.

    Raises:
        BlockingIOError: another holds it, and ``wait`` is false.
        OSError: it cannot be made, or the file system knows no locks.
    """
    while True:
        file = path.open("ab")
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Whoever held it may have removed it, and a third made it anew.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    return file
        except OSError:
            file.close()
            raise
        file.close()


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other processes that hold ``path`` too waiting until the block ends.

    Where the folder takes no file, or the system knows no locks, nobody waits.
    """
    lying = path.with_name(f"{TEMPORARY_PREFIX}{path.name}{LOCK_SUFFIX}")
    file = None
    with contextlib.suppress(OSError):
        file = lock(lying)
    try:
        yield
    finally:
        if file is not None:
            with file, contextlib.suppress(OSError):
                lying.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Put UTF-8 ``content`` at ``path``, whole or not at all; see ``printable``."""
    write_bytes(path, printable(content).encode())


def write_json(path: Path, record: Any) -> None:  # noqa: ANN401
    """Put ``record`` at ``path`` as indented JSON with a final newline.

    Bytes of a file's name that are no UTF-8 are escaped as JSON has it, and are read
    back as they were.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))


def printable(text: str) -> str:
    """Return a text that can be encoded: undecoded bytes of names become their code."""
    return text if text.isascii() else text.translate(_UNDECODED)


_UNDECODED = {
    **dict.fromkeys((*range(0xD800, 0xDC80), *range(0xDD00, 0xE000)), "\ufffd"),
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)},
}
"""Surrogates, as which Python holds bytes that are no UTF-8 -> what stands for them."""


def require_writable(folder: Path) -> None:
    """Make ``folder`` and prove that a file can be written there.

    Raises:
        OutputError: it cannot be made or written to.
    """
    own = f"{owners.own()}.{secrets.token_hex(3)}"
    probe = folder / f"{TEMPORARY_PREFIX}{own}-probe"
    try:
        make_folder(folder)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror or error}"
        raise OutputError(msg) from error


@dataclass(frozen=True, slots=True)
class Stamps:
    """What files were when they were looked at.

    Attributes:
        paths: the files.
        seen: device, inode, size and time of change of each; empty for none there.
    """

    paths: tuple[Path, ...]
    seen: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "Stamps":
        """Look at files."""
        return cls(tuple(paths), tuple(stamp_of(path) for path in paths))

    def require_same(self) -> None:
        """Compare the files with what they were.

        Raises:
            UnreadableError: one was written to, replaced or removed.
        """
        for path, stamp in zip(self.paths, self.seen, strict=True):
            if stamp_of(path) != stamp:
                msg = f"{path.name} was changed while it was read"
                raise UnreadableError(msg, hint="Run again when it is written whole.")


NO_STAMPS = Stamps((), ())


@contextlib.contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Refuse what was done in the block if a file was changed meanwhile.

    A record would otherwise have the hash of one file, and a result made from another.

    Raises:
        UnreadableError: a file was written to or replaced.
    """
    before = Stamps.of(paths)
    yield
    before.require_same()


def stamp_of(path: Path) -> tuple[int, ...]:
    """Return what differs of a file when it is written to or replaced."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def sha256_of(*paths: Path) -> str:
    """Return the SHA-256 of the contents of ``paths``, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, however many these are.

    Raises:
        OSError: one cannot be made.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)


def walk(
    folder: Path, *, links: bool = False
) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Yield each folder with the folders and the other entries in it, by name.

    The caller may remove folders from the list, which are then not entered. Folders
    that cannot be opened are passed over; no folder is entered twice.

    Args:
        folder: where to begin.
        links: enter folders through links too.
    """
    waiting, entered = [folder], set()
    while waiting:
        here = waiting.pop()
        inner: list[Path] = []
        others: list[Path] = []
        try:
            with os.scandir(here) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    is_folder = entry.is_dir(follow_symlinks=links)
                    (inner if is_folder else others).append(here / entry.name)
            stat = here.stat()
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) in entered:
            continue
        entered.add((stat.st_dev, stat.st_ino))
        yield here, inner, others
        waiting += reversed(inner)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files under ``folder``, folder by folder, each by name.

    FIFOs, sockets and devices are left out, since opening one may block, and so are
    links to folders; links that lead nowhere are in it.
    """
    for _, _, entries in walk(folder):
        for path in entries:
            with contextlib.suppress(OSError):
                if path.is_file() or not path.exists():
                    yield path


def remove_tree(folder: Path) -> None:
    """Remove a folder of any depth and all in it, as far as it can be."""
    held = []
    for here, _, entries in walk(folder):
        held.append(here)
        for path in entries:
            with contextlib.suppress(OSError):
                path.unlink()
    for here in reversed(held):
        with contextlib.suppress(OSError):
            here.rmdir()


def sweep(folder: Path) -> None:
    """Remove below ``folder`` what processes left behind that were killed.

    That are parts of files whose writer is dead, parts of which that cannot be known
    and which nobody wrote to for ``FOREIGN_AGE_S``, and locks that nobody holds.
    """
    for _, _, entries in walk(folder):
        for path in entries:
            if path.name.startswith(TEMPORARY_PREFIX):
                with contextlib.suppress(OSError):
                    _sweep_part(path)


def _sweep_part(path: Path) -> None:
    word, _, _ = path.name.removeprefix(TEMPORARY_PREFIX).partition("-")
    alive = owners.is_alive(word)
    if alive is None and path.name.endswith(LOCK_SUFFIX) and not owners.is_owner(word):
        if not path.is_symlink() and path.is_file():
            with lock(path, wait=False):
                path.unlink()
        return
    old = owners.age_s(path) > FOREIGN_AGE_S
    if alive is False or (alive is None and old):
        path.unlink()
