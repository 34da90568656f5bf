"""The page of a run shows each case, with the large picture beside it."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines.files import write_text
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
        notes = seen.page.locator("tr.case + tr.notes").all_inner_texts()

    assert notes[0].split("\n")[:2] == ["gantry tilt of 14.0 degrees", "mend it"]
    assert ("done" in rows[1], "3.2" in rows[1]) == (True, True)
    assert notes[1].strip() == "two islands"
    assert seen.errors == []


def test_failed_cases_come_first_then_those_with_warnings(
    browser: Any, tmp_path: Path
) -> None:
    fine = DONE | {"warnings": [], "outputs": {}}
    kinds = {"a": fine, "b": DONE, "c": FAILED, "d": fine, "e": FAILED}
    cases = [case | {"name": name} for name, case in kinds.items()]
    path = tmp_path / "index.html"
    path.write_text(run_page.html(tmp_path, "A run", ["fact"], cases))

    with opened(browser, path) as seen:
        names = seen.page.locator("tr.case td.name").all_inner_texts()
        alarms = seen.page.locator(".alarms li").all_inner_texts()
        facts = seen.page.locator(".facts li").all_inner_texts()

    assert [name.strip("▸ \xa0") for name in names] == ["c", "e", "b", "a", "d"]
    assert alarms == ["2 failed: c, e"]
    assert facts == ["3 done (1 with warnings), 2 failed", "fact"]


ODD = [b"a#b", b"a?b", b"50%41", b"a b", b'it\'s "it"', b"Kn\xf6chel", b"a\nb\x1b[1m"]


@pytest.mark.parametrize("name", ODD)
def test_the_large_picture_is_found_whatever_its_name(
    browser: Any, tmp_path: Path, name: bytes
) -> None:
    text = os.fsdecode(name)
    content = io.BytesIO()
    Image.new("RGB", (600, 480), "orange").save(content, "PNG")
    (tmp_path / text).mkdir()
    (tmp_path / text / f"{text}:1.png").write_bytes(content.getvalue())
    case = DONE | {"name": text, "outputs": {"preview": f"{text}/{text}:1.png"}}
    path = tmp_path / "index.html"
    write_text(path, run_page.html(tmp_path, "A run", [], [case]))

    with opened(browser, path) as seen:
        seen.page.locator("button.picture").click()
        seen.page.wait_for_function(
            "() => document.querySelector('#viewer img').naturalWidth === 600"
        )
        shown = seen.page.locator("tr.case td.name").inner_text()

    assert seen.errors == []
    assert "\x1b" not in path.read_text(encoding="utf-8")
    assert shown.strip("▸ \xa0") == {
        b"Kn\xf6chel": r"Kn\xf6chel",
        b"a\nb\x1b[1m": "a b\ufffd[1m",
    }.get(name, text)


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
