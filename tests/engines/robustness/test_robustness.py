"""A run over scans: what is scored, what is left out, what is written."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import NotFoundError, SettingsError, UnknownModelError
from engines.robustness.robustness import RobustnessRun, RobustnessSettings
from engines.volume import Volume
from tests import phantoms

DATA = Path(__file__).parents[2] / "data"
SHAPE = (40, 40, 24)
SPACING_MM = (2.5, 2.5, 2.5)


def bright(run: RobustnessRun, scan: Volume) -> Any:
    """Stand in for the network: whatever is brighter than 250 HU is spine."""
    del run
    return (scan.voxels > 250).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return scans, whose bone is brighter than all else, and their truth."""
    monkeypatch.setattr(RobustnessRun, "_labelled", bright)
    labels = phantoms.spine(SHAPE) * np.repeat([20, 21, 22], 8).astype(np.uint8)
    for name, axes in (("a", "RAS"), ("b", "PIR")):
        scan = phantoms.volume(phantoms.ct_values(SHAPE), axes, SPACING_MM)
        phantoms.write_nifti(tmp_path / f"scans/{name}_ct.nii.gz", scan)
        path = tmp_path / f"truth/{name}_seg-vert_msk.nii.gz"
        phantoms.write_nifti(path, scan.with_voxels(labels))
    return tmp_path / "scans", tmp_path / "truth"


def run(folders: tuple[Path, Path], *only: str, **more: Any) -> RobustnessRun:
    output = more.pop("output", None)
    settings = RobustnessSettings(only=only, **more)
    work = RobustnessRun(*folders, settings, output)
    list(work.results())
    return work


def cases(work: RobustnessRun) -> list[dict[str, Any]]:
    """Return what the record says of each scan."""
    return list(work.record()["cases"])


def test_a_row_for_each_alteration_over_all_scans(folders: tuple[Path, Path]) -> None:
    work = run(folders, "noise", "orientation")

    noise, *orientations = work.rows
    assert (noise["alteration"], noise["scans"]) == ("noise-60hu", 2)
    assert noise["worst"] <= noise["dice"] < noise["unaltered"] == 1
    assert noise["fall"] == pytest.approx(1 - noise["dice"], abs=1e-9)
    assert len(orientations) == 6
    assert all(row["identical"] and row["fall"] == 0 for row in orientations)


def test_a_mask_that_depends_on_the_axes_is_told(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_half(run: RobustnessRun, scan: Volume) -> Any:
        found = bright(run, scan)
        found[: len(found) // 2] = 0
        return found

    monkeypatch.setattr(RobustnessRun, "_labelled", first_half)

    told = {
        row["alteration"]: row["identical"] for row in run(folders, "orientation").rows
    }

    assert not told["orientation-LPS"]


def test_a_fall_beyond_the_limit_is_told(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind_to_metal(run: RobustnessRun, scan: Volume) -> Any:
        found = bright(run, scan)
        return found if scan.voxels.max() < 2000 else np.zeros_like(found)

    monkeypatch.setattr(RobustnessRun, "_labelled", blind_to_metal)

    rows = run(folders, "metal-screws", "kernel-soft").rows

    assert {row["alteration"]: row["exceeds"] for row in rows}["metal-screws"] is True
    assert next(row for row in rows if row["kind"] == "metal")["dice"] == 0


def test_a_change_of_grid_costs_nothing_by_itself(folders: tuple[Path, Path]) -> None:
    for row in run(folders, "field", "spacing-2mm").rows:
        assert row["unaltered"] == 1
        assert row["fall"] < 0.2, row["alteration"]


def test_the_ends_of_the_truth_may_be_left_out(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def middle(run: RobustnessRun, scan: Volume) -> Any:
        found = bright(run, scan)
        found[..., :8] = found[..., 16:] = 0
        return found

    monkeypatch.setattr(RobustnessRun, "_labelled", middle)

    whole = run(folders, "kernel-soft").rows[0]["unaltered"]
    inner = run(folders, "kernel-soft", inner=True).rows[0]["unaltered"]

    assert whole == pytest.approx(0.5)
    assert inner == 1


def test_what_makes_no_sense_is_left_out_and_told(folders: tuple[Path, Path]) -> None:
    assert cases(run(folders, "field"))[0]["warnings"] == []
    affine = phantoms.affine("RAS", (1.0, 1.0, 4.5))
    for path in (folders[0] / "a_ct.nii.gz", folders[1] / "a_seg-vert_msk.nii.gz"):
        held = Volume.read(path)
        small = replace(held, grid=replace(held.grid, affine=affine))
        phantoms.write_nifti(path, small)

    work = run(folders, "field", "slices")

    assert [row["scans"] for row in work.rows] == [1, 1, 1]
    case = cases(work)[0]
    assert case["status"] == "done"
    assert "field-box: its field of view" in case["warnings"][0]["message"]
    assert case["alterations"][2]["skipped"] == "its slices are 4.5 mm thick already"


def test_a_scan_without_truth_fails_alone(folders: tuple[Path, Path]) -> None:
    (folders[1] / "b_seg-vert_msk.nii.gz").unlink()

    work = run(folders, "kernel-soft")

    done, failed = cases(work)
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert failed["error"]["code"] == "not_found"
    assert work.rows[0]["scans"] == 1


def test_a_truth_on_another_grid_fails_alone(folders: tuple[Path, Path]) -> None:
    other = phantoms.volume(np.ones(phantoms.SHAPE, np.uint8))
    phantoms.write_nifti(folders[1] / "b_seg-vert_msk.nii.gz", other)

    failed = cases(run(folders, "kernel-soft"))[1]

    assert failed["error"]["code"] == "mask"


def test_nothing_that_fits_is_refused_at_once(folders: tuple[Path, Path]) -> None:
    with pytest.raises(NotFoundError):
        RobustnessRun(folders[0], folders[0] / "none", RobustnessSettings())
    with pytest.raises(UnknownModelError):
        RobustnessRun(*folders, RobustnessSettings(model="nothing"))


def test_a_model_for_mr_is_refused(folders: tuple[Path, Path]) -> None:
    settings = RobustnessSettings(model="inception-dual-unet")
    with pytest.raises(SettingsError, match="model for MR") as refused:
        RobustnessRun(*folders, settings)
    assert "choose a model for CT" in refused.value.hint


def test_the_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    rows = run(folders, "kernel", output=out).rows

    with (out / "robustness.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["alteration"] for row in written] == ["kernel-sharp", "kernel-soft"]
    assert float(written[0]["dice"]) == rows[0]["dice"]
    record = json.loads((out / "robustness.json").read_text())
    assert len(record["cases"]) == 2
    assert record["robustness"] == rows
    assert record["model"]["name"] == "unet-r34"


@pytest.mark.usefixtures("one_thread")
def test_the_shipped_model_on_a_real_scan() -> None:
    settings = RobustnessSettings(
        only=("orientation-ILA",), inner=True, precision="float32"
    )
    scan, truth = (DATA / f"tptbox_{end}.nii.gz" for end in ("ct", "seg-vert_msk"))

    work = RobustnessRun(scan, truth, settings)
    (case,) = work.results()

    assert case.error is None
    assert case.details["dice"] == pytest.approx(0.915, abs=0.01)
    (row,) = work.rows
    assert row["identical"]
    assert row["dice"] == case.details["dice"]
