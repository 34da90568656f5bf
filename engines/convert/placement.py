"""How groups of images lie to each other: at the same places, between, or apart."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engines.convert import spacing
from engines.convert.frames import Frame
from engines.convert.stack import (
    direction_of,
    duplicate_mm,
    height_rounding_mm,
    heights_mm,
    normal_of,
)

MIN_SLICES = 3
"""Of fewer slices nothing tells whether one is missing between them."""

PARALLEL = 0.1
"""Largest difference between direction cosines of images of one plane."""

IN_LINE_PIXELS = 1.5
"""How far images of one volume may lie aside of the line through their corners."""

NEAR_STEPS = 3
"""Groups whose ranges lie further apart, in steps of their grid, do not adjoin."""

EVEN_STEPS = 0.2
"""Steps of a stack may differ by this much of the usual one and still be even."""

Group = Sequence[Frame]


def places_of(frames: Group) -> Mapping[int, int]:
    """Return ``id`` of each image -> number of the place where it lies."""
    normal = normal_of(frames[0])
    same_mm = duplicate_mm(frames)
    positions = np.array([frame.position_mm for frame in frames], float)
    order = np.argsort(positions @ normal, kind="stable")
    places: dict[int, int] = {}
    corners: list[NDArray[np.float64]] = []
    recent: list[int] = []
    for index in order:
        position = positions[index]
        recent = [
            place for place in recent if (position - corners[place]) @ normal < same_mm
        ]
        here = next(
            (
                place
                for place in recent
                if np.abs(position - corners[place]).max() < same_mm
            ),
            None,
        )
        if here is None:
            here = len(corners)
            corners.append(position)
            recent.append(here)
        places[id(frames[index])] = here
    return places


def is_even(group: Group) -> bool:
    """Say whether images, by their places, make a stack of even steps for itself."""
    heights = _distinct(group)
    if len(heights) < 2:
        return False
    steps = np.diff(heights)
    alike = bool(np.ptp(steps) <= EVEN_STEPS * np.median(steps))
    return alike or spacing.is_even(heights, height_rounding_mm(group))


def share_places(groups: Sequence[Group]) -> bool:
    """Say whether images of different groups lie at one place."""
    together = [frame for group in groups for frame in group]
    places = places_of(together)
    owners: dict[int, int] = {}
    return any(
        owners.setdefault(places[id(frame)], number) != number
        for number, group in enumerate(groups)
        for frame in group
    )


def on_one_grid(groups: Sequence[Group]) -> bool:
    """Say whether groups lie between or beside each other on one even grid.

    Then they are parts of one volume, as far as geometry shows: no two of them have
    an image at the same place, and none lies far from the others.
    """
    together = [frame for group in groups for frame in group]
    if len(together) < MIN_SLICES:
        return False
    heights = heights_mm(together)
    order = np.argsort(heights, kind="stable")
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])[order]
    apart = np.diff(heights[order], prepend=-np.inf) >= duplicate_mm(together)
    if (~apart[1:] & (np.diff(owner) != 0)).any() or not in_line(together):
        return False
    owner, heights = owner[apart], heights[order][apart]
    places = spacing.places_of(heights, height_rounding_mm(together))
    if not places.size:
        return False
    steps = np.diff(places)[np.diff(owner) != 0]
    return bool(steps.size) and int(steps.max()) <= NEAR_STEPS


def interleave(groups: Sequence[Group]) -> bool:
    """Say whether the ranges of groups overlap."""
    normal = normal_of(groups[0][0])
    heights = [[float(normal @ np.array(f.position_mm)) for f in g] for g in groups]
    ranges = sorted((min(one), max(one)) for one in heights)
    return all(later[0] <= earlier[1] for earlier, later in pairwise(ranges))


def in_line(frames: Group) -> bool:
    """Say whether images are parallel and stacked along one line."""
    first = direction_of(frames[0])
    directions = np.array([frame.directions for frame in frames], float)
    if np.abs(directions.reshape(-1, 2, 3) - first).max() > PARALLEL:
        return False
    heights = heights_mm(frames)
    positions = np.array([frame.position_mm for frame in frames], float)
    line = np.stack([heights, np.ones_like(heights)], axis=1)
    fitted = line @ np.linalg.lstsq(line, positions, rcond=None)[0]
    pixel_mm = max(frames[0].spacing_mm or (1.0, 1.0))
    return bool(np.abs(positions - fitted).max() <= IN_LINE_PIXELS * pixel_mm)


def _distinct(group: Group) -> NDArray[np.float64]:
    heights = np.sort(heights_mm(group))
    kept = np.diff(heights, prepend=-np.inf) >= duplicate_mm(group)
    return np.asarray(heights[kept], float)
