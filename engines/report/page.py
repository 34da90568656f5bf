"""A self-contained HTML page: facts, charts, pictures and a table of cases.

Everything is inside the one file and nothing is fetched, which its content security
policy enforces, so it can be mailed or opened from disk. The table can be sorted and
filtered, pictures enlarged, all with the keyboard; it prints without the controls and
reads without scripts.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any, Literal

Kind = Literal["text", "number", "status", "name"]

POLICY = (
    "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of cases.

    Attributes:
        key: of the values in ``Entry.cells``.
        kind: numbers are sorted as such, names are searched by the filter.
        digits: after the point.
    """

    key: str
    title: str
    kind: Kind = "text"
    digits: int = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a case.

    Attributes:
        content: PNG or JPEG, shown small.
        alt: what is to be seen.
        large: path of a larger one beside the page; empty where ``content`` is large.
        caption: below the picture.
    """

    content: bytes
    alt: str
    large: str = ""
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A case.

    Attributes:
        cells: column key -> value; None leaves the cell empty.
        notes: what attention is drawn to.
        details: headings, and rows of the table that opens below the case.
        picture: in the case's row, if it has one.
        best: column keys whose values are the best of the table.
    """

    cells: Mapping[str, Any]
    notes: Sequence[str] = ()
    details: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None
    picture: Picture | None = None
    best: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows.

    Attributes:
        facts: short sentences below the title.
        columns: of the table; the first names the case. Without any there is no table.
        entries: its rows, in the order in which they are first shown.
        charts: drawings (SVG) with their titles.
        gallery: pictures above the table.
        gallery_title: what they are.
        tables: more tables: title, headings, rows.
        entries_title: what the rows of the table are.
    """

    title: str
    facts: Sequence[str]
    columns: Sequence[Column]
    entries: Sequence[Entry]
    charts: Sequence[tuple[str, str]] = ()
    gallery: Sequence[Picture] = ()
    gallery_title: str = ""
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = field(
        default_factory=tuple
    )
    entries_title: str = "Cases"


def html(page: Page) -> str:
    """Return the page; the same content gives the same bytes."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    parts = [
        f"<header><h1>{escape(page.title)}</h1>{_facts(page.facts)}</header>",
        _charts(page.charts),
        _gallery(page),
        *(_table(*table) for table in page.tables),
        _cases(page) if page.columns else "",
        '<dialog id="viewer" aria-label="Picture"><figure><img alt=""><figcaption>'
        "</figcaption></figure><form method=dialog><button>Close</button></form>"
        "</dialog>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n{chr(10).join(part for part in parts if part)}\n"
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def number(value: Any, digits: int = 4) -> str:  # noqa: ANN401
    """Return a number for human eyes; whole ones without a point."""
    if value is None or value == "":
        return ""
    if isinstance(value, str | int):
        return str(value)
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


def _asset(name: str) -> str:
    return files("engines.report").joinpath(name).read_text(encoding="utf-8")


def _facts(facts: Sequence[str]) -> str:
    told = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return f"<ul class=facts>{told}</ul>" if told else ""


def _charts(charts: Sequence[tuple[str, str]]) -> str:
    drawn = "".join(
        f"<figure>{svg}<figcaption>{escape(title)}</figcaption></figure>"
        for title, svg in charts
    )
    return (
        f'<section class=charts aria-label="Charts">{drawn}</section>' if drawn else ""
    )


def _gallery(page: Page) -> str:
    if not page.gallery:
        return ""
    shown = "".join(
        f"<figure>{_image(picture)}<figcaption>{escape(picture.caption)}</figcaption>"
        "</figure>"
        for picture in page.gallery
    )
    title = escape(page.gallery_title)
    return f"<section class=gallery><h2>{title}</h2><div>{shown}</div></section>"


