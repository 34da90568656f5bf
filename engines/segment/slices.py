"""Batches of slices of one view, padded to what the network can take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from array_api_compat import device

from engines.arrays import Array, namespace

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
            wanted = self.full(size)
            around.append(((wanted - size) // 2, (wanted - size + 1) // 2))
        return tuple(around)

    def full(self, size: int) -> int:
        """Return what ``size`` rows or columns are filled up to."""
        return -(-max(size, self.least) // self.stride) * self.stride

    def stretched(self, ends: tuple[int, int], size: int) -> slice:
        """Return a range about ``ends`` (first, behind the last) out of ``size``.

        What would be filled up is taken from the scan instead, as far as it goes.
        """
        wanted = min(size, self.full(ends[1] - ends[0]))
        start = (ends[0] + ends[1] - wanted) // 2
        start = max(0, min(start, size - wanted))
        return slice(start, start + wanted)

    def put(self, slices: Array) -> Array:
        """Return ``slices`` (N, H, W) as (N, 1, H', W'), contiguous."""
        count, height, width = slices.shape
        framed = namespace(slices).full(
            (count, 1, self.full(height), self.full(width)),
            self.empty,
            dtype=slices.dtype,
            device=device(slices),
        )
        self.take(framed, (height, width))[:, 0] = slices
        return framed

    def count(self, shape: Sequence[int]) -> int:
        """Return how many slices of ``shape`` (H, W) make a batch."""
        rows, columns = (self.full(size) for size in shape)
        return max(1, BATCH_PIXELS // (rows * columns))

    def take(self, framed: Array, shape: Sequence[int]) -> Array:
        """Return the part of ``framed`` (N, C, H', W') that is the slice, (H, W)."""
        (top, _), (left, _) = self.margins(shape)
        return framed[:, :, top : top + shape[0], left : left + shape[1]]


def batches(slices: Array, frame: Frame) -> Iterator[tuple[Array, Array]]:
    """Yield (indices, batch) over ``slices`` (N, H, W), framed.

    Slices that hold nothing but ``frame.empty`` are left out.
    """
    (filled,) = namespace(slices).nonzero(is_filled(slices, frame.empty))
    count = frame.count(slices.shape[1:])
    for start in range(0, len(filled), count):
        index = filled[start : start + count]
        yield index, frame.put(slices[index])


def is_filled(slices: Array, empty: float) -> Array:
    """Say of each of ``slices`` (N, H, W) whether it holds more than ``empty``."""
    return namespace(slices).any(slices != empty, axis=(1, 2))
