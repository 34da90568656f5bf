"""Files in, scores out: policies for what is missing, empty or does not fit."""

import csv
import json
import math
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import OutputError, SettingsError
from engines.geometry import Grid
from engines.labels import REGION_CLASSES
from engines.metrics.evaluate import (
    EvaluateSettings,
    centres_beside,
    evaluate,
    plain,
    report,
    write_report,
)
from engines.metrics.maps import Compared, MapSettings
from engines.metrics.pairs import Pair
from engines.results import CaseResult
from engines.volume import Volume, write_nifti
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


def score(
    prediction: Path | None,
    truth: Path,
    *,
    tolerance: float = 1.0,
    slices: bool = False,
    **maps: Any,
) -> CaseResult:
    settings = EvaluateSettings(
        maps=MapSettings(**maps), tolerance=tolerance, slices=slices
    )
    (result,) = evaluate([Pair("a", truth, prediction)], settings)
    return result


def label(result: CaseResult, name: str) -> dict[str, Any]:
    (row,) = [row for row in result.details["labels"] if row["name"] == name]
    return dict(row)


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
    assert "missing_prediction" in codes(lost)
    assert {row["hd_mm"] for row in lost.details["labels"]} == {math.inf}
    assert {row["nsd"] for row in lost.details["labels"]} == {0}
    assert dices(whole) == {"L1": 1.0, "L2": 1.0}


def test_predictions_that_are_all_missing_still_miss_every_vertebra(
    tmp_path: Path,
) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())

    (lost,) = evaluate([Pair("a", truth)])

    assert dices(lost) == {"L1": 0.0, "L2": 0.0}


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

    for name in ("evaluation.csv", "evaluation.json", "summary.json"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    record = json.loads((tmp_path / "one/evaluation.json").read_text())
    assert "seconds" not in record["cases"][0]
    assert record["cohort"]["dice"]["mean"] == 1.0
    assert [row["name"] for row in record["by_label"]] == ["L1", "L2"]
    with (tmp_path / "one/evaluation.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["L1", "L2"]


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot write"):
        write_report(tmp_path / "file", [])


def ctd(path: Path, axes: str, **points: Sequence[float]) -> Path:
    """Write centroids as VerSe does; a point lN counts along ``axes``."""
    rows = [
        {"label": int(name[1:]), **dict(zip("XYZ", point, strict=True))}
        for name, point in points.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"direction": list(axes)}, *rows]))
    return path


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_a_tolerance_is_a_distance(tolerance: float) -> None:
    with pytest.raises(SettingsError, match="0 or more is needed"):
        EvaluateSettings(tolerance=tolerance)


def test_the_tolerance_decides_what_agrees(tmp_path: Path) -> None:
    predicted = np.roll(two_vertebrae(), 1, 0)  # 0.7 mm to the right
    paths = (
        write(tmp_path / "a.nii.gz", predicted),
        write(tmp_path / VERT, two_vertebrae()),
    )

    told = [label(score(*paths, tolerance=mm), "L1")["nsd"] for mm in (0, 0.5, 0.8)]

    assert 0 < told[0] == told[1] < told[2] == 1


def test_a_label_that_only_the_prediction_has_counts_as_wrong(tmp_path: Path) -> None:
    predicted = two_vertebrae()
    predicted[5, 5, 4] = 24

    result = score(
        write(tmp_path / "a.nii.gz", predicted), write(tmp_path / VERT, two_vertebrae())
    )

    invented = label(result, "L5")
    assert (invented["present"], invented["dice"]) == ("prediction", 0)
    assert (invented["hd95_mm"], invented["assd_mm"]) == (math.inf, math.inf)
    assert result.details["instances"]["invented"] == [24]
    assert result.details["identification"]["vertebrae"] == 2


def test_volumes_are_in_millilitres(tmp_path: Path) -> None:
    predicted = np.where(two_vertebrae() == L1, 0, two_vertebrae())

    result = score(
        write(tmp_path / "a.nii.gz", predicted), write(tmp_path / VERT, two_vertebrae())
    )

    wanted = -8 * 0.7 * 1.1 * 2.5 / 1000
    assert label(result, "L1")["volume_difference_ml"] == pytest.approx(wanted)
    assert label(result, "L2")["volume_difference_ml"] == 0


def test_regions_of_vertebrae_are_told(tmp_path: Path) -> None:
    voxels = np.where(two_vertebrae() == L2, 7, two_vertebrae()).astype(np.uint8)
    voxels[6, 5, 4] = 99
    truth = write(tmp_path / VERT, voxels)

    rows = score(truth, truth).details["labels"]

    assert [(row["name"], row.get("region")) for row in rows] == [
        ("C7", "cervical"),
        ("L1", "lumbar"),
        ("label 99", None),
    ]


