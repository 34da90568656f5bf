"""Batches of slices of one view, padded to what the network can take."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BATCH_PIXELS = 8 * 256 * 256
"""Pixels per batch: enough to keep two cores busy, small enough for their caches."""


def batches(
    slices: NDArray[Any], stride: int, empty: float
) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
    """Yield (indices, batch) over ``slices`` (N, H, W).

    Slices that hold nothing but ``empty`` are left out. A batch is (n, 1, H', W'),
    H' and W' the next multiples of ``stride``, filled with ``empty``.
    """
    filled = np.flatnonzero((slices != empty).any(axis=(1, 2)))
    height, width = (-(-n // stride) * stride for n in slices.shape[1:])
    count = max(1, BATCH_PIXELS // (height * width))
    for start in range(0, len(filled), count):
        index = filled[start : start + count]
        yield index, padded(slices[index], stride, empty)


def padded(slices: NDArray[Any], stride: int, empty: float) -> Tensor:
    """Return ``slices`` (N, H, W) as (N, 1, H', W'), filled up behind."""
    tensor = torch.from_numpy(np.ascontiguousarray(slices, np.float32))[:, None]
    rows, columns = (-n % stride for n in slices.shape[1:])
    return functional.pad(tensor, (0, columns, 0, rows), value=empty)
