"""Scans are found whatever the folder looks like, and nothing is lost in silence."""

import gc
import os
import shutil
import socket
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from engines import files
from engines.errors import (
    NameClashError,
    NotFoundError,
    UnreadableError,
    UnsupportedError,
)
from engines.files import TEMPORARY_PREFIX
from engines.found import Found
from engines.scans import find_scans, read_case, read_scan, survey
from tests import dicom_phantoms as made
from tests import phantoms


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(found: list[Found]) -> list[str]:
    return [one.name for one in found]


def test_names_are_paths_below_the_input(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("b.nii", "a.nii.gz", "sub/x.NII.GZ", "sub/deep er/ü ß.nrrd", "c.mha"),
        *("notes.txt", "table.csv", "picture.png", "nii.gz.bak"),
    )
    found = find_scans([tmp_path])

    assert names(found) == ["a", "b", "c", "sub/deep er/ü ß", "sub/x"]
    assert all(one.problem is None for one in found)
    assert all(one.files == (one.path,) for one in found)


def test_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"scan{n}.nii" for n in (10, 9, 1, 2, 100)), "s2/3.nii")

    wanted = ["s2/3", "scan1", "scan2", "scan9", "scan10", "scan100"]
    assert names(find_scans([tmp_path])) == wanted


def test_file_given_directly_has_its_stem_as_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/x y.nii.gz")

    assert names(find_scans([tmp_path / "a" / "b" / "x y.nii.gz"])) == ["x y"]


def test_label_maps_hidden_files_and_parts_are_left_out(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("x_ct.nii.gz", "x_seg-vert_msk.nii.gz", "x_msk.nrrd", "x_seg-spine.mha"),
        *(".x.nii", "._x.nii.gz", ".git/x.nii", f"{TEMPORARY_PREFIX}7-x.nii.gz"),
    )

    assert names(find_scans([tmp_path])) == ["x_ct"]


def test_label_maps_of_downloaded_data_sets_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "s0001/ct.nii.gz", "s0001/segmentations/vertebrae_L1.nii.gz")
    touch(tmp_path, "nnunet/imagesTr/a_0000.nii.gz", "nnunet/labelsTr/a.nii.gz")
    touch(tmp_path, "verse/verse004.nii.gz", "verse/verse004_seg.nii.gz")
    touch(tmp_path, "slicer/x.nrrd", "slicer/Segmentation.seg.nrrd")

    assert names(find_scans([tmp_path])) == [
        *("nnunet/imagesTr/a_0000", "s0001/ct", "slicer/x", "verse/verse004")
    ]


def test_a_scan_called_like_a_label_map_of_nothing_is_a_scan(tmp_path: Path) -> None:
    touch(tmp_path, "knee_seg.nii.gz")

    assert names(find_scans([tmp_path])) == ["knee_seg"]


def test_folder_of_label_maps_holds_no_scans(tmp_path: Path) -> None:
    touch(tmp_path / "m", "x_seg-vert_msk.nii.gz", "y_msk.nii")
    touch(tmp_path / "n", "z.nii")
    first, second = find_scans([tmp_path / "n", tmp_path / "m"])

    assert (first.name, second.name) == ("m", "z")
    assert isinstance(first.problem, NotFoundError)
    assert str(first.problem) == (
        f"no scans under {tmp_path / 'm'}; left out: 2 label map(s), by name or folder"
    )


def test_label_map_given_alone_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "x_msk.nii", "x_ct.nii")
    (alone,) = find_scans([tmp_path / "x_msk.nii"])
    (beside,) = find_scans([tmp_path / "x_msk.nii", tmp_path / "x_ct.nii"])

    assert isinstance(alone.problem, NotFoundError)
    assert "1 label map" in str(alone.problem)
    assert (beside.name, beside.problem) == ("x_ct", None)


@pytest.mark.parametrize("given", ["none", "none.nii.gz", "a/b"])
def test_missing_path_is_a_problem(tmp_path: Path, given: str) -> None:
    (found,) = find_scans([tmp_path / given])

    assert isinstance(found.problem, NotFoundError)
    assert "no such file or folder" in str(found.problem)
    with pytest.raises(NotFoundError, match="no such file"):
        read_scan(found)


