"""Bodies, arches, discs and canal, told apart in a mask of whole vertebrae.

A body is what lies in front of the canal: along the axis of the spine the bone of a
vertebra encloses the canal as a ring, and the line down the front of that hole is the
body's posterior wall. Discs lie between neighbouring bodies. Of the sacrum, the first
body is sought below the last disc.

All arrays lie along RAS axes, all places are in mm from the first voxel.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines import labels
from engines.train import frames
from engines.train.frames import REACH_MM, Frame, Mask, Places

OTHER, BODY, ARCH, DISC, CANAL, UNSURE, UNKNOWN = range(7)
"""Tissues: nothing of these, vertebral body, other bone of the spine, disc, canal,
bone of the sacrum that may or may not count as its first body, and where that should
be but no mask is."""

TISSUES = (BODY, ARCH, DISC, CANAL, UNSURE)

ORDER = (*range(2, 20), 28, *range(20, 26))
"""VerSe ids that have bodies, from the head down; the atlas has none."""

LAST = (24, 25)
"""Those that may lie upon the sacrum."""

CORE_MM, GROW_MM = 4.0, 3.0
"""Radius of the ball that a body is opened with, and how far it then regrows."""

DEEP = 0.75
"""Share of the greatest depth below the surface from which on bone is a body's core."""

GAP_MM, BETWEEN_MM = 18.0, 7.0
"""The highest disc; and how far the canal goes on beyond each body."""

SACRAL_MM, SACRAL_GAP_MM = 27.0, 14.0
"""Height of the first sacral body; and how far below the last lumbar one it begins at
most. Some label maps leave it out: then nobody knows what lies there."""

WALL_MM, STEEPEST = 4.0, 0.25
"""Bone that begins farther in front of the canal than this is endplate, not posterior
wall; and the steepest wall against the axis of the spine."""

LEAST_VOXELS = 60
"""A vertebra with less is cut off: all of it counts as arch."""

Tissues = NDArray[np.uint8]
Wall = tuple[float, float]
"""Place of a posterior wall along anterior at a height of 0, and its slope."""


def tissues_of(ids: NDArray[np.integer], spacing_mm: tuple[float, ...]) -> Tissues:
    """Return the tissue of each voxel.

    Args:
        ids: (R, A, S), VerSe ids.
        spacing_mm: voxel size.
    """
    mm = np.array(spacing_mm, float)
    found = np.where(ids > 0, ARCH, OTHER).astype(np.uint8)
    boxes = ndimage.find_objects(ids.astype(np.int32))
    held = [i for i in ORDER if i <= len(boxes) and (ids == i).sum() >= LEAST_VOXELS]
    about = _frames(ids, held, mm)
    for index in held:
        _divide(found, ids == index, about[index], mm)
    pairs = [(a, b) for a, b in pairwise(ORDER) if a in about and b in about]
    pairs += [(19, 20)] if 28 not in about and {19, 20} <= about.keys() else []
    for upper, lower in pairs:
        _fill(found, ids, (upper, lower), about, mm)
    if held and held[-1] in LAST and (ids == labels.SACRUM).sum() > LEAST_VOXELS:
        _sacrum(found, ids, held[-1], about[held[-1]], mm)
    return found


def _frames(
    ids: NDArray[np.integer], held: list[int], mm: Places
) -> Mapping[int, Frame]:
    """Return the axes of each vertebra, up along the line through the bodies."""
    cores, masses = [], []
    for index in held:
        mask = ids == index
        box = frames.padded(mask, 1)
        depth = ndimage.distance_transform_edt(np.pad(mask[box], 1), sampling=mm)
        depth = depth[1:-1, 1:-1, 1:-1]
        start = np.array([side.start for side in box])
        cores.append((np.argwhere(depth > DEEP * depth.max()).mean(0) + start) * mm)
        masses.append((np.argwhere(mask[box]).mean(0) + start) * mm)
    if not held:
        return {}
    line = np.array(cores)
    up = np.tile([0.0, 0.0, 1.0], (len(held), 1))
    if len(held) > 1:
        up = -np.gradient(line, axis=0)
    about = {}
    for index, core, mass, way in zip(held, cores, masses, up, strict=True):
        about[index] = frames.along(core, core - mass, way)
    return about


