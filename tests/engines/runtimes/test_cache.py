"""Engines are kept whole, found by all that they depend on, and made once."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from engines.errors import BackendError, OutputError, SettingsError
from engines.runtimes import cache
from engines.runtimes.cache import Cache, Key

ROOT = Path(__file__).parents[3]
KEY = Key("0" * 64, "tensorrt-rtx", "1.7", "float16", "1 to 8", ("sm86",))
BLOB, FACTS = b"engine" * 1000, {"layers": [], "model": "m"}

PROCESS = """
import os, sys, time
from pathlib import Path
from engines.runtimes.cache import Cache, Key

folder, log, seconds, dies_in = sys.argv[1:]
key = Key("0" * 64, "tensorrt-rtx", "1.7", "float16", "1 to 8", ("sm86",))

def hang():
    Path(log).with_suffix(".hangs").touch()
    time.sleep(60)

def make():
    with open(log, "a") as file:
        file.write("made\\n")
    time.sleep(float(seconds))
    if dies_in == "making":
        hang()
    return b"engine" * 1000, {"model": "m", "layers": []}

if dies_in == "writing":
    os.fsync = lambda descriptor: hang()
print("ready", flush=True)
sys.stdin.readline()
fetched = Cache(Path(folder)).fetch("m", key, make)
print("made" if fetched.fresh else "found", len(fetched.blob), len(fetched.notes))
"""


def make() -> tuple[bytes, dict[str, Any]]:
    return BLOB, FACTS


def refuse() -> tuple[bytes, dict[str, Any]]:
    raise AssertionError("it is there already")


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    """Return a cache with one engine in it."""
    held = Cache(tmp_path / "cache")
    held.fetch("m", KEY, make)
    return held


class Started:
    """A process that asks a cache for an engine once it is told to."""

    def __init__(self, folder: Path, seconds: float = 0, dies_in: str = "") -> None:
        self.folder, self.log = folder, folder.parent / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, folder, self.log, str(seconds), dies_in],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> "Started":
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self

    def said(self) -> list[str]:
        return self.process.communicate(timeout=60)[0].split()

    def killed(self) -> None:
        """Kill it once it hangs in the middle of its work."""
        hangs = self.log.with_suffix(".hangs")
        for _ in range(600):
            if hangs.exists():
                break
            time.sleep(0.05)
        assert hangs.exists()
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


def test_what_was_stored_comes_back(kept: Cache) -> None:
    found = kept.fetch("m", KEY, refuse)

    assert (found.blob, found.facts, found.fresh) == (BLOB, FACTS, False)
    (entry,) = kept.entries()
    assert (entry.key, entry.size, entry.facts) == (KEY, len(BLOB), FACTS)
    assert entry.path.read_bytes() == BLOB


@pytest.mark.parametrize("changed", [field.name for field in fields(Key)])
def test_a_key_that_differs_anywhere_is_another_engine(
    kept: Cache, changed: str
) -> None:
    value = ("sm86", "sm89") if changed == "targets" else "other"
    other = replace(KEY, **{changed: value})

    fetched = kept.fetch("m", other, lambda: (b"another", {}))

    assert (fetched.blob, fetched.fresh) == (b"another", True)
    assert kept.fetch("m", KEY, refuse).blob == BLOB
    assert len(kept.entries()) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "facts cut", "no facts", "gone"])
def test_a_damaged_entry_is_made_again(kept: Cache, damage: str) -> None:
    (entry,) = kept.entries()
    facts = entry.path.with_suffix(".json")
    if damage == "cut":
        entry.path.write_bytes(BLOB[:-1])
    elif damage == "changed":
        entry.path.write_bytes(b"E" + BLOB[1:])
    elif damage == "facts cut":
        facts.write_text(facts.read_text()[:-20])
    else:
        (facts if damage == "no facts" else entry.path).unlink()

    assert kept.load(entry.name) is None
    assert kept.fetch("m", KEY, make).fresh
    assert kept.fetch("m", KEY, refuse).blob == BLOB


def test_facts_that_are_not_an_entrys_are_no_entry(kept: Cache) -> None:
    (kept.folder / "other.json").write_text(json.dumps({"key": {"what": 1}}))

    assert len(kept.entries()) == 1


def test_of_two_processes_one_makes_it(tmp_path: Path) -> None:
    both = [Started(tmp_path / "cache", seconds=1) for _ in range(2)]
    for one in both:
        one.go()

    said = sorted(one.said() for one in both)

    assert said == [["found", "6000", "0"], ["made", "6000", "0"]]
    assert (tmp_path / "log").read_text() == "made\n"


@pytest.mark.parametrize("dies_in", ["making", "writing"])
def test_a_killed_process_leaves_a_sound_cache(tmp_path: Path, dies_in: str) -> None:
    held = Cache(tmp_path / "cache")
    one = Started(held.folder, dies_in=dies_in).go()
    waiting = Started(held.folder)
    one.killed()
    left = [p for p in held.folder.iterdir() if p.name.startswith(".spine-part-")]
    assert len(left) == (dies_in == "writing")
    assert held.entries() == []
    assert held.names() == [cache.stem("m", KEY)]

    assert waiting.go().said() == ["made", "6000", "0"]

    assert held.fetch("m", KEY, refuse).blob == BLOB
    assert sorted(path.suffix for path in held.folder.iterdir()) == [
        ".engine",
        ".json",
        ".lock",
    ]


def test_an_error_of_the_maker_is_raised_and_nothing_is_kept(tmp_path: Path) -> None:
    def fail() -> tuple[bytes, dict[str, Any]]:
        raise BackendError("no")

    held = Cache(tmp_path)
    with pytest.raises(BackendError, match="no"):
        held.fetch("m", KEY, fail)

    assert held.entries() == []
    assert held.fetch("m", KEY, make).fresh


@pytest.fixture(params=["a file in its place", "no permission"])
def closed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Yield a folder that nothing can be written to."""
    if request.param == "a file in its place":
        (tmp_path / "file").write_text("")
        yield tmp_path / "file" / "cache"
        return
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


