"""What ``engines`` offers: the names of ``__all__``, and nothing heavy before use."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import engines
from engines import errors
from engines.volume import read_mask
from tests import dicom_phantoms

DATA = Path(__file__).parents[1] / "data"


def test_all_names_are_there_and_listed() -> None:
    assert sorted(engines.__all__) == list(engines.__all__)
    for name in engines.__all__:
        assert getattr(engines, name) is not None
        assert name in dir(engines)


def test_public_names_are_those_that_are_imported_from_here() -> None:
    """A name that users may import is in ``__all__``, as is its home."""
    for name, home in engines._HOMES.items():
        assert name in engines.__all__
        assert getattr(importlib.import_module(home), name) is getattr(engines, name)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        engines.nothing  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, engines; heavy = {'numpy', 'torch', 'nibabel', 'openvino'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_types_are_for_others_too() -> None:
    assert (Path(engines.__file__).parent / "py.typed").is_file()


def test_settings_take_no_positional_values() -> None:
    from engines.bench.bench import BenchSettings
    from engines.convert.convert import ConvertSettings
    from engines.metrics.evaluate import EvaluateSettings
    from engines.prune.settings import PruneSettings
    from engines.robustness.robustness import RobustnessSettings
    from engines.train.settings import TrainSettings

    for settings in (
        BenchSettings, ConvertSettings, EvaluateSettings, PruneSettings,
        RobustnessSettings, TrainSettings, engines.SegmentSettings,
    ):  # fmt: skip
        with pytest.raises(TypeError, match="positional argument"):
            settings("unet-r34")


def test_folders_are_scored_with_one_call() -> None:
    mask = DATA / "tptbox_seg-vert_msk.nii.gz"
    (case,) = engines.evaluate(mask, str(mask))
    assert case.status == "done"
    assert case.details["labels"], case.details
    with pytest.raises(errors.NotFoundError):
        engines.evaluate(DATA / "nothing", mask)


def test_a_series_is_converted_with_one_call(tmp_path: Path) -> None:
    slices = [dicom_phantoms.slice_of(n) for n in range(dicom_phantoms.SLICES)]
    dicom_phantoms.write_slices(tmp_path / "dicom", slices)
    (case,) = engines.convert([str(tmp_path / "dicom")], tmp_path / "nifti")
    assert case.status == "done", case.error
    scan = engines.read_scan(next((tmp_path / "nifti").rglob("*.nii.gz")))
    assert scan.voxels.ndim == 3
    assert callable(engines.convert)
    assert importlib.import_module("engines.convert.convert").ConvertRun


def test_a_scan_is_read_by_its_path_as_text() -> None:
    scan = engines.read_scan(str(DATA / "tptbox_ct.nii.gz"))
    assert scan.grid.shape == read_mask(DATA / "tptbox_seg-vert_msk.nii.gz").grid.shape
