"""Pictures show the label where it is, upright, and the same on every run."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from engines.report import pictures, run_page

ORANGE = (240, 150, 50)


def a_case() -> tuple[np.ndarray, np.ndarray]:
    hu = np.full((40, 50, 60), -1000.0, np.float32)
    labels = np.zeros(hu.shape, np.uint8)
    labels[18:22, 30:36, 45:55] = 1  # towards the head, which is up
    return hu, labels


def test_label_is_drawn_at_the_top_in_its_colour() -> None:
    hu, labels = a_case()
    png = pictures.preview(hu, labels, {1: ORANGE})
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert image.shape[0] == pictures.HEIGHT
    orange = np.abs(image - ORANGE).sum(axis=2) < 30
    rows = np.flatnonzero(orange.any(axis=1)) / image.shape[0]
    assert 0.05 < rows.min() < rows.max() < 0.3
    halves = np.array_split(orange, 2, axis=1)
    assert halves[0].any()
    assert halves[1].any()


def test_same_input_same_bytes() -> None:
    hu, labels = a_case()
    assert pictures.preview(hu, labels, {1: ORANGE}) == pictures.preview(
        hu, labels, {1: ORANGE}
    )


def test_an_empty_mask_still_makes_a_picture() -> None:
    hu, labels = a_case()
    assert pictures.preview(hu, labels * 0, {1: ORANGE}).startswith(b"\x89PNG")


def test_page_escapes_names_and_shows_reasons(tmp_path: Path) -> None:
    case = {
        "name": "<b>&",
        "status": "failed",
        "seconds": {},
        "warnings": [],
        "error": {"code": "x", "message": "1 < 2", "hint": "mend"},
        "outputs": {},
    }
    text = run_page.html(tmp_path, "Title", ["fact"], [case])
    assert "&lt;b&gt;&amp;" in text
    assert "1 &lt; 2" in text
    assert "<b>&" not in text
