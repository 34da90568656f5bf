"""What blanks and spelling part is joined with a note; what differs is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage

from engines.convert import identity
from engines.convert.assemble import assemble
from engines.convert.checks import findings_of, require
from engines.convert.convert import ConvertRun, ConvertSettings
from engines.convert.headers import FrameReader
from engines.convert.series import series_in, stacks_of
from engines.convert.stack import Stack
from engines.errors import MixedSeriesError
from tests import dicom_phantoms as made

SPELLED: dict[str, dict[str, tuple[Any, ...]]] = {
    "carets": {"PatientName": ("Secret^Person", "Secret^Person^^^")},
    "case": {"PatientName": ("Secret^Person", "SECRET^person")},
    "blanks": {"PatientName": ("Secret^Person", "Secret^Person ")},
    "separators": {"PatientName": ("Secret^Person", "Secret Person")},
    "scripts": {"PatientName": ("Secret^Person", "Secret^Person=山田")},
    "no name": {"PatientName": ("Secret^Person", "")},
    "ID in case": {"PatientID": ("ab47", "AB47")},
    "no ID": {"PatientID": ("4711", None)},
    "no birth date": {"PatientBirthDate": ("19700102", "")},
    "dotted birth date": {"PatientBirthDate": ("19700102", "1970.01.02")},
    "no frame of reference": {"FrameOfReferenceUID": ("1.2.3.9", None)},
    "no series number": {"SeriesNumber": (3, None)},
    "no modality": {"Modality": ("CT", "")},
    "no study": {"StudyInstanceUID": ("1.2.3", "")},
    "no series UID": {"SeriesInstanceUID": ("1.2.3.4", "")},
    "damaged SOP class": {"SOPClassUID": (CTImageStorage, "1.2.840.10008.5.1.4.1.9")},
    "other SOP class": {"SOPClassUID": (CTImageStorage, BasicTextSRStorage)},
    "three spellings": {"PatientName": ("Secret^Person", "secret^person", "")},
    "two fields": {
        "PatientName": ("Secret^Person", "secret^person"),
        "SeriesNumber": (3, 3, None),
    },
}
UNTOLD: dict[str, dict[str, tuple[Any, ...]]] = {
    "modality in case": {"Modality": ("CT", "ct")},
    "image type in case": {"ImageType": (["ORIGINAL", "M"], ["original", "m"])},
    "no image type": {"ImageType": (["ORIGINAL", "PRIMARY"], None)},
    "no acquisition": {"AcquisitionNumber": (1, None)},
    "echo as text": {"EchoTime": ("30", "30.0")},
}
"""What never parted images, and needs no note."""

DIFFERING: dict[str, tuple[dict[str, tuple[Any, ...]], list[str]]] = {
    "name": ({"PatientName": ("Secret^Person", "Other^Person")}, ["patient name:"]),
    "ID": ({"PatientID": ("4711", "4712")}, ["patient ID:"]),
    "birth date": ({"PatientBirthDate": ("19700102", "19700103")}, ["birth date:"]),
    "study": ({"StudyInstanceUID": ("1.2.3", "1.2.5")}, ["study UID:"]),
    "series number": ({"SeriesNumber": (3, 4)}, ["series number (3 and 4):"]),
    "modality": ({"Modality": ("CT", "MR")}, ["modality (CT and MR):"]),
    "place": ({"FrameOfReferenceUID": ("1.2.9", "1.2.8")}, ["frame of reference:"]),
    "pixel size": (
        {"PixelSpacing": ([0.7, 0.7], [0.702, 0.702])},
        ["pixel size (", "0.7 x 0.7 mm", "0.702 x 0.702 mm"],
    ),
    "direction": (
        {"ImageOrientationPatient": ([1, 0, 0, 0, 1, 0], [1, 0.003, 0, -0.003, 1, 0])},
        ["direction (", "1\\0\\0\\0\\1\\0", "1\\0.003\\0\\-0.003\\1\\0"],
    ),
    "two fields": (
        {"SeriesNumber": (3, 4), "StudyInstanceUID": ("1.2.3", "1.2.5")},
        ["study UID, series number (3 and 4):"],
    ),
}


def in_halves(values: dict[str, tuple[Any, ...]]) -> list[Dataset]:
    """Return slices of which the lower ones have the first value, the upper others."""
    return [
        made.slice_of(n, **{key: turns[n * len(turns) // 12] for key, turns in items})
        for items in [values.items()]
        for n in range(made.SLICES)
    ]


def whole(stacks: Sequence[Stack]) -> Stack:
    """Return the only stack, which holds every slice."""
    (stack,) = stacks
    assert (len(stack.volumes), len(stack.frames)) == (1, made.SLICES)
    require(stack, findings_of(stack))
    return stack


def refusal(stacks: Sequence[Stack]) -> str:
    (stack,) = stacks
    assert len(stack.frames) == made.SLICES
    with pytest.raises(MixedSeriesError) as caught:
        require(stack, findings_of(stack))
    return str(caught.value)


@pytest.mark.parametrize("name", SPELLED)
def test_blanks_and_spelling_are_joined_with_a_note(name: str) -> None:
    for slices in (made.alternating(**SPELLED[name]), in_halves(SPELLED[name])):
        notes = whole(made.stacks_in(slices)).notes

        assert {note.code for note in notes} == {"joined_images"}
        for secret in ("Secret", "Person", "4711", "1970", "ab47"):
            assert not any(secret in note.message for note in notes)


@pytest.mark.parametrize("name", UNTOLD)
def test_spelling_that_parts_nothing_needs_no_note(name: str) -> None:
    for slices in (made.alternating(**UNTOLD[name]), in_halves(UNTOLD[name])):
        assert whole(made.stacks_in(slices)).notes == ()


def test_joined_series_is_converted_right(tmp_path: Path) -> None:
    slices = made.alternating(**SPELLED["carets"])
    stack = made.stack_of(made.write_slices(tmp_path, slices))
    read = assemble(stack)

    np.testing.assert_array_equal(read.voxels, made.hu_of())
    assert read.grid.spacing_mm == pytest.approx((0.7, 0.7, 2.5))
    assert [(note.code, note.message) for note in read.warnings] == [
        (
            "joined_images",
            "images that differ in spelling, blanks or new UIDs were joined (6 and 6): "
            "spelling of the patient",
        )
    ]


def test_joined_images_know_what_any_of_them_says() -> None:
    slices = made.alternating(SeriesNumber=(None, 3), Modality=("CT", ""))
    origin = whole(made.stacks_in(slices)).origin

    assert (origin.number, origin.modality) == (3, "CT")


def test_missing_slice_of_a_joined_series_is_a_gap() -> None:
    slices = made.alternating(**SPELLED["carets"])
    (stack,) = made.stacks_in([*slices[:5], *slices[6:]])

    assert [one.code for one in findings_of(stack) if one.fatal] == ["series_gap"]


def test_uneven_slice_of_a_joined_series_is_uneven() -> None:
    slices = made.alternating(**SPELLED["carets"])
    slices[5].ImagePositionPatient = [-10, -20, 113.3]
    (stack,) = made.stacks_in(slices)

    assert [one.code for one in findings_of(stack) if one.fatal] == ["uneven_slices"]


@pytest.mark.parametrize("name", DIFFERING)
def test_what_differs_on_one_grid_is_refused_with_the_field(name: str) -> None:
    values, told = DIFFERING[name]
    for slices in (made.alternating(**values), in_halves(values)):
        message = refusal(made.stacks_in(slices))

        assert "images of one series that differ in " in message
        for piece in told:
            assert piece in message
        for secret in ("Secret", "Other", "Person", "4711", "1970"):
            assert secret not in message


def test_refusal_names_both_values() -> None:
    message = refusal(made.stacks_in(made.alternating(SeriesNumber=(3, 4))))

    assert message.endswith(
        "images of one series that differ in series number (3 and 4): parts of one "
        "volume, or several mixed up"
    )


def test_pixel_sizes_in_single_slices_between_others_are_refused() -> None:
    slices = [
        made.slice_of(n, PixelSpacing=[0.7 + n % 2 * n / 500] * 2) for n in range(12)
    ]

    assert "pixel size" in refusal(made.stacks_in(slices))


@pytest.mark.parametrize(
    "keywords",
    [
        ["StudyInstanceUID"],
        ["SeriesInstanceUID"],
        ["FrameOfReferenceUID"],
        ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"],
    ],
)
def test_uids_that_are_new_in_every_file_part_nothing(keywords: list[str]) -> None:
    slices = [
        made.slice_of(n, **{key: f"1.2.3.{k}.{n}" for k, key in enumerate(keywords)})
        for n in range(made.SLICES)
    ]
    notes = whole(made.stacks_in(slices)).notes

    assert {note.code for note in notes} == {"joined_images"}


def test_new_uids_of_two_series_in_a_folder_make_two_volumes() -> None:
    slices = [
        made.slice_of(n, SeriesInstanceUID=f"1.2.{number}.{n}", SeriesNumber=number)
        for number in (3, 4)
        for n in range(made.SLICES)
    ]
    stacks = made.stacks_in(slices)

    assert [len(stack.frames) for stack in stacks] == [made.SLICES] * 2
    assert [stack.origin.number for stack in stacks] == [3, 4]


@pytest.mark.parametrize(("named", "sizes"), [(True, [12]), (False, [6, 6])])
def test_new_uids_over_folders_are_one_series_of_a_named_patient(
    *, named: bool, sizes: list[int]
) -> None:
    blank = {} if named else dict.fromkeys(identity.PERSON)
    reader = FrameReader()
    frames = [
        frame
        for n in range(12)
        for frame in reader.frames_of(
            Path(f"{n % 2}/{n}.dcm"),
            made.slice_of(n, SeriesInstanceUID=f"1.2.3.4.{n}", **blank),
        )
        if not isinstance(frame, str)
    ]

    assert [len(stack.frames) for stack in stacks_of(frames)] == sizes


def test_header_that_names_the_patient_stands_for_all(tmp_path: Path) -> None:
    slices = made.alternating(PatientName=("", "Secret^Person"), PatientID=("", "1"))
    for dataset in slices:
        dataset.SeriesDescription = "spine of Secret"
    made.write_slices(tmp_path / "in", slices)
    run = ConvertRun([tmp_path / "in"], tmp_path / "out", ConvertSettings())
    (result,) = run.results()

    assert result.status == "done"
    assert "Secret" not in Path(result.outputs["sidecar"]).read_text()


def test_single_images_that_lie_on_no_grid_stay_apart() -> None:
    slices = [
        made.slice_of(n, z_mm=height, SeriesInstanceUID=f"1.2.3.4.{n}")
        for n, height in enumerate([0, 10, 35.7])
    ]

    assert [len(stack.frames) for stack in made.stacks_in(slices)] == [1, 1, 1]


def test_two_series_that_fill_each_other_are_noted() -> None:
    slices = made.alternating(SeriesInstanceUID=("1.2.3.4", "1.2.3.5"))
    stacks = made.stacks_in(slices)

    assert [len(stack.frames) for stack in stacks] == [6, 6]
    for stack, other in zip(stacks, stacks[::-1], strict=True):
        assert [note.code for note in stack.notes] == ["adjoining_series"]
        assert f"..{other.origin.digest}" in stack.notes[0].message


def test_patients_at_the_same_places_stay_apart_with_a_note() -> None:
    one = [made.slice_of(n) for n in range(12)]
    two = [
        made.slice_of(n, PatientID="4712", SOPInstanceUID=f"9.{n}") for n in range(9)
    ]
    stacks = made.stacks_in([*one, *two])

    assert [len(stack.frames) for stack in stacks] == [12, 9]
    for stack in stacks:
        assert [(note.code, note.message) for note in stack.notes] == [
            (
                "shared_uid",
                "2 kinds of images have the UID of this series; they differ in patient "
                "ID and are kept apart",
            )
        ]


def test_scans_of_two_places_far_apart_stay_apart_with_a_note() -> None:
    near = [made.slice_of(n) for n in range(6)]
    far = [
        made.slice_of(n, z_mm=300 + 2.5 * n, FrameOfReferenceUID="1.2.8")
        for n in range(6, 12)
    ]
    stacks = made.stacks_in([*near, *far])

    assert [len(stack.frames) for stack in stacks] == [6, 6]
    assert {note.code for stack in stacks for note in stack.notes} == {"shared_uid"}


def test_folder_is_a_copy_only_if_positions_agree(tmp_path: Path) -> None:
    slices = [made.slice_of(n, SOPInstanceUID="1.2.3.4.1") for n in range(12)]
    even = made.write_slices(tmp_path / "0", slices[::2])
    odd = made.write_slices(tmp_path / "1", slices[1::2])
    read = assemble(made.stack_of([*even, *odd]))

    np.testing.assert_array_equal(read.voxels, made.hu_of())
    assert read.grid.spacing_mm == pytest.approx((0.7, 0.7, 2.5))


def test_copy_is_noted(tmp_path: Path) -> None:
    slices = [made.slice_of(n) for n in range(12)]
    paths = made.write_slices(tmp_path / "0", slices)
    copies = made.write_slices(tmp_path / "1", slices[:6])
    stacks = series_in([*paths, *copies]).stacks

    assert [len(stack.frames) for stack in stacks] == [12, 6]
    assert [[note.code for note in stack.notes] for stack in stacks] == [
        [],
        ["copied_series"],
    ]
