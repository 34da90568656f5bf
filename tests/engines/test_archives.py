"""Archives give their ordinary files, none of them outside the temporary folder."""

import gc
import gzip
import io
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from engines import archives
from engines.errors import OutputError, UnreadableError, UnsupportedError
from engines.scans import find_scans

CONTENT = {"a.dcm": b"one" * 400, "sub/deep er/b.dcm": b"two" * 400, "ü.txt": b"three"}
TAR_MODES: dict[str, Literal["w", "w:gz", "w:bz2", "w:xz"]] = {
    "tar": "w",
    "tar.gz": "w:gz",
    "tgz": "w:gz",
    "tar.bz2": "w:bz2",
    "tar.xz": "w:xz",
}


def pack(folder: Path, kind: str, content: Mapping[str, bytes] = CONTENT) -> Path:
    """Write an archive called after its kind."""
    path = folder / f"scans.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in content.items():
                packed.writestr(name, data)
        return path
    with tarfile.open(path, TAR_MODES[kind]) as packed_tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed_tar.addfile(member, io.BytesIO(data))
    return path


def held(unpacked: archives.Unpacked) -> dict[str, bytes]:
    files = (path for path in unpacked.root.rglob("*") if path.is_file())
    return {p.relative_to(unpacked.root).as_posix(): p.read_bytes() for p in files}


def temporary() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("spine-*")}


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.mark.parametrize("kind", ["zip", *TAR_MODES])
def test_every_kind_is_unpacked(tmp_path: Path, kind: str) -> None:
    unpacked = archives.unpack(pack(tmp_path, kind))

    assert held(unpacked) == CONTENT
    assert unpacked.root.parent == tmp_path / "tmp"


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("x.zip", ".zip"),
        ("x.ZIP", ".zip"),
        ("x.tar", ".tar"),
        ("x.y.tar.gz", ".tar.gz"),
        ("x.TGZ", ".tgz"),
        ("x.tar.bz2", ".tar.bz2"),
        ("x.tar.xz", ".tar.xz"),
        ("x.nii.gz", ""),
        ("x.gz", ""),
        ("zip", ""),
        ("x.zip.part", ""),
    ],
)
def test_archives_are_known_by_their_suffix(name: str, suffix: str) -> None:
    assert archives.suffix_of(Path(name)) == suffix
    assert archives.is_archive(Path(name)) is bool(suffix)


def test_files_are_shown_below_the_archive(tmp_path: Path) -> None:
    unpacked = archives.unpack(pack(tmp_path, "zip"))

    shown = unpacked.shown(unpacked.root / "sub" / "b.dcm")
    assert shown == tmp_path / "scans.zip" / "sub" / "b.dcm"


def test_folder_is_removed_when_its_record_is_gone(tmp_path: Path) -> None:
    unpacked = archives.unpack(pack(tmp_path, "zip"))
    root = unpacked.root
    assert root.is_dir()
    del unpacked
    gc.collect()

    assert not root.exists()


HOSTILE = ["../up.dcm", "a/../../up.dcm", "{tmp}/absolute.dcm", "/../../up.dcm"]


def around(folder: Path) -> set[Path]:
    """Return all below ``folder`` but what is unpacked."""
    return {path for path in folder.rglob("*") if "spine-" not in str(path)}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_a_zip_gets_out_of_the_folder(tmp_path: Path, name: str) -> None:
    hostile = name.format(tmp=tmp_path / "target")
    archive = pack(tmp_path, "zip", {hostile: b"hostile", "good.dcm": b"good"})
    before = around(tmp_path)
    unpacked = archives.unpack(archive)

    assert sorted(held(unpacked).values()) == [b"good", b"hostile"]
    assert around(tmp_path) == before


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("name", ["../up.dcm", "a/../../up.dcm", "/../../up.dcm"])
def test_tar_that_leads_out_of_the_folder_is_unreadable(
    tmp_path: Path, kind: str, name: str
) -> None:
    archive = pack(tmp_path, kind, {"good.dcm": b"good", name: b"hostile"})
    before = around(tmp_path)

    with pytest.raises(UnreadableError, match=rf"scans\.{kind}: cannot be unpacked"):
        archives.unpack(archive)
    assert around(tmp_path) == before
    assert temporary() == set()


def test_absolute_paths_of_a_tar_lie_below_the_folder(tmp_path: Path) -> None:
    name = f"{tmp_path}/target/x.dcm"
    archive = pack(tmp_path, "tar", {name: b"hostile", "good.dcm": b"good"})
    unpacked = archives.unpack(archive)

    assert held(unpacked) == {name[1:]: b"hostile", "good.dcm": b"good"}
    assert not (tmp_path / "target").exists()


def test_links_in_a_zip_are_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, str(tmp_path))
        packed.writestr("good.dcm", b"good")
    unpacked = archives.unpack(archive)

    assert held(unpacked) == {"good.dcm": b"good"}
    assert not (unpacked.root / "link").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_in_a_tar_are_passed_over(
    tmp_path: Path, kind: bytes
) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as packed:
        odd = tarfile.TarInfo("odd")
        odd.type, odd.linkname = kind, "/etc/passwd"
        packed.addfile(odd)
        inside = tarfile.TarInfo("odd/inside.dcm")
        inside.size = 4
        packed.addfile(inside, io.BytesIO(b"good"))
    unpacked = archives.unpack(archive)

    assert held(unpacked) == {"odd/inside.dcm": b"good"}


def test_locked_zip_is_unsupported(tmp_path: Path) -> None:
    archive = pack(tmp_path, "zip")
    content = bytearray(archive.read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + at] |= 1
            start = content.find(signature, start + 4)
    archive.write_bytes(content)

    with pytest.raises(
        UnsupportedError, match=r"scans\.zip: locked with a password"
    ) as caught:
        archives.unpack(archive)
    assert "Unlock" in caught.value.hint
    assert temporary() == set()


