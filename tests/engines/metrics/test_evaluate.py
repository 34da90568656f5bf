"""Files in, scores out: policies for what is missing, empty or does not fit."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.labels import REGION_CLASSES
from engines.metrics.evaluate import evaluate, write_report
from engines.metrics.pairs import Pair
from engines.results import CaseResult
from engines.volume import write_nifti
from tests import phantoms

L1, L2 = 20, 21
VERT, SPINE = "a_seg-vert_msk.nii.gz", "a_seg-spine_msk.nii.gz"


def two_vertebrae() -> NDArray[np.uint8]:
    """Return L1 of 8 voxels above L2 of 12, on the grid of the phantoms."""
    voxels = np.zeros(phantoms.SHAPE, np.uint8)
    voxels[1:3, 1:3, 0:2] = L1
    voxels[1:4, 1:3, 3:5] = L2
    return voxels


def write(path: Path, voxels: NDArray[Any], axes: str = "RAS") -> Path:
    return phantoms.write_nifti(path, phantoms.volume(voxels, axes))


def score(prediction: Path | None, truth: Path, *, binary: bool = False) -> CaseResult:
    (result,) = evaluate([Pair("a", truth, prediction)], binary=binary)
    return result


def dices(result: CaseResult) -> dict[str, float]:
    return {row["name"]: row["dice"] for row in result.details["labels"]}


def codes(result: CaseResult) -> list[str]:
    return [note.code for note in result.warnings]


def test_each_vertebra_is_scored_under_its_name(tmp_path: Path) -> None:
    predicted = two_vertebrae()
    predicted[1, 1:3, 0:2] = 0  # half of L1 is lost

    result = score(
        write(tmp_path / "a.nii.gz", predicted), write(tmp_path / VERT, two_vertebrae())
    )

    assert result.status == "done"
    assert dices(result) == pytest.approx({"L1": 2 * 4 / 12, "L2": 1.0})
    assert codes(result) == []


def test_binary_compares_whatever_is_above_zero(tmp_path: Path) -> None:
    predicted = np.where(two_vertebrae() == L1, 3, 0)

    result = score(
        write(tmp_path / "a.nii.gz", predicted.astype(np.int16)),
        write(tmp_path / VERT, two_vertebrae()),
        binary=True,
    )

    assert dices(result) == pytest.approx({"spine": 2 * 8 / 28})
    assert result.details["labels"][0]["label"] == 1


def test_a_spine_mask_is_compared_as_one_label_and_that_is_said(tmp_path: Path) -> None:
    predicted = (two_vertebrae() > 0).astype(np.uint8)

    result = score(
        write(tmp_path / SPINE, predicted), write(tmp_path / VERT, two_vertebrae())
    )

    assert dices(result) == {"spine": 1.0}
    assert codes(result) == ["compared_binary"]


def test_two_spine_masks_need_no_word(tmp_path: Path) -> None:
    mask = write(tmp_path / SPINE, (two_vertebrae() > 0).astype(np.uint8))

    result = score(mask, mask)

    assert dices(result) == {"spine": 1.0}
    assert codes(result) == []


def test_a_mask_that_may_be_binary_is_compared_by_label_with_a_hint(
    tmp_path: Path,
) -> None:
    predicted = (two_vertebrae() > 0).astype(np.uint8)

    result = score(
        write(tmp_path / "a.nii.gz", predicted), write(tmp_path / VERT, two_vertebrae())
    )

    assert dices(result) == {"C1": 0.0, "L1": 0.0, "L2": 0.0}
    assert codes(result) == ["perhaps_binary"]


def test_regions_are_compared_with_the_regions_of_the_vertebrae(tmp_path: Path) -> None:
    truth = two_vertebrae()
    truth[truth == L1] = 19  # T12
    predicted = np.where(truth == 19, 2, 3 * (truth > 0)).astype(np.uint8)
    names = {str(index): name for name, index in REGION_CLASSES.items() if index}
    like = phantoms.volume(predicted)
    write_nifti(tmp_path / SPINE, predicted, like, {"labels": names})

    result = score(tmp_path / SPINE, write(tmp_path / VERT, truth))

    assert dices(result) == {"thoracic": 1.0, "lumbar": 1.0}
    assert codes(result) == ["compared_regions"]


def test_regions_need_vertebrae(tmp_path: Path) -> None:
    predicted = (two_vertebrae() > 0).astype(np.uint8)
    names = {str(index): name for name, index in REGION_CLASSES.items() if index}
    write_nifti(
        tmp_path / SPINE, predicted * 3, phantoms.volume(predicted), {"labels": names}
    )

    result = score(tmp_path / SPINE, write(tmp_path / VERT, two_vertebrae() + 30))

    assert result.error is not None
    assert result.error.message.startswith("the truth has labels that are no vertebra")


def test_ids_of_other_schemes_get_no_vertebra_s_name(tmp_path: Path) -> None:
    truth = write(tmp_path / "a_seg-subreg_msk.nii.gz", two_vertebrae())

    assert list(dices(score(truth, truth))) == ["label 20", "label 21"]


def test_a_missing_prediction_scores_zero(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    other = write(tmp_path / "b_seg-vert_msk.nii.gz", two_vertebrae())

    lost, whole = evaluate([Pair("a", truth), Pair("b", truth, other)])

    assert lost.status == "done"
    assert dices(lost) == {"L1": 0.0, "L2": 0.0}
    assert [row["present"] for row in lost.details["labels"]] == ["truth", "truth"]
    assert lost.details["labels"][0]["accuracy"] == pytest.approx(1 - 8 / 210)
    assert codes(lost) == ["missing_prediction"]
    assert dices(whole) == {"L1": 1.0, "L2": 1.0}


def test_a_missing_spine_mask_is_scored_like_the_others(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    mask = write(tmp_path / SPINE, (two_vertebrae() > 0).astype(np.uint8))

    lost, whole = evaluate([Pair("b", truth), Pair("a", truth, mask)])

    assert (dices(lost), dices(whole)) == ({"spine": 0.0}, {"spine": 1.0})


@pytest.mark.parametrize("binary", [True, False])
def test_two_empty_maps_are_not_scored_and_that_is_said(
    tmp_path: Path, binary: bool
) -> None:
    empty = write(tmp_path / VERT, np.zeros(phantoms.SHAPE, np.uint8))

    result = score(empty, empty, binary=binary)

    assert result.status == "done"
    assert result.details["labels"] == []
    assert codes(result) == ["empty"]


@pytest.mark.parametrize(
    ("shape", "axes", "spacing_mm", "match"),
    [
        ((7, 6, 4), "RAS", (0.7, 1.1, 2.5), "7 x 6 x 4 voxels and 7 x 6 x 5 voxels"),
        ((7, 6, 5), "LAS", (0.7, 1.1, 2.5), "LAS axes and RAS axes"),
        ((7, 6, 5), "RAS", (0.7, 1.1, 2.0), "1.1 x 2 mm and 0.7 x 1.1 x 2.5 mm"),
    ],
)
def test_other_grids_are_refused_with_the_difference(
    tmp_path: Path,
    shape: tuple[int, int, int],
    axes: str,
    spacing_mm: tuple[float, float, float],
    match: str,
) -> None:
    other = phantoms.volume(np.ones(shape, np.uint8), axes, spacing_mm)

    result = score(
        phantoms.write_nifti(tmp_path / "a.nii.gz", other),
        write(tmp_path / VERT, two_vertebrae()),
    )

    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "mask"
    assert match in result.error.message


def test_a_shifted_grid_is_refused_with_the_distance(tmp_path: Path) -> None:
    moved = phantoms.volume(two_vertebrae())
    moved.grid.affine[2, 3] += 2.5

    result = score(
        phantoms.write_nifti(tmp_path / "a.nii.gz", moved),
        write(tmp_path / VERT, two_vertebrae()),
    )

    assert result.error is not None
    assert "corners lie 2.50 mm apart" in result.error.message


def test_a_bad_case_does_not_stop_the_others(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")

    results = list(evaluate([Pair("a", truth, broken), Pair("b", truth, truth)]))

    assert [result.status for result in results] == ["failed", "done"]
    assert results[0].error is not None
    assert results[0].error.code == "unreadable"


def test_the_report_is_the_same_every_time(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    for folder in ("one", "two"):
        write_report(tmp_path / folder, [score(truth, truth)])

    for name in ("evaluation.csv", "evaluation.json"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    record = json.loads((tmp_path / "one/evaluation.json").read_text())
    assert record["cohort"]["dice"]["mean"] == 1.0
    assert [row["name"] for row in record["by_label"]] == ["L1", "L2"]
    with (tmp_path / "one/evaluation.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["L1", "L2"]


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot write"):
        write_report(tmp_path / "file", [])
