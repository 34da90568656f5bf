"""``spine evaluate`` on files: what it prints, writes and returns."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from engines.volume import read_mask, write_nifti
from spinecli.app import app
from tests import phantoms

CONTRACT = [
    "dice",
    "iou",
    "precision",
    "recall",
    "f1",
    "accuracy",
    "hd_mm",
    "hd95_mm",
    "assd_mm",
    "nsd",
    "volume_difference_ml",
]
REPORT = {"index.html", "evaluation.csv", "evaluation.json", "summary.json"}
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
    assert {"label", "name", *CONTRACT, "present"} <= set(label)
    assert (label["label"], label["name"], label["present"]) == (1, "spine", "both")
    assert label["dice"] == pytest.approx(2 * 8 / 24)
    assert set(CONTRACT) <= set(record["cohort"])
    for told in record["cohort"].values():
        assert {"mean", "sd", "median", "ci95", "n"} <= set(told)
    told = record["cohort"]["dice"]
    assert (told["mean"], told["n"]) == (pytest.approx(5 / 6), 2)
    assert told["ci95"] == pytest.approx([2 / 3, 1])
    codes = [[note["code"] for note in case["warnings"]] for case in record["cases"]]
    assert codes == [["compared_binary"], ["compared_binary"]]


def test_people_get_the_scores_on_stdout(folders: tuple[Path, Path]) -> None:
    done = spine(*folders)

    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert ["a", "0.6667", "0.5000", "1.0000", "0.5000"] in [line[:5] for line in lines]
    assert ["(mean", "of", "cases)", "0.8333"] in [line[:4] for line in lines]
    assert ["(median", "of", "cases)", "0.8333"] in [line[:4] for line in lines]
    assert "[2/2] b: done" in done.stderr
    assert "all labels of the truth count as spine" in done.stderr
    assert "95 % interval 0.6667 to 1.0000 over 2 cases" in done.stderr


def test_the_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"

    assert spine(*folders, "-o", out).exit_code == 0

    assert {path.name for path in out.iterdir()} == REPORT
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

    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["L2", *["1.0000"] * 4, "0.0000", "0.0000", "1.0000"] in lines
    assert "identified: 4 of 4 vertebrae (100.0%)" in done.stderr


def test_a_missing_prediction_scores_zero_with_a_warning(
    folders: tuple[Path, Path],
) -> None:
    preds, truth = folders
    (preds / "a_ct/a_ct_seg-spine_msk.nii.gz").unlink()

    status, record = spine_json(preds, truth)

    assert status == 0
    lost = record["cases"][0]
    assert lost["labels"][0]["dice"] == 0
    assert "missing_prediction" in [note["code"] for note in lost["warnings"]]
    assert lost["labels"][0]["hd95_mm"] == "inf"
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
    assert "Bring the prediction back to the grid of its scan" in done.stderr


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
    for name in CONTRACT:
        perfect = 0.0 if name.endswith(("_mm", "_ml")) else 1.0
        assert {row[name] for row in case["labels"]} == {perfect}, name
    assert record["identification"]["rate"] == 1


@pytest.fixture
def vertebrae(tmp_path: Path) -> tuple[Path, Path]:
    """Return predictions of L1 and L2 in two cases, of which ``b`` lacks L2."""
    preds, truth = tmp_path / "preds", tmp_path / "truth"
    write(preds / "a.nii.gz", bone(20, 21))
    write(preds / "b.nii.gz", bone(20, 0))
    for name in "ab":
        write(truth / f"{name}.nii.gz", bone(20, 21))
    return preds, truth


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_label_that_was_missed_is_infinitely_far_in_every_record(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    status, record = spine_json(*vertebrae, "-o", out)

    assert status == 0
    lost = record["cases"][1]["labels"][1]
    assert (lost["name"], lost["dice"], lost["hd_mm"]) == ("L2", 0, "inf")
    hd = record["cohort"]["hd_mm"]
    assert (hd["mean"], hd["sd"], hd["ci95"], hd["n"]) == ("inf", None, None, 2)
    assert record["by_label"][1]["hd_mm"]["mean"] == "inf"
    written = json.loads((out / "evaluation.json").read_text())
    assert written["cases"][1]["labels"][1]["hd_mm"] == "inf"
    with (out / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[3]["case"], rows[3]["name"], rows[3]["hd_mm"]) == ("b", "L2", "inf")


def test_the_median_stays_finite_for_people_too(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"t/{name}.nii.gz", bone(20))
    write(tmp_path / "p/a.nii.gz", bone(20))
    write(tmp_path / "p/b.nii.gz", bone(20))

    done = spine(tmp_path / "p", tmp_path / "t")

    lines = [line.split() for line in done.stdout.splitlines()]
    mean, median = (
        next(line for line in lines if line[:1] == [f"({what}"])
        for what in ("mean", "median")
    )
    assert "inf" in mean
    assert "inf" not in median


def test_identification_of_the_cohort(vertebrae: tuple[Path, Path]) -> None:
    _, record = spine_json(*vertebrae)

    found = record["identification"]
    assert {"rate", "mean_error_mm"} <= set(found)
    assert (found["rate"], found["mean_error_mm"]) == (0.75, 0)
    assert record["cases"][1]["instances"]["missed"] == [21]


def test_regions_and_labels_alone(vertebrae: tuple[Path, Path]) -> None:
    _, record = spine_json(*vertebrae)

    assert [row["name"] for row in record["by_label"]] == ["L1", "L2"]
    (lumbar,) = record["by_region"]
    assert (lumbar["region"], lumbar["dice"]["mean"]) == ("lumbar", 0.75)


def test_nnunet_s_summary(vertebrae: tuple[Path, Path], tmp_path: Path) -> None:
    spine(*vertebrae, "-o", tmp_path / "out")

    told = json.loads((tmp_path / "out/summary.json").read_text())
    assert told["foreground_mean"]["Dice"] == 0.75
    assert told["mean"]["21"]["Dice"] == 0.5
    assert [row["metrics"]["21"]["FN"] for row in told["metric_per_case"]] == [0, 8]


def test_the_same_input_gives_the_same_bytes(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    spine(*vertebrae, "-o", out)
    first = files(out)

    spine(*vertebrae, "-o", out)

    assert set(first) == REPORT
    assert files(out) == first


def test_the_same_bytes_in_a_process_of_its_own(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "spinecli", "evaluate", *map(str, vertebrae)]
    found = []
    for _ in range(2):
        done = subprocess.run(
            [*command, "-o", str(tmp_path / "out")],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        )
        found.append((done.stdout, files(tmp_path / "out")))

    assert found[0] == found[1]


def test_the_page_names_cases_and_shows_the_worst(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    spine(*vertebrae, "-o", tmp_path / "out")

    page = (tmp_path / "out/index.html").read_text()
    assert "b: Dice 0.5000" in page
    assert page.index("b: Dice 0.5000") < page.index("a: Dice 1.0000")
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


@pytest.mark.parametrize("labels", [(30, 99), (255,), (1,), (20, 200)])
def test_a_report_of_any_labels(tmp_path: Path, labels: tuple[int, ...]) -> None:
    mask = write(tmp_path / "a.nii.gz", bone(*labels))

    status, record = spine_json(mask, mask, "-o", tmp_path / "out")

    assert (status, record["cases"][0]["error"]) == (0, None)
    assert set(files(tmp_path / "out")) == REPORT


def test_pairs_of_a_table(vertebrae: tuple[Path, Path], tmp_path: Path) -> None:
    listed = tmp_path / "pairs.csv"
    listed.write_text(
        "name,prediction,truth\nx,preds/b.nii.gz,truth/a.nii.gz\ny,,truth/b.nii.gz\n",
        encoding="utf-8-sig",
    )

    status, record = spine_json("--pairs", listed)

    assert status == 0
    assert [case["name"] for case in record["cases"]] == ["x", "y"]
    means = [[row["dice"] for row in case["labels"]] for case in record["cases"]]
    assert means == [[1, 0], [0, 0]]


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_table_or_both_folders_are_needed(
    vertebrae: tuple[Path, Path], tmp_path: Path, given: int
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("prediction,truth\npreds/a.nii.gz,truth/a.nii.gz\n")
    arguments: list[list[object]] = [
        [],
        [vertebrae[0]],
        [*vertebrae, "--pairs", table],
    ]

    status, record = spine_json(*arguments[given])

    assert status == record["exit_status"] == 2
    assert "PREDS and GT are needed" in record["error"]["message"]


def test_a_table_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("a,b\n1,2\n")

    status, record = spine_json("--pairs", table)

    assert (status, record["error"]["code"]) == (2, "settings")
    assert "no column prediction and no truth" in record["error"]["message"]


def test_schemes_of_both_sides(tmp_path: Path) -> None:
    prediction = write(tmp_path / "p.nii.gz", bone(31, 30, 90))  # 90 is no vertebra
    truth = write(tmp_path / "t.nii.gz", bone(5, 4))

    status, record = spine_json(
        prediction,
        truth,
        "--scheme",
        "totalsegmentator",
        "--truth-scheme",
        "spider",
    )

    (case,) = record["cases"]
    told = {row["name"]: row["dice"] for row in case["labels"]}
    assert (status, told) == (0, {"L1": 1, "L2": 1})
    assert [note["code"] for note in case["warnings"]] == ["unknown_labels"]


def test_a_scheme_that_nobody_has_is_a_usage_error(
    vertebrae: tuple[Path, Path],
) -> None:
    status, record = spine_json(*vertebrae, "--scheme", "mine")

    assert status == 2
    assert "totalspineseg" in record["error"]["message"]


def test_the_tolerance(tmp_path: Path) -> None:
    prediction = write(tmp_path / "p.nii.gz", np.roll(bone(20), 1, 0))
    truth = write(tmp_path / "t.nii.gz", bone(20))

    near, far = (
        spine_json(prediction, truth, "--tolerance-mm", mm)[1]["cases"][0]["labels"][0]
        for mm in (0.5, 0.8)
    )

    assert near["nsd"] < far["nsd"] == 1
    assert near["hd_mm"] == far["hd_mm"] == pytest.approx(0.7)


@pytest.mark.parametrize("tolerance", ["-1", "nan", "wide"])
def test_a_tolerance_that_is_none_is_a_usage_error(
    vertebrae: tuple[Path, Path], tolerance: str
) -> None:
    status, record = spine_json(*vertebrae, "--tolerance-mm", tolerance)

    assert status == record["exit_status"] == 2


def test_resample_is_asked_for_and_recorded(tmp_path: Path) -> None:
    turned = phantoms.volume(bone(20, 21))
    affine = turned.grid.affine.copy()
    affine[:3, 3] += 6 * affine[:3, 0]
    affine[:3, 0] *= -1
    turned.grid.affine[:] = affine
    prediction = phantoms.write_nifti(
        tmp_path / "p/a.nii.gz", turned.with_voxels(turned.voxels[::-1])
    )
    truth = write(tmp_path / "t/a.nii.gz", bone(20, 21))

    refused = spine_json(prediction, truth)
    status, record = spine_json(prediction, truth, "--resample")

    assert refused[0] == 1
    assert "--resample" in refused[1]["cases"][0]["error"]["hint"]
    (case,) = record["cases"]
    assert (status, [row["dice"] for row in case["labels"]]) == (0, [1, 1])
    assert [note["code"] for note in case["warnings"]] == ["resampled"]


def test_slices_in_pixels(tmp_path: Path) -> None:
    prediction = write(tmp_path / "p.nii.gz", np.roll(bone(20), 1, 1))
    truth = write(tmp_path / "t.nii.gz", bone(20))

    _, record = spine_json(prediction, truth, "--slices")
    done = spine(prediction, truth, "--slices")

    (row,) = record["cases"][0]["labels"]
    assert (row["hd_px"], row["dice"], row["area_difference_px"]) == (1, 0.5, 0)
    assert "hd_px" in record["cohort"]
    assert not [name for name in record["cohort"] if name.endswith("_mm")]
    assert "HD px" in " ".join(done.stdout.split())


def test_slices_write_the_same_files(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    assert spine(*vertebrae, "--slices", "-o", tmp_path / "out").exit_code == 0

    assert set(files(tmp_path / "out")) == REPORT
    with (tmp_path / "out/evaluation.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["hd_px"] == "0.000000"


def test_compare_tells_wins_losses_and_ties(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    preds, truth = vertebrae
    write(tmp_path / "others/a.nii.gz", bone(20, 0))
    write(tmp_path / "others/b.nii.gz", bone(20, 0))

    status, record = spine_json(
        preds, truth, "--compare", tmp_path / "others", "-o", tmp_path / "out"
    )

    dice = record["comparison"]["dice"]
    assert status == 0
    assert (dice["wins"], dice["losses"], dice["ties"], dice["n"]) == (1, 0, 1, 2)
    assert (dice["difference"], dice["p"]) == (0.25, None)
    assert record["comparison"]["hd_mm"]["wins"] == 1
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert written["comparison"]["dice"] == dice
    assert [case["name"] for case in record["cases"]] == ["a", "b"]


def test_people_see_the_comparison(vertebrae: tuple[Path, Path]) -> None:
    preds, truth = vertebrae

    done = spine(preds, truth, "--compare", preds)

    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["Dice", "+0.0000", "+0.0000", "to", "+0.0000", "0", "0", "2"] in lines


def test_a_prediction_that_others_lack_is_their_loss(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    preds, truth = vertebrae
    write(tmp_path / "others/b.nii.gz", bone(20, 0))

    _, record = spine_json(preds, truth, "--compare", tmp_path / "others")

    dice = record["comparison"]["dice"]
    assert (dice["wins"], dice["ties"], dice["n"]) == (1, 1, 2)
    assert record["comparison"]["hd_mm"]["difference"] is None


def test_a_case_of_the_others_that_fails_is_named(
    vertebrae: tuple[Path, Path], tmp_path: Path
) -> None:
    preds, truth = vertebrae
    write(tmp_path / "others/a.nii.gz", bone(20, 21), axes="LPS")
    write(tmp_path / "others/b.nii.gz", bone(20, 21))

    _, record = spine_json(preds, truth, "--compare", tmp_path / "others")

    assert record["comparison"]["dice"]["n"] == 1
    told = " ".join(note["message"] for note in record["warnings"])
    assert "LPS axes and RAS axes" in told


def test_compare_needs_folders(vertebrae: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("prediction,truth\npreds/a.nii.gz,truth/a.nii.gz\n")

    status, record = spine_json("--pairs", table, "--compare", vertebrae[0])

    assert status == 2
    assert "--compare needs PREDS and GT" in record["error"]["message"]


def test_scans_are_the_background_of_pictures(
    tmp_path: Path,
) -> None:
    preds, truth = tmp_path / "preds", tmp_path / "truth"
    write(preds / "a.nii.gz", bone(20, 0, 21))
    write(preds / "b.nii.gz", bone(20))
    for name in "ab":
        write(truth / f"{name}.nii.gz", bone(20, 0, 21))
    bright = np.full(phantoms.SHAPE, 800, np.int16)
    write(tmp_path / "scans/a_ct.nii.gz", bright)
    write(tmp_path / "scans/b_ct.nii.gz", bright, axes="LPS")  # on another grid

    for name, more in (("dark", []), ("lit", ["--scans", tmp_path / "scans"])):
        assert spine(preds, truth, "-o", tmp_path / name, *more).exit_code == 0

    dark, lit = (pictures(tmp_path / name / "index.html") for name in ("dark", "lit"))
    assert len(dark) == len(lit) == 2
    assert dark[0] == lit[0]  # b, the worst: its scan does not fit
    assert dark[1] != lit[1]


def pictures(page: Path) -> list[str]:
    """Return the pictures of cases in a page, in their order."""
    parts = page.read_text().split("data:image/png;base64,")[1:]
    return [part[: part.index('"')] for part in parts]


def test_structures_inside_a_folder_of_segmentations(tmp_path: Path) -> None:
    for label, name in ((20, "vertebrae_L1"), (26, "sacrum")):
        part = (bone(20, 26) == label).astype(np.uint8)
        write(tmp_path / f"p/a/segmentations/{name}.nii.gz", part)
    write(tmp_path / "t/a_seg-vert_msk.nii.gz", bone(20, 26))

    status, record = spine_json(tmp_path / "p", tmp_path / "t")

    told = {row["name"]: row["dice"] for row in record["cases"][0]["labels"]}
    assert (status, told) == (0, {"L1": 1, "sacrum": 1})


@pytest.mark.parametrize("prediction", ["float", "scan", "empty", "broken"])
def test_what_a_bad_prediction_does(tmp_path: Path, prediction: str) -> None:
    made: dict[str, Any] = {
        "float": bone(20) * np.float32(0.33),
        "scan": bone(20) * np.int16(100) - 1000,
        "empty": bone(0),
    }
    path = tmp_path / "p/a.nii.gz"
    write(path, made.get(prediction, bone(20)))
    if prediction == "broken":
        path.write_bytes(path.read_bytes()[:40])
    for name in "ab":
        write(tmp_path / f"t/{name}.nii.gz", bone(20))
    write(tmp_path / "p/b.nii.gz", bone(20))

    status, record = spine_json(tmp_path / "p", tmp_path / "t")

    case, other = record["cases"]
    assert other["labels"][0]["dice"] == 1
    if prediction == "empty":
        assert (status, case["labels"][0]["dice"]) == (0, 0)
        assert case["warnings"][0]["code"] == "empty_prediction"
        return
    assert (status, record["status"], case["status"]) == (3, "partial", "failed")
    assert case["error"]["message"]
    assert case["error"]["code"] != "bug"


def test_real_masks_against_a_shifted_one(tmp_path: Path) -> None:
    truth = DATA / "tptbox_seg-vert_msk.nii.gz"
    mask = read_mask(truth)
    moved = np.roll(mask.voxels, 1, 2)  # by 1.5 mm
    write_nifti(tmp_path / "p.nii.gz", moved, mask, {})

    _, record = spine_json(tmp_path / "p.nii.gz", truth)

    for row in record["cases"][0]["labels"]:
        assert row["volume_difference_ml"] == pytest.approx(0, abs=0.3)
        assert 0.8 < row["dice"] < 1
        assert 0 < row["assd_mm"] < 1.5
        assert math.isfinite(row["hd_mm"])
    assert record["identification"]["rate"] == 1
    assert record["identification"]["mean_error_mm"] == pytest.approx(1.5, abs=0.4)


def test_inner_leaves_the_end_vertebrae_out(tmp_path: Path) -> None:
    pred = write(tmp_path / "p.nii.gz", bone(0, 21, 23))
    truth = write(tmp_path / "t.nii.gz", bone(20, 21, 22))

    _, whole = spine_json(pred, truth)
    status, inner = spine_json(pred, truth, "--inner")

    assert status == 0
    assert [row["name"] for row in inner["cases"][0]["labels"]] == ["L2"]
    assert inner["cohort"]["dice"]["mean"] == 1
    assert whole["cohort"]["dice"]["mean"] < 1


@pytest.mark.usefixtures("one_thread")
def test_robustness(tmp_path: Path) -> None:
    scan, truth = (DATA / f"tptbox_{end}.nii.gz" for end in ("ct", "seg-vert_msk"))
    options = ["--robustness", "--inner", "--only", "kernel-soft", "-o", tmp_path]

    done = spine(scan, truth, *options)

    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    (row,) = (line for line in lines if line[:2] == ["kernel-soft", "1"])
    record = json.loads((tmp_path / "robustness.json").read_text())
    assert row[2] == f"{record['robustness'][0]['dice']:.4f}"
    assert "1 done" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--robustness", "--binary"], "--binary and --robustness do not go together"),
        (["--robustness", "--tolerance-mm", "2"], "--tolerance-mm and --robustness do"),
        (["--robustness", "--only", "rust"], "no alteration is called 'rust'"),
        (["--robustness", "--model", "nothing"], "no model is called 'nothing'"),
        (["--only", "metal"], "--only chooses alterations"),
    ],
)
def test_options_of_robustness_that_make_no_sense(
    options: list[str], told: str
) -> None:
    scan, truth = (DATA / f"tptbox_{end}.nii.gz" for end in ("ct", "seg-vert_msk"))

    status, record = spine_json(scan, truth, *options)

    assert status == 2
    assert told in record["error"]["message"]


def test_robustness_needs_both_paths() -> None:
    status, record = spine_json(DATA, "--robustness")

    assert status == 2
    assert "scans and their truth" in record["error"]["message"]
