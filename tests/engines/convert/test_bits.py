"""Stored values become Hounsfield units by what header and pixels both say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from engines.convert.assemble import Assembled, assemble
from engines.convert.checks import findings_of
from engines.errors import RescaleError, UnreadableError
from tests import dicom_phantoms as made
from tests.engines.convert import test_syntaxes as syntaxes

SYNTAXES = [
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
]

ENCODED = [*SYNTAXES, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]


def table(*, entries: bool = True) -> list[Dataset]:
    """Return a table that leads from stored values to those less 1000."""
    item = Dataset()
    if entries:
        item.add_new("LUTDescriptor", "US", [4096, 0, 16])
        values = np.arange(4096, dtype=np.uint16) + 500
        item.add_new("LUTData", "OW", values.tobytes())
    return [item]


def read(
    folder: Path, syntax: UID = ExplicitVRLittleEndian, **values: Any
) -> Assembled:
    """Return the volume of slices with the same values of some elements."""
    paths = made.write_slices(folder, (made.slice_of(n, **values) for n in range(4)))
    for path in paths:
        if syntax != ExplicitVRLittleEndian:
            made.rewrite(path, syntax)
    return assemble(made.stack_of(paths))


def codes(result: Assembled) -> list[str]:
    return [note.code for note in result.warnings]


def pixels(change: Callable[[Any], Any]) -> Callable[[int], bytes]:
    return lambda number: change(made.stored_of(number)).tobytes()


def read_pixels(
    folder: Path,
    change: Callable[[Any], Any],
    syntax: UID = ExplicitVRLittleEndian,
    **values: Any,
) -> Assembled:
    """Return the volume of slices whose stored pixels are changed."""
    content = pixels(change)
    slices = [made.slice_of(n, PixelData=content(n), **values) for n in range(4)]
    paths = made.write_slices(folder, slices)
    for path in paths:
        if syntax != ExplicitVRLittleEndian:
            made.rewrite(path, syntax)
    return assemble(made.stack_of(paths))


@pytest.mark.parametrize("sequence", [[], table(entries=False)])
def test_empty_table_leaves_the_slope(tmp_path: Path, sequence: list[Dataset]) -> None:
    result = read(tmp_path, ModalityLUTSequence=sequence)

    np.testing.assert_array_equal(result.voxels, made.hu_of(range(4)))
    assert codes(result) == []


def test_table_without_slope_gives_the_values(tmp_path: Path) -> None:
    result = read(
        tmp_path,
        ModalityLUTSequence=table(),
        RescaleSlope=None,
        RescaleIntercept=None,
    )

    np.testing.assert_array_equal(result.voxels, made.hu_of(range(4)) + 1524)
    assert codes(result) == []


def test_table_beside_a_slope_that_changes_nothing_gives_the_values(
    tmp_path: Path,
) -> None:
    result = read(tmp_path, ModalityLUTSequence=table(), RescaleIntercept="0")

    np.testing.assert_array_equal(result.voxels, made.hu_of(range(4)) + 1524)


def test_table_and_slope_contradict(tmp_path: Path) -> None:
    with pytest.raises(RescaleError, match="table of real values and a rescale slope"):
        read(tmp_path, ModalityLUTSequence=table())


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_high_bit_that_the_pixels_contradict_is_noted(
    tmp_path: Path, syntax: UID
) -> None:
    result = read(tmp_path, syntax, HighBit=15)

    np.testing.assert_array_equal(result.voxels, made.hu_of(range(4)))
    assert codes(result) == ["high_bit"]


@pytest.mark.parametrize("extended", [False, True])
def test_high_bit_of_signed_values_is_noted(tmp_path: Path, *, extended: bool) -> None:
    mask = 0xFFFF if extended else 0xFFF
    result = read_pixels(
        tmp_path,
        lambda stored: ((stored.astype(np.int32) - 1000) & mask).astype(np.uint16),
        HighBit=15,
        PixelRepresentation=1,
        RescaleIntercept="-24",
    )

    np.testing.assert_array_equal(result.voxels, made.hu_of(range(4)))
    assert codes(result) == ["high_bit"]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_values_in_the_highest_bits_are_shifted_down(
    tmp_path: Path, syntax: UID
) -> None:
    result = read_pixels(tmp_path, lambda stored: stored << 4, syntax, HighBit=15)

    np.testing.assert_array_equal(result.voxels, made.hu_of(range(4)))
    assert codes(result) == []


def test_one_slice_of_low_values_is_shifted_as_the_others(tmp_path: Path) -> None:
    low = [
        made.slice_of(
            n,
            HighBit=15,
            PixelData=((made.stored_of(n) % (9 if n == 2 else 4000)) << 4).tobytes(),
        )
        for n in range(4)
    ]
    result = assemble(made.stack_of(made.write_slices(tmp_path, low)))

    assert result.voxels[:, :, 2].max() == 8 - 1024
    np.testing.assert_array_equal(result.voxels[:, :, 1:2], made.hu_of([1]))


def test_bits_that_fit_neither_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="lie in bits 4 to 15, but lower bits"):
        read_pixels(tmp_path, lambda stored: stored * 31, HighBit=15)


@pytest.mark.parametrize("syntax", ENCODED, ids=lambda uid: uid.name)
def test_values_that_need_more_bits_are_refused(tmp_path: Path, syntax: UID) -> None:
    paths = syntaxes.written(tmp_path, syntax, syntaxes.crop(), "uint16")

    def ten_bits(_: int, dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = 10, 9

    for path in paths:
        made.rewrite_header(path, ten_bits)

    with pytest.raises(UnreadableError, match="values need 12 bits where the header"):
        assemble(made.stack_of(paths))


@pytest.mark.parametrize("signed", [0, 1])
def test_values_that_need_more_bits_are_refused_whatever_their_sign(
    tmp_path: Path, signed: int
) -> None:
    with pytest.raises(UnreadableError, match="values need 11 bits where the header"):
        read(tmp_path, BitsStored=10, HighBit=9, PixelRepresentation=signed)


@pytest.mark.parametrize("high", [3, 10, 16, 31])
def test_high_bit_that_cannot_be_is_passed_over(tmp_path: Path, high: int) -> None:
    np.testing.assert_array_equal(
        read(tmp_path, HighBit=high).voxels, made.hu_of(range(4))
    )


@pytest.mark.parametrize("mask", [0xFFFF, 0xFFF])
def test_bits_above_signed_values_extend_the_sign_or_are_empty(
    tmp_path: Path, mask: int
) -> None:
    result = read_pixels(
        tmp_path,
        lambda stored: ((stored.astype(np.int32) - 1000) & mask).astype(np.uint16),
        PixelRepresentation=1,
        RescaleIntercept="-24",
    )

    np.testing.assert_array_equal(result.voxels, made.hu_of(range(4)))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"RescaleIntercept": None}, "no rescale intercept"),
        ({"RescaleIntercept": ""}, "no rescale intercept"),
        ({"RescaleSlope": None}, "no rescale slope"),
        (
            {"RescaleSlope": None, "RescaleIntercept": None},
            "no rescale slope and intercept",
        ),
    ],
)
def test_ct_that_says_too_little_of_its_values_is_noted(
    values: dict[str, Any], told: str
) -> None:
    (stack,) = made.stacks_in(made.slice_of(n, **values) for n in range(4))
    (finding,) = [one for one in findings_of(stack) if one.code == "no_rescale"]

    assert finding.message == f"{told}: values may not be Hounsfield units"


@pytest.mark.parametrize("unit", ["OD", "US", "ED"])
def test_ct_in_other_units_is_noted(tmp_path: Path, unit: str) -> None:
    assert codes(read(tmp_path, RescaleType=unit)) == ["other_units"]


def test_units_may_be_spelled_in_either_case() -> None:
    (stack,) = made.stacks_in(made.alternating(RescaleType=("HU", "hu", "")))

    assert findings_of(stack) == []


def test_blank_intercept_in_some_slices_is_refused() -> None:
    slices = made.alternating(RescaleIntercept=("-1024", None))
    (stack,) = made.stacks_in(slices)

    assert [f.code for f in findings_of(stack) if f.fatal] == ["inconsistent_slope"]
