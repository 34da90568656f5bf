"""Preview pictures: sagittal and coronal views with the label map over them."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt
from numpy.typing import NDArray
from PIL import Image

PNG_LEVEL = 3
"""Of zlib: higher ones take several times as long for a few per cent."""

HEIGHT = 480
"""Pixels; the width follows from the patient."""

WINDOW_HU = (-200.0, 800.0)
MR_PERCENTILES = (1.0, 99.5)
OVERLAY = 0.3
"""Share of the colour in a labelled pixel; its outline is opaque."""

FILL = 0.7
"""The same where there is no scan below."""

Rgb = tuple[int, int, int]


def preview(
    hu: NDArray[Any],
    labels: NDArray[np.uint8],
    colours: Mapping[int, Rgb],
    window: tuple[float, float] = WINDOW_HU,
) -> bytes:
    """Return a PNG: the sagittal and the coronal plane that cut most of the labels.

    Args:
        hu: (R, A, S), isotropic voxels.
        labels: (R, A, S), 0 the background.
        colours: label -> colour.
    """
    panels = [
        panel(_plane(hu, at, axis), _plane(labels, at, axis), colours, window)
        for axis, at in ((0, _fullest(labels, 0)), (1, _fullest(labels, 1)))
    ]
    gap = np.zeros((panels[0].shape[0], 4, 3), np.uint8)
    joined = Image.fromarray(np.concatenate([panels[0], gap, panels[1]], axis=1))
    width = max(1, round(joined.width * HEIGHT / joined.height))
    sized = joined.resize((min(width, 4 * HEIGHT), HEIGHT), Image.Resampling.BILINEAR)
    return _png(sized)


def window_of(values: NDArray[Any], modality: str) -> tuple[float, float]:
    """Return the values that are black and white in a picture of a scan.

    The values of an MR mean nothing by themselves, so its window is that of most of
    them: from its 1st to its 99.5th percentile of what is not empty.
    """
    if modality == "ct":
        return WINDOW_HU
    filled = values[values > values.min()]
    if not filled.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(filled, MR_PERCENTILES))
    return (low, high) if high > low else (low, low + 1.0)


@dataclass(frozen=True, slots=True)
class Shown:
    """A label map as it lies in its file.

    Attributes:
        labels: (I, J, K), 0 the background.
        axes: direction in which each index grows, as in ``"PIR"``.
        spacing_mm: of the voxels.
    """

    labels: NDArray[Any]
    axes: str
    spacing_mm: tuple[float, ...]


def side_by_side(
    truth: Shown,
    prediction: NDArray[Any],
    colours: Mapping[int, Rgb],
    scan: NDArray[Any] | None = None,
) -> bytes:
    """Return a PNG: truth and prediction, sagittal, then the same, coronal.

    Args:
        truth: where its labels are.
        prediction: on the same grid.
        colours: label -> colour.
        scan: on the same grid, as the background; black without one.
    """
    turn = axcodes2ornt(tuple(truth.axes))
    both = [apply_orientation(one, turn) for one in (truth.labels, prediction)]
    sizes = [0.0, 0.0, 0.0]
    for size, (axis, _) in zip(truth.spacing_mm, turn, strict=True):
        sizes[int(axis)] = size
    grey = apply_orientation(scan, turn) if scan is not None else np.zeros_like(both[0])
    window, fill = (WINDOW_HU, OVERLAY) if scan is not None else ((0.0, 1.0), FILL)
    panels = []
    for axis in (0, 1):
        at = _fullest(both[0] if both[0].any() else both[1], axis)
        wide, high = (size for other, size in enumerate(sizes) if other != axis)
        for labels in both:
            plane = _plane(grey, at, axis), _plane(labels, at, axis)
            drawn = panel(*plane, colours, window, fill)
            panels.append(_sized(drawn, high / wide))
    return _png(_in_a_row(panels))


def _sized(panel: NDArray[np.uint8], stretch: float) -> NDArray[np.uint8]:
    """Return a panel of the standard height with square pixels."""
    rows, columns = panel.shape[:2]
    width = round(columns * HEIGHT / max(1.0, rows * stretch))
    size = min(max(1, width), 2 * HEIGHT), HEIGHT
    image = Image.fromarray(panel).resize(size, Image.Resampling.NEAREST)
    return np.asarray(image)


def _in_a_row(panels: Sequence[NDArray[np.uint8]]) -> Image.Image:
    gap = np.full((panels[0].shape[0], 4, 3), 64, np.uint8)
    parts = [part for panel in panels for part in (panel, gap)]
    return Image.fromarray(np.concatenate(parts[:-1], axis=1))


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=PNG_LEVEL)
    return content.getvalue()


def thumbnail(png: bytes, height: int = 160) -> bytes:
    """Return a smaller JPEG of a picture, for pages with many."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((4 * height, height))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return content.getvalue()


def _plane(volume: NDArray[Any], at: int, axis: int) -> NDArray[Any]:
    """Return a plane without a copy of the volume, as ``np.take`` would make."""
    plane: NDArray[Any] = np.moveaxis(volume, axis, 0)[at]
    return plane


def _fullest(labels: NDArray[np.uint8], axis: int) -> int:
    others = tuple(a for a in range(3) if a != axis)
    counts = np.count_nonzero(labels, axis=others)
    return int(counts.argmax()) if counts.any() else labels.shape[axis] // 2


def panel(
    hu: NDArray[Any],
    labels: NDArray[np.uint8],
    colours: Mapping[int, Rgb],
    window: tuple[float, float],
    fill: float = OVERLAY,
) -> NDArray[np.uint8]:
    """Return a plane as RGB (rows, columns, 3) with its labels, the head up.

    Args:
        hu: (across, up).
        labels: the same shape, 0 the background.
        colours: label -> colour.
        window: values that are black and white.
        fill: share of the colour inside a label.
    """
    low, high = window
    grey = np.clip((hu.T[::-1] - low) / (high - low), 0, 1)
    shown = labels.T[::-1]
    rgb = np.repeat(grey[..., None] * 255, 3, axis=2)
    for label, colour in colours.items():
        inside = shown == label
        share = np.where(outline(inside), 1.0, fill)[inside, None]
        rgb[inside] = rgb[inside] * (1 - share) + np.array(colour) * share
    return rgb.astype(np.uint8)


def outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the innermost row of pixels along the edge of a mask (H, W)."""
    wide = np.pad(inside, 1)
    core = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return inside & ~core