def test_the_mean_iou_has_the_background_as_nnunet_does_not(tmp_path: Path) -> None:
    predicted = np.where(two_vertebrae() == L1, 0, two_vertebrae())

    result = score(
        write(tmp_path / "a.nii.gz", predicted), write(tmp_path / VERT, two_vertebrae())
    )

    assert result.details["miou"] == pytest.approx((0 + 1 + 190 / 198) / 3)


def test_a_perfect_map_without_background_has_a_perfect_mean_iou(
    tmp_path: Path,
) -> None:
    full = write(tmp_path / VERT, np.full(phantoms.SHAPE, L1, np.uint8))

    assert score(full, full).details["miou"] == 1


def test_fractions_are_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    floats = two_vertebrae() + np.float32(0.5)

    result = score(
        write(tmp_path / "a.nii.gz", floats), write(tmp_path / VERT, two_vertebrae())
    )

    assert result.error is not None
    assert result.error.message.startswith(
        "the prediction cannot be used: a.nii.gz: a label map with fractions"
    )
    assert "voxels, as 0.5" in result.error.message


def slices() -> tuple[Any, Any]:
    """Return maps of L1 in two sagittal slices: one right, one moved by two pixels."""
    truth = np.zeros(phantoms.SHAPE, np.uint8)
    truth[2:4, 1:3, 1:3] = L1
    predicted = truth.copy()
    predicted[3] = np.roll(truth[3], 2, 0)
    return predicted, truth


def test_slices_are_scored_in_pixels_and_averaged(tmp_path: Path) -> None:
    predicted, truth = slices()

    result = score(
        write(tmp_path / "a.nii.gz", predicted),
        write(tmp_path / VERT, truth),
        slices=True,
    )

    row = label(result, "L1")
    assert row["dice"] == pytest.approx((1 + 0) / 2)
    assert row["hd_px"] == pytest.approx((0 + 2) / 2)
    assert row["area_difference_px"] == 0
    assert not [name for name in row if name.endswith("_mm")]


def test_accuracy_of_a_slice_counts_the_whole_slice(tmp_path: Path) -> None:
    predicted, truth = slices()

    result = score(
        write(tmp_path / "a.nii.gz", predicted),
        write(tmp_path / VERT, truth),
        slices=True,
    )

    row = label(result, "L1")
    assert row["accuracy"] == pytest.approx((1 + 22 / 30) / 2)
    assert row["specificity"] == pytest.approx((1 + 22 / 26) / 2)


def test_nnunet_s_counts_are_of_the_volume_with_and_without_slices(
    tmp_path: Path,
) -> None:
    predicted, truth = slices()
    paths = write(tmp_path / "a.nii.gz", predicted), write(tmp_path / VERT, truth)

    whole, sliced = (score(*paths, slices=one).details["counts"] for one in (0, 1))

    assert whole == {"20": {"both": 4, "prediction": 8, "truth": 8, "voxels": 210}}
    assert sliced == whole


def test_slices_are_sagittal_whatever_the_axes(tmp_path: Path) -> None:
    predicted, truth = slices()
    told = []
    for number, order in enumerate([(0, 1, 2), (1, 0, 2), (2, 1, 0)]):
        axes = "".join("RAS"[axis] for axis in order)
        paths = [
            write(tmp_path / f"{number}{name}", one.transpose(order), axes)
            for name, one in (("a.nii.gz", predicted), (VERT, truth))
        ]
        row = label(score(paths[0], paths[1], slices=True), "L1")
        told.append({name: row[name] for name in ("dice", "hd_px", "assd_px", "nsd")})

    assert told[0] == pytest.approx(told[1])
    assert told[0] == pytest.approx(told[2])


def test_slices_with_a_label_on_one_side_are_infinite_and_told(tmp_path: Path) -> None:
    predicted, truth = slices()
    predicted[3] = 0

    result = score(
        write(tmp_path / "a.nii.gz", predicted),
        write(tmp_path / VERT, truth),
        slices=True,
    )

    assert label(result, "L1")["hd_px"] == math.inf
    assert label(result, "L1")["dice"] == 0.5
    (note,) = result.warnings
    assert note.message.startswith("1 slice(s) have a label on one side only")


def test_centres_of_mass_tell_who_is_who_without_files(tmp_path: Path) -> None:
    predicted = np.roll(two_vertebrae(), 2, 0)

    result = score(
        write(tmp_path / "a.nii.gz", predicted), write(tmp_path / VERT, two_vertebrae())
    )

    told = result.details["identification"]
    assert told["centres"] == "label maps"
    assert told["errors_mm"] == pytest.approx({"L1": 1.4, "L2": 1.4})
    assert (told["rate"], told["mean_error_mm"]) == (1, pytest.approx(1.4))