def _image(picture: Picture) -> str:
    kind = "png" if picture.content.startswith(b"\x89PNG") else "jpeg"
    packed = base64.b64encode(picture.content).decode()
    large = f' data-large="{escape(picture.large)}"' if picture.large else ""
    told = escape(picture.alt)
    caption = escape(picture.caption or picture.alt)
    return (
        f'<button class=picture data-caption="{caption}"{large} '
        f'aria-label="Enlarge: {told}">'
        f'<img alt="{told}" loading=lazy src="data:image/{kind};base64,{packed}">'
        "</button>"
    )


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"<section><h2>{escape(title)}</h2>{_plain_table(headings, rows)}</section>"


def _plain_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th scope=col>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td{_aligned(v)}>{_text(v)}</td>" for v in row) + "</tr>"
        for row in rows
    )
    return (
        f"<div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _aligned(value: object) -> str:
    return " class=number" if isinstance(value, int | float) else ""


def _text(value: Any) -> str:  # noqa: ANN401
    return escape(number(value))


def _cases(page: Page) -> str:
    statuses = [c.key for c in page.columns if c.kind == "status"]
    kinds = sorted({str(e.cells.get(key)) for key in statuses for e in page.entries})
    options = "".join(f"<option>{escape(kind)}</option>" for kind in kinds)
    pick = (
        "<label>Status <select id=status><option value=''>all</option>"
        f"{options}</select></label>"
        if kinds
        else ""
    )
    head = "".join(_heading(column) for column in page.columns)
    extra = [
        title
        for title, there in (
            ("Notes", any(entry.notes for entry in page.entries)),
            ("Picture", any(entry.picture for entry in page.entries)),
        )
        if there
    ]
    head += "".join(f"<th scope=col>{title}</th>" for title in extra)
    body = "\n".join(
        _row(page, entry, number_, extra) for number_, entry in enumerate(page.entries)
    )
    return (
        f"<section><h2>{escape(page.entries_title)}</h2>"
        "<div class=controls><label>Filter <input id=filter type=search "
        f'placeholder="name or note"></label>{pick}'
        "<output id=count aria-live=polite></output></div>"
        f"<div class=wide><table id=cases><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div></section>"
    )


def _heading(column: Column) -> str:
    return (
        f'<th scope=col data-kind="{column.kind}" aria-sort=none>'
        f"<button>{escape(column.title)}</button></th>"
    )


def _row(page: Page, entry: Entry, place: int, extra: Sequence[str]) -> str:
    cells = "".join(
        _cell(column, entry, first=index == 0, place=place)
        for index, column in enumerate(page.columns)
    )
    if "Notes" in extra:
        cells += f"<td class=notes>{'<br>'.join(map(escape, entry.notes))}</td>"
    if "Picture" in extra:
        cells += f"<td>{_image(entry.picture) if entry.picture else ''}</td>"
    row = f"<tr class=case>{cells}</tr>"
    if entry.details is None:
        return row
    width = len(page.columns) + len(extra)
    inside = _plain_table(*entry.details)
    return (
        f"{row}\n<tr class=details id=details-{place} hidden>"
        f"<td colspan={width}>{inside}</td></tr>"
    )


def _cell(column: Column, entry: Entry, *, first: bool, place: int) -> str:
    value = entry.cells.get(column.key)
    if column.kind == "number":
        exact = "" if value is None else f' data-value="{_sortable(value)}"'
        mark = '"number best"' if column.key in entry.best else "number"
        told = escape(number(value, column.digits))
        return f"<td class={mark}{exact}>{told}</td>"
    told = escape("" if value is None else str(value))
    if column.kind == "status":
        return f'<td class="status {told}">{told}</td>'
    if first and entry.details is not None:
        return (
            f"<td class=name><button aria-expanded=false aria-controls=details-{place}>"
            f"{told}</button></td>"
        )
    named = first or column.kind == "name"
    return f"<td{' class=name' if named else ''}>{told}</td>"


def _sortable(value: float) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return json.dumps(value)
