"""``spine segment`` on real crops: what comes out, and what bad input does to it."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner, Result

from engines.errors import LostDeviceError
from engines.labels import REGION_CLASSES
from engines.networks import shelf
from engines.preprocess import orient
from engines.runtimes import devices
from engines.runtimes.devices import Device
from engines.segment import compute, inference
from engines.segment import run as segment_module
from engines.volume import Volume
from spinecli.app import app
from tests import dicom_phantoms as dicom
from tests import phantoms

DATA = Path(__file__).parents[1] / "data"
CROP = DATA / "tptbox_ct.nii.gz"
MASK = "_seg-spine_msk.nii.gz"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a 36 x 47 x 36 piece of the real crop, quick to segment."""
    whole = nib.load(CROP)
    piece = whole.slicer[20:56, :, 20:56]
    path = tmp_path_factory.mktemp("small") / "piece.nii.gz"
    nib.save(piece, path)
    return path


def spine(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["segment", *map(str, arguments)])


def spine_json(*arguments: object) -> tuple[int, dict[str, Any]]:
    result = spine(*arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def no_leftovers(folder: Path) -> bool:
    return not [p for p in folder.rglob("*") if p.name.startswith(".spine-part")]


def test_mask_lies_on_the_scan_s_own_grid(small: Path, tmp_path: Path) -> None:
    status, record = spine_json(small, "-o", tmp_path / "out")
    assert status == 0
    (case,) = record["cases"]
    mask = nib.load(case["outputs"]["spine"])
    scan = nib.load(small)
    assert mask.shape == scan.shape
    np.testing.assert_array_equal(mask.affine, scan.affine)
    for code in ("qform_code", "sform_code", "pixdim", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[code], scan.header[code])
    voxels = np.asarray(mask.dataobj)
    assert voxels.dtype == np.uint8
    assert set(np.unique(voxels)) == {0, REGION_CLASSES["lumbar"]}


def test_shipped_model_finds_the_spine_of_a_real_scan(tmp_path: Path) -> None:
    status, record = spine_json(CROP, "-o", tmp_path / "out")
    assert status == 0
    found = Volume.read(Path(record["cases"][0]["outputs"]["spine"])).voxels > 0
    truth = Volume.read(DATA / "tptbox_seg-vert_msk.nii.gz").voxels > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_json_keeps_the_contract(small: Path, tmp_path: Path) -> None:
    _, record = spine_json(small, "-o", tmp_path / "out")
    assert {
        "command", "version", "status", "exit_status", "warnings", "error",
        "cases", "model", "backend", "device", "precision", "gate",
    } <= set(record)  # fmt: skip
    assert set(record["model"]) == {"name", "sha256"}
    (case,) = record["cases"]
    assert {
        "name", "input", "status", "outputs", "seconds", "warnings", "error",
    } <= set(case)  # fmt: skip
    assert {"read", "network", "segment", "label", "write"} <= set(case["seconds"])


def test_page_and_table_hold_what_other_jobs_put_into_the_folder(
    small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert spine(small, "-o", out).exit_code == 0
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    assert spine(tmp_path / "broken.nii.gz", "-o", out).exit_code == 1
    page = (out / "index.html").read_text()
    assert "piece/piece_preview.png" in page
    assert "broken" in page
    assert "piece" in (out / "spine-run.csv").read_text()


def test_output_folder_holds_what_the_design_says(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert spine(small, "-o", out).exit_code == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        "index.html",
        "piece/piece_preview.png",
        f"piece/piece{MASK}",
        "spine-run.csv",
        "spine-run.json",
    ]
    header = Volume.read(out / "piece" / f"piece{MASK}").provenance
    run = json.loads((out / "spine-run.json").read_text())
    assert header["model"]["sha256"] == run["model"]["sha256"]
    regions = ("cervical", "thoracic", "lumbar", "sacral")
    assert header["labels"] == {str(i): name for i, name in enumerate(regions, 1)}
    page = (out / "index.html").read_text()
    assert 'src="data:image/jpeg' in page
    assert "http:" not in page
    assert "https:" not in page


def test_same_input_same_bytes(small: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        assert spine(small, "-o", tmp_path / name).exit_code == 0
        folder = tmp_path / name / "piece"
        contents.append([p.read_bytes() for p in sorted(folder.iterdir())])
    assert contents[0] == contents[1]


def test_second_run_skips_what_is_done_and_redoes_what_changed(
    small: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in ("a", "b"):
        shutil.copy(small, scans / f"{name}.nii.gz")
    assert spine(scans, "-o", out).exit_code == 0

    def statuses(*options: object) -> dict[str, str]:
        _, record = spine_json(scans, "-o", out, *options)
        return {case["name"]: case["status"] for case in record["cases"]}

    assert statuses() == {"a": "skipped", "b": "skipped"}
    held = nib.load(small)
    other = np.asarray(held.dataobj)[::-1].copy()
    nib.save(nib.Nifti1Image(other, held.affine), scans / "a.nii.gz")
    (out / "b" / f"b{MASK}").unlink()
    assert statuses() == {"a": "done", "b": "done"}
    assert statuses("--views", "axial") == {"a": "done", "b": "done"}
    assert statuses("--views", "axial", "--overwrite") == {"a": "done", "b": "done"}


def test_dry_run_writes_nothing(small: Path, tmp_path: Path) -> None:
    status, record = spine_json(small, "-o", tmp_path / "out", "--dry-run")
    assert status == 0
    assert record["dry_run"] is True
    assert record["cases"][0]["planned"] == "segment"
    assert not (tmp_path / "out").exists()


def test_dry_run_tells_what_is_done_from_what_would_be(
    small: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    shutil.copy(small, scans / "a.nii.gz")
    assert spine(scans, "-o", out).exit_code == 0
    shutil.copy(small, scans / "b.nii.gz")
    (scans / "c.nii.gz").write_bytes(b"no scan")
    told = spine(scans, "-o", out, "--dry-run").stderr
    assert "a: done already" in told
    assert "b: would segment" in told
    assert "1 done already" in told
    assert "skipped" not in told
    _, record = spine_json(scans, "-o", out, "--dry-run")
    planned = {case["name"]: case.get("planned") for case in record["cases"]}
    assert (planned["a"], planned["b"]) == ("skip", "segment")


def test_views_that_the_model_for_mr_has_not_are_named(tmp_path: Path) -> None:
    """There is a model for MR, which knows other views than those asked for."""
    values = np.random.default_rng(0).gamma(2.0, 120.0, (24, 24, 24))
    image = nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    nib.save(image, tmp_path / "a_mr.nii.gz")
    status, record = spine_json(
        tmp_path / "a_mr.nii.gz", "-o", tmp_path / "out", "--views", "axial"
    )
    assert status == 1
    error = record["cases"][0]["error"]
    assert error["message"] == ("inception-dual-unet was not trained on axial slices")
    assert error["hint"] == "It knows: sagittal, coronal. Or leave --views out."


def test_include_and_exclude_choose_cases(small: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        shutil.copy(small, tmp_path / f"{name}.nii.gz")
    _, record = spine_json(
        tmp_path, "-o", tmp_path / "out", "--dry-run",
        "--include", "t*", "--exclude", "three",
    )  # fmt: skip
    assert [case["name"] for case in record["cases"]] == ["two"]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_give_the_same_mask(
    suffix: str, small: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"piece{suffix}"
    sitk.WriteImage(sitk.ReadImage(str(small)), str(path))
    _, other = spine_json(path, "-o", tmp_path / "other")
    _, first = spine_json(small, "-o", tmp_path / "first")
    masks = [
        Volume.read(Path(record["cases"][0]["outputs"]["spine"]))
        for record in (other, first)
    ]
    np.testing.assert_array_equal(masks[0].voxels, masks[1].voxels)
    np.testing.assert_allclose(masks[0].grid.affine, masks[1].grid.affine, atol=1e-4)


def test_a_dicom_series_gives_the_mask_of_the_nifti_file(
    small: Path, tmp_path: Path
) -> None:
    phantoms.write_dicom(tmp_path / "series", Volume.read(small))
    exact = ("--precision", "float32")  # halves round the last digit of resampling
    _, dicom = spine_json(tmp_path / "series", "-o", tmp_path / "dicom", *exact)
    _, first = spine_json(small, "-o", tmp_path / "first", *exact)
    one, other = (
        orient.reorient(Volume.read(Path(record["cases"][0]["outputs"]["spine"])))
        for record in (dicom, first)
    )
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_allclose(one.grid.affine, other.grid.affine, atol=1e-3)


# Bad input. Each builder turns a copy of the good scan into a bad one.


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _text(path: Path) -> None:
    path.write_text("not an image at all\n" * 40)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _resaved(path: Path, change: Callable[[Any, Any], Any]) -> None:
    held = nib.load(path)
    image = change(np.asarray(held.dataobj), held.affine.copy())
    nib.save(image, path)


def _four_d(path: Path) -> None:
    _resaved(path, lambda v, a: nib.Nifti1Image(np.stack([v, v], -1), a))


def _one_slice(path: Path) -> None:
    _resaved(path, lambda v, a: nib.Nifti1Image(v[:, :1], a))


def _all_zero(path: Path) -> None:
    _resaved(path, lambda v, a: nib.Nifti1Image(np.zeros_like(v), a))


def _with_value(value: float) -> Callable[[Path], None]:
    def change(voxels: Any, affine: Any) -> Any:
        changed = voxels.astype(np.float32)
        changed[3, 4, 5] = value
        return nib.Nifti1Image(changed, affine)

    return lambda path: _resaved(path, change)


def _no_forms(path: Path) -> None:
    def change(voxels: Any, affine: Any) -> Any:
        image = nib.Nifti1Image(voxels, None)
        image.header.set_zooms((1.5, 1.5, 1.5))
        return image

    _resaved(path, change)


def _forms_disagree(path: Path) -> None:
    def change(voxels: Any, affine: Any) -> Any:
        image = nib.Nifti1Image(voxels, affine)
        other = affine.copy()
        other[2, 3] += 40
        image.set_qform(other, 1)
        return image

    _resaved(path, change)


def _sheared(path: Path) -> None:
    def change(voxels: Any, affine: Any) -> Any:
        affine[:3, 1] += 0.3 * affine[:3, 0]
        image = nib.Nifti1Image(voxels, None)
        image.set_sform(affine, 1)
        return image

    _resaved(path, change)


def _pixdim(value: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[84:88] = np.float32(value).tobytes()
        path.write_bytes(gzip.compress(content))

    return damage


def _rgb(path: Path) -> None:
    def change(voxels: Any, affine: Any) -> Any:
        kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        return nib.Nifti1Image(np.zeros(voxels.shape, kind), affine)

    _resaved(path, change)


def _complex(path: Path) -> None:
    _resaved(path, lambda v, a: nib.Nifti1Image(v.astype(np.complex64), a))


def _eight_bit(path: Path) -> None:
    def change(voxels: Any, affine: Any) -> Any:
        grey = np.clip((voxels + 200) / 4, 0, 255).astype(np.uint8)
        return nib.Nifti1Image(grey, affine)

    _resaved(path, change)


def _mr(path: Path) -> None:
    def change(voxels: Any, affine: Any) -> Any:
        signal_ = np.abs(600 - voxels.astype(np.int16)).astype(np.int16)
        return nib.Nifti1Image(signal_, affine)

    _resaved(path, change)


BAD = {
    "truncated": (_truncated, "unreadable", "piece"),
    "text": (_text, "unreadable", "not a NIfTI file"),
    "empty": (_empty, "unreadable", "0 bytes"),
    "4d": (_four_d, "unsupported", "2 frames"),
    "one-slice": (_one_slice, "unsupported", "one slice"),
    "zero": (_all_zero, "intensity", "every voxel is 0"),
    "nan": (_with_value(np.nan), "intensity", "1 of "),
    "infinite": (_with_value(np.inf), "intensity", "1 of "),
    "no-forms": (_no_forms, "geometry", "neither qform nor sform"),
    "disagree": (_forms_disagree, "geometry", "disagree"),
    "sheared": (_sheared, "geometry", "sheared by"),
    "zero-spacing": (_pixdim(0), "geometry", "must be above zero"),
    "negative-spacing": (_pixdim(-1.5), "geometry", "must be above zero"),
    "rgb": (_rgb, "unsupported", "colour"),
    "complex": (_complex, "unsupported", "complex"),
    "8-bit": (_eight_bit, "modality", "8-bit"),
    "mr": (_mr, "modality", "MR"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_scan_is_named_and_the_good_one_finished(
    kind: str, small: Path, tmp_path: Path
) -> None:
    damage, code, told = BAD[kind]
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    shutil.copy(small, scans / "good.nii.gz")
    bad = scans / "a piece.nii.gz"
    shutil.copy(small, bad)
    damage(bad)

    status, record = spine_json(scans, "-o", out, "--model", "unet-r34")

    assert status == 3
    assert record["status"] == "partial"
    cases = {case["name"]: case for case in record["cases"]}
    assert cases["good"]["status"] == "done"
    assert Path(cases["good"]["outputs"]["spine"]).is_file()
    error = cases["a piece"]["error"]
    assert error["code"] == code
    assert told in error["message"]
    assert error["hint"]
    assert not list((out / "a piece").glob("*"))
    assert no_leftovers(out)


@pytest.mark.parametrize("kind", ["8-bit", "mr"])
def test_force_goes_on_and_says_so(kind: str, small: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    shutil.copy(small, scan)
    BAD[kind][0](scan)
    named = ("--model", "unet-r34")
    status, record = spine_json(scan, "-o", tmp_path / "out", "--force", *named)
    assert status == 0
    assert "modality" in [note["code"] for note in record["cases"][0]["warnings"]]


def test_a_folder_without_scans_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "notes.txt").write_text("none here")
    result = spine(tmp_path / "scans", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "no scans under" in result.stderr


def test_a_missing_input_is_named_and_the_good_one_finished(
    small: Path, tmp_path: Path
) -> None:
    status, record = spine_json(small, tmp_path / "gone.nii.gz", "-o", tmp_path / "o")
    assert status == 3
    codes = {c["name"]: (c["error"] or {}).get("code") for c in record["cases"]}
    assert codes == {"piece": None, "gone": "not_found"}


def test_output_that_is_a_file_is_an_error(small: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    before = (tmp_path / "out").read_text()
    result = spine(small, "-o", tmp_path / "out" / "below", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "output"
    assert (tmp_path / "out").read_text() == before


def test_two_inputs_of_one_name_are_refused_and_the_third_finished(
    small: Path, tmp_path: Path
) -> None:
    for folder, name in (("a", "scan"), ("b", "scan"), ("b", "other")):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(small, tmp_path / folder / f"{name}.nii.gz")
    status, record = spine_json(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "o")
    assert status == 3
    told = sorted((c["name"], c["status"]) for c in record["cases"])
    assert told == [("other", "done"), ("scan", "failed"), ("scan", "failed")]
    failed = [c for c in record["cases"] if c["status"] == "failed"]
    message = failed[0]["error"]["message"]
    assert str(tmp_path / "a") in message
    assert str(tmp_path / "b") in message
    # below their common folder both have names of their own
    _, record = spine_json(tmp_path, "-o", tmp_path / "o2", "--exclude", "o/*")
    names = [c["name"] for c in record["cases"] if c["status"] == "done"]
    assert names == ["a/scan", "b/other", "b/scan"]


def test_blanks_and_foreign_letters_in_paths(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Größe und 脊椎"
    folder.mkdir()
    shutil.copy(small, folder / "früh [1].nii.gz")
    out = tmp_path / "aus gang"
    result = spine(folder, "-o", out)
    assert result.exit_code == 0
    assert (out / "früh [1]" / f"früh [1]{MASK}").is_file()


def test_a_symlink_loop_is_walked_once(small: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "deep").mkdir(parents=True)
    shutil.copy(small, scans / "deep" / "good.nii.gz")
    (scans / "deep" / "back").symlink_to(scans)
    (scans / "self.nii.gz").symlink_to(scans / "self.nii.gz")
    status, record = spine_json(scans, "-o", tmp_path / "out")
    assert status == 3
    told = {c["name"]: c["status"] for c in record["cases"]}
    assert told == {"deep/good": "done", "self": "failed"}


def test_unknown_model_lists_the_known(small: Path, tmp_path: Path) -> None:
    result = spine(small, "-o", tmp_path / "out", "--model", "unet-r43")
    assert result.exit_code == 2
    assert "no model is called 'unet-r43'" in result.stderr
    assert "unet-r34" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_is_refused(small: Path, tmp_path: Path) -> None:
    content = bytearray(shelf.locate("unet-r34").read_bytes())
    content[-5000] ^= 4
    model = tmp_path / "bad.safetensors"
    model.write_bytes(content)
    status, record = spine_json(small, "-o", tmp_path / "out", "--model", model)
    assert status == 1
    assert record["error"]["code"] == "model_file"
    assert "hash" in record["error"]["message"]
    assert not list(tmp_path.glob(f"out/**/*{MASK}"))


@pytest.mark.parametrize(
    ("option", "value", "status"),
    [
        ("--views", "oblique", 2),
        ("--precision", "float8", 2),
        ("--device", "tpu", 1),
        ("--backend", "abacus", 2),
        ("--memory", "0", 2),
    ],
)
def test_options_that_make_no_sense(
    option: str, value: str, status: int, small: Path, tmp_path: Path
) -> None:
    result = spine(small, "-o", tmp_path / "out", option, value)
    assert result.exit_code == status
    assert value in result.stderr
    assert "hint:" in result.stderr


def test_a_size_that_is_none_is_a_usage_error(small: Path, tmp_path: Path) -> None:
    result = spine(small, "-o", tmp_path / "out", "--memory", "much")
    assert result.exit_code == 2
    assert "as in 4G" in result.stderr


def test_a_backend_that_is_named_labels_as_torch_does(
    small: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    masks = []
    for backend in ("torch", "openvino"):
        given = ("--backend", backend, "--precision", "float32", "--memory", "500M")
        status, record = spine_json(small, "-o", tmp_path / backend, *given)
        assert status == 0
        assert (record["backend"], record["precision"]) == (backend, "float32")
        mask = nib.load(record["cases"][0]["outputs"]["spine"])
        masks.append(np.asarray(mask.dataobj))
    assert record["gate"]["passed"]
    assert record["gate"]["agreement"] >= 0.999
    assert (masks[0] == masks[1]).mean() > 0.9999
    stages = record["cases"][0]["seconds"]
    assert stages["network"] > 0


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_backend_that_is_not_installed_is_told_before_anything_is_done(
    precision: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.runtimes.backends.find_spec", lambda name: None)
    options = ("--backend", "openvino", "--precision", precision)
    status, record = spine_json(small, "-o", tmp_path / "out", *options)
    assert status == 1
    assert record["error"]["code"] == "missing_backend"
    assert "pip install" in record["error"]["hint"]
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_required_and_not_there_is_an_error(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "driver_gpus", lambda: 0)
    status, record = spine_json(small, "-o", tmp_path / "out", "--require-gpu")
    assert status == 1
    assert record["error"]["code"] == "device"
    assert not (tmp_path / "out").exists()


def test_a_lost_device_is_told_and_the_scan_finished(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compute.infer
    asked: list[str] = []

    def losing(*given: Any, **named: Any) -> inference.Inferred:
        asked.append(given[2].device)
        if len(asked) == 1:
            raise LostDeviceError("cuda:0 was lost: CUDA error")
        return whole(*given, **named)

    monkeypatch.setattr(compute, "infer", losing)
    status, record = spine_json(small, "-o", tmp_path / "out")
    assert status == 0
    (case,) = record["cases"]
    assert case["warnings"][0]["code"] == "device_lost"
    assert asked == ["cpu", "cpu"]


def test_several_devices_share_a_batch(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names for the CPU stand for two GPUs."""
    pair = [Device("cpu"), Device("cpu", 0)]
    monkeypatch.setattr(devices, "pick_all", lambda name, gpu: pair)
    for number in range(4):
        shutil.copy(small, tmp_path / f"scan{number}.nii.gz")
    status, record = spine_json(tmp_path, "-o", tmp_path / "out")
    assert status == 0
    assert [case["status"] for case in record["cases"]] == ["done"] * 4
    masks = [nib.load(case["outputs"]["spine"]) for case in record["cases"]]
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask.dataobj, masks[0].dataobj)
    assert record["devices"] == ["cpu", "cpu:0"]


PROGRAM = (
    "import resource, sys;"
    "resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
    "from spinecli.app import main; main()"
)


HEEDING = (  # a test run in the background passes on that SIGINT is ignored
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from spinecli.app import main; main()"
)


def test_a_full_disk_leaves_nothing_half_written(small: Path, tmp_path: Path) -> None:
    """A limit on the size of a file makes its write fail as a full disk does."""
    out = tmp_path / "out"
    done = subprocess.run(
        [
            sys.executable, "-c", PROGRAM.format(limit=200),
            "segment", str(small), "-o", str(out), "--json",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert done.returncode == 1
    assert record["status"] == "failed"
    assert "cannot write" in done.stdout
    assert not list(out.rglob(f"*{MASK}"))
    assert no_leftovers(out)


def test_ctrl_c_keeps_what_is_done(small: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for index in range(40):
        shutil.copy(small, scans / f"scan{index:02d}.nii.gz")
    program = subprocess.Popen(
        [sys.executable, "-c", HEEDING, "segment", str(scans), "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(f"*/*{MASK}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, told = program.communicate(timeout=120)
    assert program.returncode == 130
    assert "interrupted" in told
    masks = list(out.glob(f"*/*{MASK}"))
    assert 1 <= len(masks) < 40
    assert all(Volume.read(path).voxels.any() for path in masks[:1])
    assert no_leftovers(out)
    record = json.loads((out / "spine-run.json").read_text())
    assert {c["name"] for c in record["cases"]} == {p.parent.name for p in masks}
    _, again = spine_json(scans, "-o", out, "--dry-run")
    planned = [c for c in again["cases"] if c.get("planned") == "segment"]
    assert len(planned) == 40 - len(masks)


def test_a_scan_that_is_replaced_while_it_is_read_is_not_recorded_as_done(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mask would be that of one file under the hash of another for ever."""
    scan = tmp_path / "a.nii.gz"
    shutil.copy(small, scan)
    read = segment_module.read_case

    def replaced(found: Any) -> Any:
        done = read(found)
        held = nib.load(small)
        other = np.asarray(held.dataobj)[::-1].copy()
        nib.save(nib.Nifti1Image(other, held.affine), scan)
        return done

    monkeypatch.setattr(segment_module, "read_case", replaced)
    status, record = spine_json(scan, "-o", tmp_path / "out")
    assert status == 1
    (case,) = record["cases"]
    assert case["error"]["code"] == "unreadable"
    assert "a.nii.gz was changed while it was read" in case["error"]["message"]
    monkeypatch.undo()
    status, record = spine_json(scan, "-o", tmp_path / "out")
    assert (status, record["cases"][0]["status"]) == (0, "done")


@pytest.mark.parametrize("text", ["{}", "[1]", '{"cases": [{"name": "a"}, 3]}'])
def test_a_foreign_record_in_the_folder_does_no_harm(
    text: str, small: Path, tmp_path: Path
) -> None:
    scan, out = tmp_path / "a.nii.gz", tmp_path / "out"
    shutil.copy(small, scan)
    out.mkdir()
    (out / "spine-run.json").write_text(text)
    status, record = spine_json(scan, "-o", out)
    assert (status, record["cases"][0]["status"]) == (0, "done")
    (out / "a" / f"a{MASK}").write_bytes(b"")
    _, record = spine_json(scan, "-o", out, "--dry-run")
    assert record["cases"][0]["planned"] == "segment"


def test_a_scan_that_takes_more_memory_than_given_is_refused(
    small: Path, tmp_path: Path
) -> None:
    given = ("-o", tmp_path / "out", "--memory", "0.1M")
    status, record = spine_json(small, *given)

    assert status == 1
    error = record["cases"][0]["error"]
    assert error["code"] == "memory"
    assert "it takes about " in error["message"]
    assert "--memory gives 0.1 MiB" in error["message"]
    needed = error["hint"].removeprefix("Give --memory ").removesuffix(".")
    assert spine(small, "-o", tmp_path / "out", "--memory", needed).exit_code == 0


def test_nothing_names_the_patient_a_folder_is_called_after(tmp_path: Path) -> None:
    edit = dicom.having(PatientName="Muster^Erika")
    series = tmp_path / "in" / "MUSTER erika" / "ser"
    phantoms.write_dicom(series, dicom.ct(), edit=edit)
    sorted(series.iterdir())[2].unlink()
    out = tmp_path / "out"
    result = spine(tmp_path / "in", "-o", out)

    assert result.exit_code == 1
    assert "anon-" in result.output
    texts = [path.read_text() for path in out.iterdir()]
    assert len(texts) == 3  # record, table, page
    for text in (*texts, result.output):
        assert "muster" not in text.lower()
        assert "erika" not in text.lower()


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    code = "import sys, os, signal; from pathlib import Path; from engines import files"
    code += "\nwith files.replacing(Path(sys.argv[1])) as part:\n    "
    code += "part.write_bytes(b'voxels'); os.kill(os.getpid(), signal.SIGKILL)"
    out = tmp_path / "out"
    for name in ("a", "b"):
        path = out / name / f"{name}{MASK}"
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert not no_leftovers(out)
    (tmp_path / "x.nii.gz").write_bytes(b"no scan")

    assert spine(tmp_path / "x.nii.gz", "-o", out).exit_code == 1
    assert no_leftovers(out)
