"""A self-contained HTML page: facts, charts, pictures and a table of cases.

Everything is inside the one file and nothing is fetched, which its content security
policy enforces, so it can be mailed or opened from disk. The table can be sorted and
filtered, pictures enlarged, all with the keyboard; it prints without the controls and
reads without scripts.
"""

import base64
import html as markup
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import quote

from engines.files import printable

Kind = Literal["text", "number", "status", "name"]

POLICY = (
    "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)

Alarm = Literal["", "warned", "failed"]

NAMES = 5
"""So many names stand in a sentence; the others are counted."""

_HIDDEN = dict.fromkeys(
    (
        *range(9),
        *range(11, 32),
        *range(127, 160),
        *range(0x200E, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    ),
    "\ufffd",
)
"""Characters that a page would obey or hide, such as those that turn what follows from
right to left -> what stands for them."""

_NUMERIC = re.compile(
    r"[-+]?(\d[\d,]*(\.\d+)?(e[-+]?\d+)?|∞)( ?%| [A-Za-z]{1,3})?"
    r"( (to|±) [-+]?(\d[\d,]*(\.\d+)?|∞))?"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of cases.

    Attributes:
        key: of the values in ``Entry.cells``.
        kind: numbers are sorted as such, names are searched by the filter.
        digits: after the point.
        more: shown only on demand.
    """

    key: str
    title: str
    kind: Kind = "text"
    digits: int = 4
    more: bool = False


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
        notes: what attention is drawn to, below the row.
        details: headings, and rows of the table that opens below the case.
        picture: in the case's row, if it has one.
        best: column keys whose values are the best of the table.
        alarm: how the row is marked.
    """

    cells: Mapping[str, Any]
    notes: Sequence[str] = ()
    details: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None
    picture: Picture | None = None
    best: frozenset[str] = frozenset()
    alarm: Alarm = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows.

    Attributes:
        facts: short sentences below the title.
        columns: of the table; the first names the case. Without any there is no table.
        entries: its rows, in the order in which they are first shown.
        charts: titles and drawings (SVG).
        charts_legend: how to read the drawings.
        gallery: pictures above the table.
        gallery_title: what they are.
        gallery_rem: width of a picture at least, as far as the window has it.
        tables: more tables: title, headings, rows.
        entries_title: what the rows of the table are.
        alarms: sentences on what went wrong, before everything else.
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
    gallery_rem: int = 20
    charts_legend: str = ""
    alarms: Sequence[str] = ()


def html(page: Page) -> str:
    """Return the page; the same content gives the same bytes."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    parts = [
        f"<header><h1>{escape(page.title)}</h1>{_facts(page.alarms, 'alarms')}"
        f"{_facts(page.facts, 'facts')}</header>",
        _charts(page),
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
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}f}"


def escape(text: str) -> str:
    """Return a text as HTML, with a sign for what cannot be seen or encoded."""
    return markup.escape(printable(text).translate(_HIDDEN))


def listed(what: str, names: Sequence[str]) -> str:
    """Return a sentence that names some cases; empty without any."""
    if not names:
        return ""
    more = len(names) - NAMES
    told = ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)} {what}: {told}"


def _asset(name: str) -> str:
    return files("engines.report").joinpath(name).read_text(encoding="utf-8")


def _facts(facts: Sequence[str], kind: str) -> str:
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts if fact)
    return f"<ul class={kind}>{items}</ul>" if items else ""


def _charts(page: Page) -> str:
    if not page.charts:
        return ""
    drawn = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"
        for title, svg in page.charts
    )
    legend = f"<p class=legend>{escape(page.charts_legend)}</p>"
    return (
        f'<section aria-label="Charts">{legend if page.charts_legend else ""}'
        f"<div class=charts>{drawn}</div></section>"
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
    return (
        f'<section class=gallery style="--width:{page.gallery_rem}rem">'
        f"<h2>{title}</h2><div>{shown}</div></section>"
    )


def _image(picture: Picture) -> str:
    kind = "png" if picture.content.startswith(b"\x89PNG") else "jpeg"
    packed = base64.b64encode(picture.content).decode()
    large = f' data-large="{_address(picture.large)}"' if picture.large else ""
    told = escape(picture.alt)
    caption = escape(picture.caption or picture.alt)
    return (
        f'<button class=picture data-caption="{caption}"{large} '
        f'aria-label="Enlarge: {told}">'
        f'<img alt="{told}" loading=lazy src="data:image/{kind};base64,{packed}">'
        "</button>"
    )


def _address(path: str) -> str:
    """Return a relative path as an address, whatever bytes are in it."""
    return quote(os.fsencode(path))


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"<section><h2>{escape(title)}</h2>{_plain_table(headings, rows)}</section>"


def _plain_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    aligned = [
        " class=number" if place and _are_numbers([row[place] for row in rows]) else ""
        for place in range(len(headings))
    ]
    head = "".join(
        f"<th scope=col{side}>{escape(heading)}</th>"
        for heading, side in zip(headings, aligned, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{side}>{_text(value)}</td>"
            for value, side in zip(row, aligned, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _are_numbers(values: Sequence[Any]) -> bool:
    """Say whether a column holds numbers and nothing else, empty cells aside."""
    shown = [number(value) for value in values]
    return all(_NUMERIC.fullmatch(text) for text in shown if text)


def _text(value: Any) -> str:  # noqa: ANN401
    return escape(number(value))


def _cases(page: Page) -> str:
    head = "".join(_heading(column) for column in page.columns)
    pictures = any(entry.picture for entry in page.entries)
    if pictures:
        head += "<th scope=col>Picture</th>"
    body = "\n".join(
        _row(page, entry, place, pictures=pictures)
        for place, entry in enumerate(page.entries)
    )
    return (
        f"<section class=cases><h2>{escape(page.entries_title)}</h2>"
        f"{_controls(page)}"
        f"<div class=wide><table id=cases><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div></section>"
    )


def _controls(page: Page) -> str:
    statuses = [c.key for c in page.columns if c.kind == "status"]
    kinds = sorted({str(e.cells.get(key)) for key in statuses for e in page.entries})
    options = "".join(f"<option>{escape(kind)}</option>" for kind in kinds)
    pick = (
        "<label>Status <select id=status><option value=''>all</option>"
        f"{options}</select></label>"
        if kinds
        else ""
    )
    every = (
        "<label><input id=more type=checkbox autocomplete=off> all columns</label>"
        if any(column.more for column in page.columns)
        else ""
    )
    return (
        "<div class=controls><label>Filter <input id=filter type=search "
        f'placeholder="name or note"></label>{pick}{every}'
        "<output id=count aria-live=polite></output></div>"
    )


def _heading(column: Column) -> str:
    return (
        f'<th scope=col data-kind="{column.kind}" aria-sort=none{_classes(column)}>'
        f"<button>{escape(column.title)}</button></th>"
    )


def _classes(column: Column, *others: str) -> str:
    number_ = ["number"] if column.kind == "number" else []
    found = [*number_, *(["more"] if column.more else []), *filter(None, others)]
    return f' class="{" ".join(found)}"' if found else ""


def _row(page: Page, entry: Entry, place: int, *, pictures: bool) -> str:
    cells = "".join(
        _cell(column, entry, first=index == 0, place=place)
        for index, column in enumerate(page.columns)
    )
    beside = bool(entry.picture and entry.notes)
    if pictures:
        tall = " rowspan=2" if beside else ""
        cells += f"<td{tall}>{_image(entry.picture) if entry.picture else ''}</td>"
    classes = " ".join(filter(None, ("case", entry.alarm)))
    rows = [f'<tr class="{classes}">{cells}</tr>']
    width = len(page.columns) + pictures
    if entry.notes:
        notes = "<br>".join(map(escape, entry.notes))
        rows.append(
            f"<tr class=notes><td colspan={width - beside}><div>{notes}</div></td></tr>"
        )
    if entry.details is not None:
        inside = _plain_table(*entry.details)
        rows.append(
            f"<tr class=details id=details-{place} hidden>"
            f"<td colspan={width}>{inside}</td></tr>"
        )
    return "\n".join(rows)


def _cell(column: Column, entry: Entry, *, first: bool, place: int) -> str:
    value = entry.cells.get(column.key)
    if column.kind == "number":
        exact = "" if value is None else f' data-value="{_sortable(value)}"'
        mark = "best" if column.key in entry.best else ""
        shown = escape(number(value, column.digits))
        return f"<td{_classes(column, mark)}{exact}>{shown}</td>"
    shown = escape("" if value is None else str(value))
    if column.kind == "status":
        return f'<td class="status {shown}">{shown}</td>'
    if first and entry.details is not None:
        return (
            f"<td class=name><button aria-expanded=false aria-controls=details-{place}>"
            f"{shown}</button></td>"
        )
    return f"<td{' class=name' if first or column.kind == 'name' else ''}>{shown}</td>"


def _sortable(value: float) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return json.dumps(value)
