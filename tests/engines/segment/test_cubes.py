"""Cubes cover a volume, and what they say of a voxel is averaged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special

from engines import labels
from engines.errors import SettingsError
from engines.networks import catalog
from engines.networks.manifest import Manifest, save_model
from engines.preprocess.recipe import Recipe
from engines.results import CaseResult
from engines.segment import cubes
from engines.segment.run import SegmentRun
from engines.segment.settings import SegmentSettings
from engines.volume import Volume

DATA = Path(__file__).parents[2] / "data"
EMPTY = -1.0
Floats = NDArray[np.float32]


class Pointwise:
    """A runtime whose answer depends on each voxel alone."""

    backend, precision, device = "test", "float32", "cpu"

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, slices: Floats) -> Floats:
        self.calls += 1
        spine = special.expit(slices)
        return np.concatenate([1 - spine, spine], axis=1)


class Sided(Pointwise):
    """A runtime that says 1 in the first half of a cube and 0 in the other."""

    def predict(self, slices: Floats) -> Floats:
        spine = np.zeros_like(slices)
        spine[:, :, : slices.shape[2] // 2] = 1
        return np.concatenate([1 - spine, spine], axis=1)


@pytest.fixture
def volume() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((37, 16, 50), np.float32)


def found(volume: NDArray[np.float32], runtime: Pointwise, edge: int = 16) -> Floats:
    return cubes.probabilities(volume, runtime, classes=2, edge=edge, empty=EMPTY)


@pytest.mark.parametrize("edge", [16, 32, 64])
def test_every_voxel_gets_its_own_answer(
    volume: NDArray[np.float32], edge: int
) -> None:
    expected = special.expit(volume)[None]
    result = found(volume, Pointwise(), edge)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_cubes_overlap_and_stay_inside(volume: NDArray[np.float32]) -> None:
    places = list(cubes.places(volume.shape, 16))
    seen = np.zeros(volume.shape, int)
    for place in places:
        assert volume[place].shape == (16, 16, 16)
        seen[place] += 1
    assert seen.min() == 1
    starts = sorted({place[2].start for place in places})
    assert max(np.diff(starts)) <= 12
    assert (starts[0], starts[-1]) == (0, 34)


def test_empty_cubes_are_left_out(volume: NDArray[np.float32]) -> None:
    volume[:, :, 20:] = EMPTY
    runtime = Pointwise()
    result = found(volume, runtime)
    assert runtime.calls < len(list(cubes.places(volume.shape, 16)))
    assert np.abs(result[0, :, :, 40:]).max() == 0


def test_the_middle_of_a_cube_counts_more() -> None:
    weights = cubes.weights(16)
    assert weights.shape == (16, 16, 16)
    assert weights.max() == weights[7, 7, 7] == weights[8, 8, 8]
    assert weights[0, 0, 0] == pytest.approx(cubes.LEAST_WEIGHT)
    assert float(weights[0, 8, 8]) < float(weights[4, 8, 8]) < float(weights[7, 8, 8])


def test_answers_are_weighed_where_cubes_overlap() -> None:
    """Two cubes along the first axis, 8 voxels apart, that contradict each other."""
    volume = np.ones((24, 16, 16), np.float32)
    result = found(volume, Sided())[0, :, 8, 8]
    side = cubes.weights(16)[:, 8, 8]
    assert result[:8].min() == 1
    assert result[16:].max() == 0
    expected = side[:8] / (side[:8] + side[8:])
    np.testing.assert_allclose(result[8:16], expected, rtol=1e-5)


def test_the_gate_looks_at_the_fullest_cube(volume: NDArray[np.float32]) -> None:
    volume[20:36, :, 30:46] += 5
    (cube,) = cubes.middle(volume, 16, EMPTY)
    assert cube.shape == (1, 16, 16, 16)
    assert float(cube.mean()) > 3


def model_of(
    name: str, classes: str, folder: Path, patch: int, spacing_mm: float
) -> Path:
    """Write a model with random weights, and a bias for what it should find."""
    torch.manual_seed(0)
    spec, chosen = catalog.find(name), labels.CLASS_SETS[classes]
    network = spec.build(in_channels=1, classes=len(chosen))
    recipe = Recipe("r", spacing_mm=spacing_mm, normalisation="zero-one")
    manifest = Manifest(name, name, chosen, "ct", spec.views, recipe, patch)
    path = folder / f"{name}.safetensors"
    save_model(path, network, manifest)
    return path


def segmented(model: Path, output: Path) -> CaseResult:
    settings = SegmentSettings(model=str(model), precision="float32")
    (result,) = SegmentRun([DATA / "tptbox_ct.nii.gz"], output, settings).results()
    return result


@pytest.mark.parametrize(
    ("name", "spacing_mm"), [("mru-net-3d", 2.0), ("attention-linknet-152", 4.0)]
)
def test_segment_takes_networks_in_three_dimensions(
    name: str, spacing_mm: float, tmp_path: Path
) -> None:
    result = segmented(model_of(name, "spine", tmp_path, 32, spacing_mm), tmp_path)
    assert result.status == "done", result.error
    mask = Volume.read(Path(result.outputs["spine"]))
    scan = Volume.read(DATA / "tptbox_ct.nii.gz")
    assert mask.grid.matches(scan.grid)
    assert set(np.unique(mask.voxels)) <= {0, 1}


def test_single_vertebrae_become_a_map_of_verse_ids(tmp_path: Path) -> None:
    model = model_of("mru-net-3d", "vertebrae", tmp_path, 32, 3.0)
    result = segmented(model, tmp_path)
    assert set(result.outputs) == {"spine", "vertebrae", "preview"}
    vertebrae = Volume.read(Path(result.outputs["vertebrae"])).voxels
    spine = Volume.read(Path(result.outputs["spine"])).voxels
    assert result.outputs["vertebrae"].endswith("_seg-vert_msk.nii.gz")
    assert np.array_equal(vertebrae > 0, spine == 1)
    assert set(np.unique(vertebrae)) <= set(labels.VERTEBRAE) | {0}


def test_its_views_are_not_to_be_chosen(tmp_path: Path) -> None:
    model = model_of("mru-net-3d", "spine", tmp_path, 32, 3.0)
    with pytest.raises(SettingsError, match="sees its three views together"):
        SegmentRun(
            [DATA], tmp_path, SegmentSettings(model=str(model), views="sagittal")
        )
    SegmentRun([DATA], tmp_path, SegmentSettings(model=str(model), views="all"))