def verse_pair(tmp_path: Path) -> tuple[Path, Path]:
    return (
        write(tmp_path / "p" / VERT, two_vertebrae()),
        write(tmp_path / "t" / VERT, two_vertebrae()),
    )


def test_centroid_files_are_used_when_both_sides_have_one(tmp_path: Path) -> None:
    pair = verse_pair(tmp_path)
    ctd(tmp_path / "p/a_seg-subreg_ctd.json", "RAS", l20=(1, 2, 3))
    ctd(tmp_path / "t/a_seg-subreg_ctd.json", "LAS", l20=(6 - 3, 2, 3), l21=(0, 0, 0))

    told = score(*pair).details["identification"]

    assert told["centres"] == "files"
    assert told["errors_mm"] == pytest.approx({"L1": 1.4})
    assert (told["identified"], told["vertebrae"]) == (1, 2)


@pytest.mark.parametrize("side", ["p", "t"])
def test_a_centroid_file_on_one_side_is_not_used(tmp_path: Path, side: str) -> None:
    pair = verse_pair(tmp_path)
    ctd(tmp_path / side / "a_seg-subreg_ctd.json", "RAS", l20=(1, 2, 3))

    assert score(*pair).details["identification"]["centres"] == "label maps"


def test_a_broken_centroid_file_is_told(tmp_path: Path) -> None:
    pair = verse_pair(tmp_path)
    for side in "pt":
        (tmp_path / side / "a_ctd.json").write_text("{}")

    result = score(*pair)

    assert result.error is not None
    assert "a_ctd.json: not a centroid file" in result.error.message


def test_centroids_of_a_resampled_prediction_are_on_its_own_grid(
    tmp_path: Path,
) -> None:
    affine = phantoms.affine(spacing_mm=[mm / 2 for mm in phantoms.SPACING_MM])
    fine = two_vertebrae().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    i, j, k = fine.shape
    prediction = phantoms.write_nifti(
        tmp_path / "p" / VERT, Volume(fine, Grid((i, j, k), affine))
    )
    truth = write(tmp_path / "t" / VERT, two_vertebrae())
    ctd(tmp_path / "p/a_ctd.json", "RAS", l20=(2, 4, 6))
    ctd(tmp_path / "t/a_ctd.json", "RAS", l20=(1, 2, 3))

    told = score(prediction, truth, resample=True).details["identification"]

    assert told["errors_mm"] == pytest.approx({"L1": 0}, abs=1e-6)


@pytest.mark.parametrize(
    ("mask", "beside", "found"),
    [
        ("a_seg-vert_msk.nii.gz", ["a_seg-subreg_ctd.json"], "a_seg-subreg_ctd.json"),
        ("a_seg-vert_msk.nii.gz", ["a_ctd.json"], "a_ctd.json"),
        ("a_msk.nii.gz", ["a_ctd.json"], "a_ctd.json"),
        ("a.nii.gz", ["a_ctd.json"], "a_ctd.json"),
        ("a_seg-vert_msk.nii.gz", [], None),
        ("a1_seg-vert_msk.nii.gz", ["a12_ctd.json"], None),
        ("a1_seg-vert_msk.nii.gz", ["a1_ctd.json", "a12_ctd.json"], "a1_ctd.json"),
        ("a[1]_seg-vert_msk.nii.gz", ["a[1]_ctd.json"], "a[1]_ctd.json"),
        ("a_seg-vert_msk.nii.gz", ["a_dir-ax_ctd.json", "a_dir-sag_ctd.json"], None),
    ],
)
def test_centroids_are_only_ever_those_of_the_same_case(
    tmp_path: Path, mask: str, beside: list[str], found: str | None
) -> None:
    for name in (mask, *beside):
        (tmp_path / name).touch()

    path = centres_beside(tmp_path / mask)

    assert (path.name if path else None) == found


