"""One probability per voxel and class from the slices of several views."""

from collections.abc import Callable, Sequence

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from engines.arrays import Array, namespace, to_numpy
from engines.runtimes.runtime import Runtime
from engines.segment import clean, locate, views, windows
from engines.segment.slices import Frame

FIRST = ("sagittal", "coronal", "axial")
"""Order of the views: a sagittal slice shows most of the spine, so it comes first."""

SEEN = 0.5
"""Probability in any view that counts as having seen spine."""


def probabilities(
    prepared: Array,
    runtime: Runtime,
    planes: Sequence[str],
    *,
    classes: int,
    frame: Frame,
    spacing_mm: tuple[float, float, float],
    seen: NDArray[np.bool_] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Array:
    """Return the mean over ``planes`` of the foreground probabilities.

    Every view is computed about what was seen of the spine before it.

    Args:
        prepared: (R, A, S), on the recipe's grid, on the device that computes.
        spacing_mm: of that grid.
        seen: (R, A, S), what is known of the spine; None computes the first view
            whole.
        told: is called with each view before it is computed.

    Returns:
        (classes - 1, R, A, S), float32, on the device that computed them; the
        background's share is what is missing to 1. Where a view did not look it
        counts as background.
    """
    xp = namespace(prepared)
    total = xp.zeros(
        (classes - 1, *prepared.shape), dtype=xp.float32, device=device(prepared)
    )
    for view in sorted(planes, key=FIRST.index):
        told(view)
        stacked = views.stack(prepared, view)
        looked = _windows(seen, view, spacing_mm, frame, stacked.shape)
        target = xp.moveaxis(total, 1 + views.NORMALS[view], 1)
        numbers, rows, columns = looked.places()
        for which, batch in looked.batches(stacked, frame):
            found = frame.take(runtime.predict(batch), looked.size)
            for number, one in zip(which, found[:, 1:], strict=True):
                target[:, numbers[number], rows[number], columns[number]] += one
        seen = _spine(to_numpy(xp.sum(total, axis=0) > SEEN), spacing_mm)
    total /= len(planes)
    return total


def _windows(
    seen: NDArray[np.bool_] | None,
    view: str,
    spacing_mm: tuple[float, float, float],
    frame: Frame,
    shape: tuple[int, ...],
) -> windows.Windows:
    if seen is None:
        return windows.whole(shape)
    across = views.NORMALS[view]
    inside = [axis for axis in range(3) if axis != across]
    margins = [
        shape[1 + place]
        if axis == locate.ALONG
        else round(windows.MARGIN_MM / spacing_mm[axis])
        for place, axis in enumerate(inside)
    ]
    return windows.around(
        np.moveaxis(seen, across, 0),
        round(windows.REACH_MM[view] / spacing_mm[across]),
        round(windows.FOLLOWS_MM / spacing_mm[across]),
        (margins[0], margins[1]),
        frame,
    )


def _spine(
    seen: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_] | None:
    """Return ``seen`` without islands, told apart on half of its grid."""
    half = seen[::2, ::2, ::2]
    if not half.any():
        return None
    doubled = tuple(2 * mm for mm in spacing_mm)
    parts, _, kept = clean.parts_of_spine(half, doubled, clean.GAP_MM)
    spine = np.isin(parts, sorted(kept))
    for axis, count in enumerate(seen.shape):
        spine = spine.repeat(2, axis).take(range(count), axis)
    return spine
