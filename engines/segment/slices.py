"""Batches of slices of one view, padded to what the network can take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BATCH_PIXELS = 8 * 256 * 256
"""Pixels per batch: enough to keep two cores busy, small enough for their caches."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a slice is put into before the network sees it.

    Attributes:
        stride: rows and columns become multiples of this.
        least: rows and columns are at least this, as in training.
        empty: what the margin is filled with.
    """

    stride: int
    least: int
    empty: float

    def margins(self, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Return (before, behind) for rows and columns, the slice in the middle."""
        around = []
        for size in shape:
            wanted = -(-max(size, self.least) // self.stride) * self.stride
            around.append(((wanted - size) // 2, (wanted - size + 1) // 2))
        return tuple(around)

    def put(self, slices: NDArray[Any]) -> Tensor:
        """Return ``slices`` (N, H, W) as (N, 1, H', W')."""
        tensor = torch.from_numpy(np.ascontiguousarray(slices, np.float32))[:, None]
        rows, columns = self.margins(slices.shape[1:])
        return functional.pad(tensor, (*columns, *rows), value=self.empty)

    def take(self, framed: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the part of ``framed`` (N, C, H', W') that is the slice, (H, W)."""
        (top, _), (left, _) = self.margins(shape)
        return framed[:, :, top : top + shape[0], left : left + shape[1]]


def batches(
    slices: NDArray[Any], frame: Frame
) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
    """Yield (indices, batch) over ``slices`` (N, H, W), framed.

    Slices that hold nothing but ``frame.empty`` are left out.
    """
    filled = np.flatnonzero((slices != frame.empty).any(axis=(1, 2)))
    pixels = 1
    for size, (before, behind) in zip(
        slices.shape[1:], frame.margins(slices.shape[1:]), strict=True
    ):
        pixels *= before + size + behind
    count = max(1, BATCH_PIXELS // pixels)
    for start in range(0, len(filled), count):
        index = filled[start : start + count]
        yield index, frame.put(slices[index])
