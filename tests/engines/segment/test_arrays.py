"""The pipeline's array code gives the same on NumPy arrays and on tensors."""

from collections.abc import Callable

import array_api_compat
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special

from engines.arrays import Array, beside, namespace, on_device, to_numpy
from engines.geometry import Grid
from engines.segment import fuse, locate, native, views, windows
from engines.segment.slices import Frame, batches, is_filled

FRAME = Frame(16, 32, 0.0)
MM = (1.5, 1.5, 1.5)
Make = Callable[[NDArray[np.float32]], Array]


class Bright:
    """A runtime that takes what is bright for spine, on any kind of array."""

    backend, precision, device = "test", "float32", "cpu"

    def predict(self, slices: Array) -> Array:
        xp = namespace(slices)
        spine = xp.clip(slices, 0.0, 1.0)
        return xp.concat([1 - spine, spine / 2, spine / 2], axis=1)


@pytest.fixture
def volume() -> NDArray[np.float32]:
    """A bright column in a dark box, (R, A, S)."""
    values = np.full((40, 36, 90), 0.05, np.float32)
    values[14:28, 10:24, 8:84] = 0.9
    values += np.random.default_rng(0).random(values.shape, np.float32) / 50
    values[:, :, :3] = 0.0
    return values


def fused(volume: Array) -> Array:
    found = locate.spine(volume, Bright(), ("sagittal", "axial"), MM, FRAME)
    return fuse.probabilities(
        volume[found.box], Bright(), ("axial", "coronal", "sagittal"),
        classes=3, frame=FRAME, spacing_mm=MM, seen=found.seen,
    )  # fmt: skip


def test_probabilities_are_the_same(volume: NDArray[np.float32]) -> None:
    arrays, tensors = fused(volume), fused(torch.from_numpy(volume))
    assert array_api_compat.is_numpy_array(arrays)
    assert array_api_compat.is_torch_array(tensors)
    np.testing.assert_allclose(arrays, tensors.numpy(), rtol=0, atol=1e-6)
    assert arrays.max() > 0.4


def test_boxes_are_the_same(volume: NDArray[np.float32]) -> None:
    one = locate.spine(volume, Bright(), ("sagittal",), MM, FRAME)
    other = locate.spine(torch.from_numpy(volume), Bright(), ("sagittal",), MM, FRAME)
    assert one.box == other.box
    assert one.seen is not None
    np.testing.assert_array_equal(one.seen, other.seen)


@pytest.mark.parametrize("mark_uncertain", [False, True])
def test_labels_are_the_same(mark_uncertain: bool) -> None:
    source = Grid((20, 24, 28), np.diag([1.5, 1.5, 1.5, 1]))
    target = Grid((31, 37, 17), np.diag([1.0, 1.0, 2.5, 1]))
    logits = np.random.default_rng(1).normal(size=(4, 5, 6, 7)) * 9
    blocks = logits.repeat(4, axis=1).repeat(4, axis=2).repeat(4, axis=3)
    shares = special.softmax(blocks, axis=0)[1:].astype(np.float32)
    shares[:, :6] = 0
    given = [shares, torch.from_numpy(shares)]
    one, other = (
        native.labels(share, source, target, mark_uncertain=mark_uncertain)
        for share in given
    )
    differ = np.count_nonzero(one != other)
    assert differ <= 1e-4 * one.size  # sums in another order decide ties
    assert len(np.unique(one)) > 3


def test_batches_are_the_same(volume: NDArray[np.float32]) -> None:
    tensor = torch.from_numpy(volume)
    for view in views.NORMALS:
        pairs = zip(
            batches(views.stack(volume, view), FRAME),
            batches(views.stack(tensor, view), FRAME),
            strict=True,
        )
        for (index, batch), (numbers, slices) in pairs:
            np.testing.assert_array_equal(index, numbers.numpy())
            np.testing.assert_array_equal(batch, slices.numpy())
            assert batch.flags["C_CONTIGUOUS"]
        filled = is_filled(views.stack(volume, view), 0.0)
        np.testing.assert_array_equal(
            filled, is_filled(views.stack(tensor, view), 0.0).numpy()
        )


def test_windows_are_the_same(volume: NDArray[np.float32]) -> None:
    looked = windows.around(volume > 0.5, 2, 2, (8, 8), FRAME)
    pairs = zip(
        looked.batches(volume, FRAME),
        looked.batches(torch.from_numpy(volume), FRAME),
        strict=True,
    )
    for (which, batch), (numbers, slices) in pairs:
        assert which == numbers
        np.testing.assert_array_equal(batch, slices.numpy())


def test_arrays_stay_where_they_are() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert on_device(values, "cpu") is values
    assert beside(values, values) is values
    assert to_numpy(values) is values
    tensor = beside(values, torch.zeros(1))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(to_numpy(tensor), values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_probabilities_are_the_same_on_a_gpu(volume: NDArray[np.float32]) -> None:
    found = fused(on_device(volume, "cuda:0"))
    assert found.device.type == "cuda"
    np.testing.assert_allclose(to_numpy(found), fused(volume), rtol=0, atol=1e-5)
