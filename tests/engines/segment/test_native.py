"""Labels come back to the scan's own grid where the anatomy is."""

import numpy as np
import pytest
import torch

from engines import geometry
from engines.geometry import Grid
from engines.segment import native


def a_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-30, 20, 5)
    return Grid(shape, affine)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 2.5), (3.0, 2.0, 1.0)])
def test_a_ball_keeps_its_place_and_size(spacing: tuple[float, float, float]) -> None:
    target = a_grid((60, 50, 40), spacing)
    source = geometry.resampled(target, (1.5, 1.5, 1.5))
    centre, radius = target.corners_mm().mean(axis=0), 14.0

    def apart_mm(grid: Grid) -> np.ndarray:
        index = np.indices(grid.shape).reshape(3, -1)
        points = geometry.corners_at(grid.affine, index)
        return np.linalg.norm(points - centre, axis=1).reshape(grid.shape)

    soft = np.clip((radius - apart_mm(source)) / 3 + 0.5, 0, 1).astype(np.float32)
    found = native.labels(torch.from_numpy(soft)[None], source, target)
    assert found.dtype == np.uint8
    ball = apart_mm(target) < radius
    both = (ball & (found > 0)).sum()
    assert 2 * both / (ball.sum() + (found > 0).sum()) > 0.97


def test_slabs_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    target = a_grid((31, 20, 17), (1.0, 1.0, 2.0))
    source = geometry.resampled(target, (1.5, 1.5, 1.5))
    shares = torch.rand((3, *source.shape)) / 2
    whole = native.labels(shares, source, target)
    monkeypatch.setattr(native, "SLAB_VOXELS", 20 * 17 * 4)
    np.testing.assert_array_equal(native.labels(shares, source, target), whole)
    assert set(np.unique(whole)) == {0, 1, 2, 3}


def test_the_most_probable_class_wins_against_the_background() -> None:
    grid = a_grid((1, 1, 3), (1.0, 1.0, 1.0))
    shares = torch.tensor([[0.3, 0.1, 0.45], [0.2, 0.6, 0.2]])[:, None, None]
    found = native.labels(shares, grid, grid)
    assert found.ravel().tolist() == [0, 2, 1]


def test_an_empty_map_is_empty() -> None:
    grid = a_grid((5, 5, 5), (1.0, 1.0, 1.0))
    assert not native.labels(torch.zeros(1, 5, 5, 5), grid, grid).any()


def test_uncertain_voxels_are_marked_when_asked() -> None:
    grid = a_grid((1, 1, 4), (1.0, 1.0, 1.0))
    shares = torch.tensor([0.1, 0.3, 0.7, 0.95])[None, None, None]
    found = native.labels(shares, grid, grid, mark_uncertain=True)
    assert found.ravel().tolist() == [0, 255, 255, 1]
    assert native.labels(shares, grid, grid).ravel().tolist() == [0, 0, 1, 1]
