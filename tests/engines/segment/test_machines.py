"""What computes on machines that this one is not, and what if it fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from engines.arrays import Array
from engines.networks import shelf
from engines.networks.manifest import Model
from engines.results import CaseResult
from engines.runtimes import backends, choose, devices, openvino_runtime
from engines.runtimes.backends import Backend
from engines.runtimes.devices import Device
from engines.runtimes.torch_runtime import TorchRuntime
from engines.segment import inference
from engines.segment.run import SegmentRun
from engines.segment.settings import SegmentSettings
from engines.volume import Volume

CROP = Path(__file__).parents[2] / "data" / "tptbox_ct.nii.gz"
SHIPPED = sorted(path.stem for path in shelf.SHIPPED.glob("*.safetensors"))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "piece.nii.gz"
    nib.save(nib.load(CROP).slicer[24:52, 8:40, 24:52], path)
    return path


def believe(patch: pytest.MonkeyPatch, has_bfloat16: bool) -> None:
    """Let every module believe that the CPU has bfloat16, or has not."""
    for module in (choose, openvino_runtime, devices):
        patch.setattr(module, "cpu_has_bfloat16", lambda: has_bfloat16)


def segmented(scan: Path, out: Path, **settings: Any) -> tuple[CaseResult, Any]:
    run = SegmentRun([scan], out, SegmentSettings(force=True, **settings))
    (case,) = run.results()
    return case, json.loads((out / "spine-run.json").read_text())


class Failing(TorchRuntime):
    """Computes as the reference does until it is to fail."""

    backend = "quick"
    error: Exception = NotImplementedError("not implemented for 'BFloat16'")
    after = 0

    def __init__(self, model: Model, device: Device, precision: str) -> None:
        super().__init__(model, device, "float32")
        self.precision = precision
        self.calls = 0

    def predict(self, slices: Array) -> Array:
        self.calls += 1
        if self.calls > self.after:
            raise self.error
        return super().predict(slices)


def a_table(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let the table of backends be the reference and one of this module's."""
    quick = Backend(
        "quick", f"{__name__}:{name}", (), "torch", "extra", {"cpu": ("bfloat16",)}
    )
    torch_row = backends.BACKENDS["torch"]
    only = Backend("torch", torch_row.factory, (), "torch", "", {"cpu": ("float32",)})
    patch.setattr(backends, "BACKENDS", {"torch": only, "quick": quick})
    order = (("quick", "bfloat16"), *choose.PREFERENCE["cpu"])
    patch.setattr(choose, "PREFERENCE", {"cpu": order})


def failing(after: int) -> Callable[..., Failing]:
    def load(model: Model, device: Device, precision: str, *_: object) -> Failing:
        made = Failing(model, device, precision)
        made.after = after
        return made

    return load


fails_at_once = failing(0)
fails_in_a_scan = failing(4)


@pytest.mark.parametrize("has_bfloat16", [True, False], ids=["bfloat16", "without"])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_labels_with_and_without_bfloat16(
    name: str, has_bfloat16: bool, small: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    believe(monkeypatch, has_bfloat16)
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    case, record = segmented(small, tmp_path / "out", model=name)
    assert case.status == "done", case.error
    tried = {(one["backend"], one["precision"]) for one in record["tried"]}
    assert (("openvino", "bfloat16") in tried) == has_bfloat16
    precisions = {one["precision"] for one in case.details["computed"]}
    assert precisions <= ({"float32", "bfloat16"} if has_bfloat16 else {"float32"})


def test_a_candidate_that_raises_anything_is_left_out_with_its_reason(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe(monkeypatch, True)
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    a_table(monkeypatch, "fails_at_once")
    case, record = segmented(small, tmp_path / "out", model="unet-r34")
    assert case.status == "done"
    assert record["backend"] == "torch"
    (problem,) = [one["problem"] for one in record["tried"] if one["problem"]]
    assert problem == "NotImplementedError: not implemented for 'BFloat16'"


@pytest.mark.parametrize(
    "error",
    [NotImplementedError("no such kernel"), RuntimeError("engine"), ValueError("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_runtime_that_fails_in_a_scan_gives_way_to_the_reference(
    error: Exception, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe(monkeypatch, True)
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Failing, "error", error)
    a_table(monkeypatch, "fails_in_a_scan")
    case, record = segmented(small, tmp_path / "out", model="unet-r34")
    assert case.status == "done", case.error
    note = next(one for one in case.warnings if one.code == "backend_failed")
    assert "quick in bfloat16 failed on a scan" in note.message
    assert str(error) in note.message
    (computed,) = case.details["computed"]
    assert (computed["backend"], computed["precision"]) == ("torch", "float32")
    assert record["backend"] == "torch"
    mask = Path(case.outputs["spine"])
    told = Volume.read(mask).provenance
    assert (told["backend"], told["precision"], told["device"]) == (
        "torch", "float32", "cpu",
    )  # fmt: skip
    whole, _ = segmented(
        small, tmp_path / "reference", model="unet-r34", precision="float32",
        backend="torch",
    )  # fmt: skip
    np.testing.assert_array_equal(
        nib.load(mask).dataobj, nib.load(whole.outputs["spine"]).dataobj
    )


def test_labels_are_interpolated_by_the_cpu_where_the_device_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waits to be written when a GPU is lost is finished all the same."""
    model = shelf.load("unet-r34")
    scan = Volume.read(CROP)
    prepared = inference.prepare(scan, model.manifest.recipe)
    probability = np.zeros((4, *prepared.grid.shape), np.float32)
    probability[2, 10:30, 10:30, 10:30] = 1.0
    whole = inference.native.labels
    asked = []

    def lost(given: Array, *rest: Any, **named: Any) -> Any:
        asked.append(len(asked))
        if len(asked) == 1:
            msg = "CUDA error: an illegal memory access was encountered\nmore"
            raise RuntimeError(msg)
        return whole(given, *rest, **named)

    monkeypatch.setattr(inference.native, "labels", lost)
    monkeypatch.setattr(inference, "on_device", lambda values, device: values)
    inferred = inference.Inferred(inference.locate.WHOLE, probability, "cuda:0")
    done = inference.label(prepared, inferred, model.manifest)
    assert done.labels.any()
    (note,) = done.notes
    assert note.code == "labelled_on_cpu"
    assert "illegal memory access" in note.message


def test_the_preview_shows_nothing_where_the_mask_is_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels that are thinner than the scan's voxels are not in the mask."""
    model = shelf.load("unet-r34")
    scan = Volume.read(CROP)
    prepared = inference.prepare(scan, model.manifest.recipe)
    probability = np.zeros((4, *prepared.grid.shape), np.float32)
    probability[2, 20:30, 20:30, 20:30] = 1.0
    empty = np.zeros(prepared.canonical.shape, np.uint8)
    monkeypatch.setattr(inference.native, "labels", lambda *_, **__: empty)
    inferred = inference.Inferred(inference.locate.WHOLE, probability, "cpu")
    done = inference.label(prepared, inferred, model.manifest)
    assert not done.labels.any()
    assert not done.shown.any()
