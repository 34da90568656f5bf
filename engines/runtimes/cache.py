"""Keep engines that took long to make, one file each, between runs.

An entry is ``NAME.engine``, whatever the library that made it writes, and
``NAME.json`` beside it: what it was made of, and the SHA-256 of the engine. An entry
that lacks either, or whose sum is wrong, is no entry: it is made again.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines import __version__
from engines.errors import OutputError, SettingsError
from engines.files import TEMPORARY_PREFIX, lock, write_bytes, write_json
from engines.results import Note

VARIABLE = "SPINE_CACHE"
"""Environment variable: the folder that engines are kept in."""

ENGINE, FACTS, LOCK = ".engine", ".json", ".lock"
HINT = f"Set {VARIABLE} to a folder that may be written to and has space left."


@dataclass(frozen=True, slots=True)
class Key:
    """All that an engine depends on; two that differ anywhere are two engines.

    Attributes:
        model: SHA-256 of the model file.
        backend: row of ``engines.runtimes.backends``.
        version: of the backend's library.
        precision: as in ``float16``.
        profile: sizes of the batches that it takes, in words.
        targets: what it was compiled for, as in ``sm89``.
        device: name of the GPU or CPU; empty where any of ``targets`` will do.
        driver: version of the GPU's driver; empty where any will do.
        calibration: SHA-256 of the probes that it was calibrated on; empty without.
        program: version of this program, which exported the network.
    """

    model: str
    backend: str
    version: str
    precision: str
    profile: str
    targets: tuple[str, ...] = ()
    device: str = ""
    driver: str = ""
    calibration: str = ""
    program: str = __version__

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return the record of it, as JSON gives it back."""
        return asdict(self) | {"targets": list(self.targets)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Key":
        """Rebuild a key from its record."""
        return cls(**{**record, "targets": tuple(record["targets"])})


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine that is kept.

    Attributes:
        name: stem of its files.
        facts: what its maker had to say of it, ready for JSON.
        size: of the engine, in bytes.
        made: when, in UTC, ISO 8601.
    """

    name: str
    path: Path
    key: Key
    facts: Mapping[str, Any]
    size: int
    made: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """An engine in memory.

    Attributes:
        fresh: it was made just now.
        entry: where it is kept; None when it could not be stored, which the notes
            then tell.
    """

    blob: bytes
    facts: Mapping[str, Any]
    fresh: bool
    entry: Entry | None
    notes: tuple[Note, ...] = field(default=())


Make = Callable[[], tuple[bytes, Mapping[str, Any]]]
"""Make an engine: its bytes, and facts on it that are ready for JSON."""


_announce: ContextVar[Callable[[], None]] = ContextVar("announce", default=lambda: None)


@contextlib.contextmanager
def announcing(announce: Callable[[], None]) -> Iterator[None]:
    """Call ``announce`` before each engine that is made in the block."""
    token = _announce.set(announce)
    try:
        yield
    finally:
        _announce.reset(token)


class Cache:
    """A folder of engines that several processes may use at once."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def fetch(self, title: str, key: Key, make: Make) -> Fetched:
        """Return the engine for ``key``, made now if it is not there.

        Of several processes that ask at once, one makes it and the others wait. A
        folder that cannot be written to costs a note, not the engine.
        """
        name = stem(title, key)
        with self._locked(name):
            kept = self.load(name)
            if kept is not None:
                return kept
            _announce.get()()
            blob, facts = make()
            try:
                entry = self.store(title, key, blob, facts)
            except OutputError as error:
                told = f"the engine was not kept for the next run: {error}"
                return Fetched(blob, facts, True, None, (Note("cache", told),))
        return Fetched(blob, facts, True, entry)

    def load(self, name: str) -> Fetched | None:
        """Return an intact engine by the stem of its files; None if there is none."""
        entry = self._entry(name)
        if entry is None:
            return None
        try:
            blob = entry.path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(blob).hexdigest() != entry.sha256:
            return None
        return Fetched(blob, entry.facts, False, entry)

    def store(
        self, title: str, key: Key, blob: bytes, facts: Mapping[str, Any]
    ) -> Entry:
        """Keep an engine, whole or not at all.

        Raises:
            OutputError: the folder or the disk does not take it.
        """
        name = stem(title, key)
        path = self.folder / f"{name}{ENGINE}"
        sha256 = hashlib.sha256(blob).hexdigest()
        made = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"key": key.as_json(), "facts": facts, "sha256": sha256, "made": made}
        try:
            self._sweep(name)
            write_bytes(path, blob)
            write_json(path.with_suffix(FACTS), record)
        except OutputError as error:
            raise OutputError(str(error), hint=HINT) from error
        return Entry(name, path, key, facts, len(blob), made, sha256)

    def entries(self) -> list[Entry]:
        """Return what is kept, by name; its bytes are not looked at."""
        names = sorted(path.stem for path in self._files(f"*{FACTS}"))
        return [entry for name in names if (entry := self._entry(name)) is not None]

    def remove(self, name: str) -> bool:
        """Remove an engine and what is left of attempts to write it.

        Returns:
            False if another process is making it just now.

        Raises:
            OutputError: the folder may not be changed.
        """
        lock = self.folder / f"{name}{LOCK}"
        with self._locked(name, wait=False) as mine:
            if not mine:
                return False
            try:
                self._sweep(name)
                for suffix in (FACTS, ENGINE):
                    (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            except OSError as error:
                msg = f"cannot remove from {self.folder}: {error.strerror}"
                raise OutputError(msg, hint=HINT) from error
        return True

    def names(self) -> list[str]:
        """Return the stems of all that lies in the folder, sound or not."""
        found = [p for end in (ENGINE, FACTS, LOCK) for p in self._files(f"*{end}")]
        parts = self._files(f"{TEMPORARY_PREFIX}*")
        torn = [path.name.removeprefix(TEMPORARY_PREFIX) for path in parts]
        stems = [path.stem for path in found]
        stems += [Path(name.partition("-")[2]).stem for name in torn]
        return sorted({name for name in stems if name})

    def _entry(self, name: str) -> Entry | None:
        path = self.folder / f"{name}{ENGINE}"
        try:
            record = json.loads(path.with_suffix(FACTS).read_bytes())
            return Entry(
                name,
                path,
                Key.from_json(record["key"]),
                record["facts"],
                path.stat().st_size,
                record["made"],
                record["sha256"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _files(self, pattern: str) -> list[Path]:
        """Return matching files; temporary ones only where the pattern names them."""
        torn = pattern.startswith(TEMPORARY_PREFIX)
        found = (path for path in self.folder.glob(pattern) if path.is_file())
        return [p for p in found if p.name.startswith(TEMPORARY_PREFIX) == torn]

    def _sweep(self, name: str) -> None:
        """Remove what killed processes left; the lock says that none is at it."""
        for path in self._files(f"{TEMPORARY_PREFIX}*-{name}.*"):
            with contextlib.suppress(OSError):
                path.unlink()

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of an engine; yield whether it is held.

        The kernel releases it when its holder dies. Where it cannot be had at all,
        as in a read-only folder, the work is done without: two processes may then
        make the same engine, which files that appear whole make harmless.
        """
        path = self.folder / f"{name}{LOCK}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = lock(path, wait=wait)
        except BlockingIOError:
            yield False
            return
        except OSError:
            yield True
            return
        with file:
            yield True


def default_folder() -> Path:
    """Return the folder that ``SPINE_CACHE`` names, or the platform's own.

    Raises:
        SettingsError: none is named and this user has no home.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    try:
        return _platform_folder() / "spine"
    except RuntimeError as error:
        msg = "there is no home folder to keep engines in"
        raise SettingsError(msg, hint=HINT) from error


def _platform_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def stem(title: str, key: Key) -> str:
    """Return how the files of an engine are called, without their suffix."""
    return f"{plain(title)}-{key.backend}-{key.precision}-{key.digest[:12]}"


def plain(title: str) -> str:
    """Return a title with only what every file system takes in a name."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in title)
