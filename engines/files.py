"""Write a file whole or not at all."""

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engines.errors import OutputError

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
        part.replace(path)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}"
        raise OutputError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes that hold ``folder`` too waiting until the block ends.

    Where the folder is not there, or the system knows no locks, nobody waits.
    """
    with contextlib.ExitStack() as at_the_end:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                opened = os.open(folder, os.O_RDONLY)
                at_the_end.callback(os.close, opened)
                fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, whole or not at all."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, content: str) -> None:
    """Put UTF-8 ``content`` at ``path``, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, record: Any) -> None:  # noqa: ANN401
    """Put ``record`` at ``path`` as indented JSON with a final newline."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


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


def sha256_of(*paths: Path) -> str:
    """Return the SHA-256 of the contents of ``paths``, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
