"""Tables of numbers are read at any width: none is cut, all stand to the right."""

import pytest

from spinecli import render, tables

HEADINGS = ["case", "Dice", "IoU", "HD95 mm", "ASSD mm", "F1", "note"]
ROWS = [
    ["a_rather_long_name_of_a_case", "0.9123", "0.8", "12.25", "1", "0.9", "as it was"],
    ["b", "0.1", "inf", "-3.5", "", "1e-05", "x"],
]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_number_is_cut(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    render.table(HEADINGS, ROWS)
    shown = capsys.readouterr().out
    words = shown.split()
    for row in ROWS:
        for cell in row[1:-1]:
            assert not cell or cell in words
    assert max(len(line) for line in shown.splitlines()) <= width
    for heading in ("Dice", "IoU", "F1", "note"):
        assert words.count(heading) == 1


def test_numbers_end_below_the_end_of_their_heading(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    render.table(HEADINGS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if "Dice" in line)
    for row in ROWS:
        line = next(line for line in lines if row[0] in line)
        for heading, cell in zip(HEADINGS[1:-1], row[1:-1], strict=True):
            end = head.index(heading) + len(heading)
            assert line[:end].endswith(cell or " ")


def test_a_table_without_rows_is_not_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.table(HEADINGS, [])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("cells", "are"),
    [
        (["1", "2.5", "", "-3"], True),
        (["50%", "7 ms", "1,234,567", "inf", "12.5 %*"], True),
        (["1 x 2"], False),
        (["yes", "1"], False),
        (["", ""], False),
        (["1.2.3"], False),
    ],
)
def test_what_a_number_is(cells: list[str], are: bool) -> None:
    assert tables.are_numbers(cells) is are
