"""A sheet of training slices: what the network sees, and what it is to find."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engines.report.pictures import Rgb, outline
from engines.train.losses import IGNORED

COLUMNS = 8
GAP, CAPTION, HEADING = 4, 14, 22
"""Pixels between slices, below each of them, and above a group."""

TINT: Rgb = (70, 110, 255)
"""Of what is not scored, over the image; a third of the colour."""

COLOURS: tuple[Rgb, ...] = (
    (255, 150, 40),
    (90, 220, 120),
    (255, 90, 170),
    (250, 220, 80),
    (120, 210, 255),
)
"""Of the classes' outlines, in turn."""

INK, PAPER = (225, 225, 225), (24, 24, 24)


@dataclass(frozen=True, slots=True)
class Tile:
    """One slice.

    Attributes:
        group: heading that it stands under.
        caption: where it comes from.
        image: (H, W), as the network sees it, rows along the first axis of its view.
        target: (H, W), classes; ``IGNORED`` is not scored.
        window: values that are black and white.
    """

    group: str
    caption: str
    image: NDArray[np.float32]
    target: NDArray[np.uint8]
    window: tuple[float, float]


def draw(tiles: Sequence[Tile]) -> bytes:
    """Return a PNG of slices of the same size, a block for each group in turn.

    Raises:
        ValueError: no slices.
    """
    if not tiles:
        msg = "a sheet needs slices"
        raise ValueError(msg)
    blocks = [_block(name, list(held)) for name, held in groupby(tiles, _group)]
    height = sum(block.height for block in blocks) + GAP
    sheet = Image.new("RGB", (max(block.width for block in blocks), height), PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _group(tile: Tile) -> str:
    return tile.group


def _block(name: str, tiles: Sequence[Tile]) -> Image.Image:
    pictures = [_picture(tile) for tile in tiles]
    wide, high = pictures[0].width + GAP, pictures[0].height + CAPTION + GAP
    rows = -(-len(tiles) // COLUMNS)
    block = Image.new("RGB", (GAP + COLUMNS * wide, HEADING + rows * high), PAPER)
    pen = ImageDraw.Draw(block)
    pen.text((GAP, 5), f"{name}: {len(tiles)} slices", INK)
    for number, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        row, column = divmod(number, COLUMNS)
        left, top = GAP + column * wide, HEADING + row * high
        block.paste(picture, (left, top))
        text = _fitting(tile.caption, picture.width, pen)
        pen.text((left, top + picture.height + 1), text, INK)
    return block


def _picture(tile: Tile) -> Image.Image:
    """Return a slice upright: its second axis up, its first to the right."""
    low, high = tile.window
    grey = np.clip((tile.image.T[::-1] - low) / max(high - low, 1e-6), 0, 1)
    rgb = np.repeat(grey[..., None] * 255, 3, axis=2)
    shown = tile.target.T[::-1]
    left_out = shown == IGNORED
    rgb[left_out] = rgb[left_out] * 2 / 3 + np.array(TINT) / 3
    for value in np.unique(shown[~left_out & (shown > 0)]).tolist():
        rgb[outline(shown == value)] = COLOURS[(value - 1) % len(COLOURS)]
    return Image.fromarray(rgb.astype(np.uint8))


def _fitting(text: str, width: int, pen: ImageDraw.ImageDraw) -> str:
    """Return the end of a text that is no wider than ``width`` pixels."""
    while pen.textlength(text) > width and len(text) > 1:
        text = text[1:]
    return text
