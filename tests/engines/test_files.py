"""Files are written whole or not at all."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from engines import files
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
