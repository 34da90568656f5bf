"""The front door: one call labels a scan, and gives what the command writes."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from engines import Segmenter, SegmentRun, SegmentSettings, Volume, read_scan
from engines.errors import (
    IntensityError,
    ModalityError,
    SettingsError,
    UnknownModelError,
)
from engines.networks import shelf
from engines.segment.segmenter import Segmentation

DATA = Path(__file__).parents[2] / "data"
SCAN = DATA / "tptbox_ct.nii.gz"
HEAVY = (
    "torch", "timm", "torchvision", "segmentation_models_pytorch", "matplotlib",
    "SimpleITK",
)  # fmt: skip


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("piece") / "piece.nii.gz"
    nib.save(nib.load(SCAN).slicer[20:56, 8:44, 20:56], path)
    return path


@pytest.fixture(scope="module")
def result(piece: Path) -> Segmentation:
    return Segmenter("unet-r34")(read_scan(piece), name="piece")


def test_it_gives_labels_on_the_grid_of_the_scan(
    result: Segmentation, piece: Path
) -> None:
    scan = read_scan(piece)
    assert result.labels.shape == scan.grid.shape
    assert result.labels.dtype == np.uint8
    assert set(np.unique(result.labels)) <= {0, *result.classes.values()}
    assert result.classes == {"cervical": 1, "thoracic": 2, "lumbar": 3, "sacral": 4}
    assert result.vertebrae is None
    assert result.spine.any()
    np.testing.assert_array_equal(result.spine, result.labels > 0)
    voxel_ml = np.prod(scan.grid.spacing_mm) / 1000
    assert result.volume_ml == pytest.approx(result.spine.sum() * voxel_ml, rel=1e-4)
    assert {"read", "prepare", "network", "label"} <= set(result.seconds)
    assert result.provenance["model"]["name"] == "unet-r34"
    assert result.computed[0].device == "cpu"


def test_what_it_saves_is_what_the_command_writes(
    result: Segmentation, piece: Path, tmp_path: Path
) -> None:
    files = result.save(tmp_path / "own" / "piece")
    settings = SegmentSettings(model="unet-r34")
    (case,) = SegmentRun([piece], tmp_path / "run", settings).results()
    assert case.status == "done", case.error
    assert {kind: Path(path).name for kind, path in case.outputs.items()} == {
        kind: path.name for kind, path in files.items()
    }
    for kind, path in case.outputs.items():
        assert files[kind].read_bytes() == Path(path).read_bytes(), kind


def test_a_stem_may_be_text(result: Segmentation, tmp_path: Path) -> None:
    files = result.save(str(tmp_path / "a.b"))
    assert files["spine"] == tmp_path / "a.b_seg-spine_msk.nii.gz"
    assert files["preview"].read_bytes().startswith(b"\x89PNG")


def test_a_guided_model_numbers_vertebrae(piece: Path, tmp_path: Path) -> None:
    found = Segmenter("mru-net-3d")(read_scan(piece))
    assert found.vertebrae is not None
    assert set(np.unique(found.vertebrae)) <= {0, *range(1, 29)}
    assert [one.model for one in found.computed] == ["unet-r34", "mru-net-3d"]
    assert set(found.save(tmp_path / "x")) == {"spine", "vertebrae", "preview"}


def test_regions_are_counted_where_that_is_asked_for(piece: Path) -> None:
    found = Segmenter("unet-r34", vertebrae=True)(read_scan(piece))
    assert found.vertebrae is not None
    assert found.classes["L3"] == 22


def test_verify_compares_on_the_scan_at_hand(piece: Path) -> None:
    found = Segmenter("unet-r34", verify=True)(read_scan(piece))
    verified = found.computed[0].verified
    if (found.computed[0].backend, found.computed[0].precision) != ("torch", "float32"):
        assert verified is not None
        assert verified.passed
        assert verified.slices == 12
        assert found.computed[0].as_json()["verified"]["passed"]


def test_a_scan_that_fails_verification_is_computed_by_the_reference(
    piece: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.runtimes import gate
    from engines.segment import compute

    segmenter = Segmenter("unet-r34", verify=True, backend="openvino")
    bad = gate.Gate("openvino", "float32", 0.9, 0.5, 12)
    monkeypatch.setattr(compute, "compare", lambda *_: bad)
    found = segmenter(read_scan(piece))
    (note,) = [one for one in found.notes if one.code == "verify_failed"]
    assert "90.0000%" in note.message
    (by,) = found.computed
    assert (by.backend, by.precision) == ("torch", "float32")
    assert by.verified == bad
    plain = Segmenter("unet-r34", backend="torch", precision="float32")
    np.testing.assert_array_equal(found.labels, plain(read_scan(piece)).labels)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "nothing"}, UnknownModelError),
        ({"views": "oblique"}, SettingsError),
        ({"backend": "abacus"}, SettingsError),
        ({"precision": "int4"}, SettingsError),
        ({"model": "inception-dual-unet", "vertebrae": True}, SettingsError),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    given: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Segmenter(**given)


def test_a_scan_that_is_none_is_refused(piece: Path) -> None:
    scan = read_scan(piece)
    segmenter = Segmenter("unet-r34")
    with pytest.raises(IntensityError):
        segmenter(scan.with_voxels(np.zeros_like(scan.voxels)))
    positive = np.abs(scan.voxels).astype(np.int16) % 300
    with pytest.raises(ModalityError):
        segmenter(scan.with_voxels(positive))
    assert Segmenter("unet-r34", force=True)(scan.with_voxels(positive)).notes


def test_a_path_is_a_model_too(piece: Path) -> None:
    found = Segmenter(shelf.locate("unet-r34"))(read_scan(piece))
    assert found.provenance["model"]["name"] == "unet-r34"


def run(code: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, cwd=folder,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def warm(piece: Path) -> None:
    """Let engine and verdict be kept."""
    Segmenter("unet-r34")(read_scan(piece))


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("preview", ["segment", "library"])
def test_a_warm_run_on_a_cpu_imports_no_torch(
    preview: str, piece: Path, tmp_path: Path
) -> None:
    command = f"""
        import sys
        from spinecli.app import main
        sys.argv = ["spine", "segment", {str(piece)!r}, "-o", "out",
                    "--model", "unet-r34", "--device", "cpu"]
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
    """
    library = f"""
        from engines import Segmenter, read_scan
        result = Segmenter("unet-r34", device="cpu")(read_scan({str(piece)!r}))
        result.save("out/piece")
    """
    code = textwrap.dedent(command if preview == "segment" else library)
    code += f"\nimport sys\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    *_, loaded = run(code, tmp_path).splitlines()
    assert loaded == "[]"
    assert list((tmp_path / "out").rglob("*_seg-spine_msk.nii.gz"))


@pytest.mark.usefixtures("warm")
def test_masks_do_not_depend_on_order_threads_or_resumption(
    piece: Path, tmp_path: Path
) -> None:
    """Batches in any order, in two halves, resumed and on one thread: same bytes."""
    scans = tmp_path / "scans"
    scans.mkdir()
    image = nib.load(piece)
    pieces = (image, image.slicer[5:], image.slicer[:, 6:])
    for name, one in zip("abc", pieces, strict=True):
        nib.save(one, scans / f"{name}.nii.gz")

    def masks(folder: str, given: list[str], *more: str, **environment: str) -> None:
        code = f"""
            import sys
            from spinecli.app import main
            sys.argv = ["spine", "segment", *{[str(scans / g) for g in given]!r},
                        "-o", {folder!r}, "--model", "unet-r34", *{more!r}]
            main()
        """
        run(code, tmp_path, **environment)

    names = [f"{name}.nii.gz" for name in "abc"]
    masks("first", names)
    masks("turned", names[::-1])
    masks("split", names[2:])
    masks("split", names[:2])
    masks("single", names, "--jobs", "1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    cache = str(tmp_path / "empty")
    masks("emptied", names[1:] + names[:1], SPINE_CACHE=cache)
    files = sorted(path.relative_to(tmp_path / "first")
                   for path in (tmp_path / "first").rglob("*.nii.gz"))  # fmt: skip
    assert len(files) == 3
    for other in ("turned", "split", "single", "emptied"):
        for file in files:
            one, two = (tmp_path / run / file for run in ("first", other))
            assert one.read_bytes() == two.read_bytes(), (other, file)
        record = json.loads((tmp_path / other / "spine-run.json").read_text())
        assert {case["status"] for case in record["cases"]} == {"done"}


def test_volumes_in_memory_need_no_file(piece: Path) -> None:
    scan = read_scan(piece)
    found = Segmenter("unet-r34")(Volume(scan.voxels, scan.grid))
    assert found.spine.any()
