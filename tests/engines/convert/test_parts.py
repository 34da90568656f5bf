"""Images that lie between others are parted or refused, never merged in silence."""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from engines.convert.checks import findings_of, require
from engines.errors import MixedSeriesError
from tests import dicom_phantoms as made


def between(first: dict[str, Any], second: dict[str, Any]) -> list[Dataset]:
    """Return a series of 12 slices with 11 others half-way between them."""
    return [
        *(made.slice_of(n, **first) for n in range(12)),
        *(made.slice_of(n + 20, z_mm=101.25 + 2.5 * n, **second) for n in range(11)),
    ]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            {},
            {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
            "image type (DERIVED\\SECONDARY\\MIP in 11 and ORIGINAL\\PRIMARY\\AXIAL "
            "in 12)",
        ),
        ({}, {"AcquisitionNumber": 2}, "acquisition number (1 in 12 and 2 in 11)"),
        ({"EchoTime": 30}, {"EchoTime": 80}, "echo (30.0 in 12 and 80.0 in 11)"),
        (
            {"TemporalPositionIdentifier": 1},
            {"TemporalPositionIdentifier": 2},
            "temporal position (1 in 12 and 2 in 11)",
        ),
        (
            {"AcquisitionTime": "101010"},
            {"AcquisitionTime": "111010"},
            "acquisition time",
        ),
        ({}, {}, "the order of their instance numbers"),
    ],
)
def test_second_set_between_the_slices_becomes_a_volume(
    first: dict[str, Any], second: dict[str, Any], told: str
) -> None:
    stacks = made.stacks_in(between(first, second))

    assert sorted(len(stack.frames) for stack in stacks) == [11, 12]
    for stack in stacks:
        require(stack, findings_of(stack))
        (note,) = stack.notes
        assert note.code == "interleaved_images"
        assert note.message == (
            f"2 sets of images lie between each other and differ in {told}: each "
            "becomes a volume"
        )


def test_second_set_that_is_numbered_from_one_again_becomes_a_volume() -> None:
    slices = between({}, {})
    for number, dataset in enumerate(slices[12:]):
        dataset.InstanceNumber = number + 1
    stacks = made.stacks_in(slices)

    assert sorted(len(stack.frames) for stack in stacks) == [11, 12]
    assert {note.code for s in stacks for note in s.notes} == {"interleaved_images"}


def test_sets_of_unknown_thickness_that_only_numbers_tell_apart_are_noted() -> None:
    thin = {"SliceThickness": None}
    (stack,) = made.stacks_in(between(thin, thin))

    assert len(stack.frames) == 23
    assert [note.code for note in stack.notes] == ["unlike_images"]
    assert "the order of their instance numbers" in stack.notes[0].message


@pytest.mark.parametrize("falling", [False, True])
def test_overlapping_slices_that_are_numbered_in_order_are_one_volume(
    *, falling: bool
) -> None:
    slices = sorted(between({}, {}), key=lambda one: one.ImagePositionPatient[2])
    for number, dataset in enumerate(slices):
        dataset.InstanceNumber = 100 - number if falling else number
    (stack,) = made.stacks_in(slices)

    assert (len(stack.frames), stack.notes) == (23, ())


def test_slices_numbered_in_the_order_of_their_acquisition_are_one_volume() -> None:
    slices = [made.slice_of(n) for n in range(12)]
    for number, dataset in enumerate([*slices[::2], *slices[1::2]]):
        dataset.InstanceNumber = number
    (stack,) = made.stacks_in(slices)

    assert (len(stack.frames), stack.notes) == (12, ())


def test_alternating_acquisitions_of_unknown_thickness_are_refused() -> None:
    thin = {"SliceThickness": None}
    (stack,) = made.stacks_in(between(thin, thin | {"AcquisitionNumber": 2}))

    with pytest.raises(MixedSeriesError, match=r"acquisition number \(1 in 12 and 2"):
        require(stack, findings_of(stack))


def test_slices_acquired_in_turns_are_one_volume() -> None:
    (stack,) = made.stacks_in(made.alternating(AcquisitionNumber=(1, 2)))

    assert (len(stack.frames), stack.notes) == (12, ())
    require(stack, findings_of(stack))


def test_kinds_that_alternate_are_parted() -> None:
    kinds = (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "MIP"])
    stacks = made.stacks_in(made.alternating(ImageType=kinds))

    assert [len(stack.frames) for stack in stacks] == [6, 6]
    assert {note.code for s in stacks for note in s.notes} == {"interleaved_images"}


@pytest.mark.parametrize("odd", [[5], [0, 1, 2, 3, 4, 5], [1, 2, 7]])
def test_kinds_that_do_not_alternate_are_noted(odd: list[int]) -> None:
    slices = [made.slice_of(n) for n in range(12)]
    for number in odd:
        slices[number].ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    (stack,) = made.stacks_in(slices)

    assert len(stack.frames) == 12
    assert [note.code for note in stack.notes] == ["unlike_images"]
    assert f"DERIVED\\PRIMARY\\AXIAL in {len(odd)}" in stack.notes[0].message


def test_sets_at_the_same_places_are_noted() -> None:
    phase = ["ORIGINAL", "PRIMARY", "P"]
    slices = [
        *(made.slice_of(n) for n in range(12)),
        *(
            made.slice_of(n, SOPInstanceUID=f"9.{n}", ImageType=phase)
            for n in range(12)
        ),
    ]
    stacks = made.stacks_in(slices)

    assert [len(stack.frames) for stack in stacks] == [12, 12]
    assert {note.code for s in stacks for note in s.notes} == {"sets_of_images"}