@pytest.mark.parametrize("kind", ["zip", *TAR_MODES])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7])
def test_truncated_archive_is_unreadable(
    tmp_path: Path, kind: str, kept: float
) -> None:
    archive = pack(tmp_path, kind)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * kept)])
    if kind == "tar" and kept:
        archive.write_bytes(content[: 512 + int(1200 * kept)])

    with pytest.raises(UnreadableError, match=rf"scans\.{kind}: cannot be unpacked"):
        archives.unpack(archive)
    assert temporary() == set()


@pytest.mark.parametrize("kind", ["zip", *TAR_MODES])
def test_file_of_another_kind_is_unreadable(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"scans.{kind}"
    archive.write_bytes(b"notes" * 500)

    with pytest.raises(UnreadableError, match="cannot be unpacked"):
        archives.unpack(archive)


def test_damaged_member_is_unreadable(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.dcm", b"content" * 100)
    content = bytearray(archive.read_bytes())
    content[200] ^= 0xFF
    archive.write_bytes(content)

    with pytest.raises(UnreadableError, match=r"cannot be unpacked \(BadZipFile\)"):
        archives.unpack(archive)
    assert temporary() == set()


def test_archive_that_vanished_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"gone\.zip: cannot be unpacked"):
        archives.unpack(tmp_path / "gone.zip")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_full_disk_is_told_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    archive = pack(tmp_path, kind)
    usage = shutil.disk_usage(tmp_path)._replace(free=archives.SPARE_BYTES + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(
        OutputError, match=r"no room in .* to unpack \d+ bytes"
    ) as caught:
        archives.unpack(archive)
    assert "TMPDIR" in caught.value.hint
    assert temporary() == set()


def zipped(path: Path, content: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return path


def nested(folder: Path, depth: int, content: bytes) -> Path:
    """Return an archive in so many others."""
    path = zipped(folder / "0.zip", {"x.nii": content})
    for level in range(1, depth + 1):
        path = zipped(folder / f"{level}.zip", {f"{level - 1}.zip": path.read_bytes()})
    return path


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, so that small archives reach them."""
    monkeypatch.setattr(archives, "RATIO_FROM_BYTES", 1 << 16)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_archive_of_a_ratio_that_no_scan_has_is_refused(
    tmp_path: Path, kind: str
) -> None:
    archive = pack(tmp_path, kind, {"x.nii": bytes(1 << 20)})

    with pytest.raises(
        UnsupportedError, match=rf"scans\.{kind}: it holds .* scans have less than 250"
    ) as caught:
        archives.unpack(archive)
    assert str(archive.stat().st_size) in str(caught.value)
    assert temporary() == set()


@pytest.mark.parametrize("depth", [1, 2])
def test_bombs_in_other_archives_are_measured_by_the_outermost(
    tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "RATIO_FROM_BYTES", 1 << 20)
    bomb = nested(tmp_path, depth, bytes(1 << 22))
    assert bomb.stat().st_size < 5000

    (found,) = find_scans([bomb])

    assert isinstance(found.problem, UnsupportedError)
    assert str(found.problem).startswith(f"{bomb.name}: it holds ")


def test_archives_nested_too_deep_are_refused(tmp_path: Path) -> None:
    allowed = nested(tmp_path, archives.MAX_NESTING - 1, b"no scan")
    (found,) = find_scans([allowed])
    assert found.problem is None
    assert found.name.endswith("1/0/x")
    deeper = nested(tmp_path, archives.MAX_NESTING, b"no scan")
    (found,) = find_scans([deeper])

    assert isinstance(found.problem, UnsupportedError)
    assert "more than 3 deep" in str(found.problem)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_of_too_many_files_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)

    with pytest.raises(UnsupportedError, match="it holds 3 files, more than 2"):
        archives.unpack(pack(tmp_path, kind))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archive_of_too_many_bytes_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1500)

    with pytest.raises(UnsupportedError, match=r"it holds \d+ bytes when unpacked"):
        archives.unpack(pack(tmp_path, kind))


def test_study_of_20_gb_is_within_the_limits() -> None:
    budget = archives.Budget("study.zip", 8 << 30)
    for _ in range(40_000):
        budget.spend(526_000, members=1)


def test_compressed_file_that_is_a_bomb_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "RATIO_FROM_BYTES", 1 << 20)
    start = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00"
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.dcm.gz"
    path.write_bytes(gzip.compress(start + bytes(1 << 22)))

    (found,) = find_scans([tmp_path / "in"])
    assert isinstance(found.problem, UnsupportedError)
    assert "x.dcm.gz: it holds" in str(found.problem)
    (given,) = find_scans([path])
    assert isinstance(given.problem, UnsupportedError)


def test_folders_of_killed_programs_are_removed(tmp_path: Path) -> None:
    code = (
        "import sys, tempfile, os, signal; from pathlib import Path;"
        "from engines import archives; tempfile.tempdir = sys.argv[2];"
        "kept = archives.unpack(Path(sys.argv[1]));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [str(pack(tmp_path, "zip")), str(tmp_path / "tmp")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=False)
    assert len(temporary()) == 1
    mine = archives.temporary(tmp_path)
    archives.sweep()

    assert temporary() == {mine.root.name}


def test_deep_folders_in_an_archive_are_unpacked_and_removed(tmp_path: Path) -> None:
    name = "d/" * 1100 + "x.nii"
    unpacked = archives.unpack(pack(tmp_path, "zip", {name: b"content"}))
    root = unpacked.root
    assert (root / name).read_bytes() == b"content"
    del unpacked
    gc.collect()

    assert not root.exists()
