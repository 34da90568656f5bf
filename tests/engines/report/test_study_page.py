"""The page of a study in a browser: table, published figures, curves, what failed."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.report import study_page
from engines.report.lines import Line
from tests.browser import opened


def row(network: str, loss: str, mean: float | None, **more: Any) -> dict[str, Any]:
    figures = {"mean": mean, "sd": None, "best": False, "published": None}
    return {
        "name": f"{network}, {loss}",
        "labels": [network, loss],
        "status": "open" if mean is None else "done",
        "finished": "0 of 2 seeds" if mean is None else "2 of 2 seeds",
        "metrics": {"dice": figures | more, "hd_px": figures | {"mean": "inf"}},
        "parameters": None if mean is None else 31.5e6,
        "gflop_per_slice": 12.25,
        "seconds_per_slice": 0.125,
        "training_seconds": 60.0,
        "runs": [],
    }


def study() -> dict[str, Any]:
    best = row("U-Net", "Dice", 0.9125, sd=0.0125, best=True, published=0.9375)
    best["runs"] = [
        {
            "seed": seed,
            "status": "done",
            "metrics": {"dice": 0.9125, "hd_px": "inf"},
            "steps": 300,
            "training_seconds": 30.4,
        }
        for seed in (0, 1)
    ]
    failed = row("U-Net", "BCE", None) | {"status": "failed"}
    failed["runs"] = [
        {"seed": 1, "status": "failed", "error": {"message": "the loss is <nan>"}}
    ]
    return {
        "title": "A <small> study",
        "notes": "One\nseed.",
        "published": "Sci Rep",
        "version": "1",
        "metrics": ["dice", "hd_px"],
        "seeds": [0, 1],
        "headings": ["Network", "Loss"],
        "table": [failed, best, row("ResUNet", "Dice", 0.75)],
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "index.html"
    points = [(0, 1.0), (300, 0.25)]
    curves = {
        "loss": [
            Line(("U-Net", "Dice"), points),
            Line(("ResUNet", "Dice"), points),
        ],
        "val_dice": [],
    }
    path.write_text(study_page.html(study(), curves, ["Scored: 6 scans."]))
    return path


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def seen(
    browser: Any, written: Path, request: pytest.FixtureRequest
) -> Iterator[SimpleNamespace]:
    with opened(browser, written, dark=request.param) as shown:
        yield shown


def test_nothing_is_fetched_and_nothing_complains(
    seen: SimpleNamespace, written: Path
) -> None:
    assert seen.errors == []
    assert seen.requests == [written.as_uri()]
    assert seen.page.locator("h1").inner_text() == "A <small> study"
    assert seen.page.locator(".facts li").all_inner_texts() == [
        "2 of 6 trainings finished",
        "One seed.",
        "Scored: 6 scans.",
        "Published: Sci Rep",
        "spine 1",
    ]


def test_the_table_has_means_spreads_and_published_figures(
    seen: SimpleNamespace,
) -> None:
    headings = seen.page.locator("#cases > thead th").all_inner_texts()
    first = ["Network", "Loss", "Status", "Trained", "Dice", "± sd", "published"]
    more = ["HD px", "± sd", "Parameters (M)", "GFLOP", "ms a slice"]
    assert headings == first + more
    cells = seen.page.locator("tr.case").nth(1).locator("td").all_inner_texts()
    told = ["U-Net", "Dice", "done", "2\xa0of\xa02\xa0seeds", "0.9125", "0.0125"]
    told += ["0.9375", "∞", "", "31.50", "12.25", "125.0"]
    assert [cell.strip("▸\xa0 ") for cell in cells] == told
    failed = seen.page.locator("tr.case.failed + tr.notes")
    assert failed.inner_text().strip() == "seed 1: the loss is <nan>"
    assert seen.page.locator("td.best").all_inner_texts() == ["0.9125"]
    weight = seen.page.locator("td.best").evaluate(
        "e => getComputedStyle(e).fontWeight"
    )
    assert weight == "700"


def test_the_table_is_sorted_filtered_and_opened(seen: SimpleNamespace) -> None:
    page = seen.page
    names = page.locator("tr.case:visible td:nth-child(2)")
    page.get_by_role("button", name="Dice", exact=True).click()
    assert names.all_inner_texts() == ["Dice", "Dice", "BCE"]
    page.locator("#filter").fill("bce")  # every label is searched, not the first alone
    assert names.all_inner_texts() == ["BCE"]
    page.locator("#filter").fill("<nan>")
    assert page.locator("tr.case:visible .status").inner_text() == "failed"
    page.locator("#filter").fill("")
    page.get_by_role("button", name="U-Net").first.click()
    inside = page.locator("tr.details:visible tbody tr").first
    assert inside.locator("td").all_inner_texts() == ["0", "0.9125", "∞", "300", "30"]


def test_lines_can_be_told_apart_from_each_other_and_from_the_page(
    seen: SimpleNamespace,
) -> None:
    lines = seen.page.locator("svg polyline")
    assert seen.page.locator("svg").count() == 1  # nothing was validated
    assert lines.locator("title").all_text_contents() == [
        "U-Net, Dice",
        "ResUNet, Dice",
    ]
    strokes = lines.evaluate_all("all => all.map(e => getComputedStyle(e).stroke)")
    assert len(set(strokes)) == 2
    dark = seen.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for stroke in strokes:
        bright = sum(map(int, stroke.strip("rgb()").split(","))) / 3
        assert bright > 140 if dark else bright < 120