def test_empty_folder_is_a_problem_beside_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "good/x.nii")
    empty, good = find_scans([tmp_path / "good", tmp_path / "empty"])

    assert isinstance(empty.problem, NotFoundError)
    assert f"no scans under {tmp_path / 'empty'}" in str(empty.problem)
    assert good.problem is None


def test_file_of_another_kind_given_directly_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    (found,) = find_scans([tmp_path / "notes.txt"])

    assert isinstance(found.problem, UnsupportedError)
    assert "notes.txt: not a scan" in str(found.problem)


def test_same_name_is_a_problem_of_all(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.nii", "b/x.nii.gz", "b/y.nii")
    first, second, third = find_scans([tmp_path / "a", tmp_path / "b"])

    assert (first.name, second.name, third.name) == ("x", "x", "y")
    for found in (first, second):
        assert isinstance(found.problem, NameClashError)
        assert str(tmp_path / "a" / "x.nii") in str(found.problem)
        assert str(tmp_path / "b" / "x.nii.gz") in str(found.problem)
    assert third.problem is None


def test_two_formats_of_one_name_clash(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii", "x.nrrd")

    assert [one.problem.code for one in find_scans([tmp_path]) if one.problem] == [
        "name_clash",
        "name_clash",
    ]


def test_same_file_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.nii", "a/b/y.nii")
    (tmp_path / "a" / "z.nii").symlink_to(tmp_path / "a" / "x.nii")
    again = tmp_path / "a" / "b" / ".." / "x.nii"

    once = find_scans([tmp_path / "a", tmp_path / "a", again, tmp_path / "a" / "b"])
    assert names(once) == ["b/y", "x"]


def test_links_to_folders_are_followed_and_loops_survived(tmp_path: Path) -> None:
    touch(tmp_path, "real/x.nii", "in/y.nii")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in")

    assert names(find_scans([tmp_path / "in"])) == ["link/x", "y"]


@pytest.mark.parametrize("name", ["x.nii.gz", "x.dcm", "folder"])
def test_dead_link_is_a_problem(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "y.nii")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    first, second = find_scans([tmp_path])

    assert (first.name, second.name) == (Path(name).name.split(".")[0], "y")
    assert isinstance(first.problem, NotFoundError)
    assert "a link that leads nowhere" in str(first.problem)


def test_link_to_itself_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "x.nii").symlink_to(tmp_path / "x.nii")

    for given in (tmp_path, tmp_path / "x.nii"):
        (found,) = find_scans([given])
        assert isinstance(found.problem, NotFoundError)
        assert "round in a circle" in str(found.problem)


def test_dead_link_to_something_else_is_no_scan(tmp_path: Path) -> None:
    touch(tmp_path, "y.nii")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone")

    assert names(find_scans([tmp_path])) == ["y"]


def test_output_folder_is_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii", "out/x/x_other.nii", "out2/y.nii")
    found = find_scans([tmp_path], avoid=tmp_path / "out2" / ".." / "out")

    assert names(found) == ["out2/y", "x"]
    inside = find_scans([tmp_path / "out"], avoid=tmp_path / "out")
    assert names(inside) == ["x/x_other"]


def test_include_and_exclude_go_by_name_and_file_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/x_ct.nii", "a/x_mr.nii", "b/y_ct.nrrd", "b/[z]_ct.nii")

    def kept(include: tuple[str, ...], exclude: tuple[str, ...]) -> list[str]:
        return names(find_scans([tmp_path], include, exclude))

    assert kept(("a/*",), ()) == ["a/x_ct", "a/x_mr"]
    assert kept(("*.nrrd",), ()) == ["b/y_ct"]
    assert kept(("*_ct", "*_mr"), ("b/*",)) == ["a/x_ct", "a/x_mr"]
    assert kept((), ("*_ct",)) == ["a/x_mr"]
    assert kept(("*/[[]z]_ct",), ()) == ["b/[z]_ct"]


def test_globs_that_leave_nothing_are_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii", "y.nii")
    (found,) = find_scans([tmp_path], include=["z*"])

    assert isinstance(found.problem, NotFoundError)
    assert "none of the 2 scans" in str(found.problem)
    assert "--include" in found.problem.hint


def test_globs_do_not_hide_a_missing_input(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii")
    found = find_scans([tmp_path / "x.nii", tmp_path / "gone"], include=["x"])

    assert [one.problem is None for one in found] == [False, True]


def test_images_of_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "old/b.hdr", "old/b.img", "c.mgz", "d.nii.xz", "lone.img")

    found = {one.name: one for one in find_scans([tmp_path])}

    assert sorted(found) == ["a", "c", "d", "lone", "old/b"]
    for name in ("c", "d", "lone", "old/b"):
        with pytest.raises(UnsupportedError, match="a format that is not read"):
            raise found[name].problem or AssertionError
    assert found["old/b"].path.name == "b.hdr"


def test_mhd_comes_with_its_voxels(tmp_path: Path) -> None:
    made = phantoms.volume()
    phantoms.write_itk(tmp_path / "x.mhd", made)
    (found,) = find_scans([tmp_path])

    assert {path.name for path in found.files} == {"x.mhd", "x.raw"}
    np.testing.assert_array_equal(read_scan(found).voxels, made.voxels)


def test_mhd_without_its_voxels_is_unreadable(tmp_path: Path) -> None:
    phantoms.write_itk(tmp_path / "x.mhd", phantoms.volume())
    (tmp_path / "x.raw").unlink()
    (found,) = find_scans([tmp_path])

    with pytest.raises(UnreadableError, match=r"x\.mhd: cannot be read"):
        read_scan(found)


def test_dicom_folder_is_a_case(tmp_path: Path) -> None:
    made = phantoms.volume(axes="LPS")
    phantoms.write_dicom(tmp_path / "in" / "p 1" / "ser", made)
    (found,) = find_scans([tmp_path / "in"])
    (root,) = find_scans([tmp_path / "in" / "p 1" / "ser"])

    assert (found.name, root.name) == ("p 1/ser", "ser")
    assert found.path == tmp_path / "in" / "p 1" / "ser"
    assert len(found.files) == 5
    np.testing.assert_array_equal(read_scan(found).voxels, made.voxels)
    np.testing.assert_array_equal(read_scan(found.path).voxels, made.voxels)


def test_dicom_case_comes_with_its_images(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "in" / "ser", phantoms.volume(axes="LPS"))
    phantoms.write_nifti(tmp_path / "in" / "x.nii", phantoms.volume())
    dicom, image = find_scans([tmp_path / "in"])

    assert dicom.stack is not None
    assert set(dicom.stack.files) == set(dicom.files) == set(paths)
    assert (image.stack, image.held, dicom.held) == (None, (), ())


def test_each_series_of_a_folder_is_a_case(tmp_path: Path) -> None:
    for uid in ("1.2.3", "1.2.4"):
        part = phantoms.write_dicom(tmp_path / uid, phantoms.volume(), uid=uid)
        for path in part:
            (tmp_path / "in").mkdir(exist_ok=True)
            path.rename(tmp_path / "in" / f"{uid}-{path.stem}")  # no suffix
    found = find_scans([tmp_path / "in"])

    assert len(set(names(found))) == 2
    for one in found:
        assert one.name.startswith("in_")
        assert len(one.name) == len("in_") + 8
        assert len(one.files) == 5
        assert one.problem is None
    assert names(found) == names(find_scans([tmp_path / "in"]))
    with pytest.raises(UnsupportedError, match="2 scans, where one is needed"):
        read_scan(tmp_path / "in")


def test_volumes_of_one_series_are_cases_named_by_their_part(tmp_path: Path) -> None:
    for axes in ("LPS", "LSP"):
        scan, edit = made.ct(axes), made.instances(axes)
        phantoms.write_dicom(tmp_path / "in" / axes, scan, edit=edit)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (tmp_path / "in").rglob("*.dcm"):
        path.rename(flat / f"{path.parent.name}{path.name}")
    found = find_scans([flat])

    digest = made.stack_of(sorted(flat.glob("LPS*"))).origin.digest
    assert names(found) == [f"flat_{digest}_axial", f"flat_{digest}_coronal"]
    assert [len(one.files) for one in found] == [5, 5]


def test_series_split_over_folders_is_one_case_at_the_common_folder(
    tmp_path: Path,
) -> None:
    scan = phantoms.volume(axes="LPS")
    paths = phantoms.write_dicom(tmp_path / "in" / "p" / "s" / "1", scan)
    (tmp_path / "in" / "p" / "s" / "2").mkdir()
    for path in paths[::2]:
        path.rename(tmp_path / "in" / "p" / "s" / "2" / path.name)
    (found,) = find_scans([tmp_path / "in"])

    assert (found.name, found.path) == ("p/s", tmp_path / "in" / "p" / "s")
    assert len(found.files) == 5
    np.testing.assert_array_equal(read_scan(found).voxels, scan.voxels)


def test_series_split_over_the_input_itself_has_its_name(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "in" / "a", made.ct())
    paths[0].rename(tmp_path / "in" / "first.dcm")
    (found,) = find_scans([tmp_path / "in"])

    assert (found.name, found.path) == ("in", tmp_path / "in")


def test_folders_that_only_begin_alike_have_no_common_name(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "in" / "x" / "ab", made.ct())
    (tmp_path / "in" / "x" / "abc").mkdir()
    paths[0].rename(tmp_path / "in" / "x" / "abc" / "1.dcm")

    assert names(find_scans([tmp_path / "in"])) == ["x"]


@pytest.mark.parametrize("count", [5, 3])
def test_copy_or_extract_in_another_folder_is_a_case_of_its_own(
    tmp_path: Path, count: int
) -> None:
    whole = phantoms.write_dicom(tmp_path / "in" / "whole", made.ct())
    (tmp_path / "in" / "other").mkdir()
    for path in whole[:count]:
        shutil.copy(path, tmp_path / "in" / "other" / f"copy {path.name}")
    found = find_scans([tmp_path / "in"])

    assert [(one.name, len(one.files)) for one in found] == [
        ("other", count),
        ("whole", 5),
    ]
    assert all(one.problem is None for one in found)


def test_copies_in_one_folder_are_one_case_with_a_note(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "in", made.ct())
    for path in paths:
        shutil.copy(path, path.with_name(f"copy {path.name}"))
    (found,) = find_scans([tmp_path / "in"])
    volume, notes = read_case(found)

    assert len(found.files) == 10
    np.testing.assert_array_equal(volume.voxels, made.ct().voxels)
    assert [note.message for note in notes] == [
        "5 slices that lie where another does were left out (identical)"
    ]


def test_two_patients_under_one_series_uid_stay_apart(tmp_path: Path) -> None:
    other = made.all_of(made.having(PatientID="2"), made.instances("2"))
    phantoms.write_dicom(tmp_path / "in" / "a", made.ct())
    phantoms.write_dicom(tmp_path / "in" / "b", made.ct(), edit=other)

    assert [(one.name, len(one.files)) for one in find_scans([tmp_path / "in"])] == [
        ("a", 5),
        ("b", 5),
    ]


def test_two_patients_in_one_folder_have_names_of_their_own(tmp_path: Path) -> None:
    other = made.all_of(made.having(PatientID="2"), made.instances("2"))
    phantoms.write_dicom(tmp_path / "in", made.ct())
    for path in phantoms.write_dicom(tmp_path / "b", made.ct(), edit=other):
        path.rename(tmp_path / "in" / f"b{path.name}")
    found = find_scans([tmp_path / "in"])

    assert len(set(names(found))) == 2
    assert [len(one.files) for one in found] == [5, 5]
    assert [one.problem for one in found] == [None, None]


def test_directory_file_of_a_disc_stands_for_its_folder(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "disc" / "A" / "B", made.ct())
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    found = find_scans([tmp_path / "disc" / "DICOMDIR"])

    assert "A/B" in names(found)


def pack(folder: Path, archive: Path) -> Path:
    """Put the files below ``folder`` into a zip or a tar."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in files:
                zipped.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz") as tarred:
            for path in files:
                tarred.add(path, path.relative_to(folder).as_posix())
    return archive


@pytest.mark.parametrize("name", ["scans.zip", "scans.tar.gz", "scans.tgz"])
def test_series_in_an_archive_is_a_case(tmp_path: Path, name: str) -> None:
    scan = phantoms.volume(axes="LPS")
    phantoms.write_dicom(tmp_path / "src" / "p 1" / "ser", scan)
    archive = pack(tmp_path / "src", tmp_path / "in" / "sub" / name)
    (given,) = find_scans([archive])
    (below,) = find_scans([tmp_path / "in"])

    assert (given.name, below.name) == ("p 1/ser", "sub/scans/p 1/ser")
    assert given.path == below.path == archive / "p 1" / "ser"
    for found in (given, below):
        np.testing.assert_array_equal(read_scan(found).voxels, scan.voxels)


def test_series_at_the_root_of_an_archive_has_its_name(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "src", made.ct())
    archive = pack(tmp_path / "src", tmp_path / "in" / "scan 7.zip")

    assert names(find_scans([archive])) == ["scan 7"]
    assert names(find_scans([tmp_path / "in"])) == ["scan 7"]


def test_archive_beside_an_image_file(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "src", made.ct())
    pack(tmp_path / "src", tmp_path / "in" / "a.zip")
    phantoms.write_nifti(tmp_path / "in" / "b.nii.gz", phantoms.volume())
    found = find_scans([tmp_path / "in"])

    assert names(found) == ["a", "b"]
    assert [one.problem for one in found] == [None, None]


def test_image_file_in_an_archive_is_a_case(tmp_path: Path) -> None:
    scan = phantoms.volume()
    phantoms.write_nifti(tmp_path / "src" / "deep" / "x.nii.gz", scan)
    archive = pack(tmp_path / "src", tmp_path / "a.zip")
    (found,) = find_scans([archive])

    assert (found.name, found.path) == ("deep/x", archive / "deep" / "x.nii.gz")
    np.testing.assert_array_equal(read_scan(found).voxels, scan.voxels)


def test_archive_and_folder_of_one_name_clash(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "in" / "a", made.ct(), uid="1.2.3")
    phantoms.write_nifti(tmp_path / "src" / "x.nii", phantoms.volume())
    pack(tmp_path / "src", tmp_path / "in" / "a.zip")
    phantoms.write_nifti(tmp_path / "in" / "a" / "x.nii", phantoms.volume())
    found = {one.name: one for one in find_scans([tmp_path / "in"])}

    assert isinstance(found["a/x"].problem, NameClashError)
    assert found["a"].problem is None


@pytest.mark.parametrize(
    ("content", "error"), [(b"", UnreadableError), (b"notes", UnreadableError)]
)
def test_broken_archive_is_a_problem_beside_a_good_scan(
    tmp_path: Path, content: bytes, error: type[Exception]
) -> None:
    touch(tmp_path, "x.nii")
    (tmp_path / "a.zip").write_bytes(content)
    broken, good = find_scans([tmp_path])
    (given,) = find_scans([tmp_path / "a.zip"])

    assert (broken.name, good.name, given.name) == ("a", "x", "a")
    for one in (broken, given):
        assert isinstance(one.problem, error)
        assert "a.zip: cannot be unpacked" in str(one.problem)
    assert good.problem is None


def test_archive_without_scans_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path / "src", "notes.txt")
    archive = pack(tmp_path / "src", tmp_path / "a.zip")
    (found,) = find_scans([archive])

    assert isinstance(found.problem, NotFoundError)
    assert str(found.problem) == f"no scans under {archive}"


def test_archive_stays_unpacked_as_long_as_its_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    phantoms.write_dicom(tmp_path / "src", made.ct())
    found = find_scans([pack(tmp_path / "src", tmp_path / "a.zip")])
    assert found[0].held[0].archive == tmp_path / "a.zip"
    gc.collect()
    assert len([*(tmp_path / "tmp").iterdir()]) == 1
    del found
    gc.collect()

    assert [*(tmp_path / "tmp").iterdir()] == []


def test_left_out_files_of_an_archive_are_shown_below_it(tmp_path: Path) -> None:
    scout = made.having(ImageType="LOCALIZER")
    paths = phantoms.write_dicom(tmp_path / "src" / "s", made.ct(), edit=scout)
    archive = pack(tmp_path / "src", tmp_path / "a.zip")
    left_out = survey([archive]).left_out

    assert {one.path for one in left_out} == {archive / "s" / p.name for p in paths}


def test_broken_dicom_of_an_archive_is_shown_below_it(tmp_path: Path) -> None:
    touch(tmp_path / "src", "s/bad.dcm")
    archive = pack(tmp_path / "src", tmp_path / "a.zip")
    (found,) = find_scans([archive])

    assert found.path == archive / "s"
    assert f"1 of 1 DICOM files in {archive / 's'} cannot be read" in str(found.problem)


def test_only_dicom_may_be_asked_for(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "ser", made.ct())
    touch(tmp_path, "x.nii", "y.mha")

    assert names([*survey([tmp_path], images=False).found]) == ["ser"]


def test_dicom_files_given_directly_are_grouped(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "ser", phantoms.volume())
    (all_of_them,) = find_scans(paths)
    (single,) = find_scans(paths[:1])

    assert (all_of_them.name, len(all_of_them.files)) == ("ser", 5)
    assert (single.name, len(single.files)) == (paths[0].stem, 1)


def test_unreadable_dicom_beside_a_series_is_told(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "ser", phantoms.volume())
    touch(tmp_path, "ser/broken.dcm")
    good, bad = find_scans([tmp_path])

    assert (good.name, good.problem) == ("ser", None)
    assert isinstance(bad.problem, UnreadableError)
    assert "1 of 6 DICOM files" in str(bad.problem)
    assert "broken.dcm" in str(bad.problem)


def test_localizers_alone_are_no_scan(tmp_path: Path) -> None:
    def scout(_: int, dataset: object) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]  # type: ignore[attr-defined]

    phantoms.write_dicom(tmp_path / "ser", phantoms.volume(), edit=scout)
    (found,) = find_scans([tmp_path])

    assert isinstance(found.problem, NotFoundError)
    assert "5 DICOM localizer(s)" in str(found.problem)


def test_mixed_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "in/x.nii", "y.mha")
    phantoms.write_dicom(tmp_path / "in" / "ser", phantoms.volume())
    found = find_scans([tmp_path / "y.mha", tmp_path / "in"])

    assert names(found) == ["ser", "x", "y"]
    assert all(one.problem is None for one in found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_closed_folder_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "x.nii", "closed/y.nii")
    (tmp_path / "closed").chmod(0)
    try:
        closed, _ = find_scans([tmp_path])
    finally:
        (tmp_path / "closed").chmod(0o700)

    assert isinstance(closed.problem, UnreadableError)
    assert "cannot be opened" in str(closed.problem)


def test_input_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantoms.write_dicom(tmp_path / "ser", phantoms.volume())
    monkeypatch.chdir(tmp_path / "ser")

    assert names(find_scans([Path()])) == ["ser"]


def test_read_scan_reads_a_file(tmp_path: Path) -> None:
    made = phantoms.volume()
    path = phantoms.write_nifti(tmp_path / "x.nii.gz", made)
    shutil.copy(path, tmp_path / "y.nii.gz")

    np.testing.assert_array_equal(read_scan(path).voxels, made.voxels)
    for found in find_scans([tmp_path]):
        np.testing.assert_array_equal(read_scan(found).voxels, made.voxels)


def test_files_that_would_block_are_named_and_never_opened(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "ser", made.ct())
    os.mkfifo(tmp_path / "ser" / "log")
    os.mkfifo(tmp_path / "ser" / "9.dcm")
    os.mkfifo(tmp_path / "scan.nii.gz")
    os.mkfifo(tmp_path / ".hidden.dcm")
    os.mkfifo(tmp_path / "scan_seg-spine_msk.nii.gz")
    (tmp_path / "ser" / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as made_socket:
        made_socket.bind(os.path.relpath(tmp_path / "sock"))
        seen = survey([tmp_path])

    told = {one.path.name: one.why for one in seen.left_out}
    assert told["log"] == "FIFO"
    assert told["sock"] == "socket"
    assert told["null"] == "device"
    problems = {one.name: str(one.problem) for one in seen.found if one.problem}
    assert sorted(problems) == ["scan", "ser/9"]
    assert problems["scan"] == f"{tmp_path / 'scan.nii.gz'}: a FIFO, not a file"
    assert [one.name for one in seen.found if one.stack] == ["ser"]


def test_dicom_below_more_folders_than_functions_may_call_each_other(
    tmp_path: Path,
) -> None:
    bottom = tmp_path.joinpath("in", *["d"] * 1100)
    files.make_folder(bottom)
    phantoms.write_dicom(bottom, made.ct())

    (found,) = find_scans([tmp_path / "in"])
    assert found.problem is None
    assert found.name == "/".join(["d"] * 1100)
    assert read_scan(found).grid.shape == made.ct().grid.shape
    files.remove_tree(tmp_path / "in")
