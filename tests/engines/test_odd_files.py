"""No slice is lost in silence: odd files are read, or counted and named."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.convert.convert import ConvertRun, ConvertSettings
from engines.errors import NotFoundError, UnreadableError, UnsupportedError
from engines.scans import find_scans, read_case, survey
from tests import dicom_phantoms as made

Spoil = Callable[[Path], object]


@pytest.fixture
def series(tmp_path: Path) -> Path:
    made.write_slices(tmp_path / "ser", (made.slice_of(n) for n in range(12)))
    return tmp_path / "ser"


def packed(path: Path, pack: Callable[[bytes], bytes], suffix: str) -> None:
    path.with_name(path.name + suffix).write_bytes(pack(path.read_bytes()))
    path.unlink()


def bare(path: Path) -> None:
    content = path.read_bytes()
    start = content.find(b"\x08\x00\x08\x00CS")
    path.with_suffix("").write_bytes(content[start:])
    path.unlink()


ODD: dict[str, Spoil] = {
    "gzip": lambda path: packed(path, gzip.compress, ".gz"),
    "bzip2": lambda path: packed(path, bz2.compress, ".bz2"),
    "xz": lambda path: packed(path, lzma.compress, ".xz"),
    "gzip without suffix": lambda path: packed(path, gzip.compress, "x"),
    "hidden": lambda path: path.rename(path.with_name(f".{path.name}")),
    "hidden without suffix": lambda path: path.rename(path.with_name(f".{path.stem}")),
    "called .nii": lambda path: path.rename(path.with_suffix(".nii")),
    "called .nii.gz": lambda path: path.rename(path.with_suffix(".nii.gz")),
    "called .mha": lambda path: path.rename(path.with_suffix(".mha")),
    "called .zip": lambda path: path.rename(path.with_suffix(".zip")),
    "called .txt": lambda path: path.rename(path.with_suffix(".txt")),
    "called _seg": lambda path: path.rename(path.with_name("9_seg-x_msk.nii")),
    "bare": bare,
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("lost", [5, 9, 11])
def test_slice_in_an_odd_file_is_read(series: Path, name: str, lost: int) -> None:
    ODD[name](series / f"{lost}.dcm")
    for images in (False, True):
        seen = survey([series], images=images)
        (found,) = seen.found

        assert seen.left_out == ()
        np.testing.assert_array_equal(read_case(found)[0].voxels, made.hu_of())


def test_every_slice_may_be_packed(series: Path) -> None:
    for path in sorted(series.iterdir()):
        packed(path, gzip.compress, ".gz")
    (folder,) = find_scans([series])
    (files,) = find_scans(sorted(series.iterdir()))

    exam = str(series.parent / "exam")
    packed_up = shutil.make_archive(exam, "zip", series.parent, "ser")
    (archive,) = find_scans([Path(packed_up)])

    for found in (folder, files, archive):
        assert found.name == "ser"
        np.testing.assert_array_equal(read_case(found)[0].voxels, made.hu_of())


@pytest.mark.parametrize("cut", [0.4, 0.9])
def test_damaged_packed_slice_is_a_problem(series: Path, cut: float) -> None:
    packed(series / "11.dcm", gzip.compress, ".gz")
    path = series / "11.dcm.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    _, bad = find_scans([series])

    assert isinstance(bad.problem, UnreadableError)
    assert "the first is 11.dcm.gz" in str(bad.problem)


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (128, b"\0\0\0\0"),
        (132, b"\xff\xff\xff\xff"),
    ],
)
def test_damage_where_a_file_begins_is_no_reason_to_pass_it_over(
    series: Path, place: int, content: bytes
) -> None:
    path = (series / "11.dcm").rename(series / "IM11")
    whole = bytearray(path.read_bytes())
    whole[place : place + len(content)] = content
    path.write_bytes(whole)
    found = find_scans([series])

    assert sum(len(one.files) for one in found) == 12


@pytest.mark.parametrize("keyword", ["SOPClassUID", "ImageType", "Modality"])
def test_slice_cut_off_in_its_header_is_a_problem(series: Path, keyword: str) -> None:
    marks = {"SOPClassUID": b"\x08\0\x16\0", "ImageType": b"\x08\0\x08\0CS"}
    path = series / "11.dcm"
    content = path.read_bytes()
    place = content.find(marks.get(keyword, b"\x08\0\x60\0"), 300)
    path.write_bytes(content[: place + 12])
    _, bad = find_scans([series])

    assert isinstance(bad.problem, UnreadableError)


def test_length_that_swallows_the_header_is_a_problem(series: Path) -> None:
    path = series / "11.dcm"
    content = bytearray(path.read_bytes())
    place = content.find(b"\x08\0\x16\0UI", 300)
    content[place + 6 : place + 8] = b"\xff\xff"
    path.write_bytes(content)
    _, bad = find_scans([series])

    assert isinstance(bad.problem, UnreadableError)
    assert "1 of 12 DICOM files" in str(bad.problem)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(200)),
        ("a.rar", b"Rar!\x1a\x07\x01\x00" + bytes(200)),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd" + bytes(200)),
        ("a", b"7z\xbc\xaf\x27\x1c" + bytes(200)),
        ("damaged.rar", b"notes"),
    ],
)
def test_archive_of_another_kind_is_a_problem(
    series: Path, name: str, content: bytes
) -> None:
    (series / name).write_bytes(content)
    problems = [one.problem for one in find_scans([series]) if one.problem]
    (given,) = find_scans([series / name])

    for problem in (*problems, given.problem):
        assert isinstance(problem, UnsupportedError)
        assert name in str(problem)
        assert "Unpack it" in problem.hint
    assert len(problems) == 1


@pytest.mark.parametrize("name", ["exam", "1.2.840.7", "exam.dat"])
def test_zip_without_its_suffix_is_opened(series: Path, name: str) -> None:
    with zipfile.ZipFile(series / name, "w") as archive:
        for path in series.glob("*.dcm"):
            archive.write(path, path.name)
            path.unlink()
    (found,) = find_scans([series])

    np.testing.assert_array_equal(read_case(found)[0].voxels, made.hu_of())


def test_tar_without_its_suffix_is_opened(series: Path) -> None:
    with tarfile.open(series / "exam", "w:xz") as archive:
        for path in series.glob("*.dcm"):
            archive.add(path, path.name)
            path.unlink()
    (found,) = find_scans([series])

    np.testing.assert_array_equal(read_case(found)[0].voxels, made.hu_of())


def test_documents_are_no_archives(series: Path) -> None:
    with zipfile.ZipFile(series / "letter.docx", "w") as archive:
        archive.writestr("word/document.xml", b"<x/>")
    seen = survey([series], images=False)

    assert [one.problem for one in seen.found] == [None]
    assert [(one.path.name, one.why) for one in seen.left_out] == [
        ("letter.docx", "not DICOM")
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["a.dcm", "deep/a", "a"])
def test_members_that_share_a_name_are_all_read(
    series: Path, tmp_path: Path, kind: str, name: str
) -> None:
    archive = tmp_path / f"exam.{kind}"
    paths = sorted(series.iterdir())
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in paths:
                zipped.write(path, name)
    else:
        with tarfile.open(archive, "w") as tarred:
            for path in paths:
                tarred.add(path, name)
    (found,) = find_scans([archive])

    assert len(found.files) == 12
    np.testing.assert_array_equal(read_case(found)[0].voxels, made.hu_of())


def test_archive_in_an_archive_is_opened(series: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        for path in series.iterdir():
            archive.write(path, path.name)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    (found,) = find_scans([tmp_path / "outer.zip"])

    assert found.path == tmp_path / "outer.zip" / "inner.zip"
    assert len(found.files) == 12


def test_what_is_no_dicom_is_counted_and_named(series: Path) -> None:
    (series / "notes.txt").write_bytes(b"notes")
    (series / "IM12").write_bytes(b"")
    (series / "x.nii").write_bytes(b"image")
    shutil.copytree(series, series / ".old")
    (series / ".settings").mkdir()
    (series / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (series / "._0.dcm").write_bytes(b"\0\5\x16\7" + bytes(100))
    seen = survey([series], images=False)

    assert [one.problem for one in seen.found] == [None]
    assert {(one.path.relative_to(series).as_posix(), one.why) for one in seen.left_out}
    assert {(one.path.name, one.why) for one in seen.left_out} == {
        ("notes.txt", "not DICOM"),
        ("IM12", "empty file"),
        ("x.nii", "not DICOM"),
        (".old", "hidden folder"),
    }


def test_files_that_are_no_dicom_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"notes")
    (found,) = survey([tmp_path], images=False).found

    assert isinstance(found.problem, NotFoundError)
    assert "left out" not in str(found.problem)


def test_damaged_directory_of_a_disc_is_not_needed(series: Path) -> None:
    start = bytes(128) + b"DICM" + b"\x02\0\0\0UL\4\0\xc0\0"
    (series / "DICOMDIR").write_bytes(start)
    seen = survey([series], images=False)

    assert [one.problem for one in seen.found] == [None]
    assert [one.path.name for one in seen.left_out] == ["DICOMDIR"]


def test_run_converts_all_slices_of_a_mixed_folder(
    series: Path, tmp_path: Path
) -> None:
    for lost, name in ((9, "gzip"), (10, "hidden"), (11, "called .nii")):
        ODD[name](series / f"{lost}.dcm")
    run = ConvertRun([series], tmp_path / "out", ConvertSettings())
    (result,) = run.results()

    assert result.status == "done"
    assert result.details["volume"]["shape"] == [16, 12, 12]