def _divide(found: Tissues, mask: Mask, frame: Frame, mm: Places) -> None:
    """Mark body and canal of one vertebra in ``found``, in place."""
    solid = frame.box(mask, mm)
    hole = _hole(solid)
    wall = _wall(solid, hole)
    box = frames.padded(mask, 2)
    places = frame.inside(frames.places(box, mm))
    front = mask[box] & (places[..., 1] > wall[0] + wall[1] * places[..., 2])
    body = _opened(front, mm)
    found[box][body] = BODY
    if hole is None:
        return
    box = frames.around(frame, found.shape, mm)
    places = frame.inside(frames.places(box, mm))
    rows = np.rint(places[..., 0] + REACH_MM[0]).astype(int)
    columns = np.rint(places[..., 1] + REACH_MM[1]).astype(int)
    within = (rows >= 0) & (rows < hole.shape[0])
    within &= (columns >= 0) & (columns < hole.shape[1])
    within &= np.abs(places[..., 2]) < _half_mm(solid) + BETWEEN_MM
    within[within] = hole[rows[within], columns[within]]
    part = found[box]
    part[within & (part == OTHER)] = CANAL


def _hole(solid: Mask) -> Mask | None:
    """Return the canal (right, anterior) in the shadow that bone casts along its axis.

    It is None where the ring of bone is open, as in a vertebra that the scan cuts.
    """
    shadow: Mask = np.asarray(solid.any(axis=2))
    for gap in (0, 2):
        ring = shadow
        if gap:
            closed = ndimage.binary_closing(np.pad(shadow, gap), iterations=gap)
            ring = closed[gap:-gap, gap:-gap] | shadow
        parts, count = ndimage.label(ndimage.binary_fill_holes(ring) & ~ring)
        if not count:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        best = int(sizes.argmax()) + 1
        behind = ndimage.center_of_mass(parts == best)[1] < REACH_MM[1]
        if sizes[best - 1] >= 50 and behind:
            hole: Mask = parts == best
            return hole
    return None


def _wall(solid: Mask, hole: Mask | None) -> Wall:
    """Return the line down the posterior wall, in the frame of ``solid``."""
    if hole is None:
        depth = ndimage.distance_transform_edt(solid)
        core = np.argwhere(depth > 7)[:, 1]
        back = float(core.min()) - 7 if len(core) else 0.0
        return back - REACH_MM[1], 0.0
    row, column = (round(c) for c in ndimage.center_of_mass(hole))
    edge = float(np.flatnonzero(hole[row]).max()) + 0.5
    middle = solid[row - 4 : row + 5, column:]
    first = np.where(middle.any(axis=1), middle.argmax(axis=1) - 0.5, np.inf)
    backs = np.median(first, axis=0) + column
    heights = np.flatnonzero(backs < edge + WALL_MM)
    if len(heights) < 6:
        return edge - REACH_MM[1], 0.0
    up = heights - REACH_MM[2]
    slope, start = np.polyfit(up, backs[heights], 1)
    slope = float(np.clip(slope, -STEEPEST, STEEPEST))
    start = float(np.mean(backs[heights] - slope * up))
    return start - REACH_MM[1], slope


def _half_mm(solid: Mask) -> float:
    """Return half the height of the body, along the middle of the frame."""
    row, column = round(REACH_MM[0]), round(REACH_MM[1])
    return float(solid[row - 3 : row + 4, column].sum(axis=1).max()) / 2


def _opened(front: Mask, mm: Places) -> Mask:
    """Return the thick part of a mask, without what sticks out of it."""
    depth = ndimage.distance_transform_edt(np.pad(front, 1), sampling=mm)
    depth = depth[1:-1, 1:-1, 1:-1]
    if not depth.any():
        return front
    parts, count = ndimage.label(depth > min(CORE_MM, 0.7 * float(depth.max())))
    sizes = ndimage.sum_labels(depth, parts, range(1, count + 1))
    core = parts == int(np.argmax(sizes)) + 1
    apart = ndimage.distance_transform_edt(~core, sampling=mm)
    return front & (apart < CORE_MM + GROW_MM)


def _fill(
    found: Tissues,
    ids: NDArray[np.integer],
    pair: tuple[int, int],
    about: Mapping[int, Frame],
    mm: Places,
) -> None:
    """Mark the disc between two bodies in ``found``, in place."""
    upper, lower = about[pair[0]], about[pair[1]]
    middle = (upper.origin_mm + lower.origin_mm) / 2
    way = upper.origin_mm - lower.origin_mm
    frame = frames.along(middle, upper.axes[:, 1] + lower.axes[:, 1], way)
    body = found == BODY
    above = frame.box(body & (ids == pair[0]), mm)
    below = frame.box(body & (ids == pair[1]), mm)
    _fill_between(found, above, below, frame, mm)


