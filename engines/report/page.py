"""``index.html`` of a run: every case with its status, warnings, time and picture."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from engines.report.pictures import thumbnail

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .5rem .7rem;
  border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
img { height: 160px; border-radius: 4px; background: #000; }
.failed { color: light-dark(#b00020, #ff8a80); font-weight: 600; }
.name { overflow-wrap: anywhere; }
small { opacity: .75; }
"""


def write_rows(
    folder: Path, title: str, facts: Sequence[str], cases: Sequence[Mapping[str, Any]]
) -> str:
    """Return the page; pictures are read from the cases' outputs below ``folder``.

    Everything is inside the page, so it can be mailed or opened from disk; the
    small pictures link to the large ones beside it.
    """
    rows = "\n".join(_row(folder, case) for case in cases)
    told = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<ul>{told}</ul>\n"
        "<table>\n<thead><tr><th>Case</th><th>Status</th><th>Seconds</th>"
        "<th>Notes</th><th>Picture</th></tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</body>\n</html>\n"
    )


def _row(folder: Path, case: Mapping[str, Any]) -> str:
    notes = [escape(note["message"]) for note in case.get("warnings", ())]
    error = case.get("error")
    if error:
        notes.append(
            f"{escape(error['message'])} <small>{escape(error['hint'])}</small>"
        )
    status = escape(case["status"])
    seconds = sum(case.get("seconds", {}).values())
    return (
        f'<tr><td class="name">{escape(case["name"])}</td>'
        f'<td class="{status}">{status}</td><td>{seconds:.1f}</td>'
        f"<td>{'<br>'.join(notes)}</td><td>{_picture(folder, case)}</td></tr>"
    )


def _picture(folder: Path, case: Mapping[str, Any]) -> str:
    path = case.get("outputs", {}).get("preview")
    if not path or not (folder / path).is_file():
        return ""
    small = base64.b64encode(thumbnail((folder / path).read_bytes())).decode()
    name = escape(case["name"])
    return (
        f'<a href="{escape(Path(path).as_posix())}">'
        f'<img alt="{name}: sagittal and coronal view with the mask" '
        f'src="data:image/jpeg;base64,{small}"></a>'
    )
