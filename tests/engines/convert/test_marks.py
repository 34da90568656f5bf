"""What tells images at one place apart, as texts that can be compared."""

import pytest
from pydicom.dataset import Dataset

from engines.convert import marks


def header(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def test_silent_header_has_empty_marks() -> None:
    assert marks.marks_of(Dataset()) == marks.Marks()
    assert set(marks.Marks()) == {""}


@pytest.mark.parametrize(
    ("values", "mark", "text"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, "kind", "ORIGINAL\\PRIMARY\\M"),
        ({"EchoNumbers": 2, "EchoTime": 30.5}, "echo", "2"),
        ({"EchoTime": 30.5}, "echo", "30.5"),
        ({"DiffusionBValue": 700.0}, "b_value", "700.0"),
        (
            {
                "DiffusionBValue": 700.0,
                "DiffusionGradientOrientation": [1.0, 0.0, 0.5],
            },
            "b_value",
            "700.0 1.0\\0.0\\0.5",
        ),
        ({"TemporalPositionIdentifier": 4}, "temporal", "4"),
        ({"TemporalPositionIndex": 5}, "temporal", "5"),
        ({"AcquisitionNumber": 6}, "acquisition", "6"),
        ({"TriggerTime": 120}, "trigger", "120.0"),
        ({"AcquisitionTime": "101530.5"}, "acquired", "101530.5"),
        ({"ContentTime": "101531"}, "content", "101531"),
    ],
)
def test_each_mark_has_its_keyword(
    values: dict[str, object], mark: str, text: str
) -> None:
    assert marks.marks_of(header(**values)) == marks.Marks(**{mark: text})


def test_every_mark_makes_an_axis_or_keeps_volumes_apart() -> None:
    assert {*marks.AXES, *marks.NEVER_TOGETHER} == set(marks.Marks._fields)


def test_numbers_are_ordered_as_numbers_and_before_words() -> None:
    values = ["b", "10", "9.5", "", "1000 1\\0\\0", "a", "0"]

    assert sorted(values, key=marks.order) == [
        *("0", "9.5", "10", "1000 1\\0\\0"),
        *("", "a", "b"),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0, "0"), ([1, 2.5], "1\\2.5")]
)
def test_any_value_becomes_text(value: object, text: str) -> None:
    assert marks.text(value) == text