def test_a_closed_cache_costs_a_note(closed: Path) -> None:
    fetched = Cache(closed).fetch("m", KEY, make)

    assert (fetched.blob, fetched.fresh, fetched.entry) == (BLOB, True, None)
    (note,) = fetched.notes
    assert note.code == "cache"
    assert f"cannot write {closed}" in note.message


def test_storing_in_a_closed_cache_is_an_error(closed: Path) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught:
        Cache(closed).store("m", KEY, BLOB, FACTS)

    assert "SPINE_CACHE" in caught.value.hint


def test_a_read_only_cache_gives_what_it_has(
    kept: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(path: Path, *, wait: bool) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(cache, "lock", locked)

    assert kept.fetch("m", KEY, refuse).blob == BLOB


def test_a_full_disk_costs_a_note_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("engines.files.os.fsync", full)

    fetched = Cache(tmp_path).fetch("m", KEY, make)

    assert fetched.blob == BLOB
    assert "No space left" in fetched.notes[0].message
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_removing_leaves_nothing(kept: Cache) -> None:
    name = cache.stem("m", KEY)
    (kept.folder / f".spine-part-1-{name}.engine").write_bytes(b"torn")

    assert kept.names() == [name]
    assert kept.remove(name)

    assert list(kept.folder.iterdir()) == []


def test_an_engine_that_is_being_made_is_not_removed(kept: Cache) -> None:
    name = cache.stem("m", KEY)
    with kept._locked(name):
        assert not kept.remove(name)

    assert kept.fetch("m", KEY, refuse).blob == BLOB


def test_removing_from_a_folder_that_may_not_be_changed(
    kept: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path, *, missing_ok: bool) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", denied)

    with pytest.raises(OutputError, match="cannot remove from"):
        kept.remove(cache.stem("m", KEY))


def test_names_are_plain() -> None:
    assert cache.stem("my net/2.0", KEY).startswith("my-net-2-0-tensorrt-rtx-float16-")


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPINE_CACHE", raising=False)
    assert cache.default_folder() == tmp_path / ".cache" / "spine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.default_folder() == tmp_path / "xdg" / "spine"
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "mine"))
    assert Cache().folder == tmp_path / "mine"


def test_who_has_no_home_has_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPINE_CACHE", raising=False)

    with pytest.raises(SettingsError, match="no home folder") as caught:
        cache.default_folder()
    assert "SPINE_CACHE" in caught.value.hint
