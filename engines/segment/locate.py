"""Find roughly where the spine lies, so that only its surroundings are computed.

A quarter of the sagittal slices, whole, tell the box: 60 to 80 % of the arithmetic
of a body scan is saved, and bones far from the spine are never looked at.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engines.runtimes.runtime import Runtime
from engines.segment import clean, slices, views
from engines.segment.slices import Frame

EVERY = 4
"""One slice of this many is looked at; 6 mm apart on a 1.5 mm grid."""

MARGIN_MM = 30.0
"""Added on all sides but the head and feet end, where the box reaches all through."""

SURE = 0.5
"""Probability that counts as spine here."""

GAP_MM = 40.0
"""Parts of the spine that look apart here are no farther apart than this."""

LEAST_VOXELS = 400
"""With less spine than this in the slices looked at, the box is the whole scan."""

Box = tuple[slice, slice, slice]


def box(
    prepared: NDArray[np.float32],
    runtime: Runtime,
    planes: Sequence[str],
    spacing_mm: tuple[float, float, float],
    frame: Frame,
) -> Box:
    """Return the part of ``prepared`` (R, A, S) that holds the spine and a margin."""
    whole = (slice(None), slice(None), slice(None))
    view = "sagittal" if "sagittal" in planes else planes[0]
    stacked = views.stack(prepared, view)
    chosen = np.arange(len(stacked) % EVERY // 2, len(stacked), EVERY)
    rows, columns = stacked.shape[1:]
    seen = torch.zeros((len(chosen), rows, columns), dtype=torch.bool)
    for index, batch in slices.batches(stacked[chosen], frame):
        found = frame.take(runtime.predict(batch), (rows, columns))
        seen[index] = found[:, 1:].sum(dim=1) > SURE
    if int(seen.sum()) < LEAST_VOXELS:
        return whole
    across = views.NORMALS[view]
    steps = [EVERY if axis == across else 1 for axis in range(3)]
    coarse_mm = tuple(mm * step for mm, step in zip(spacing_mm, steps, strict=True))
    parts, _, kept = clean.parts_of_spine(
        torch.movedim(seen, 0, across).numpy(), coarse_mm, GAP_MM
    )
    spine = np.isin(parts, sorted(kept))
    limits = []
    for axis in (0, 1):
        others = tuple(a for a in range(3) if a != axis)
        held = np.flatnonzero(spine.any(axis=others)) * steps[axis]
        margin = round(MARGIN_MM / spacing_mm[axis]) + steps[axis]
        start = max(0, int(held[0]) - margin)
        limits.append(slice(start, int(held[-1]) + margin + 1))
    return (limits[0], limits[1], slice(None))


def outgrown(spine: NDArray[np.bool_], place: Box, margin_voxels: int) -> Box | None:
    """Return a wider box where ``spine`` (R, A, S) reaches the side of ``place``.

    The side of the scan itself counts for nothing. None when the box was wide enough.
    """
    wider = []
    for axis in (0, 1):
        size = spine.shape[axis]
        start, stop, _ = place[axis].indices(size)
        others = tuple(a for a in range(3) if a != axis)
        held = np.asarray(spine.any(axis=others))
        if start > 0 and held[start : start + 2].any():
            start = max(0, start - margin_voxels)
        if stop < size and held[stop - 2 : stop].any():
            stop = min(size, stop + margin_voxels)
        wider.append(slice(start, stop))
    same = all(
        new.indices(n)[:2] == old.indices(n)[:2]
        for new, old, n in zip(wider, place, spine.shape, strict=False)
    )
    return None if same else (wider[0], wider[1], slice(None))