def test_a_folder_and_a_missing_prediction_have_no_centroids(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a_ctd.json").touch()

    assert centres_beside(tmp_path / "a") is None
    assert centres_beside(None) is None


def test_vertebrae_under_wrong_names_are_found_as_objects(tmp_path: Path) -> None:
    renamed = np.where(two_vertebrae() > 0, two_vertebrae() + 1, 0).astype(np.uint8)

    result = score(
        write(tmp_path / "a.nii.gz", renamed), write(tmp_path / VERT, two_vertebrae())
    )

    assert dices(result)["L1"] == 0
    assert result.details["instances"]["pq"] == 1
    assert result.details["identification"]["rate"] == 0


def test_masks_that_are_no_vertebrae_are_not_identified(tmp_path: Path) -> None:
    mask = write(tmp_path / SPINE, (two_vertebrae() > 0).astype(np.uint8))

    details = score(mask, mask).details

    assert "identification" not in details
    assert "instances" not in details
    assert report([score(mask, mask)])["identification"] is None


def test_each_case_is_seen_with_its_maps(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    seen: list[tuple[str, int]] = []
    told: list[tuple[str, str]] = []

    def look(result: CaseResult, compared: Compared) -> None:
        seen.append((result.name, int(np.count_nonzero(compared.maps.truth))))

    pairs = [Pair("a", truth, truth), Pair("b", truth, tmp_path / "none.nii")]
    list(evaluate(pairs, told=lambda *stage: told.append(stage), seen=look))

    assert seen == [("a", 20)]
    assert told == [("a", "score"), ("b", "score")]


def test_infinite_numbers_are_text_in_the_files(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    predicted = np.where(two_vertebrae() == L1, 0, two_vertebrae())
    partly = score(write(tmp_path / "p.nii.gz", predicted), truth)

    write_report(tmp_path / "out", [partly])

    text = (tmp_path / "out/evaluation.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    record = json.loads(text)
    assert record["cases"][0]["labels"][0]["hd_mm"] == "inf"
    assert record["cohort"]["hd_mm"]["mean"] == "inf"
    assert record["cohort"]["hd_mm"]["infinite"] == 1
    assert record["by_label"][1]["hd_mm"]["mean"] == 0
    with (tmp_path / "out/evaluation.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["hd_mm"] == "inf"


def test_plain_keeps_everything_finite() -> None:
    record = {"a": [1, 2.5, -math.inf, ("x", math.inf)], "b": None, "c": {"d": True}}

    assert plain(record) == {
        "a": [1, 2.5, "-inf", ["x", "inf"]],
        "b": None,
        "c": {"d": True},
    }


def test_a_failed_case_is_in_every_file_but_nnunet_s(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    cases = list(
        evaluate(
            [Pair("a", truth, tmp_path / "broken.nii.gz"), Pair("b", truth, truth)]
        )
    )

    write_report(tmp_path / "out", cases)

    record = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert [case["status"] for case in record["cases"]] == ["failed", "done"]
    assert record["cohort"]["dice"]["n"] == 1
    with (tmp_path / "out/evaluation.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["error"].startswith(
            "the prediction cannot be used: broken.nii.gz"
        )
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    (row,) = summary["metric_per_case"]
    assert row["reference_file"] == str(truth)


def test_the_settings_are_in_the_record(tmp_path: Path) -> None:
    settings = EvaluateSettings(
        maps=MapSettings(scheme="spider"), tolerance=2.0, slices=True
    )

    write_report(tmp_path, [], settings)

    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["settings"]["maps"]["scheme"] == "spider"
    assert (record["settings"]["tolerance"], record["settings"]["slices"]) == (2, True)


def test_memory_stays_flat_and_time_grows_with_the_cases(tmp_path: Path) -> None:
    truth = write(tmp_path / VERT, two_vertebrae())
    pairs = [Pair(str(number), truth, truth) for number in range(120)]
    for _ in evaluate(pairs[:5]):
        pass  # what is imported and cached once is not counted

    few, many = (_cost(pairs[:count]) for count in (30, 120))

    assert many[1] < few[1] + 100_000
    assert many[0] < 12 * few[0]


def _cost(pairs: Sequence[Pair]) -> tuple[float, int]:
    """Return seconds and peak bytes of scoring, each record dropped when it comes."""
    started = time.perf_counter()
    tracemalloc.start()
    try:
        for _ in evaluate(pairs):
            pass
        return time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("unit", "factor", "code"),
    [("micron", 1000, "unit"), ("meter", 0.001, "unit"), ("micron", 1, "unit")],
)
def test_distances_are_in_mm_whatever_the_unit_of_the_header(
    tmp_path: Path, unit: str, factor: float, code: str
) -> None:
    voxels = np.zeros((40, 40, 40), np.uint8)
    voxels[10:20, 10:20, 10:20] = L1
    affine = np.diag([1.5 * factor, 1.5 * factor, 1.5 * factor, 1])
    for name, held in (("p", np.roll(voxels, 1, 0)), ("t", voxels)):
        image = nib.Nifti1Image(held, affine)
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / f"{name}.nii.gz")

    result = score(tmp_path / "p.nii.gz", tmp_path / "t.nii.gz")

    assert result.details["labels"][0]["hd95_mm"] == pytest.approx(1.5)
    told = [note.message for note in result.warnings if note.code == code]
    assert [text.split(":")[0] for text in told] == ["the truth", "the prediction"]
