"""Files become volumes by what their headers share, whatever they are called."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from engines.convert.headers import LOCALIZER, NO_IMAGE
from engines.convert.series import series_in
from engines.convert.stack import LeftOut, Stack, ordered
from engines.sniff import is_dicom
from tests import dicom_phantoms as made
from tests import phantoms


def counts(stacks: Sequence[Stack]) -> list[tuple[int, int]]:
    """Return how many volumes, and slices in the first, each stack has."""
    return [(len(stack.volumes), len(stack.volumes[0])) for stack in stacks]


def as_report(_: int, dataset: Dataset) -> None:
    del dataset.Rows, dataset.PixelData
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage


def test_files_are_grouped_by_series(tmp_path: Path) -> None:
    one = phantoms.write_dicom(tmp_path / "a", made.ct(), uid="1.2.3")
    two = phantoms.write_dicom(
        tmp_path / "b", made.ct(), uid="1.2.4", edit=made.having(SeriesNumber=None)
    )
    mixed = [path for pair in zip(two, one, strict=True) for path in pair]
    found = series_in(mixed)

    assert [set(stack.files) for stack in found.stacks] == [set(two), set(one)]
    assert [stack.origin.number for stack in found.stacks] == [None, 3]
    assert len({stack.origin.digest for stack in found.stacks}) == 2
    assert found.unreadable == found.left_out == ()


def test_localizers_reports_and_damage_are_listed_each_in_its_place(
    tmp_path: Path,
) -> None:
    scan = phantoms.write_dicom(tmp_path / "a", made.ct(), uid="1.2.3")
    scout = phantoms.write_dicom(
        tmp_path / "c", made.ct(), uid="1.2.5", edit=made.having(ImageType="LOCALIZER")
    )
    report = phantoms.write_dicom(
        tmp_path / "d", made.ct(), uid="1.2.6", edit=as_report
    )
    bad = (tmp_path / "e.dcm", tmp_path / "f.dcm")
    bad[0].write_bytes(b"notes")
    bad[1].write_bytes(scan[0].read_bytes()[:500])
    found = series_in([*scout, *scan, *report, *bad])

    assert counts(found.stacks) == [(1, 5)]
    assert found.unreadable == bad
    assert found.left_out == (
        *(LeftOut(path, LOCALIZER) for path in scout),
        *(LeftOut(path, NO_IMAGE) for path in report),
    )
    assert found.left_out[0].as_json() == {"path": str(scout[0]), "why": "localizer"}


def test_localizer_in_the_series_is_left_alone(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    scout = pydicom.dcmread(paths[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.save_as(tmp_path / "scout.dcm")
    found = series_in([tmp_path / "scout.dcm", *paths])

    assert [set(stack.files) for stack in found.stacks] == [set(paths)]
    assert [one.path.name for one in found.left_out] == ["scout.dcm"]


def test_directory_of_a_disc_is_left_out(tmp_path: Path) -> None:
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.FileSetID = "DISC"
    path = tmp_path / "DICOMDIR"
    pydicom.dcmwrite(path, directory, enforce_file_format=True)
    found = series_in([path])

    assert is_dicom(path)
    assert (found.stacks, found.unreadable) == ((), ())
    assert found.left_out == (LeftOut(path, NO_IMAGE),)


def test_dicom_is_known_by_suffix_or_by_its_first_bytes(tmp_path: Path) -> None:
    path = phantoms.write_dicom(tmp_path, made.ct())[0]
    named = path.rename(tmp_path / "IM0001")
    (tmp_path / "notes").write_bytes(b"x" * 500)
    (tmp_path / "empty").write_bytes(b"")

    assert is_dicom(named)
    assert is_dicom(tmp_path / "none.DCM")
    assert not is_dicom(tmp_path / "notes")
    assert not is_dicom(tmp_path / "empty")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_file_without_preamble_is_known_by_its_first_element(
    tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    path = phantoms.write_dicom(tmp_path, made.ct())[0]
    dataset = pydicom.dcmread(path)
    bare = tmp_path / "bare"
    plain = Dataset(dict(dataset.items()))
    plain.save_as(bare, implicit_vr=syntax.is_implicit_VR, little_endian=True)

    assert bare.read_bytes()[128:132] != b"DICM"
    assert is_dicom(bare)
    assert counts(series_in([bare]).stacks) == [(1, 1)]


def test_series_is_named_by_number_digest_and_folder_only(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "scan 1", made.ct())
    numbered = made.stack_of(paths)
    silent = replace(numbered, origin=replace(numbered.origin, number=None))
    digest = numbered.origin.digest

    assert len(digest) == 8
    assert numbered.name == f"series 3 (..{digest}) in 'scan 1'"
    assert silent.name == f"series (..{digest}) in 'scan 1'"


def test_slices_are_ordered_along_the_normal(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct("LPI"))
    frames = made.stack_of(sorted(paths)).volumes[0]

    assert [frame.path for frame in ordered(frames)] == paths[::-1]


def test_images_at_one_place_are_ordered_by_number(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(
        tmp_path, made.ct(), edit=made.having(ImagePositionPatient=[1, 2, 3])
    )
    frames = ordered(made.stack_of(paths).volumes[0])

    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]


def test_series_without_uid_is_told_by_its_folder_and_its_texts(tmp_path: Path) -> None:
    bare = made.without("SeriesInstanceUID")
    one = phantoms.write_dicom(tmp_path / "a", made.ct(), edit=bare)
    two = phantoms.write_dicom(tmp_path / "b", made.ct(), edit=bare)
    renamed = made.all_of(bare, made.having(SeriesDescription="bone"))
    three = phantoms.write_dicom(tmp_path / "c" / "b", made.ct(), edit=renamed)
    found = series_in([*one, *two, *three])

    assert [set(stack.files) for stack in found.stacks] == [
        set(one),
        set(two),
        set(three),
    ]


def test_instances_without_uid_are_one_volume(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.SOPInstanceUID
        dataset.save_as(path)

    assert counts(series_in(paths).stacks) == [(1, 5)]


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "4712"},
        {"PatientName": "Other^Person"},
        {"PatientBirthDate": "19700101"},
        {"StudyInstanceUID": "1.2.9"},
        {"FrameOfReferenceUID": "1.2.9"},
        {"Modality": "MR"},
    ],
    ids=str,
)
def test_what_can_never_be_mixed_stays_apart(
    tmp_path: Path, other: dict[str, str]
) -> None:
    one = phantoms.write_dicom(tmp_path / "a", made.ct())
    edit = made.all_of(made.having(**other), made.instances("b"))
    two = phantoms.write_dicom(tmp_path / "b", made.ct(), edit=edit)
    found = series_in([*one, *two])

    assert [set(stack.files) for stack in found.stacks] == [set(one), set(two)]


def test_series_split_over_folders_is_one_volume(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "a", made.ct())
    (tmp_path / "b").mkdir()
    spread = [
        path.rename(tmp_path / "b" / path.name) if number % 2 else path
        for number, path in enumerate(paths)
    ]

    assert counts(series_in(spread).stacks) == [(1, 5)]


def test_folder_that_is_a_copy_makes_a_volume_of_its_own(tmp_path: Path) -> None:
    one = phantoms.write_dicom(tmp_path / "a", made.ct())
    two = phantoms.write_dicom(tmp_path / "b", made.ct())
    found = series_in([*one, *two])

    assert [set(stack.files) for stack in found.stacks] == [set(one), set(two)]


def test_folder_that_is_an_extract_makes_a_volume_of_its_own(tmp_path: Path) -> None:
    whole = phantoms.write_dicom(tmp_path / "a", made.ct())
    part = phantoms.write_dicom(tmp_path / "b", made.ct())[1:4]
    found = series_in([*part, *whole])

    assert {frozenset(stack.files) for stack in found.stacks} == {
        frozenset(whole),
        frozenset(part),
    }


def test_two_orientations_become_volumes_named_by_their_plane(tmp_path: Path) -> None:
    axial = phantoms.write_dicom(tmp_path / "a", made.ct("LPS"))
    coronal = phantoms.write_dicom(
        tmp_path / "b", made.ct("LSP"), edit=made.instances("b")
    )
    sagittal = phantoms.write_dicom(
        tmp_path / "c", made.ct("PSL"), edit=made.instances("c")
    )
    found = series_in([*axial, *coronal, *sagittal])

    assert {stack.part: set(stack.files) for stack in found.stacks} == {
        "axial": set(axial),
        "coronal": set(coronal),
        "sagittal": set(sagittal),
    }
    assert [[note.code for note in stack.notes] for stack in found.stacks] == [
        ["split_series"]
    ] * 3
    assert found.stacks[0].notes[0].message == (
        "the series holds 3 stacks of other orientation, matrix or pixel size "
        "(5 axial of 7 x 6, 5 coronal of 7 x 6, 5 sagittal of 7 x 6 pixels): each "
        "becomes a volume"
    )


def test_volumes_of_one_plane_are_counted(tmp_path: Path) -> None:
    small = phantoms.write_dicom(tmp_path / "a", made.ct())
    coarse = made.ct(spacing_mm=(1.4, 2.2, 2.5))
    large = phantoms.write_dicom(tmp_path / "b", coarse, edit=made.instances("b"))
    found = series_in([*small, *large])

    assert [stack.part for stack in found.stacks] == ["axial1", "axial2"]


def test_tiny_differences_in_direction_are_no_other_orientation(
    tmp_path: Path,
) -> None:
    rounded = [[1, number * 3e-4, 0, 0, 1, 0] for number in range(5)]
    paths = phantoms.write_dicom(
        tmp_path, made.ct(), edit=made.each("ImageOrientationPatient", rounded)
    )

    assert counts(series_in(paths).stacks) == [(1, 5)]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            made.having(2, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
            "left out 1 coronal image(s) of another orientation, matrix or pixel "
            "size (7 x 6): ",
        ),
        (
            made.having(2, PixelSpacing=[1.1, 0.8]),
            "left out 1 axial image(s) of another orientation, matrix or pixel size "
            "(7 x 6): ",
        ),
    ],
)
def test_stray_image_is_left_out_and_named(
    tmp_path: Path, edit: made.Edit, told: str
) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=edit)
    (stack,) = series_in(paths).stacks

    assert set(stack.files) == {*paths} - {paths[2]}
    assert [(note.code, note.message) for note in stack.notes] == [
        ("stray_slices", told + paths[2].name)
    ]


def test_stray_image_of_another_matrix_is_left_out(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "a", made.ct())
    other = made.ct().voxels[:, :4]
    stray = phantoms.write_dicom(tmp_path / "b", phantoms.volume(other, "LPS"))[2]
    (stack,) = series_in([*paths[:2], stray, *paths[3:]]).stacks

    assert stray not in stack.files
    assert "(7 x 4)" in stack.notes[0].message


def test_orientations_with_too_few_slices_each_stay_together(tmp_path: Path) -> None:
    axial = phantoms.write_dicom(tmp_path / "a", made.ct("LPS"))[:2]
    coronal = phantoms.write_dicom(tmp_path / "b", made.ct("LSP"))[3:]
    (stack,) = series_in([*axial, *coronal]).stacks

    assert stack.orientations == 2
    assert set(stack.files) == {*axial, *coronal}


@pytest.mark.parametrize("mark", ["temporal", "echo", "b_value", "acquisition"])
def test_images_at_one_place_make_a_fourth_axis(tmp_path: Path, mark: str) -> None:
    axis, values = made.MARKS[mark]
    first = made.ct()
    second = first.with_voxels(first.voxels + 1)
    paths = made.write_marked(tmp_path, [first, second], mark)
    (stack,) = series_in(sorted(paths)).stacks

    assert (stack.axis, stack.part) == (axis, "")
    assert [float(step) for step in stack.steps] == list(values)
    assert [{frame.path for frame in v} for v in stack.volumes] == [
        set(paths[:5]),
        set(paths[5:]),
    ]


def test_echo_numbers_make_a_fourth_axis(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "echo")
    for count, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.EchoNumbers, dataset.EchoTime = count // 5 + 1, 7
        dataset.save_as(path)
    (stack,) = series_in(paths).stacks

    assert (stack.axis, stack.steps) == ("echo", ("1", "2"))


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("TriggerTime", (0, 400)),
        ("AcquisitionTime", ("101500", "101530")),
        ("ContentTime", ("101500", "101530")),
    ],
)
def test_times_make_a_fourth_axis(
    tmp_path: Path, keyword: str, values: tuple[object, object]
) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "acquisition")
    for count, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        del dataset.AcquisitionNumber
        setattr(dataset, keyword, values[count // 5])
        dataset.save_as(path)
    (stack,) = series_in(paths).stacks

    assert (stack.axis, len(stack.volumes)) == ("time", 2)


def test_steps_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "temporal")
    for count, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.TemporalPositionIdentifier = (10, 9)[count // 5]
        dataset.save_as(path)
    (stack,) = series_in(paths).stacks

    assert stack.steps == ("9", "10")
    assert set(stack.files[:5]) == set(paths[5:])


def test_magnitude_and_phase_never_share_a_file(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "kind")
    found = series_in(paths)

    assert [(stack.part, stack.axis) for stack in found.stacks] == [
        ("m", ""),
        ("p", ""),
    ]
    assert set(found.stacks[1].files) == set(paths[5:])


def test_echoes_of_magnitude_and_phase_are_told_apart_twice(tmp_path: Path) -> None:
    paths = []
    for echo in (1, 2):
        other = made.having(EchoNumbers=echo)
        (tmp_path / str(echo)).mkdir()
        scans = [made.ct(), made.ct()]
        paths += made.write_marked(tmp_path / str(echo), scans, "kind", other)
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = f"1.2.3.{number}"
        dataset.save_as(path)
    found = series_in(paths)

    assert [(s.part, s.axis, s.steps) for s in found.stacks] == [
        ("m", "echo", ("1", "2")),
        ("p", "echo", ("1", "2")),
    ]


def test_a_constant_mark_makes_no_fourth_axis(tmp_path: Path) -> None:
    number_and_time = made.all_of(
        made.having(AcquisitionNumber=1),
        made.each("ContentTime", [f"10150{n}" for n in range(5)]),
    )
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=number_and_time)
    (stack,) = series_in(paths).stacks

    assert (stack.axis, len(stack.volumes)) == ("", 1)


def test_overlapping_scans_of_one_series_become_volumes(tmp_path: Path) -> None:
    shifted = made.all_of(
        made.having(AcquisitionNumber=2),
        made.moved(dict.fromkeys(range(5), (0, 0, 6.0))),
        made.instances("b"),
    )
    first = made.having(AcquisitionNumber=1)
    one = phantoms.write_dicom(tmp_path / "a", made.ct(), edit=first)
    two = phantoms.write_dicom(tmp_path / "b", made.ct(), edit=shifted)
    found = series_in([*one, *two])

    assert [set(stack.files) for stack in found.stacks] == [set(one), set(two)]
    assert [stack.part for stack in found.stacks] == ["a1", "a2"]
    for stack in found.stacks:
        (note,) = stack.notes
        assert note.code == "overlapping_scans"
        assert note.message == (
            "the series holds 2 overlapping scans, told apart by their acquisition, "
            "of 5 and 5 slices: each becomes a volume"
        )


def test_scans_with_a_gap_between_them_stay_one_volume(tmp_path: Path) -> None:
    values = [1, 1, 1, 2, 2]
    far = made.all_of(
        made.each("AcquisitionNumber", values),
        made.moved({3: (0, 0, 20.0), 4: (0, 0, 20.0)}),
    )
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=far)

    assert counts(series_in(paths).stacks) == [(1, 5)]


def test_images_at_one_place_that_nothing_tells_apart_stay_together(
    tmp_path: Path,
) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "acquisition")
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.AcquisitionNumber
        dataset.save_as(path)

    assert counts(series_in(paths).stacks) == [(1, 10)]


def test_split_gives_each_step_a_name(tmp_path: Path) -> None:
    scans = [made.ct(), made.ct()]
    stack = made.stack_of(made.write_marked(tmp_path, scans, "echo"))
    parts = stack.split()

    assert [part.part for part in parts] == ["e01", "e02"]
    assert [part.steps for part in parts] == [("30.5",), ("60.0",)]
    assert [part.axis for part in parts] == ["", ""]
    assert [part.volumes for part in parts] == [(v,) for v in stack.volumes]
    assert parts[0].split() == (parts[0],)


def test_frames_of_equal_headers_share_their_records(tmp_path: Path) -> None:
    frames = made.stack_of(phantoms.write_dicom(tmp_path, made.ct())).frames

    assert len({id(frame.origin) for frame in frames}) == 1
    assert len({id(frame.pixels) for frame in frames}) == 1


@pytest.mark.parametrize("axes", ["LPS", "PSL", "RSA"])
def test_volumes_do_not_depend_on_the_order_of_files(tmp_path: Path, axes: str) -> None:
    scans = [made.ct(axes), made.ct(axes)]
    paths = made.write_marked(tmp_path, scans, "temporal")
    shuffled = [paths[n] for n in np.random.default_rng(3).permutation(len(paths))]
    one, other = (made.stack_of(files) for files in (paths, shuffled))

    for first, second in zip(one.volumes, other.volumes, strict=True):
        assert ordered(first) == ordered(second)
