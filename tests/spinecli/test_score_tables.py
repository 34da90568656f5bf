"""Tables of scores in the terminal: whole numbers, named rows, nothing empty."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from engines.results import CaseResult, Problem
from spinecli import bench_table, render, robustness_table
from spinecli.app import app
from tests import phantoms

Captured = pytest.CaptureFixture[str]
FAILED = Problem("x", "it broke")


def write(path: Path, *labels: int) -> None:
    voxels = np.zeros(phantoms.SHAPE, np.uint8)
    for height, label in enumerate(labels):
        voxels[1:5, 2:4, height] = label
    phantoms.write_nifti(path, phantoms.volume(voxels))


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    preds, truth = tmp_path / "preds", tmp_path / "truth"
    for name in ("a", "b", "lost", "none"):
        write(truth / f"{name}.nii.gz", 20, 21)
    write(preds / "a.nii.gz", 20, 21)
    write(preds / "b.nii.gz", 20, 22)
    write(preds / "none.nii.gz", 0, 0)
    return preds, truth


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_table_fits_and_names_its_rows(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    lines = evaluate(*folders).stdout.splitlines()

    assert max(map(len, lines)) <= width
    heads = [line for line, below in itertools.pairwise(lines) if "──" in below]
    assert {head.split()[0] for head in heads} == {"case", "label"}
    told = " ".join(" ".join(heads).split())
    for title in ("Dice", "precision", "HD95 mm", "ASSD mm", "NSD"):
        assert told.count(title) == 2
    cells = [cell for line in lines for cell in line.split() if "." in cell]
    assert cells
    assert all(re.fullmatch(r"\d+\.\d{4}", cell) for cell in cells)


def test_the_spread_of_cases_stands_below_them(folders: tuple[Path, Path]) -> None:
    shown = evaluate(*folders).stdout

    rows = dict(re.findall(r"^ (\S.*?)  +(\d\.\d{4})", shown, re.MULTILINE))
    low, high = (float(rows[f"(95 % {end})"]) for end in ("from", "to"))
    assert rows["a"] == "1.0000"
    assert rows["lost (no prediction)"] == "0.0000"
    assert rows["none (empty prediction)"] == "0.0000"
    assert low < float(rows["(mean of cases)"]) < high
    assert (rows["(1st quartile)"], rows["(median of cases)"]) == ("0.0000", "0.1667")
    assert rows["(3rd quartile)"] == "0.3333"


def test_one_case_has_no_spread(folders: tuple[Path, Path]) -> None:
    preds, truth = folders

    shown = evaluate(preds / "a.nii.gz", truth / "a.nii.gz").stdout

    assert "(mean of cases)" in shown
    assert "(sd of cases)" not in shown
    assert "(95 % from)" not in shown


def test_failures_alone_print_no_table(tmp_path: Path) -> None:
    for side in ("preds", "truth"):
        write(tmp_path / side / "a.nii.gz", 20, 21)
    (tmp_path / "preds" / "a.nii.gz").write_bytes(b"no image")

    done = evaluate(tmp_path / "preds", tmp_path / "truth")

    assert done.exit_code == 1
    assert done.stdout == ""
    assert "1 failed" in done.stderr


def contender(name: str, status: Any, **figures: Any) -> CaseResult:
    row = {
        "kind": "network",
        "backend": name,
        "precision": "float32",
        "ms_per_slice": 12.345,
        "slices_per_second": 81.0,
        "gflops": 1234.0,
        "share_of_ceiling": None,
        "ceiling_stands_in": False,
        "times_as_fast": 1.5,
        "gate": None,
        "load_seconds": 1.25,
        "gpu_memory_bytes": None,
    }
    error = None if status == "done" else FAILED
    return CaseResult(name, "", status, error=error, details=row | figures)


FACTS = {
    "machine": dict.fromkeys(("gpu", "memory_gib"))
    | {"cpu": "a cpu", "cores": 2, "threads": 2},
    "scans": [],
    "synthetic": True,
    "against": None,
    "ceilings": [],
}


def test_backends_that_do_not_run_are_named_and_numbers_stay_right(
    capsys: Captured,
) -> None:
    cases = [
        contender("torch", "done"),
        contender("openvino", "skipped"),
        contender("tensorrt", "failed"),
    ]

    bench_table.show(cases, FACTS)

    out, err = capsys.readouterr()
    head, _, first, *others = [line for line in out.splitlines() if line.strip()]
    assert head.split("   ")[-1].strip() == "load s"  # no column of GPUs or of labels
    assert "agrees" not in head
    assert head.index("ms a slice") + len("ms a slice") == first.index("12.3") + 5
    assert [line.strip() for line in others] == [
        "openvino float32 (not installed)",
        "tensorrt float32 (failed)",
    ]
    assert "it broke" in err
    assert "ceiling" not in err


def test_backends_that_all_fail_print_no_table(capsys: Captured) -> None:
    bench_table.show([contender("torch", "failed")], FACTS)

    out, err = capsys.readouterr()
    assert out == ""
    assert "it broke" in err


def altered(dice: float | None, **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(("worst", "unaltered", "fall", "identical"))
    return row | {
        "alteration": "noise-60hu",
        "scans": 1,
        "dice": dice,
        "exceeds": False,
        **more,
    }


def shown_robustness(capsys: Captured, *rows: dict[str, Any]) -> str:
    robustness_table._show([], rows)
    return capsys.readouterr().out


def test_alterations_without_scores_print_no_table(capsys: Captured) -> None:
    assert shown_robustness(capsys, altered(None)) == ""


def test_remarks_are_a_column_where_there_are_some(capsys: Captured) -> None:
    assert "remarks" not in shown_robustness(capsys, altered(0.9))
    told = shown_robustness(capsys, altered(0.9), altered(0.8, exceeds=True))
    assert "remarks" in told
    assert "falls" in told


@pytest.mark.parametrize("width", [24, 40, 60, 80])
def test_the_first_column_is_never_squeezed_out(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    render.table(["label", "Dice", "HD95 mm", "as it is"], [["L2", *["0.5000"] * 3]])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines if "0.5" in line]
    assert all(row[0] == "L2" for row in rows)
    assert [cell for row in rows for cell in row[1:]] == ["0.5000"] * 3
