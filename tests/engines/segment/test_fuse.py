"""Fusion is the mean of what the views say, on the voxels they say it of."""

import numpy as np
import pytest
import torch

from engines.segment import fuse, locate
from engines.segment.slices import Frame


class Threshold:
    """A runtime that finds spine where a pixel is above one half."""

    backend, precision, device = "test", "float32", "cpu"

    def __init__(self) -> None:
        self.pixels = 0

    def predict(self, slices: torch.Tensor) -> torch.Tensor:
        self.pixels += slices.numel()
        spine = (slices > 0.5).float()
        return torch.cat([1 - spine, spine], dim=1)


FRAME = Frame(stride=32, least=0, empty=0.0)


@pytest.mark.parametrize("planes", [("axial",), ("coronal", "sagittal", "axial")])
def test_every_voxel_gets_its_own_answer(planes: tuple[str, ...]) -> None:
    volume = np.random.default_rng(1).random((17, 33, 21), np.float32)
    told: list[str] = []
    found = fuse.probabilities(
        torch.from_numpy(volume),
        Threshold(),
        planes,
        classes=2,
        frame=FRAME,
        spacing_mm=(1.0, 1.0, 1.0),
        told=told.append,
    )
    np.testing.assert_allclose(found[0], volume > 0.5)
    assert told == sorted(planes, key=fuse.FIRST.index)


def test_views_that_differ_are_averaged() -> None:
    class Rows(Threshold):
        def predict(self, slices: torch.Tensor) -> torch.Tensor:
            spine = torch.full_like(slices, 0.9 if slices.shape[2] == 64 else 0.3)
            return torch.cat([1 - spine, spine], dim=1)

    volume = np.ones((20, 40, 20), np.float32)  # only A needs 64 rows
    found = fuse.probabilities(
        torch.from_numpy(volume),
        Rows(),
        ("sagittal", "axial"),
        classes=2,
        frame=FRAME,
        spacing_mm=(1.0, 1.0, 1.0),
    )
    assert found.unique().tolist() == pytest.approx([0.6])


def test_box_holds_the_spine_and_saves_the_rest() -> None:
    volume = np.full((120, 120, 60), 0.1, np.float32)
    volume[55:70, 30:45, :] = 1.0
    place = locate.spine(
        torch.from_numpy(volume), Threshold(), ("sagittal",), (1.5, 1.5, 1.5), FRAME
    ).box
    inside = np.zeros(volume.shape, bool)
    inside[place] = True
    assert inside[volume > 0.5].all()
    assert inside.mean() < 0.5
    assert place[2] == slice(0, 60)


def test_box_is_not_stretched_by_something_far_away() -> None:
    volume = np.full((160, 120, 60), 0.1, np.float32)
    volume[40:56, 30:45, :] = 1.0
    volume[140:156, 100:116, :20] = 1.0
    place = locate.spine(
        torch.from_numpy(volume), Threshold(), ("sagittal",), (1.5, 1.5, 1.5), FRAME
    ).box
    assert place[0].stop < 100
    assert place[1].stop < 80


def test_box_is_everything_where_hardly_any_spine_is_seen() -> None:
    volume = np.full((40, 40, 40), 0.1, np.float32)
    volume[20, 20, 20] = 1.0
    place = locate.spine(
        torch.from_numpy(volume), Threshold(), ("axial",), (1.5, 1.5, 1.5), FRAME
    ).box
    assert place == (slice(None),) * 3


def test_a_box_that_cuts_the_spine_is_widened_and_no_other() -> None:
    spine = np.zeros((40, 60, 10), bool)
    spine[12:20, 20:41, :] = True
    place = (slice(5, 30), slice(10, 40), slice(0, 10))
    wider = locate.outgrown(spine[place], place, spine.shape, (2.0, 2.4, 1.0))
    assert wider == (slice(5, 30), slice(10, 50), slice(0, 10))
    assert locate.outgrown(spine[wider], wider, spine.shape, (2.0, 2.4, 1.0)) is None
    moved = locate.carried(spine[place], place, wider)
    np.testing.assert_array_equal(moved[:, :30], spine[place])
    assert not moved[:, 30:].any()
    ended = (slice(5, 30), slice(10, 50), slice(2, 8))
    assert locate.outgrown(spine[ended], ended, spine.shape, (2.0, 2.4, 9.0)) == (
        slice(5, 30),
        slice(10, 50),
        slice(0, 10),
    )
    whole = (slice(None), slice(None), slice(None))
    spine[:] = True
    assert locate.outgrown(spine, whole, spine.shape, (2.0, 2.4, 1.0)) is None
