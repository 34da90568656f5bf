"""A benchmark as a whole: what is refused before it starts, and its arithmetic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bench import bench, ceiling, network, plain, sample, whole
from engines.bench.bench import BenchRun, BenchSettings
from engines.bench.ceiling import Ceiling
from engines.bench.whole import Once
from engines.errors import (
    BenchError,
    DeviceError,
    ModalityError,
    NotFoundError,
    SettingsError,
    SpineError,
    UnknownModelError,
)
from engines.volume import read_mask
from tests import phantoms

DATA = Path(__file__).parents[2] / "data"
CROP = DATA / "tptbox_ct.nii.gz"
MR_MODEL = "inception-dual-unet"


def write_map(path: Path, voxels: np.ndarray) -> Path:
    volume = phantoms.volume(voxels.astype(np.uint8), "RAS", (1, 1, 1))
    return phantoms.write_nifti(path, volume)


def ways(
    monkeypatch: pytest.MonkeyPatch, ours: float, theirs: float, *, fails: str = ""
) -> list[str]:
    """Stand in for the networks and the processes; return the order they ran in."""
    ran: list[str] = []

    def way(kind: str, seconds: float, inside: int) -> Any:
        def run(scans: Sequence[Path], *given: Any, **named: Any) -> Once:
            ran.append(kind)
            if kind == fails:
                raise BenchError("it broke")
            voxels = np.zeros((4, 4, 4), int)
            voxels.ravel()[:inside] = 1
            masks = [write_map(given[-1] / f"{i}.nii.gz", voxels) for i in (0, 1)]
            stages = tuple({"network": seconds / 2} for _ in scans)
            return Once(seconds, stages, 2**20, tuple(masks[: len(scans)]), {})

        return run

    monkeypatch.setattr(whole, "segment", way(whole.KIND, ours, 20))
    monkeypatch.setattr(plain, "segment", way(plain.KIND, theirs, 10))
    monkeypatch.setattr(BenchRun, "_networks", lambda run, found: iter(()))
    return ran


def test_processes_take_turns_and_the_ratio_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = ways(monkeypatch, 2.0, 13.0)
    run = BenchRun([CROP], BenchSettings(plain=True, repeats=3))

    ours, theirs = (result.details for result in run.results())

    assert ran == ["segment", "plain"] * 3
    assert (ours["wall_seconds"], theirs["wall_seconds"]) == (2, 13)
    assert theirs["times_as_long"] == 6.5
    assert theirs["agreement"] == [
        {
            "dice": pytest.approx(2 / 3, abs=1e-6),
            "dice_labels": pytest.approx(2 / 3, abs=1e-6),
        }
    ]


@pytest.mark.parametrize("fails", ["segment", "plain"])
def test_a_way_that_fails_leaves_the_other(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = ways(monkeypatch, 1.0, 2.0, fails=fails)
    run = BenchRun([CROP], BenchSettings(plain=True, repeats=2))

    results = {result.name: result for result in run.results()}

    assert ran.count(fails) == 1
    (other,) = {"segment", "plain"} - {fails}
    assert ran.count(other) == 2
    error = results[fails].error
    assert error is not None
    assert (results[fails].status, error.message) == ("failed", "it broke")
    assert results[other].status == "done"
    assert results[other].details.get("times_as_long") is None


def test_two_empty_maps_are_alike(tmp_path: Path) -> None:
    empty = write_map(tmp_path / "a.nii.gz", np.zeros((3, 3, 3)))

    assert bench._alike(empty, empty) == {"dice": 1, "dice_labels": 1}


def test_labels_that_differ_within_the_spine_are_told(tmp_path: Path) -> None:
    voxels = np.zeros((4, 4, 4), int)
    voxels[0], voxels[1] = 1, 2
    one = write_map(tmp_path / "a.nii.gz", voxels)
    other = write_map(tmp_path / "b.nii.gz", np.where(voxels == 2, 1, voxels))

    told = bench._alike(one, other)

    assert told["dice"] == 1
    assert told["dice_labels"] == pytest.approx((2 / 3 + 0) / 2)


def test_other_formats_reach_the_plain_way_as_nifti(tmp_path: Path) -> None:
    scan = phantoms.volume(phantoms.ct_values(), "PIR")
    phantoms.write_dicom(tmp_path / "series", scan)
    (found,) = bench.find_scans([tmp_path / "series"])

    path = bench._as_nifti(found, tmp_path / "made")

    assert path.name.endswith(".nii.gz")
    again = read_mask(path)
    assert again.grid.matches(bench.read_case(found)[0].grid)
    (kept,) = bench.find_scans([CROP])
    assert bench._as_nifti(kept, tmp_path) == CROP


def test_models_of_one_name_are_told_apart_by_their_hash(tmp_path: Path) -> None:
    from engines.networks import shelf
    from engines.networks.manifest import load_model, save_model

    model = load_model(shelf.locate("unet-r34"))
    other = tmp_path / "other.safetensors"
    save_model(other, model.network, model.manifest, half=False)

    run = BenchRun([CROP], BenchSettings(against=str(other)))

    first, second = run.names
    assert first.split()[0] == second.split()[0] == "unet-r34"
    assert first != second
    facts = run.facts()
    assert [facts["model"]["name"], facts["against"]["name"]] == [first, second]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"model": "nope"}, UnknownModelError, "nope"),
        ({"against": "nope"}, UnknownModelError, "nope"),
        ({"against": MR_MODEL}, SettingsError, "a model for ct.* for mr"),
        ({"against": "unet-r34"}, SettingsError, "compared with itself"),
        ({"backends": ("nope",)}, SettingsError, "no backend is called 'nope'"),
        ({"precisions": ("nope",)}, SettingsError, "no precision is called 'nope'"),
        ({"device": "nope"}, DeviceError, "nope"),
        ({"repeats": 0}, SettingsError, "timed 0 times"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], error: type[SpineError], said: str
) -> None:
    with pytest.raises(error, match=said):
        BenchRun([CROP], BenchSettings(**settings))


def test_scans_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        BenchRun([tmp_path], BenchSettings())
    with pytest.raises(NotFoundError):
        BenchRun([CROP, tmp_path / "nope.nii.gz"], BenchSettings())


def test_a_scan_of_another_modality_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ceiling, "measure", lambda device: {})
    run = BenchRun([CROP], BenchSettings(model=MR_MODEL))

    with pytest.raises(ModalityError):
        list(run.results())


def test_the_plain_way_needs_slices() -> None:
    with pytest.raises(SettingsError, match="sees cubes"):
        BenchRun([CROP], BenchSettings(model="mru-net-3d", plain=True))


def test_without_scans_it_is_the_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    ways(monkeypatch, 1.0, 2.0)
    monkeypatch.setattr(sample, "SHAPE", (48, 48, 20))
    seen: list[Path] = []
    monkeypatch.setattr(
        BenchRun,
        "_networks",
        lambda run, found: iter(seen.extend(one.path for one in found) or ()),
    )
    run = BenchRun([], BenchSettings(repeats=1))

    list(run.results())

    assert [path.name for path in seen] == ["sample_ct.nii.gz"]
    assert run.facts()["synthetic"] is True
    assert not seen[0].exists()


def test_models_that_see_other_slices_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = BenchRun([CROP], BenchSettings())
    shape = np.zeros
    small, large = (
        network.Subject("", None, (shape((1, 1, n, n)),), (), 1, 1.0)  # type: ignore[arg-type]
        for n in (32, 64)
    )

    run._note_unlike([small, small])
    assert run.notes == []
    run._note_unlike([small, large])
    assert [note.code for note in run.notes] == ["other_slices"]


def test_ceilings_are_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    run = BenchRun([CROP], BenchSettings())
    run._ceilings = {"float32": Ceiling("float32", 123.456, 64)}

    (told,) = run.facts()["ceilings"]

    assert told == {"precision": "float32", "gflops": 123.5, "size": 64, "tf32": False}


def test_the_one_backend_asked_for_is_that_of_the_whole_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def segment(*given: Any, options: list[str]) -> Once:
        asked.append(options)
        raise BenchError("it broke")

    monkeypatch.setattr(whole, "segment", segment)
    monkeypatch.setattr(BenchRun, "_networks", lambda run, found: iter(()))
    one = BenchSettings(backends=("torch",), precisions=("float32",), repeats=1)
    list(BenchRun([CROP], one).results())
    list(BenchRun([CROP], BenchSettings(repeats=1)).results())
    assert asked == [["--backend", "torch", "--precision", "float32"], []]
