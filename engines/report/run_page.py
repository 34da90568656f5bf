"""``index.html`` of a run: every case with its status, warnings, time and picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.report import page
from engines.report.page import Column, Entry, Page, Picture
from engines.report.pictures import thumbnail

COLUMNS = (
    Column("case", "Case"),
    Column("status", "Status", "status"),
    Column("seconds", "Seconds", "number", 1),
)


def html(
    folder: Path, title: str, facts: Sequence[str], cases: Sequence[Mapping[str, Any]]
) -> str:
    """Return the page of the ``cases`` of a run record.

    Small pictures are inside the page; the large ones are those beside it.

    Args:
        folder: of the run; the outputs of cases are paths below it.
        title: of the page.
        facts: about the run.
        cases: records as they are in the run's JSON file.
    """
    entries = [_entry(folder, case) for case in cases]
    return page.html(Page(title, facts, COLUMNS, entries))


def _entry(folder: Path, case: Mapping[str, Any]) -> Entry:
    notes = [note["message"] for note in case.get("warnings", ())]
    error = case.get("error")
    if error:
        notes += [text for text in (error["message"], error["hint"]) if text]
    stages = case.get("seconds", {})
    cells = {
        "case": case["name"],
        "status": case["status"],
        "seconds": float(sum(stages.values())) if stages else None,
    }
    details = None
    if stages:
        details = (("Stage", "Seconds"), [*stages.items()])
    return Entry(cells, notes, details, _picture(folder, case))


def _picture(folder: Path, case: Mapping[str, Any]) -> Picture | None:
    path = case.get("outputs", {}).get("preview")
    if not path or not (folder / path).is_file():
        return None
    small = thumbnail((folder / path).read_bytes())
    told = f"{case['name']}: sagittal and coronal view with the mask"
    return Picture(small, told, Path(path).as_posix(), case["name"])
