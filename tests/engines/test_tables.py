"""Tables are written so that no spreadsheet runs them, and read whoever wrote them."""

import csv
import io
from pathlib import Path

import pytest

from engines import runlog
from engines.errors import UnreadableError
from engines.metrics import table
from engines.results import CaseResult, Note
from engines.tables import TableWriter, defused, read_table


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "-x", "+"]
)
def test_a_formula_is_text(cell: str) -> None:
    assert defused(cell) == "'" + cell


@pytest.mark.parametrize(
    "cell", ["-3.5", "+1", "-inf", "1e-3", "a=b", "", -3.5, 7, None, "L1"]
)
def test_numbers_and_words_stay(cell: object) -> None:
    assert defused(cell) == cell


def _first(text: str) -> dict[str, str]:
    return next(csv.DictReader(io.StringIO(text)))


def test_cells_of_every_record_are_defused(tmp_path: Path) -> None:
    case = CaseResult("=cmd()", "+in", "done", warnings=(Note("a", "@note"),))
    scores = _first(table.as_csv([case]))
    assert scores["case"] == "'=cmd()"

    log = runlog.RunLog(tmp_path, {})
    log.add(case)
    log.finish()
    record = _first((tmp_path / "spine-run.csv").read_text())
    assert (record["name"], record["input"]) == ("'=cmd()", "'+in")
    assert record["warnings"] == "'@note"


def test_columns_beyond_those_of_the_table_are_left_out() -> None:
    assert TableWriter(("a", "b")).text([{"b": -1.5, "c": 3}]) == "a,b\n,-1.5\n"


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\nA;b\n\n1;2\n3\n")

    assert read_table(path, ("a", "b")) == [
        (4, {"a": "1", "b": "2"}),
        (5, {"a": "3", "b": ""}),
    ]
    with pytest.raises(UnreadableError, match="no column c; it has a, b"):
        read_table(path, ("a", "c"))
