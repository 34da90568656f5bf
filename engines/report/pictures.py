"""Preview pictures: sagittal and coronal views with the label map over them."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT = 480
"""Pixels; the width follows from the patient."""

WINDOW_HU = (-200.0, 800.0)
OVERLAY = 0.3
"""Share of the colour in a labelled pixel; its outline is opaque."""

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
        _panel(np.take(hu, at, axis), np.take(labels, at, axis), colours, window)
        for axis, at in ((0, _fullest(labels, 0)), (1, _fullest(labels, 1)))
    ]
    gap = np.zeros((panels[0].shape[0], 4, 3), np.uint8)
    joined = Image.fromarray(np.concatenate([panels[0], gap, panels[1]], axis=1))
    width = max(1, round(joined.width * HEIGHT / joined.height))
    sized = joined.resize((min(width, 4 * HEIGHT), HEIGHT), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    sized.save(content, "PNG", optimize=True)
    return content.getvalue()


def thumbnail(png: bytes, height: int = 160) -> bytes:
    """Return a smaller JPEG of a picture, for pages with many."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((4 * height, height))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return content.getvalue()


def _fullest(labels: NDArray[np.uint8], axis: int) -> int:
    others = tuple(a for a in range(3) if a != axis)
    counts = np.count_nonzero(labels, axis=others)
    return int(counts.argmax()) if counts.any() else labels.shape[axis] // 2


def _panel(
    hu: NDArray[Any],
    labels: NDArray[np.uint8],
    colours: Mapping[int, Rgb],
    window: tuple[float, float],
) -> NDArray[np.uint8]:
    low, high = window
    grey = np.clip((hu.T[::-1] - low) / (high - low), 0, 1)
    shown = labels.T[::-1]
    rgb = np.repeat(grey[..., None] * 255, 3, axis=2)
    for label, colour in colours.items():
        inside = shown == label
        share = np.where(_outline(inside), 1.0, OVERLAY)[inside, None]
        rgb[inside] = rgb[inside] * (1 - share) + np.array(colour) * share
    return rgb.astype(np.uint8)


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = np.pad(inside, 1)
    core = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return inside & ~core
