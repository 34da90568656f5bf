"""Which part of each slice is computed, once something is known of where the spine is.

The spine is a tenth of a chest and less of a whole body. After the first view every
other one looks through windows that follow it, all of one size so that they can be
batched, and wide enough that a network sees what surrounds the spine as in training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.arrays import Array, namespace
from engines.segment.slices import Frame, is_filled

MARGIN_MM = 24.0
"""Of surroundings on each side of what is known of the spine within a slice."""

REACH_MM = {"sagittal": 15.0, "coronal": 15.0, "axial": 60.0}
"""View -> how far beyond the outermost slice that holds spine slices are looked at;
far along the spine, as a first view may have missed its ends."""

FOLLOWS_MM = 10.0
"""A window holds what is known within so far on both sides of its slice."""

WIDEST = 95.0
"""Percentile of the slices whose spine a window is to hold whole. Stray voxels in a few
slices make the windows of all the others no wider."""

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Windows:
    """Parts of slices, all of one size.

    Attributes:
        slices: which slices, (M,).
        rows: first row of each, (M,).
        columns: first column of each, (M,).
        size: rows and columns of every part.
    """

    slices: Indices
    rows: Indices
    columns: Indices
    size: tuple[int, int]

    def batches(
        self, stacked: Array, frame: Frame
    ) -> Iterator[tuple[list[int], Array]]:
        """Yield (which windows, framed batch) over ``stacked`` (N, H, W).

        Slices that hold nothing but ``frame.empty`` are left out.
        """
        filled = is_filled(stacked, frame.empty).tolist()
        places = list(zip(*self.places(), strict=True))
        used = [which for which, (index, _, _) in enumerate(places) if filled[index]]
        count = frame.count(self.size)
        for start in range(0, len(used), count):
            numbers = used[start : start + count]
            cut = namespace(stacked).stack([stacked[places[n]] for n in numbers])
            yield numbers, frame.put(cut)

    def places(self) -> tuple[list[int], list[slice], list[slice]]:
        """Return the slice, the rows and the columns of each window."""
        height, width = self.size
        return (
            [int(i) for i in self.slices],
            [slice(int(i), int(i) + height) for i in self.rows],
            [slice(int(i), int(i) + width) for i in self.columns],
        )


def whole(shape: tuple[int, ...]) -> Windows:
    """Return every slice of (N, H, W) as it is."""
    nothing = np.zeros(shape[0], np.intp)
    return Windows(np.arange(shape[0]), nothing, nothing, (shape[1], shape[2]))


def around(
    seen: NDArray[np.bool_],
    reach: int,
    follows: int,
    margins: tuple[int, int],
    frame: Frame,
) -> Windows:
    """Return windows about what is ``seen`` of the spine, (N, H, W).

    Args:
        reach: slices that are looked at beyond the outermost that hold some.
        follows: slices on both sides whose spine a window is to hold, too.
        margins: rows and columns on each side.
        frame: windows are as large as what the network is given anyway.
    """
    held = np.flatnonzero(seen.any(axis=(1, 2)))
    if not len(held):
        return whole(seen.shape)
    start = max(0, int(held[0]) - reach)
    chosen = np.arange(start, min(len(seen), int(held[-1]) + reach + 1))
    firsts, sizes = [], []
    for axis, margin in ((2, margins[0]), (1, margins[1])):
        first, size = _along(np.asarray(seen.any(axis=axis)), chosen, follows, margin)
        full = seen.shape[3 - axis]
        size = min(full, frame.full(size))
        middle = first[0] + (first[1] - first[0] + 1) // 2
        firsts.append(np.clip(middle - size // 2, 0, full - size).astype(np.intp))
        sizes.append(size)
    return Windows(chosen, firsts[0], firsts[1], (sizes[0], sizes[1]))


def _along(
    held: NDArray[np.bool_], chosen: Indices, follows: int, margin: int
) -> tuple[tuple[Indices, Indices], int]:
    """Return the ends of what is held (N, L) near each chosen slice, and a size.

    The size holds nearly all of them with a margin. Slices that hold nothing take what
    the nearest one that does has.
    """
    some = np.flatnonzero(held.any(axis=1))
    low = held[some].argmax(axis=1)
    high = held.shape[1] - 1 - held[some, ::-1].argmax(axis=1)
    middle = (some[1:] + some[:-1] + 1) // 2
    nearest = np.searchsorted(middle, np.arange(len(held)), side="right")
    window = 2 * follows + 1
    low = ndimage.minimum_filter1d(low[nearest], window, mode="nearest")[chosen]
    high = ndimage.maximum_filter1d(high[nearest], window, mode="nearest")[chosen]
    size = int(np.ceil(np.percentile(high - low + 1, WIDEST))) + 2 * margin
    return (low, high), size
