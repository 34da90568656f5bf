"""The sheet shows each slice upright, its target outlined, and what is ignored."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines.report import contact_sheet
from engines.report.contact_sheet import CAPTION, COLOURS, COLUMNS, GAP, HEADING, Tile
from engines.train.losses import IGNORED


def a_tile() -> Tile:
    image = np.full((40, 40), np.float32(0.5))
    target = np.zeros(image.shape, np.uint8)
    target[10:20, 28:38] = 1  # towards the end of the second axis, which is up
    target[:, :6] = IGNORED
    return Tile("scan sources", "ct/train/one axial", image, target, (0.0, 1.0))


def pixels(*tiles: Tile) -> NDArray[np.uint8]:
    png = contact_sheet.draw(tiles)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_target_is_outlined_and_ignored_is_tinted() -> None:
    shown = pixels(a_tile())[HEADING : HEADING + 40, GAP : GAP + 40]
    orange = (shown == COLOURS[0]).all(axis=2)
    rows, columns = np.nonzero(orange)
    assert (rows.min(), rows.max()) == (2, 11)
    assert (columns.min(), columns.max()) == (10, 19)
    assert orange.sum() == 36
    blue = shown[36:].astype(int)
    assert (blue[..., 2] > blue[..., 0] + 30).all()
    assert (shown[20, 20] == 127).all()


def test_groups_stand_below_each_other() -> None:
    tile = a_tile()
    others = [replace(tile, group="labels sources")] * (COLUMNS + 1)
    sheet = pixels(tile, *others)
    row = 40 + CAPTION + GAP
    assert sheet.shape == (2 * HEADING + 3 * row + GAP, GAP + COLUMNS * (40 + GAP), 3)


def test_values_are_shown_by_their_window() -> None:
    dark = replace(a_tile(), window=(0.5, 1.0))
    bright = replace(a_tile(), window=(0.0, 0.5))
    at = (HEADING + 20, GAP + 30)
    assert pixels(dark)[at].tolist() == [0, 0, 0]
    assert pixels(bright)[at].tolist() == [255, 255, 255]


def test_same_slices_same_bytes() -> None:
    assert contact_sheet.draw([a_tile()]) == contact_sheet.draw([a_tile()])


def test_long_captions_are_cut_at_the_front() -> None:
    long = replace(a_tile(), caption="folder/" * 50 + "one axial")
    assert pixels(long).shape == pixels(a_tile()).shape


def test_a_sheet_needs_slices() -> None:
    with pytest.raises(ValueError, match="needs slices"):
        contact_sheet.draw([])
