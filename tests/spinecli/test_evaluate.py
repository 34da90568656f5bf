"""``spine evaluate`` on files: what it prints, writes and returns."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from spinecli.app import app
from tests import phantoms

METRICS = ["dice", "iou", "precision", "recall", "f1", "accuracy"]
DATA = Path(__file__).parents[1] / "data"


def spine(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def spine_json(*arguments: object) -> tuple[int, dict[str, Any]]:
    done = spine(*arguments, "--json")
    return done.exit_code, json.loads(done.stdout)


def bone(*labels: int) -> Any:
    """Return a bar of eight voxels of each label, one above the other."""
    voxels = np.zeros(phantoms.SHAPE, np.uint8)
    for height, label in enumerate(labels):
        voxels[1:5, 2:4, height] = label
    return voxels


def write(path: Path, voxels: Any, axes: str = "RAS") -> Path:
    return phantoms.write_nifti(path, phantoms.volume(voxels, axes))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return predictions as ``spine segment`` writes them, and their truth.

    Of ``a`` the upper of two vertebrae is found, of ``b`` all.
    """
    preds, truth = tmp_path / "preds", tmp_path / "truth"
    write(preds / "a_ct/a_ct_seg-spine_msk.nii.gz", bone(1, 0))
    write(preds / "b_ct/b_ct_seg-spine_msk.nii.gz", bone(1, 1))
    write(truth / "a_seg-vert_msk.nii.gz", bone(20, 21))
    write(truth / "b_seg-vert_msk.nii.gz", bone(20, 21))
    return preds, truth


def test_the_record(folders: tuple[Path, Path]) -> None:
    status, record = spine_json(*folders)

    assert (status, record["status"], record["command"]) == (0, "ok", "evaluate")
    assert [case["name"] for case in record["cases"]] == ["a", "b"]
    (label,) = record["cases"][0]["labels"]
    assert list(label) == ["label", "name", *METRICS, "present"]
    assert (label["label"], label["name"], label["present"]) == (1, "spine", "both")
    assert label["dice"] == pytest.approx(2 * 8 / 24)
    assert list(record["cohort"]) == METRICS
    told = record["cohort"]["dice"]
    assert list(told) == ["mean", "sd", "median", "ci95", "n"]
    assert (told["mean"], told["n"]) == (pytest.approx(5 / 6), 2)
    assert told["ci95"] == pytest.approx([2 / 3, 1])
    codes = [[note["code"] for note in case["warnings"]] for case in record["cases"]]
    assert codes == [["compared_binary"], ["compared_binary"]]


def test_people_get_the_scores_on_stdout(folders: tuple[Path, Path]) -> None:
    done = spine(*folders)

    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert ["a", "0.6667", "0.5000", "1.0000", "0.5000", "0.6667", "0.9619"] in lines
    assert ["(mean", "of", "cases)", "0.8333"] in [line[:4] for line in lines]
    assert "[2/2] b: done" in done.stderr
    assert "all labels of the truth count as spine" in done.stderr
    assert "95 % interval 0.6667 to 1.0000 over 2 cases" in done.stderr


def test_the_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"

    assert spine(*folders, "-o", out).exit_code == 0

    assert {path.name for path in out.iterdir()} == {
        "evaluation.csv",
        "evaluation.json",
    }
    with (out / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["name"]) for row in rows] == [
        ("a", "spine"),
        ("b", "spine"),
    ]
    record = json.loads((out / "evaluation.json").read_text())
    assert record["cohort"]["dice"]["n"] == 2


def test_labels_are_shown_one_by_one(folders: tuple[Path, Path]) -> None:
    _, truth = folders

    done = spine(truth, truth)

    assert ["L2", *["1.0000"] * 6] in [
        line.split() for line in done.stdout.splitlines()
    ]


def test_a_missing_prediction_scores_zero_with_a_warning(
    folders: tuple[Path, Path],
) -> None:
    preds, truth = folders
    (preds / "a_ct/a_ct_seg-spine_msk.nii.gz").unlink()

    status, record = spine_json(preds, truth)

    assert status == 0
    lost = record["cases"][0]
    assert lost["labels"][0]["dice"] == 0
    assert [note["code"] for note in lost["warnings"]] == ["missing_prediction"]
    assert record["cohort"]["dice"]["mean"] == 0.5


def test_a_pair_that_does_not_fit_fails_alone(folders: tuple[Path, Path]) -> None:
    preds, truth = folders
    write(preds / "a_ct/a_ct_seg-spine_msk.nii.gz", bone(1, 0), axes="LPS")

    status, record = spine_json(preds, truth)

    assert (status, record["status"]) == (3, "partial")
    failed, done = record["cases"]
    assert (failed["status"], done["status"]) == ("failed", "done")
    assert failed["error"]["code"] == "mask"
    assert "LPS axes and RAS axes" in failed["error"]["message"]
    assert record["cohort"]["dice"]["n"] == 1


def test_no_pair_that_fits_is_a_failure(folders: tuple[Path, Path]) -> None:
    preds, truth = folders
    for name in ("a", "b"):
        write(preds / f"{name}_ct/{name}_ct_seg-spine_msk.nii.gz", bone(1), axes="LPS")

    done = spine(preds, truth)

    assert done.exit_code == 1
    assert "2 failed" in done.stderr
    assert "Bring the prediction back to the grid of its scan." in done.stderr


def test_binary(folders: tuple[Path, Path]) -> None:
    _, truth = folders

    _, record = spine_json(truth, truth, "--binary")

    assert [row["name"] for row in record["by_label"]] == ["spine"]


def test_folders_without_a_common_name(folders: tuple[Path, Path]) -> None:
    preds, _ = folders

    status, record = spine_json(preds, DATA)

    assert (status, record["cases"]) == (1, [])
    assert record["error"]["code"] == "not_found"
    assert "Names must agree" in record["error"]["hint"]


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    status, record = spine_json(tmp_path / "nowhere", tmp_path)

    assert status == record["exit_status"] == 2
    assert "nowhere" in record["error"]["message"]


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    status, record = spine_json(*folders, "-o", tmp_path / "file" / "out")

    assert (status, record["cases"]) == (1, [])
    assert record["error"]["code"] == "output"


def test_a_real_mask_against_itself_and_against_nothing(tmp_path: Path) -> None:
    truth = DATA / "tptbox_seg-vert_msk.nii.gz"

    status, record = spine_json(truth, truth)

    assert status == 0
    (case,) = record["cases"]
    assert [row["name"] for row in case["labels"]] == ["L2", "L3", "L4"]
    assert {row[name] for row in case["labels"] for name in METRICS} == {1.0}
