"""A part of one plane of a scan, twice: as it is, and with its mask."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.errors import NotFoundError
from engines.labels import REGION_CLASSES, VERTEBRAE
from engines.preprocess.orient import reorient
from engines.report import pictures
from engines.report.pictures import Rgb
from engines.volume import Volume

Plane = Literal["axial", "sagittal", "coronal"]
ACROSS: Mapping[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane -> the RAS axis across it."""

PIXELS = 420
"""Height of a picture; there are two side by side."""

QUALITY = 82
"""Of the JPEG, its colours as fine as its grey: about 50 kB a picture."""

ORANGE: Rgb = (240, 150, 50)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a picture shows.

    Attributes:
        plane: that is shown.
        centre_mm: in the middle of the picture, in the scan's world.
        size_mm: width and height.
    """

    plane: Plane
    centre_mm: tuple[float, float, float]
    size_mm: tuple[float, float]


def draw(
    scan: Volume,
    mask: Volume,
    cut: Cut,
    colours: Mapping[int, Rgb] | None = None,
) -> bytes:
    """Return a JPEG: a part of a plane of the scan, and the same with its mask.

    Args:
        scan: in HU.
        mask: on the same grid.
        cut: what is shown.
        colours: label -> colour; those of the labels' regions if not given.

    Raises:
        NotFoundError: the centre lies outside the scan.
    """
    hu, labels = reorient(scan), reorient(mask)
    inverse = np.linalg.inv(hu.grid.affine)
    middle = inverse @ np.array([*cut.centre_mm, 1.0])
    across = ACROSS[cut.plane]
    at = round(float(middle[across]))
    if not 0 <= at < hu.grid.shape[across]:
        msg = f"the {cut.plane} plane at {cut.centre_mm} mm is outside the scan"
        raise NotFoundError(msg, hint="Give the centre in the scan's world, RAS in mm.")
    wide, high = (axis for axis in range(3) if axis != across)
    places = []
    scale = PIXELS / cut.size_mm[1]
    for axis, length_mm in zip((wide, high), cut.size_mm, strict=True):
        count = round(length_mm * scale)
        step = 1 / scale / hu.grid.spacing_mm[axis]
        places.append(middle[axis] + (np.arange(count) - (count - 1) / 2) * step)
    plane = np.take(hu.voxels, at, across).astype(np.float32)
    shown = _nearest(np.take(labels.voxels, at, across), places)
    grey = _linear(plane, places)
    colours = colours if colours is not None else colours_of(labels)
    panels = [
        pictures.panel(grey, drawn, colours, pictures.WINDOW_HU, fill=0.22)
        for drawn in (np.zeros_like(shown), shown)
    ]
    gap = np.full((panels[0].shape[0], 4, 3), 64, np.uint8)
    image = Image.fromarray(np.concatenate([panels[0], gap, panels[1]], axis=1))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return content.getvalue()


def colours_of(mask: Volume) -> dict[int, Rgb]:
    """Return label -> colour for a mask of the spine, of regions or of vertebrae.

    What the labels mean is what this program wrote into the mask's header; without
    that it is told by the highest of them.
    """
    rows = [*VERTEBRAE.values()]
    by_name: dict[str, Rgb] = {v.region: v.colour for v in rows[::-1]}  # its first
    regions = {REGION_CLASSES[name]: colour for name, colour in by_name.items()}
    told = mask.provenance.get("labels")
    if told:
        by_name |= {v.name: v.colour for v in rows}
        return {int(n): by_name.get(name, ORANGE) for n, name in told.items()}
    highest = int(mask.voxels.max(initial=0))
    if highest <= 1:
        return {1: ORANGE}
    return regions if highest in regions else {v.id: v.colour for v in rows}


def _linear(
    plane: NDArray[np.float32], places: Sequence[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Interpolate a plane at (rows, columns); air outside."""
    padded = np.pad(plane, 1, constant_values=-1024)
    for axis, place in enumerate(places):
        last = padded.shape[axis] - 1
        where = np.clip(place + 1, 0, last - 1e-3)
        low = where.astype(int)
        share = (where - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None]
        first, second = (np.take(padded, low + more, axis) for more in (0, 1))
        padded = first + share * (second - first)
    return padded


def _nearest(
    plane: NDArray[Any], places: Sequence[NDArray[np.float64]]
) -> NDArray[np.uint8]:
    padded = np.pad(plane, 1).astype(np.uint8)
    for axis, place in enumerate(places):
        index = np.clip(np.rint(place).astype(int) + 1, 0, padded.shape[axis] - 1)
        padded = np.take(padded, index, axis)
    return padded
