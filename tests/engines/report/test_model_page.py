"""The page of a model: complete, honest, and fit for a browser."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.networks import shelf
from engines.networks.inventory import Entry, inventory
from engines.report import model_page
from tests.browser import opened

CROSS = {
    "folds": [
        {"held_out": "a", "dice": 0.9, "precision": 0.95},
        {"held_out": "b", "dice": 0.8, "precision": 0.85},
    ],
    "mean": 0.85,
    "sd": 0.0707,
}


def shipped(**more: Any) -> Entry:
    (entry,) = inventory("unet-r34")
    return replace(entry, **more)


@pytest.fixture(scope="module")
def text() -> str:
    return model_page.html(shipped())


def test_it_tells_what_the_model_is(text: str) -> None:
    for told in (
        "Network unet-r34 for CT, which marks cervical, thoracic, lumbar, sacral",
        "CC-BY-SA-4.0",
        "VerSe 014",
        "Where it fails",
        "Robustness",
        "noise of a low dose",
        "LIDC-IDRI-0001",
        "2.94",
    ):
        assert told in text
    assert model_page.NOTHING_KNOWN not in text
    assert text.count("data:image/jpeg;base64,") >= 3
    assert 'id="filter"' not in text.split("<script>", maxsplit=1)[0]


def test_the_same_model_gives_the_same_page(text: str) -> None:
    assert model_page.html(shipped()) == text


def test_keys_of_folds_are_written_as_people_do() -> None:
    folds = [{"held_out": "a", "dice": 0.9, "hd95_mm": 5.0, "inner": True}]
    entry = shipped()
    page = model_page.html(
        replace(entry, training=entry.training | {"cross_validation": {"folds": folds}})
    )

    row = page[page.index("Held out") : page.index("</table>", page.index("Held out"))]
    assert ">HD95 mm</th>" in row
    assert ">yes</td>" in row


def test_folds_are_shown_with_their_spread() -> None:
    entry = shipped()
    page = model_page.html(
        replace(entry, training={**entry.training, "cross_validation": CROSS})
    )

    assert "Cross-validation" in page
    assert "0.0707" in page
    assert "2 cases, median 0.85" in page
    assert "two steps each" not in page
    assert "A dot is a fold" in page
    noted = {**CROSS, "note": "two steps each"}
    page = model_page.html(
        replace(entry, training={**entry.training, "cross_validation": noted})
    )
    assert "Cross-validation (two steps each)" in page


def test_robustness_in_the_manifest_goes_first() -> None:
    rows = [{"alteration": "rust", "dice": 0.5, "fall": 0.4}]

    page = model_page.html(shipped(training={"robustness": rows}))

    assert "rust" in page
    assert "falls by more than 0.03" in page
    assert "noise of a low dose" not in page


def test_a_model_anywhere_brings_its_own_folder(tmp_path: Path) -> None:
    source = shelf.locate("unet-r34")
    copy = Path(shutil.copy(source, tmp_path / "mine.safetensors"))

    (alone,) = inventory(str(copy))
    assert model_page.NOTHING_KNOWN in model_page.html(alone)
    shutil.copytree(shelf.page_folder(source), tmp_path / "mine.page")
    assert model_page.NOTHING_KNOWN not in model_page.html(alone)


def test_a_network_without_weights_says_so() -> None:
    (entry,) = inventory("transunet")

    page = model_page.html(entry)

    assert "comes without weights" in page
    assert "--network transunet" in page
    assert model_page.NOTHING_KNOWN not in page


def test_a_damaged_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_text("no")
    (entry,) = inventory(str(path))

    assert "It cannot be used" in model_page.html(entry)


@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(browser: Any, tmp_path: Path, text: str, dark: bool) -> None:
    path = tmp_path / "model.html"
    path.write_text(text, encoding="utf-8")

    with opened(browser, path, dark=dark) as seen:
        picture = seen.page.locator(".gallery button.picture").first
        picture.click()
        assert seen.page.locator("#viewer").is_visible()
        image = seen.page.locator("#viewer img")
        assert image.evaluate("image => image.complete && image.naturalWidth") > 400
        seen.page.keyboard.press("Escape")
        seen.page.emulate_media(media="print")
        assert seen.page.get_by_text("Where it fails").is_visible()
        assert seen.errors == []
        assert seen.requests == [path.as_uri()]
