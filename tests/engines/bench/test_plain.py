"""The plain way: the same labels as the program's."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from engines.bench import plain
from engines.bench.process import Ended
from engines.errors import BenchError
from engines.networks import shelf
from engines.segment import inference
from tests import phantoms

DATA = Path(__file__).parents[2] / "data"
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    """Return a piece of the real crop, whose axes are PIR."""
    path = tmp_path / "piece.nii.gz"
    nib.save(nib.load(DATA / "tptbox_ct.nii.gz").slicer[16:60, :, 12:60], path)
    return path


def test_it_finds_the_vertebrae_of_a_real_scan(crop: Path, tmp_path: Path) -> None:
    model = shelf.load(shelf.DEFAULT_MODEL)

    seconds = plain.labels(crop, tmp_path / "mask.nii.gz", model, CPU)

    mask, scan = nib.load(tmp_path / "mask.nii.gz"), nib.load(crop)
    np.testing.assert_array_equal(mask.affine, scan.affine)
    truth = nib.load(DATA / "tptbox_seg-vert_msk.nii.gz").slicer[16:60, :, 12:60]
    found, wanted = (np.asarray(one.dataobj) > 0 for one in (mask, truth))
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.85
    assert list(seconds) == ["read", "prepare", "network", "clean", "native", "write"]
    assert all(value >= 0 for value in seconds.values())


def test_grids_and_intensities_are_those_of_the_program() -> None:
    scan = phantoms.volume(phantoms.ct_values((40, 40, 30)), "PIR", (0.7, 1.1, 2.5))
    recipe = shelf.load(shelf.DEFAULT_MODEL).manifest.recipe
    ours = inference.prepare(scan, recipe)

    turned = plain.orient.reorient(scan, recipe.orientation)
    grid = plain.target_grid(turned.grid, recipe)
    theirs = plain._resampled(turned.voxels.astype(np.float32), turned.grid, grid, 3)

    assert grid.matches(ours.grid)
    assert np.corrcoef(theirs.ravel(), ours.hu.ravel())[0, 1] > 0.98


def test_the_winner_beats_the_background_and_all_others() -> None:
    grid = phantoms.volume(np.zeros((2, 1, 3), np.uint8), "RAS", (1, 1, 1)).grid
    share = np.zeros((2, 2, 1, 3), np.float32)
    share[:, 0, 0, 0] = 0.2, 0.7
    share[:, 1, 0, 1] = 0.4, 0.3
    share[:, 1, 0, 2] = 0.2, 0.3

    found = plain._winner(share, grid, grid)

    assert found[0, 0, 0] == 2
    assert found[1, 0, 1] == 1
    assert found[1, 0, 2] == 0  # the background has one half
    assert np.count_nonzero(found) == 2


def test_a_process_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Ended(1, 1.0, None, "", "Traceback\nMemoryError: too much\n")
    monkeypatch.setattr(plain, "timed", lambda command: ended)

    with pytest.raises(BenchError, match="ended with status 1: MemoryError: too much"):
        plain.segment([tmp_path / "scan.nii.gz"], tmp_path, "cpu", tmp_path)
