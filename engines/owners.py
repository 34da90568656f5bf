"""Who made a temporary file: words by which processes that are gone are known.

A word has no dash: a hash of the machine and its process numbers' name space, the
process's number, and when it began, since numbers are used again.
"""

import hashlib
import os
import re
import socket
import sys
import time
from functools import lru_cache
from pathlib import Path

_WORD = re.compile(r"([0-9a-f]{8})\.(\d+)\.(\d+)(?:\.|$)")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMES = Path("/proc/self/ns/pid")
_BEGAN = 19
"""Which word after a process's name, in ``/proc/N/stat``, is its start."""

_GONE = ("Z", "X")
"""States of processes that have ended and wait for their parents."""


def own() -> str:
    """Return the word of this process."""
    pid = os.getpid()
    return f"{machine()}.{pid}.{_own_start(pid)}"


def is_owner(word: str) -> bool:
    """Say whether a word begins as one of this version's does."""
    return _WORD.match(word) is not None


def is_alive(word: str) -> bool | None:
    """Say whether the process that made a word still runs; None if nothing tells."""
    found = _WORD.match(word)
    if found is None or found[1] != machine() or sys.platform == "win32":
        return None
    pid, began = int(found[2]), int(found[3])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it runs, for another user
    state, now = _stat(pid)
    return state not in _GONE and (not (began and now) or now == began)


def age_s(path: Path) -> float:
    """Return for how long nobody has written to a file or a folder.

    Raises:
        OSError: it is gone.
    """
    return time.time() - path.lstat().st_mtime


@lru_cache(maxsize=1)
def machine() -> str:
    """Return a hash of what tells apart whose process numbers are meant.

    Machines of a cluster may have the same name, and containers their own numbers.
    """
    told = [socket.gethostname()]
    for path, read in ((_BOOT, Path.read_text), (_NAMES, os.readlink)):
        try:
            told.append(str(read(path)))
        except OSError:
            told.append("")
    return hashlib.sha256("\0".join(told).encode(errors="replace")).hexdigest()[:8]


@lru_cache(maxsize=8)
def _own_start(pid: int) -> int:
    return _stat(pid)[1]


def _stat(pid: int) -> tuple[str, int]:
    """Return a process's state and when it began, in ticks; 0 if not known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        state, *numbers = stat[stat.rindex(b")") + 1 :].split()
        return state.decode(), int(numbers[_BEGAN - 1])
    except (OSError, ValueError, IndexError):
        return "", 0
