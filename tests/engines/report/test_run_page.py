"""The page of a run shows each case, with the large picture beside it."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines.report import run_page
from tests.browser import opened

FAILED = {
    "name": "p1/scan",
    "status": "failed",
    "seconds": {},
    "warnings": [],
    "error": {"code": "x", "message": "gantry tilt of 14.0 degrees", "hint": "mend it"},
    "outputs": {},
}
DONE = {
    "name": "p2/scan",
    "status": "done",
    "seconds": {"read": 0.25, "segment": 3.0},
    "warnings": [{"code": "y", "message": "two islands"}],
    "error": None,
    "outputs": {"preview": "p2/scan/scan_preview.png"},
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    preview = tmp_path / "p2" / "scan" / "scan_preview.png"
    preview.parent.mkdir(parents=True)
    content = io.BytesIO()
    Image.new("RGB", (600, 480), "orange").save(content, "PNG")
    preview.write_bytes(content.getvalue())
    path = tmp_path / "index.html"
    path.write_text(run_page.html(tmp_path, "A run", ["fact"], [FAILED, DONE]))
    return path


def test_cases_tell_status_time_and_reasons(browser: Any, written: Path) -> None:
    with opened(browser, written) as seen:
        rows = seen.page.locator("tr.case").all_inner_texts()

    assert "gantry tilt of 14.0 degrees" in rows[0]
    assert "mend it" in rows[0]
    assert ("done" in rows[1], "3.2" in rows[1], "two islands" in rows[1]) == (
        True,
    ) * 3
    assert seen.errors == []


def test_seconds_of_stages_open_below_the_case(browser: Any, written: Path) -> None:
    with opened(browser, written) as seen:
        seen.page.locator("td.name button").last.click()

        assert "segment" in seen.page.locator("tr.details:visible").inner_text()


def test_the_large_picture_is_the_one_beside_the_page(
    browser: Any, written: Path
) -> None:
    with opened(browser, written) as seen:
        seen.page.locator("button.picture").click()
        large = seen.page.locator("#viewer img")
        seen.page.wait_for_function(
            "() => document.querySelector('#viewer img').naturalWidth === 600"
        )

        assert "p2/scan" in large.get_attribute("alt")
    beside = written.parent / "p2" / "scan" / "scan_preview.png"
    assert seen.requests == [written.as_uri(), beside.as_uri()]


def test_the_small_picture_stays_where_the_large_one_is_gone(
    browser: Any, written: Path
) -> None:
    (written.parent / "p2" / "scan" / "scan_preview.png").unlink()
    with opened(browser, written) as seen:
        seen.page.locator("button.picture").click()
        seen.page.wait_for_function(
            "() => document.querySelector('#viewer img').naturalWidth === 200"
        )


def test_pictures_that_were_never_made_are_left_out(tmp_path: Path) -> None:
    text = run_page.html(tmp_path, "A run", [], [DONE])

    assert "<img alt=" not in text.split("<dialog")[0]
