"""``spine inspect`` from the shell: the table of series, as text and as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from spinecli.app import app
from tests import dicom_phantoms as made
from tests import phantoms

KEYS = {"command", "version", "status", "exit_status", "warnings", "error", "cases"}


def run(*arguments: object, **variables: str) -> Result:
    words = ["inspect", *map(str, arguments)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "300", **variables})


def record(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(result.stdout)
    assert told.keys() >= KEYS | {"series", "left_out"}
    assert told["exit_status"] == result.exit_code
    return told


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with a good series, a tilted one, and localizers."""
    folder = tmp_path / "in"
    told = made.having(SeriesDescription="[L]-Spine")
    scout = made.having(ImageType="LOCALIZER")
    phantoms.write_dicom(folder / "good", made.ct(), edit=told, uid="1.2.3")
    phantoms.write_dicom(
        folder / "tilted", made.ct(), edit=made.tilted(12), uid="1.2.4"
    )
    phantoms.write_dicom(folder / "scout", made.ct(), edit=scout, uid="1.2.5")
    return folder


def test_table_has_a_row_for_each_series(source: Path) -> None:
    result = run(source)
    lines = result.stdout.splitlines()
    (good,) = [line for line in lines if line.startswith("note ")]
    (tilted,) = [line for line in lines if line.startswith("NO ")]

    assert result.exit_code == 3
    assert good.split() == [
        "note", "#3", "CT", "7", "x", "6", "x", "5", "0.7", "x", "1.1", "x", "2.5",
        "mm", "LPS", "good", '"[L]-Spine"',
    ]  # fmt: skip
    assert "tilted" in tilted
    below = lines[lines.index(tilted) + 1]
    assert below.startswith("      refused: gantry tilt of 12.0 degrees")
    assert lines[-1] == "2 series: 1 with notes, 1 refused"
    assert "scout" not in result.stdout
    assert "left out files: 5 localizer" in result.stderr


def test_record_as_json(source: Path) -> None:
    told = record(run(source, "--json"))

    assert (told["command"], told["status"], told["error"]) == (
        "inspect",
        "partial",
        None,
    )
    assert [row["name"] for row in told["series"]] == ["good", "tilted"]
    good, tilted = told["series"]
    assert (good["matrix"], good["slices"], good["volumes"]) == ([7, 6], 5, 1)
    assert good["error"] is None
    assert tilted["error"]["code"] == "gantry_tilt"
    assert [case["status"] for case in told["cases"]] == ["done", "failed"]
    assert len(told["left_out"]) == 5


@pytest.mark.parametrize(("name", "status"), [("good", 0), ("tilted", 1), ("gone", 1)])
def test_exit_status_is_that_of_convert(
    source: Path, tmp_path: Path, name: str, status: int
) -> None:
    converted = CliRunner().invoke(
        app, ["convert", str(source / name), str(tmp_path / "out")]
    )

    assert run(source / name).exit_code == converted.exit_code == status


def test_several_paths_make_one_table(source: Path) -> None:
    told = record(run(source / "good", source / "tilted", "--json"))

    assert [row["name"] for row in told["series"]] == ["good", "tilted"]


def test_path_is_needed() -> None:
    assert run().exit_code == 2


def test_globs_choose_the_rows(source: Path) -> None:
    told = record(run(source, "--exclude", "t*", "--json"))

    assert [row["name"] for row in told["series"]] == ["good"]


def test_fourth_axis_is_shown(tmp_path: Path) -> None:
    (tmp_path / "ser").mkdir()
    made.write_marked(tmp_path / "ser", [made.ct(), made.ct()], "echo")

    assert "7 x 6 x 5 x 2 (echo)" in run(tmp_path / "ser").stdout


def test_nothing_of_the_patient_is_shown(tmp_path: Path) -> None:
    named = made.having(SeriesDescription="Spine of Person")
    phantoms.write_dicom(tmp_path / "ser", made.ct(), edit=named)

    for result in (run(tmp_path / "ser"), run(tmp_path / "ser", "--json")):
        assert result.exit_code == 0
        for secret in ("Person", "Secret", "4711"):
            assert secret not in result.output


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_text_without_colours(source: Path, variables: dict[str, str]) -> None:
    result = run(source, **variables)

    assert "gantry tilt" in result.stdout
    assert "\x1b[3" not in result.output


def test_nothing_is_written(source: Path) -> None:
    before = sorted(source.parent.rglob("*"))
    run(source)
    run(source, "--json")

    assert sorted(source.parent.rglob("*")) == before
