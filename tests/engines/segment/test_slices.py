"""Slices go into their frame and come out again unchanged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import SettingsError
from engines.segment import slices, views
from engines.segment.slices import Frame

SIZES = st.integers(1, 70)


@given(SIZES, SIZES, st.sampled_from([0, 1, 64]))
def test_frame_gives_back_what_was_put_in(rows: int, columns: int, least: int) -> None:
    given_ = np.arange(2 * rows * columns, dtype=np.float32).reshape(2, rows, columns)
    frame = Frame(stride=32, least=least, empty=-1)
    framed = frame.put(torch.from_numpy(given_))
    assert framed.shape[2] % 32 == framed.shape[3] % 32 == 0
    assert min(framed.shape[2:]) >= least
    np.testing.assert_array_equal(frame.take(framed, (rows, columns))[:, 0], given_)
    assert (framed == -1).sum() == framed.numel() - given_.size


def test_batches_cover_every_slice_that_holds_something() -> None:
    stacked = torch.full((40, 30, 50), 0.25)
    stacked[3:35, 10, 10] = torch.arange(32)
    frame = Frame(stride=32, least=128, empty=0.25)
    seen = [index for index, _ in slices.batches(stacked, frame)]
    assert np.concatenate(seen).tolist() == list(range(3, 35))
    assert len(seen) == 1
    (_, batch), *_ = slices.batches(torch.ones(99, 256, 256), frame)
    assert batch.shape == (8, 1, 256, 256)


@pytest.mark.parametrize("view", list(views.NORMALS))
def test_stack_puts_the_normal_first(view: str) -> None:
    volume = torch.zeros(2, 3, 4)
    normal = views.NORMALS[view]
    rest = [n for axis, n in enumerate(volume.shape) if axis != normal]
    assert views.stack(volume, view).shape == (volume.shape[normal], *rest)


def test_training_cuts_slices_the_same_way() -> None:
    from engines.train.sampling import VIEW_AXES

    volume = torch.zeros(2, 3, 4)
    for view, (rows, columns, normal) in VIEW_AXES.items():
        expected = tuple(volume.shape[axis] for axis in (normal, rows, columns))
        assert views.stack(volume, view).shape == expected


def test_views_are_resolved_or_refused() -> None:
    trained = ("axial", "sagittal")
    assert views.resolve(None, trained) == trained
    assert views.resolve("sagittal,sagittal", trained) == ("sagittal",)
    with pytest.raises(SettingsError, match="no view is called 'top'"):
        views.resolve("top", trained)
    with pytest.raises(SettingsError, match="not trained on coronal"):
        views.resolve("all", trained)


def test_torch_is_only_padded_not_resampled() -> None:
    frame = Frame(stride=8, least=16, empty=0.0)
    noise = torch.from_numpy(np.random.default_rng(0).random((1, 9, 13), np.float32))
    assert float(frame.put(noise).sum()) == pytest.approx(float(noise.sum()), rel=1e-5)
    assert frame.put(noise).dtype == torch.float32
