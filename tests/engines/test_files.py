"""Files are written whole or not at all."""

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from engines import files, owners
from engines.errors import OutputError


def test_write_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "ü" / "x.txt"
    files.write_text(path, "grüße")

    assert path.read_text(encoding="utf-8") == "grüße"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_failure_keeps_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "x.txt"
    files.write_text(path, "before")

    with suppress(type(error)), files.replacing(path) as part:
        part.write_text("half")
        raise error

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_an_output_error(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(OutputError, match=r"cannot write .*x\.txt: No space left"),
        files.replacing(tmp_path / "x.txt"),
    ):
        raise full


def test_part_is_named_so_that_searches_pass_over_it(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "x.nii.gz") as part:
        part.write_bytes(b"")
        assert part.parent == tmp_path
        assert part.name.startswith(files.TEMPORARY_PREFIX)


def test_file_in_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")

    with pytest.raises(OutputError, match="cannot write"):
        files.write_text(tmp_path / "taken" / "x.txt", "")
    with pytest.raises(OutputError, match="cannot write to"):
        files.require_writable(tmp_path / "taken")


def test_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    files.require_writable(tmp_path / "new" / "out")

    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_sha256_is_that_of_the_contents_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"c")

    # FIPS 180-2, example B.1: SHA-256 of "abc"
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_of(tmp_path / "a", tmp_path / "b") == known


WRITER = """
import sys, time
from pathlib import Path
from engines import files, owners
folder = Path(sys.argv[1])
with files.held(folder / "run.json"), files.replacing(folder / "a" / "x.nii.gz") as p:
    p.write_bytes(b"voxels")
    print("writing", flush=True)
    time.sleep(60)
"""


def writer(folder: Path) -> "subprocess.Popen[str]":
    """Return a process that writes a file in ``folder`` and holds a lock."""
    made = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "writing\n"
    made.stdout.close()
    return made


def temporary_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob(f"{files.TEMPORARY_PREFIX}*"))


def test_parts_and_locks_of_killed_writers_are_swept(tmp_path: Path) -> None:
    for _ in range(3):
        killed = writer(tmp_path)
        killed.kill()
        killed.wait()
    (tmp_path / "a" / "kept.nii.gz").write_bytes(b"whole")
    assert len(temporary_in(tmp_path)) == 4  # three parts and the lock

    files.sweep(tmp_path)

    assert temporary_in(tmp_path) == []
    assert (tmp_path / "a" / "kept.nii.gz").read_bytes() == b"whole"


def test_part_and_lock_of_a_living_writer_stay(tmp_path: Path) -> None:
    living = writer(tmp_path)
    try:
        before = temporary_in(tmp_path)
        for path in tmp_path.rglob(f"{files.TEMPORARY_PREFIX}*"):
            os.utime(path, (0, 0))  # a job may be slow
        files.sweep(tmp_path)
        assert temporary_in(tmp_path) == before
        assert len(before) == 2
    finally:
        living.kill()
        living.wait()


def test_writer_that_was_killed_but_not_waited_for_is_dead(tmp_path: Path) -> None:
    killed = writer(tmp_path)
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    files.sweep(tmp_path)
    killed.wait()

    assert temporary_in(tmp_path) == []


@pytest.mark.parametrize(
    "word", ["0123abcd.1.5.ffffff", "7", f"{owners.machine()}.x", "1.abc"]
)
def test_parts_of_others_go_when_they_are_old(tmp_path: Path, word: str) -> None:
    part = tmp_path / f"{files.TEMPORARY_PREFIX}{word}-x.nii.gz"
    part.write_bytes(b"voxels")
    files.sweep(tmp_path)
    assert part.exists()

    before = time.time() - files.FOREIGN_AGE_S - 60
    os.utime(part, (before, before))
    files.sweep(tmp_path)
    assert not part.exists()


def test_number_used_again_by_another_process_is_no_writer(tmp_path: Path) -> None:
    machine, pid, start = owners.own().split(".")
    part = tmp_path / f"{files.TEMPORARY_PREFIX}{machine}.{pid}.{int(start) - 1}.ab-x"
    part.write_bytes(b"voxels")
    mine = tmp_path / f"{files.TEMPORARY_PREFIX}{owners.own()}.ab-x"
    mine.write_bytes(b"voxels")
    files.sweep(tmp_path)

    assert temporary_in(tmp_path) == [mine.name]


def test_sweep_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "out").mkdir()
    part = tmp_path / "other" / f"{files.TEMPORARY_PREFIX}0123abcd.1.5.ff-x"
    part.write_bytes(b"voxels")
    os.utime(part, (0, 0))
    (tmp_path / "out" / "link").symlink_to(tmp_path / "other")
    files.sweep(tmp_path / "out")

    assert part.exists()


DEEP = 1100
"""More folders in each other than Python's functions call each other."""


def deep(folder: Path) -> Path:
    made = folder.joinpath(*["d"] * DEEP)
    files.make_folder(made)
    return made


def test_folders_of_any_depth_are_made_walked_and_removed(tmp_path: Path) -> None:
    bottom = deep(tmp_path / "top")
    (bottom / "x.nii").write_bytes(b"")

    assert list(files.files_below(tmp_path)) == [bottom / "x.nii"]
    assert len([*files.walk(tmp_path)]) == DEEP + 2
    files.remove_tree(tmp_path / "top")
    assert not (tmp_path / "top").exists()


def test_walk_ends_where_links_lead_round(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "x").write_bytes(b"")

    seen = [here for here, _, _ in files.walk(tmp_path, links=True)]
    assert seen == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert list(files.files_below(tmp_path)) == [tmp_path / "a" / "x"]


def test_files_that_block_are_not_among_those_below(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    (tmp_path / "b.nii").write_bytes(b"")
    (tmp_path / "c.nii").symlink_to(tmp_path / "gone")

    assert [p.name for p in files.files_below(tmp_path)] == ["b.nii", "c.nii"]
