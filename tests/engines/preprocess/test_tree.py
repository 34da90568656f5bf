"""A tree is prepared case by case: resumed, split, and never stopped by one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from engines.errors import SettingsError
from engines.preprocess import recipe
from engines.preprocess.tree import PrepareRun, PrepareSettings, prepare_tree
from engines.results import CaseResult
from engines.volume import Volume, read_mask
from tests import phantoms

SETTINGS = PrepareSettings(recipe=recipe.adjusted("chasppra-2023", size=32))


def add(folder: Path, name: str, ending: str = "_ct", ids: int = 20) -> Path:
    """Write a scan ``name`` and its mask of vertebrae into ``folder``."""
    scan = phantoms.volume(phantoms.ct_values(), "LPS", (4, 5, 6))
    mask = scan.with_voxels(phantoms.spine().astype(np.uint8) * ids)
    phantoms.write_nifti(folder / f"{name}_seg-vert_msk.nii.gz", mask)
    return phantoms.write_nifti(folder / f"{name}{ending}.nii.gz", scan)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in ü"
    add(folder, "sub-1_ses-1")
    add(folder, "sub-1_ses-2")
    add(folder / "deep er", "sub-2")
    return folder


def run(source: Path, output: Path, settings: PrepareSettings) -> dict[str, CaseResult]:
    return {case.name: case for case in prepare_tree(source, output, settings)}


def files(output: Path) -> dict[str, bytes]:
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }


def test_output_is_a_data_folder_again(source: Path, tmp_path: Path) -> None:
    results = run(source, tmp_path / "out", SETTINGS)

    assert {case.status for case in results.values()} == {"done"}
    assert set(files(tmp_path / "out")) == {
        *("sub-1_ses-1_ct.nii.gz", "sub-1_ses-1_seg-vert_msk.nii.gz"),
        *("sub-1_ses-2_ct.nii.gz", "sub-1_ses-2_seg-vert_msk.nii.gz"),
        *("deep er/sub-2_ct.nii.gz", "deep er/sub-2_seg-vert_msk.nii.gz"),
        *("preprocess.json", "preprocess.csv"),
    }
    scan = Volume.read(tmp_path / "out" / "deep er" / "sub-2_ct.nii.gz")
    mask = read_mask(tmp_path / "out" / "deep er" / "sub-2_seg-vert_msk.nii.gz")
    assert scan.grid.matches(mask.grid)
    assert scan.grid.shape == (32, 32, 16)
    assert set(np.unique(mask.voxels)) == {0, 20}
    assert nib.load(tmp_path / "out" / "sub-1_ses-1_ct.nii.gz").header["sform_code"] > 0


def test_same_bytes_each_time(source: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, split="80/20", seed=7)
    run(source, tmp_path / "one", settings)
    run(source, tmp_path / "two", settings)

    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    for name in set(one) - {"preprocess.json", "preprocess.csv"}:  # they hold seconds
        assert one[name] == two[name], name


def test_record_tells_what_was_done_to_each_scan(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", SETTINGS)

    record = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert record["settings"]["recipe"]["normalisation"] == "minus-one-one"
    assert len(record["cases"]) == 3
    for case in record["cases"]:
        assert case["prepared"]["axes"] == {"from": "LPS", "to": "RAS"}
        assert case["prepared"]["masks"] == ["vert"]
        assert len(case["made_from"]["input_sha256"]) == 64


def test_second_run_skips_everything(source: Path, tmp_path: Path) -> None:
    first = run(source, tmp_path / "out", SETTINGS)
    before = files(tmp_path / "out")
    second = run(source, tmp_path / "out", SETTINGS)

    assert {case.status for case in second.values()} == {"skipped"}
    assert {c.name: c.outputs for c in second.values()} == {
        c.name: c.outputs for c in first.values()
    }
    after = files(tmp_path / "out")
    assert {k: v for k, v in after.items() if k.endswith("gz")} == {
        k: v for k, v in before.items() if k.endswith("gz")
    }


def _change_scan(source: Path, output: Path) -> PrepareSettings:
    path = source / "deep er" / "sub-2_ct.nii.gz"
    scan = Volume.read(path)
    phantoms.write_nifti(path, scan.with_voxels(scan.voxels + np.int16(1)))
    return SETTINGS


def _change_mask(source: Path, output: Path) -> PrepareSettings:
    add(source / "deep er", "sub-2", ids=21)
    return SETTINGS


def _lose_output(source: Path, output: Path) -> PrepareSettings:
    (output / "deep er" / "sub-2_seg-vert_msk.nii.gz").unlink()
    return SETTINGS


@pytest.mark.parametrize("change", [_change_scan, _change_mask, _lose_output])
def test_only_the_changed_case_is_redone(
    source: Path, tmp_path: Path, change: Any
) -> None:
    run(source, tmp_path / "out", SETTINGS)
    second = run(source, tmp_path / "out", change(source, tmp_path / "out"))

    done = [name for name, case in second.items() if case.status == "done"]
    assert done == ["deep er/sub-2_ct"]


@pytest.mark.parametrize(
    "settings",
    [
        PrepareSettings(recipe=recipe.adjusted("chasppra-2023", size=24)),
        replace(SETTINGS, classes="regions"),
        replace(SETTINGS, slices="central"),
        replace(SETTINGS, overwrite=True),
    ],
)
def test_other_settings_redo_all(
    source: Path, tmp_path: Path, settings: PrepareSettings
) -> None:
    run(source, tmp_path / "out", SETTINGS)
    second = run(source, tmp_path / "out", settings)

    assert {case.status for case in second.values()} == {"done"}


def test_bad_cases_stop_nobody(source: Path, tmp_path: Path) -> None:
    (source / "text_ct.nii.gz").write_bytes(b"notes")
    add(source, "alien", ids=99)
    shifted = phantoms.volume(phantoms.spine().astype(np.uint8))
    phantoms.write_nifti(source / "shifted_seg-vert_msk.nii.gz", shifted)
    shutil.copy(source / "alien_ct.nii.gz", source / "shifted_ct.nii.gz")
    add(source, "twice", "_ct")
    add(source, "twice", "_mr")
    results = run(source, tmp_path / "out", replace(SETTINGS, classes="spine"))

    codes = {name: case.error.code for name, case in results.items() if case.error}
    assert codes == {
        "text_ct": "unreadable",
        "alien_ct": "mask",
        "shifted_ct": "mask",
        "twice_ct": "name_clash",
        "twice_mr": "name_clash",
    }
    assert sum(case.status == "done" for case in results.values()) == 3
    assert "shifted_seg-vert_msk.nii.gz: " in results["shifted_ct"].error.message
    left = [name for name in files(tmp_path / "out") if "alien" in name]
    assert left == []


def test_values_that_are_no_ct_are_noted(tmp_path: Path) -> None:
    bright = phantoms.volume(phantoms.ct_values().clip(min=0), "LPS", (4, 5, 6))
    phantoms.write_nifti(tmp_path / "in" / "a_ct.nii.gz", bright)

    (case,) = run(tmp_path / "in", tmp_path / "out", SETTINGS).values()
    assert case.status == "done"
    assert [note.code for note in case.warnings] == ["modality"]


def test_split_keeps_subjects_together(source: Path, tmp_path: Path) -> None:
    for number in range(3, 9):
        add(source, f"sub-{number}")
    settings = replace(SETTINGS, split="80/10/10", seed=5)
    run(source, tmp_path / "out", settings)

    record = json.loads((tmp_path / "out" / "split.json").read_text())
    assert record["seed"] == 5
    assert record["fractions"] == [0.8, 0.1, 0.1]
    parts = [record[part] for part in ("train", "val", "test")]
    assert [len({name.split("_")[0] for name in part}) for part in parts] == [6, 1, 1]
    assert sum(len(part) for part in parts) == 9
    assert any({"sub-1_ses-1", "sub-1_ses-2"} <= set(part) for part in parts)


def test_arrays_of_the_central_slice(source: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, slices="central", format="npz", classes="binary")
    results = run(source, tmp_path / "out", settings)

    assert {case.status for case in results.values()} == {"done"}
    with np.load(tmp_path / "out" / "sub-1_ses-1_ct.npz") as read:
        assert read["image"].shape == read["mask"].shape == (1, 32, 16)
        assert read["image"].dtype == np.float16
        assert set(np.unique(read["mask"])) == {0, 1}


def test_central_slice_as_a_volume_lies_on_the_spine(
    source: Path, tmp_path: Path
) -> None:
    run(source, tmp_path / "out", replace(SETTINGS, slices="central"))
    cut = Volume.read(tmp_path / "out" / "sub-1_ses-1_ct.nii.gz")
    whole = Volume.read(source / "sub-1_ses-1_seg-vert_msk.nii.gz")

    assert cut.grid.shape == (1, 32, 16)
    marked = np.argwhere(whole.voxels).mean(axis=0)
    spine_mm = whole.grid.affine[:3, :3] @ marked + whole.grid.affine[:3, 3]
    assert abs(cut.grid.affine[0, 3] - spine_mm[0]) < 4


def test_dicom_is_prepared_too(tmp_path: Path) -> None:
    scan = phantoms.volume(phantoms.ct_values(), "LPS", (4, 5, 6))
    phantoms.write_dicom(tmp_path / "in" / "p1" / "series", scan)

    (case,) = run(tmp_path / "in", tmp_path / "out", SETTINGS).values()
    assert case.name == "p1/series"
    assert (tmp_path / "out" / "p1" / "series_ct.nii.gz").is_file()


def test_interrupted_run_goes_on_where_it_stopped(source: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, threads=1)
    first = next(prepare_tree(source, tmp_path / "out", settings))
    second = run(source, tmp_path / "out", settings)

    assert first.status == "done"
    assert second[first.name].status == "skipped"
    assert all(case.status in ("done", "skipped") for case in second.values())
    assert (tmp_path / "out" / "deep er" / "sub-2_ct.nii.gz").is_file()


def test_originals_are_never_overwritten(source: Path) -> None:
    before = files(source)

    for output in (source, source / "..", source / "deep er" / ".."):
        with pytest.raises(SettingsError, match="holds the originals"):
            PrepareRun(source, output, SETTINGS)
    assert files(source) == before


def test_output_below_the_input_is_not_searched(source: Path) -> None:
    run(source, source / "out", SETTINGS)
    second = run(source, source / "out", SETTINGS)

    assert len(second) == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"slices": "some"}, "--slices cannot be 'some'"),
        ({"format": "png"}, "--format cannot be 'png'"),
        ({"split": "1/2"}, "no split is called '1/2'"),
        ({"classes": "x"}, "no set of classes is called 'x'"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, str], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        replace(SETTINGS, **change)