def _fill_between(
    found: Tissues, above: Mask, below: Mask, frame: Frame, mm: Places
) -> None:
    """Mark what lies between two bodies in the frame's box, in place."""
    height = above.shape[2]
    start = np.where(below.any(axis=2), height - below[..., ::-1].argmax(axis=2), 999)
    end = np.where(above.any(axis=2), above.argmax(axis=2), -1)
    gap = end - start
    both = (gap >= 0) & (gap < GAP_MM)
    if not both.any():
        return
    both &= gap <= np.median(gap[both]) + 5
    levels = np.arange(height)
    between = both[..., None] & (levels >= start[..., None]) & (levels < end[..., None])
    box = frames.around(frame, found.shape, mm)
    index = np.moveaxis(frame.inside(frames.places(box, mm)) + REACH_MM, -1, 0)
    disc = ndimage.map_coordinates(between.astype(np.float32), index, order=1) > 0.5
    part = found[box]
    part[disc & ((part == OTHER) | (part == CANAL))] = DISC


def _sacrum(
    found: Tissues,
    ids: NDArray[np.integer],
    last: int,
    lowest: Frame,
    mm: Places,
) -> None:
    """Mark the first sacral body, and where it may end, in ``found``, in place."""
    sacrum = ids == labels.SACRUM
    lumbar = found == BODY
    lumbar &= ids == last
    sizes = np.ptp(lowest.inside(np.argwhere(lumbar) * mm), axis=0)
    frame = _below(lowest, sacrum, sizes, mm)
    if frame is None:
        return
    box = frames.around(frame, found.shape, mm)
    right, front, up = np.moveaxis(frame.inside(frames.places(box, mm)), -1, 0)
    half = sizes[0] / 2
    gap = float((lowest.origin_mm - frame.origin_mm) @ frame.axes[:, 2])
    if gap - sizes[2] / 2 > SACRAL_GAP_MM:
        near = (np.abs(right) < half) & (np.abs(front) < sizes[1] / 2)
        near &= (up > -SACRAL_MM) & (up < gap - sizes[2] / 2)
        near &= (up > 0) | sacrum[box]
        part = found[box]
        part[near & (part == ARCH)] = UNSURE
        part[near & (part == OTHER)] = UNKNOWN
        return
    solid = frame.box(sacrum, mm)
    upper = solid.copy()
    upper[..., : round(REACH_MM[2] - SACRAL_MM * 0.8)] = False
    hole = _hole(upper)
    back = -sizes[1] / 2 - 1
    if hole is not None:
        back = max(back - 4, _wall(upper, hole)[0])
    fore = sacrum[box] & (front > back)
    maybe = fore & (np.abs(right) < 1.35 * half) & (up > -SACRAL_MM - 6)
    sure = fore & (np.abs(right) < 0.9 * half) & (up > -SACRAL_MM + 4)
    part = found[box]
    part[maybe] = UNSURE
    part[sure] = BODY
    above = frame.box(lumbar, mm)
    _fill_between(found, above, frame.box(found == BODY, mm) & ~above, frame, mm)


def _below(frame: Frame, sacrum: Mask, sizes: Places, mm: Places) -> Frame | None:
    """Return the axes of the first sacral body, its origin on its upper endplate.

    Args:
        frame: of the vertebra above.
        sacrum: (R, A, S).
        sizes: (3,), of the body above along its axes, mm.
    """
    for _ in range(4):
        lower = Frame(frame.origin_mm - frame.axes[:, 2] * sizes[2] / 2, frame.axes)
        solid = lower.box(sacrum, mm)
        row, column = round(REACH_MM[0]), round(REACH_MM[1])
        half = round(sizes[1] * 0.35)
        plate = solid[row - 10 : row + 11, column - half : column + half + 1]
        top = np.where(plate.any(axis=2), plate[..., ::-1].argmax(axis=2), -1)
        rows, columns = np.nonzero(top >= 0)
        if len(rows) < 100:
            return None
        heights = solid.shape[2] - 0.5 - top[rows, columns] - REACH_MM[2]
        table = np.stack([np.ones(len(rows)), rows - 10, columns - half], axis=1)
        keep = np.ones(len(rows), bool)
        for _ in range(3):
            plane = np.linalg.lstsq(table[keep], heights[keep], rcond=None)[0]
            keep = np.abs(table @ plane - heights) < 3
        normal = lower.axes @ np.array([-plane[1], -plane[2], 1.0])
        origin = lower.origin_mm + lower.axes[:, 2] * plane[0]
        turned = frames.along(origin, frame.axes[:, 1], normal)
        # the next look is from where the vertebra above would be
        frame = Frame(origin + turned.axes[:, 2] * sizes[2] / 2, turned.axes)
    return turned
