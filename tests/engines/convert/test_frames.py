"""Numbers of a header are numbers, or known not to be."""

import math

import pytest
from pydicom.dataset import Dataset

from engines.convert.frames import MAX_NUMBER, decimal, digest, floats, integer


def holding(*values: object) -> Dataset:
    dataset = Dataset()
    dataset.add_new("ImagePositionPatient", "DS", list(values))
    return dataset


def test_all_numbers_of_a_place_are_needed() -> None:
    assert floats(holding(1, "2.5", -3), "ImagePositionPatient", 3) == (1, 2.5, -3)
    assert floats(holding(1, 2), "ImagePositionPatient", 3) is None
    assert floats(holding(1, 2, 3, 4), "ImagePositionPatient", 3) is None
    assert floats(Dataset(), "ImagePositionPatient", 3) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, MAX_NUMBER, -1e300])
def test_insane_numbers_are_no_place(value: float) -> None:
    dataset = Dataset()
    dataset.add_new("ImagePositionPatient", "FD", [1.0, value, 3.0])

    assert floats(dataset, "ImagePositionPatient", 3) is None


def test_words_are_no_place() -> None:
    dataset = Dataset()
    dataset.add_new("ImagePositionPatient", "LO", ["a", "b", "c"])

    assert floats(dataset, "ImagePositionPatient", 3) is None


@pytest.mark.parametrize(
    ("value", "number"), [(None, None), ("", None), ("2.5", 2.5), (0, 0.0)]
)
def test_decimal_is_a_number_or_none(value: object, number: float | None) -> None:
    assert decimal(value) == number


@pytest.mark.parametrize("value", ["one", [1, 2], object()])
def test_decimal_that_cannot_be_read_is_nan(value: object) -> None:
    number = decimal(value)

    assert number is not None
    assert math.isnan(number)


@pytest.mark.parametrize(
    ("value", "number"),
    [(None, None), ("", None), ("7", 7), (7, 7), ("x", None), ([1, 2], None)],
)
def test_integer_is_a_number_or_none(value: object, number: int | None) -> None:
    assert integer(value) == number


def test_digest_stands_for_a_name() -> None:
    assert digest("") == digest(None) == ""
    assert len(digest("Secret^Person")) == 8
    assert digest("1.2.3") == digest("1.2.3") != digest("1.2.4")
