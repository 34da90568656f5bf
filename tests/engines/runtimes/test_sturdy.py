"""Batches that do not fit are halved; a lost device is told as such."""

import numpy as np
import pytest
import torch

from engines.errors import LostDeviceError
from engines.runtimes.sturdy import SturdyRuntime


class Small:
    """A device whose memory holds few slices."""

    backend, precision, device = "test", "float16", "cuda:0"

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.asked: list[int] = []

    def predict(self, slices: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(slices))
        if len(slices) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return slices.repeat(1, 2, 1, 1)


SLICES = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 1, 2, 2)


@pytest.mark.parametrize(("holds", "asked"), [(9, [7]), (3, [7, 3, 3, 1])])
def test_batches_are_halved_until_they_fit(holds: int, asked: list[int]) -> None:
    small = Small(holds)
    runtime = SturdyRuntime(small)
    found = runtime.predict(SLICES)
    torch.testing.assert_close(found, SLICES.repeat(1, 2, 1, 1))
    assert small.asked == asked
    _, slices, notes = runtime.take()
    assert slices == 7
    assert [note.code for note in notes] == ["smaller_batches"] * (len(asked) > 1)
    runtime.predict(SLICES)
    assert max(small.asked[len(asked) :]) <= holds
    assert runtime.take()[2] == []


def test_a_slice_that_does_not_fit_alone_is_told() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        SturdyRuntime(Small(0)).predict(SLICES)


class Dying(Small):
    def predict(self, slices: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(self.message)

    message = "CUDA error: unspecified launch failure\nmore"


def test_a_lost_device_is_told_and_other_errors_pass() -> None:
    dying = Dying(1)
    with pytest.raises(LostDeviceError, match="cuda:0 was lost: CUDA error: unspec"):
        SturdyRuntime(dying).predict(SLICES)
    dying.message = "shapes do not fit"
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        SturdyRuntime(dying).predict(SLICES)


def test_time_is_counted_until_it_is_taken() -> None:
    runtime = SturdyRuntime(Small(9))
    runtime.predict(SLICES)
    assert runtime.take()[0] > 0
    assert runtime.take() == (0.0, 0, [])


def test_arrays_of_numpy_stay_arrays() -> None:
    class OnHost(Small):
        device = "cpu"

        def predict(self, slices: np.ndarray) -> np.ndarray:
            self.asked.append(len(slices))
            if len(slices) > self.holds:
                raise torch.OutOfMemoryError("out of memory")
            return np.repeat(slices, 2, axis=1)

    found = SturdyRuntime(OnHost(3)).predict(SLICES.numpy())
    np.testing.assert_array_equal(found, np.repeat(SLICES.numpy(), 2, axis=1))


def test_memory_of_the_machine_that_runs_out_is_told() -> None:
    class Full(Small):
        def predict(self, slices: torch.Tensor) -> torch.Tensor:
            raise MemoryError

    with pytest.raises(MemoryError):
        SturdyRuntime(Full(1)).predict(SLICES)
