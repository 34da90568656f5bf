"""``spine convert`` from the shell: files, record, options, exit status."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from engines.convert import findings, naming
from engines.volume import Volume
from spinecli.app import app
from spinecli.commands import convert
from tests import dicom_phantoms as made
from tests import phantoms

KEYS = {"command", "version", "status", "exit_status", "warnings", "error", "cases"}
TWICE = made.moved({3: (0, 0, -2.5), 4: (0, 0, -2.5)})
CODES = "\x1b"


def run(*arguments: object, **variables: str) -> Result:
    words = ["convert", *map(str, arguments)]
    return CliRunner().invoke(app, words, env=variables)


def record(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(result.stdout)
    assert told.keys() >= KEYS
    assert told["exit_status"] == result.exit_code
    return told


def series(folder: Path, *edits: made.Edit, uid: str = "1.2.3") -> Path:
    phantoms.write_dicom(folder, made.ct(), edit=made.all_of(*edits), uid=uid)
    return folder


def voxels_of(case: dict[str, Any]) -> Any:
    return np.asanyarray(nib.load(case["outputs"]["nifti"]).dataobj)


def test_series_is_converted(tmp_path: Path) -> None:
    result = run(series(tmp_path / "ser"), tmp_path / "out", "--json")

    told = record(result)
    assert result.exit_code == 0
    assert (told["command"], told["status"]) == ("convert", "ok")
    assert told["error"] is None
    assert told["left_out"] == []
    (case,) = told["cases"]
    assert (case["name"], case["status"]) == ("ser", "done")
    assert set(case["outputs"]) == {"nifti", "sidecar"}
    read = Volume.read(Path(case["outputs"]["nifti"]))
    np.testing.assert_array_equal(read.voxels, made.ct().voxels)
    assert read.grid.axes == "LPS"
    assert json.loads(Path(case["outputs"]["sidecar"]).read_text())["Modality"] == "CT"


def test_command_is_recorded(tmp_path: Path) -> None:
    run(series(tmp_path / "ser"), tmp_path / "out")

    kept = json.loads((tmp_path / "out" / "convert.json").read_text())
    assert kept["command"].startswith("spine")
    assert (tmp_path / "out" / "convert.csv").read_text().startswith("name,input")


def test_text_is_for_people(tmp_path: Path) -> None:
    result = run(series(tmp_path / "ser"), tmp_path / "out")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "[1/1] ser: done" in result.stderr
    assert CODES not in result.stderr


def test_some_refused_series_give_exit_status_3(tmp_path: Path) -> None:
    series(tmp_path / "in" / "good")
    series(tmp_path / "in" / "tilted", made.tilted(12), uid="1.2.4")
    result = run(tmp_path / "in", tmp_path / "out")

    assert result.exit_code == 3
    assert "gantry tilt of 12.0 degrees" in result.stderr
    assert "--fix-tilt" in result.stderr
    assert "1 done, 1 failed" in result.stderr


def test_only_refused_series_give_exit_status_1(tmp_path: Path) -> None:
    source = series(tmp_path / "ser", made.tilted(12))
    result = run(source, tmp_path / "out", "--json")

    assert result.exit_code == 1
    assert record(result)["status"] == "failed"
    assert record(result)["cases"][0]["error"]["code"] == "gantry_tilt"


def test_nothing_found_gives_exit_status_1(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    result = run(tmp_path / "in", tmp_path / "out", "--json")

    assert result.exit_code == 1
    assert record(result)["cases"][0]["error"]["code"] == "not_found"


def test_missing_out_is_wrong_usage(tmp_path: Path) -> None:
    result = run(series(tmp_path / "ser"))

    assert result.exit_code == 2
    assert "OUT is needed" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--name", "{age}"), "no field of a name is called 'age'"),
        (("--name", "../{case}"), "may not leave its folder"),
        (("--duplicates", "both"), "both"),
        (("--jobs", "0"), "--jobs"),
        (("--nothing",), "--nothing"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: Sequence[str], told: str) -> None:
    result = run(series(tmp_path / "ser"), tmp_path / "out", *options)

    assert result.exit_code == 2
    assert told in result.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_json_too(tmp_path: Path) -> None:
    source = series(tmp_path / "ser")
    result = run(source, tmp_path / "out", "--name", "{age}", "--json")

    told = record(result)
    assert (result.exit_code, told["error"]["code"]) == (2, "settings")
    assert "{case}" in told["error"]["hint"] or "case" in told["error"]["hint"]


def test_originals_are_safe(tmp_path: Path) -> None:
    source = series(tmp_path / "ser")
    before = sorted(path.name for path in source.iterdir())
    result = run(source, source, "--json")

    assert (result.exit_code, record(result)["error"]["code"]) == (2, "settings")
    assert sorted(path.name for path in source.iterdir()) == before


def test_second_run_skips_unless_told_otherwise(tmp_path: Path) -> None:
    source = series(tmp_path / "ser")
    run(source, tmp_path / "out")
    again = run(source, tmp_path / "out", "--json")
    redone = run(source, tmp_path / "out", "--overwrite", "--json")

    assert [case["status"] for case in record(again)["cases"]] == ["skipped"]
    assert [case["status"] for case in record(redone)["cases"]] == ["done"]


@pytest.mark.parametrize(
    ("edit", "options", "code", "repair"),
    [
        (
            made.moved({4: (0, 0, 2.5)}),
            ("--allow-gaps",),
            "series_gap",
            {"filled_slices": [4]},
        ),
        (
            made.moved({4: (0, 0, 1.0)}),
            ("--regrid",),
            "uneven_slices",
            {"uneven_steps_mm": [2.5, 2.5, 2.5, 3.5], "step_mm": 2.75},
        ),
        (
            made.tilted(12),
            ("--fix-tilt",),
            "gantry_tilt",
            {"tilt_deg": 12.0, "tilt_padding_pixels": [0, 2]},
        ),
        (
            made.having(2, RescaleSlope=2),
            ("--allow-slopes",),
            "inconsistent_slope",
            {"slopes_applied_per_slice": True},
        ),
        (
            TWICE,
            ("--duplicates", "first"),
            "duplicate_slices",
            {
                "duplicates": "1 slices that lie where another does were left out "
                "(1 of them different)"
            },
        ),
    ],
)
def test_repairs_are_made_knowingly(
    tmp_path: Path,
    edit: made.Edit,
    options: Sequence[str],
    code: str,
    repair: dict[str, Any],
) -> None:
    source = series(tmp_path / "ser", edit)
    refused = run(source, tmp_path / "out", "--json")
    mended = run(source, tmp_path / "out", *options, "--json")

    assert record(refused)["cases"][0]["error"]["code"] == code
    assert options[0] in record(refused)["cases"][0]["error"]["hint"]
    (case,) = record(mended)["cases"]
    assert (case["status"], case["volume"]["repairs"]) == ("done", repair)
    assert code in [note["code"] for note in case["warnings"]]


@pytest.mark.parametrize("kept", ["first", "last"])
def test_duplicates_are_kept_by_number(tmp_path: Path, kept: str) -> None:
    numbered = made.each("InstanceNumber", [1, 2, 3, 4, 5])
    source = series(tmp_path / "ser", TWICE, numbered)
    result = run(source, tmp_path / "out", "--duplicates", kept, "--json")

    (case,) = record(result)["cases"]
    number = {"first": 2, "last": 3}[kept]
    np.testing.assert_array_equal(
        voxels_of(case)[:, :, 2], made.ct().voxels[:, :, number]
    )


def test_two_slices_are_converted_knowingly(tmp_path: Path) -> None:
    for path in phantoms.write_dicom(tmp_path / "ser", made.ct())[2:]:
        path.unlink()
    refused = run(tmp_path / "ser", tmp_path / "out", "--json")
    allowed = run(tmp_path / "ser", tmp_path / "out", "--allow-few-slices", "--json")

    assert record(refused)["cases"][0]["error"]["code"] == "too_few_slices"
    (case,) = record(allowed)["cases"]
    assert case["volume"]["shape"] == [7, 6, 2]


def test_steps_are_split(tmp_path: Path) -> None:
    (tmp_path / "ser").mkdir()
    made.write_marked(tmp_path / "ser", [made.ct(), made.ct()], "temporal")
    together = run(tmp_path / "ser", tmp_path / "a", "--json")
    apart = run(tmp_path / "ser", tmp_path / "b", "--split", "--json")

    (case,) = record(together)["cases"]
    assert case["volume"]["shape"] == [7, 6, 5, 2]
    assert [case["name"] for case in record(apart)["cases"]] == ["ser_t01", "ser_t02"]
    assert {tuple(case["volume"]["shape"]) for case in record(apart)["cases"]} == {
        (7, 6, 5)
    }


def test_identifiers_are_kept_on_request(tmp_path: Path) -> None:
    source = series(tmp_path / "ser")
    plain = run(source, tmp_path / "a", "--json")
    kept = run(source, tmp_path / "b", "--keep-identifiers", "--json")

    def sidecar(result: Result) -> str:
        return Path(record(result)["cases"][0]["outputs"]["sidecar"]).read_text()

    assert "Secret" not in sidecar(plain)
    assert json.loads(sidecar(kept))["PatientName"] == "Secret^Person"


def test_names_follow_the_template(tmp_path: Path) -> None:
    source = series(tmp_path / "ser", made.having(SeriesDescription="L Spine"))
    run(source, tmp_path / "out", "--name", "{modality}/s{series}_{description}")

    assert (tmp_path / "out" / "ct" / "s3_L_Spine.nii.gz").is_file()
    assert (tmp_path / "out" / "ct" / "s3_L_Spine.json").is_file()


def test_globs_choose_the_cases(tmp_path: Path) -> None:
    series(tmp_path / "in" / "a")
    series(tmp_path / "in" / "b", uid="1.2.4")
    series(tmp_path / "in" / "ab", uid="1.2.5")
    result = run(
        *(tmp_path / "in", tmp_path / "out", "--json"),
        *("--include", "a*", "--exclude", "*b"),
    )

    assert [case["name"] for case in record(result)["cases"]] == ["a"]


def test_jobs_change_nothing(tmp_path: Path) -> None:
    for name in "abc":
        series(tmp_path / "in" / name, uid=f"1.2.{ord(name)}")
    results = [
        run(tmp_path / "in", tmp_path / jobs, "--jobs", jobs, "--json")
        for jobs in ("1", "3")
    ]
    contents = [
        {
            path.relative_to(tmp_path / jobs): path.read_bytes()
            for path in (tmp_path / jobs).rglob("*_ct.*")
        }
        for jobs in ("1", "3")
    ]

    assert [result.exit_code for result in results] == [0, 0]
    assert len(contents[0]) == 6
    assert contents[0] == contents[1]


def test_localizers_left_out_are_told(tmp_path: Path) -> None:
    series(tmp_path / "in" / "good")
    scout = made.having(ImageType="LOCALIZER")
    series(tmp_path / "in" / "scout", scout, uid="1.2.4")
    text = run(tmp_path / "in", tmp_path / "a")
    told = record(run(tmp_path / "in", tmp_path / "b", "--json"))

    assert text.exit_code == 0
    assert "left out files: 5 localizer" in text.stderr
    assert [note["code"] for note in told["warnings"]] == ["left_out"]
    assert {one["why"] for one in told["left_out"]} == {"localizer"}
    assert len(told["left_out"]) == 5


def test_archive_is_converted(tmp_path: Path) -> None:
    source = series(tmp_path / "ser")
    archive = tmp_path / "scans.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in source.iterdir():
            packed.write(path, f"p/{path.name}")
    told = record(run(archive, tmp_path / "out", "--json"))

    (case,) = told["cases"]
    assert (case["name"], case["input"]) == ("p", str(archive / "p"))
    np.testing.assert_array_equal(voxels_of(case), made.ct().voxels)


def test_list_needs_no_output_and_writes_nothing(tmp_path: Path) -> None:
    series(tmp_path / "in" / "good")
    series(tmp_path / "in" / "tilted", made.tilted(12), uid="1.2.4")
    before = sorted(tmp_path.rglob("*"))
    result = run(tmp_path / "in", "--list")

    assert result.exit_code == 3
    assert "tilted" in result.stdout
    assert "gantry tilt of 12.0" in " ".join(result.stdout.split())
    assert CODES not in result.stdout + result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_list_as_json_keeps_the_contract(tmp_path: Path) -> None:
    series(tmp_path / "in" / "good")
    series(tmp_path / "in" / "tilted", made.tilted(12), uid="1.2.4")
    told = record(run(tmp_path / "in", "--list", "--json"))

    assert (told["command"], told["status"]) == ("convert", "partial")
    assert [case["status"] for case in told["cases"]] == ["done", "failed"]
    assert [row["name"] for row in told["series"]] == ["good", "tilted"]
    assert told["series"][1]["error"]["code"] == "gantry_tilt"
    assert told["left_out"] == []


def test_list_heeds_the_repairs(tmp_path: Path) -> None:
    source = series(tmp_path / "ser", made.tilted(12))

    assert run(source, "--list").exit_code == 1
    assert run(source, "--list", "--fix-tilt").exit_code == 0


@pytest.mark.parametrize("arguments", [("--list",), ("{out}",)])
def test_text_without_colours(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    source = series(tmp_path / "ser", made.tilted(12))
    given = [argument.format(out=tmp_path / "out") for argument in arguments]
    wide = {"COLUMNS": "300", "FORCE_COLOR": "1"}
    coloured = run(source, *given, **wide)
    plain = run(source, *given, **wide, NO_COLOR="1")

    assert CODES in coloured.stdout + coloured.stderr
    assert "gantry tilt" in plain.stdout + plain.stderr
    assert "\x1b[3" not in plain.stdout + plain.stderr


def test_choices_are_those_of_the_engine() -> None:
    (choices,) = (
        get_args(argument)
        for argument in get_args(convert.Duplicates)
        if get_args(argument)
    )

    assert set(choices) == set(get_args(findings.Duplicates))


def test_help_names_every_field_of_a_name() -> None:
    result = CliRunner().invoke(app, ["convert", "--help"], env={"COLUMNS": "300"})

    assert [f for f in naming.FIELDS if f"{{{f}}}" not in result.stdout] == []
    assert naming.DEFAULT in result.stdout


@pytest.mark.parametrize(
    ("edit", "option"),
    [
        (made.tilted(12), "--fix-tilt"),
        (made.moved({4: (0, 0, 2.5)}), "--allow-gaps"),
        (made.moved({4: (0, 0, 1.0)}), "--regrid"),
        (made.having(2, RescaleSlope=2), "--allow-slopes"),
        (TWICE, "--duplicates first"),
    ],
)
def test_segment_names_the_fitting_option(
    tmp_path: Path, edit: made.Edit, option: str
) -> None:
    source = series(tmp_path / "ser", edit)
    result = CliRunner().invoke(
        app, ["segment", str(source), "-o", str(tmp_path / "out"), "--json"]
    )

    (case,) = json.loads(result.stdout)["cases"]
    assert result.exit_code == 1
    assert f"spine convert {option}" in case["error"]["hint"]


def test_segment_is_told_to_split_a_fourth_axis(tmp_path: Path) -> None:
    (tmp_path / "ser").mkdir()
    made.write_marked(tmp_path / "ser", [made.ct(), made.ct()], "temporal")
    result = CliRunner().invoke(
        app,
        ["segment", str(tmp_path / "ser"), "-o", str(tmp_path / "out"), "--json"],
    )

    (case,) = json.loads(result.stdout)["cases"]
    assert "spine convert --split" in case["error"]["hint"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, spinecli.commands.convert as _, spinecli.commands.inspect as _;"
        "print({'numpy', 'torch', 'nibabel', 'pydicom'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"


def test_nothing_to_convert_asks_for_dicom(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "gone"):
        result = run(tmp_path / source, tmp_path / "out", "--json")
        (case,) = record(result)["cases"]

        assert result.exit_code == 1
        assert "DICOM" in case["error"]["hint"]
