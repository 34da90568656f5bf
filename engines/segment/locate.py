"""Find roughly where the spine lies, so that only its surroundings are computed.

A few sagittal slices, whole, tell the box: most of the arithmetic of a body scan is
saved, and bones far from the spine are never looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from engines.arrays import Array, namespace, to_numpy
from engines.runtimes.runtime import Runtime
from engines.segment import clean, slices, views
from engines.segment.slices import Frame

EVERY_MM = 10.0
"""Distance between the slices that are looked at."""

MARGIN_MM = (24.0, 24.0, 60.0)
"""Added on both sides along (R, A, S); most at the head and feet end, where it is the
ends of the spine that so few slices may not show."""

SURE = 0.5
"""Probability that counts as spine here."""

GAP_MM = 20.0
"""Parts of the spine that look apart here are no farther apart than this."""

LEAST_SHARE = 0.06
"""Of the spine in the slice with most of it; slices with less do not stretch the box,
nor do rows."""

LEAST_VOXELS = 400
"""With less spine than this in the slices looked at, the box is the whole scan."""

Box = tuple[slice, slice, slice]

ALONG = 2
"""The axis that the spine runs along."""

WHOLE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, slots=True)
class Located:
    """Where the spine roughly is.

    Attributes:
        box: the part of the scan that holds it and a margin.
        seen: what was seen of it in that box, (R, A, S), as if the slices between
            those that were looked at held the same; None if too little was seen, the
            box then being the whole scan.
    """

    box: Box
    seen: NDArray[np.bool_] | None


def spine(
    prepared: Array,
    runtime: Runtime,
    planes: Sequence[str],
    spacing_mm: tuple[float, float, float],
    frame: Frame,
) -> Located:
    """Find the spine in ``prepared`` (R, A, S), on the device that computes."""
    view = "sagittal" if "sagittal" in planes else planes[0]
    stacked = views.stack(prepared, view)
    across = views.NORMALS[view]
    every = max(1, round(EVERY_MM / spacing_mm[across]))
    first = (len(stacked) - 1) % every // 2
    chosen = stacked[first::every]
    xp = namespace(prepared)
    found = xp.zeros(chosen.shape, dtype=xp.bool, device=device(prepared))
    for index, batch in slices.batches(chosen, frame):
        given = frame.take(runtime.predict(batch), chosen.shape[1:])
        found[index] = xp.sum(given[:, 1:], axis=1) > SURE
    if int(xp.sum(found)) < LEAST_VOXELS:
        return Located(WHOLE, None)
    steps = [every if axis == across else 1 for axis in range(3)]
    seen = _of_spine(
        np.moveaxis(to_numpy(found), 0, across),
        tuple(mm * step for mm, step in zip(spacing_mm, steps, strict=True)),
    )
    nearest = np.rint((np.arange(len(stacked)) - first) / every).astype(int)
    seen = np.take(seen, np.clip(nearest, 0, len(chosen) - 1), axis=across)
    limits = []
    for axis, margin_mm in enumerate(MARGIN_MM):
        held = np.flatnonzero(seen.any(axis=_but(axis)))
        margin = round(margin_mm / spacing_mm[axis])
        ends = int(held[0]) - margin, int(held[-1]) + margin + 1
        limits.append(frame.stretched(ends, prepared.shape[axis]))
    box = (limits[0], limits[1], limits[2])
    return Located(box, seen[box])


def _of_spine(
    seen: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Return what is spine of (R, A, S), without what stretches it for little."""
    parts, _, kept = clean.parts_of_spine(seen, spacing_mm, GAP_MM)
    spine = np.isin(parts, sorted(kept))
    for axis in (0, 1):
        counts = spine.sum(axis=_but(axis))
        few = counts < LEAST_SHARE * counts.max()
        np.moveaxis(spine, axis, 0)[few] = False
    return spine


def _but(axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != axis)


def outgrown(
    spine: NDArray[np.bool_],
    place: Box,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> Box | None:
    """Return a wider box where ``spine`` reaches the side of ``place``.

    Its ends reach the ends of the scan then, since a spine that goes on there may go on
    for long. The side of the scan itself counts for nothing. None when the box was wide
    enough.

    Args:
        spine: what was found in ``place``.
        place: a box of a scan.
        shape: of that scan, (R, A, S).
        spacing_mm: of that scan.
    """
    wider = []
    same = True
    for axis, margin_mm in enumerate(MARGIN_MM):
        size = shape[axis]
        margin = size if axis == ALONG else round(margin_mm / spacing_mm[axis])
        start, stop, _ = place[axis].indices(size)
        held = np.asarray(spine.any(axis=_but(axis)))
        low = max(0, start - margin) if held[:2].any() else start
        high = min(size, stop + margin) if held[-2:].any() else stop
        same &= (low, high) == (start, stop)
        wider.append(slice(low, high))
    return None if same else (wider[0], wider[1], wider[2])


def carried(seen: NDArray[np.bool_], place: Box, wider: Box) -> NDArray[np.bool_]:
    """Return what was ``seen`` in ``place`` as a part of ``wider``, which holds it."""
    shape = tuple(side.stop - side.start for side in wider)
    found = np.zeros(shape, bool)
    there = tuple(
        slice(side.start - whole.start, side.start - whole.start + count)
        for side, whole, count in zip(place, wider, seen.shape, strict=True)
    )
    found[there] = seen
    return found
