"""Write a file whole or not at all."""

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from engines.errors import OutputError, UnreadableError

if sys.platform != "win32":
    import fcntl

TEMPORARY_PREFIX = ".spine-part-"
"""How a file is called while it is being written, beside its final name."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` at the end.

    After an error, or Ctrl-C, nothing is left of the temporary file and whatever
    stood at ``path`` before is untouched.

    Raises:
        OutputError: the folder or the disk does not take the file.
    """
    # On a cluster, processes of several machines have the same number.
    own = f"{os.getpid()}.{secrets.token_hex(3)}"
    part = path.with_name(f"{TEMPORARY_PREFIX}{own}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
    lying = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.lock")
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
    probe = folder / f"{TEMPORARY_PREFIX}{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror or error}"
        raise OutputError(msg) from error


@contextlib.contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Refuse what was done in the block if a file was changed meanwhile.

    A record would otherwise have the hash of one file, and a result made from another.

    Raises:
        UnreadableError: a file was written to or replaced.
    """
    before = [_stamp(path) for path in paths]
    yield
    for path, stamp in zip(paths, before, strict=True):
        if _stamp(path) != stamp:
            msg = f"{path.name} was changed while it was read"
            raise UnreadableError(msg, hint="Run again when it is written whole.")


def _stamp(path: Path) -> tuple[int, ...]:
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
