"""Scans are found whatever the folder looks like, and nothing is lost in silence."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.errors import (
    NameClashError,
    NotFoundError,
    UnreadableError,
    UnsupportedError,
)
from engines.files import TEMPORARY_PREFIX
from engines.scans import Found, find_scans, read_scan
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


def test_folder_of_label_maps_holds_no_scans(tmp_path: Path) -> None:
    touch(tmp_path / "m", "x_seg-vert_msk.nii.gz", "y_msk.nii")
    touch(tmp_path / "n", "z.nii")
    first, second = find_scans([tmp_path / "n", tmp_path / "m"])

    assert (first.name, second.name) == ("m", "z")
    assert isinstance(first.problem, NotFoundError)
    assert str(first.problem) == (
        f"no scans under {tmp_path / 'm'}; left out: 2 label map(s) (*_msk.*, *_seg-*)"
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
