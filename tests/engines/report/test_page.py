"""The page works in a real browser: sorting, filtering, opening, nothing fetched."""

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from engines.report import charts, page
from engines.report.page import Column, Entry, Page, Picture
from tests.browser import opened

CORNER = {"x": 2, "y": 2, "width": 1, "height": 1}
DICE = {"case2": 0.91, "case10": None, "case1": 0.5, '<b>odd</b> & "name"': 0.75}


def png(colour: str, size: tuple[int, int] = (8, 6)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()


def example() -> Page:
    entries = [
        Entry(
            {
                "case": name,
                "status": "failed" if dice is None else "done",
                "dice": dice,
            },
            ["on another grid"] if dice is None else [],
            (("Label", "Dice"), [("L1", 0.25), ("L2", float("inf"))]),
            Picture(png("red"), f"{name} from the side", caption=name),
        )
        for name, dice in DICE.items()
    ]
    columns = (
        Column("case", "Case"),
        Column("status", "Status", "status"),
        Column("dice", "Dice", "number"),
    )
    drawn = charts.distribution([0.5, 0.75, 0.91, float("inf")], "Dice", (0, 1))
    pictures = [Picture(png("blue"), "worst", caption="worst case")]
    tables = [("Cohort", ("", "Dice"), [("mean", 0.72)])]
    return Page(
        "An evaluation",
        ["4 cases"],
        columns,
        entries,
        [("Dice", drawn)],
        pictures,
        "Worst cases",
        tables,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page.html(example()), encoding="utf-8")
    return path


@pytest.fixture
def seen(browser: Any, written: Path) -> Iterator[SimpleNamespace]:
    with opened(browser, written) as shown:
        yield shown
        assert shown.errors == []
        assert shown.requests == [written.as_uri()]


def names(seen: SimpleNamespace) -> list[str]:
    cells = seen.page.locator("tr.case:visible td.name button")
    return [text.strip() for text in cells.all_text_contents()]


def test_rows_are_shown_in_the_order_given(seen: SimpleNamespace) -> None:
    assert names(seen) == list(DICE)
    assert seen.page.locator("#count").text_content() == "4 of 4"


def test_numbers_sort_as_numbers_and_empty_cells_come_last(
    seen: SimpleNamespace,
) -> None:
    heading = seen.page.get_by_role("columnheader", name="Dice").last
    heading.get_by_role("button").click()

    assert heading.get_attribute("aria-sort") == "ascending"
    assert names(seen) == ["case1", '<b>odd</b> & "name"', "case2", "case10"]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert names(seen) == ["case2", '<b>odd</b> & "name"', "case1", "case10"]


def test_names_sort_with_their_numbers(seen: SimpleNamespace) -> None:
    seen.page.locator("#cases th button", has_text="Case").click()

    assert names(seen)[1:] == ["case1", "case2", "case10"]


def test_filter_looks_at_names_and_notes(seen: SimpleNamespace) -> None:
    box = seen.page.get_by_label("Filter")
    box.fill("CASE1")
    assert names(seen) == ["case10", "case1"]
    assert seen.page.locator("#count").text_content() == "2 of 4"
    box.fill("another grid")
    assert names(seen) == ["case10"]


def test_status_narrows_the_table(seen: SimpleNamespace) -> None:
    seen.page.get_by_label("Status").select_option("failed")
    assert names(seen) == ["case10"]
    seen.page.get_by_label("Status").select_option("")
    assert names(seen) == list(DICE)


def test_a_case_opens_its_labels_and_closes_them(seen: SimpleNamespace) -> None:
    button = seen.page.locator("td.name button", has_text="case2")
    details = seen.page.locator(f"#{button.get_attribute('aria-controls')}")
    assert not details.is_visible()
    button.click()
    assert details.is_visible()
    assert "L2" in details.inner_text()
    assert "∞" in details.inner_text()
    button.click()
    assert not details.is_visible()


def test_details_follow_their_case_when_sorted(seen: SimpleNamespace) -> None:
    seen.page.locator("td.name button", has_text="case2").click()
    seen.page.locator("#cases th button", has_text="Case").click()

    row = seen.page.locator("tr.case", has_text="case2")
    following = row.evaluate("row => row.nextElementSibling.className")
    assert following == "details"
    assert seen.page.locator("tr.details:visible").count() == 1


def test_keyboard_alone_is_enough(seen: SimpleNamespace) -> None:
    button = seen.page.locator("td.name button", has_text="case1").last
    button.focus()
    seen.page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    picture = seen.page.locator(".gallery button.picture")
    picture.focus()
    seen.page.keyboard.press("Enter")
    dialog = seen.page.locator("#viewer")
    assert dialog.is_visible()
    assert "worst case" in dialog.inner_text()
    seen.page.keyboard.press("ArrowRight")
    assert "case2" in dialog.inner_text()
    seen.page.keyboard.press("ArrowLeft")
    assert "worst case" in dialog.inner_text()
    seen.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert picture.evaluate("one => one === document.activeElement")


def test_a_click_enlarges_a_picture(seen: SimpleNamespace) -> None:
    small = seen.page.locator(".gallery img")
    seen.page.locator(".gallery button.picture").click()

    large = seen.page.locator("#viewer img")
    assert large.bounding_box()["height"] > small.bounding_box()["height"] / 2
    assert large.evaluate("image => image.complete && image.naturalWidth") == 8


def test_odd_names_are_text_and_no_markup(seen: SimpleNamespace) -> None:
    assert seen.page.locator("#cases b").count() == 0


def test_charts_tell_what_they_show(seen: SimpleNamespace) -> None:
    told = seen.page.get_by_role("img", name="Dice: 4 cases").get_attribute(
        "aria-label"
    )
    assert "median 0.83, quartiles 0.75 and 0.91" in told
    assert "1 infinite" in told


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_light_on_dark_and_dark_on_light(
    browser: Any, written: Path, dark: bool
) -> None:
    with opened(browser, written, dark=dark) as shown:
        colour = shown.page.evaluate("() => getComputedStyle(document.body).color")
        red = int(colour.removeprefix("rgb(").split(",")[0])
        background = shown.page.screenshot(clip=CORNER)
        behind = Image.open(io.BytesIO(background)).convert("L").getpixel((0, 0))

        assert (red > 200) == dark
        assert abs(red - behind) > 150


def test_printing_leaves_the_controls_out(seen: SimpleNamespace) -> None:
    seen.page.emulate_media(media="print")

    assert not seen.page.locator(".controls").is_visible()
    assert seen.page.locator("tr.case:visible").count() == len(DICE)


def test_page_reads_without_scripts(written: Path) -> None:
    text = written.read_text(encoding="utf-8")

    assert all(f"case{n}" in text for n in (1, 2, 10))
    assert 'src="http' not in text
    assert "default-src 'none'" in text


def test_same_content_gives_the_same_bytes() -> None:
    assert page.html(example()) == page.html(example())


def test_numbers_for_human_eyes() -> None:
    values = (None, 3, 0.5, float("inf"), float("-inf"), "text")
    told = [page.number(value) for value in values]
    assert told == ["", "3", "0.5000", "∞", "-∞", "text"]


RIGHT = """cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return Math.round(range.getBoundingClientRect().right);
}"""


@pytest.mark.parametrize("sorted_by", [None, "Dice"])
def test_headings_end_where_their_numbers_end(
    seen: SimpleNamespace, sorted_by: str | None
) -> None:
    if sorted_by:
        seen.page.locator("#cases th button", has_text=sorted_by).click()
    seen.page.locator("td.name button", has_text="case2").click()
    for table, rows in (
        ("#cases > thead", "#cases > tbody > tr.case:has-text('case2')"),
        ("tr.details:visible thead", "tr.details:visible tbody tr"),
        ("section:has(h2:text-is('Cohort')) thead", "section td:text-is('0.7200')"),
    ):
        head = seen.page.locator(f"{table} th", has_text="Dice")
        cell = seen.page.locator(rows).first
        if cell.evaluate("one => one.tagName") == "TR":
            cell = cell.locator("td").nth(head.evaluate("one => one.cellIndex"))
        assert head.evaluate(RIGHT) == cell.evaluate(RIGHT)


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ([0.5, None, ""], True),
        (["0.2185 to 0.8153", "-∞", "1,234"], True),
        (["1.5 mm", "12 %", "+0.10 to +0.20"], True),
        (["0.5", "not told"], False),
        (["1 x 1 x 2 mm"], False),
    ],
)
def test_columns_of_numbers(values: list[Any], numbers: bool) -> None:
    made = Page("A", [], (), (), tables=[("T", ("", "X"), [("a", v) for v in values])])

    assert ("<th scope=col class=number>X" in page.html(made)) == numbers


def test_notes_are_below_their_case_and_move_with_it(seen: SimpleNamespace) -> None:
    following = "row => row.nextElementSibling.textContent"
    row = seen.page.locator("tr.case", has_text="case10")
    assert row.evaluate(following) == "on another grid"
    seen.page.locator("#cases th button", has_text="Case").click()
    assert row.evaluate(following) == "on another grid"
    seen.page.get_by_label("Status").select_option("done")
    assert not seen.page.locator("tr.notes").is_visible()


def test_titles_of_charts_are_above_them(seen: SimpleNamespace) -> None:
    title, chart = (
        seen.page.locator(f".charts figure {part}").bounding_box()
        for part in ("figcaption", "svg")
    )
    assert title["y"] + title["height"] <= chart["y"]


def test_names_cannot_turn_what_follows_them() -> None:
    made = Page("A", [], (Column("case", "Case"),), [Entry({"case": "a\u202eb\x85"})])

    assert "a\ufffdb\ufffd" in page.html(made)


def test_many_names_are_counted() -> None:
    assert (
        page.listed("failed", list("abcdefg")) == "7 failed: a, b, c, d, e and 2 more"
    )
    assert page.listed("failed", []) == ""
