"""``index.html`` of a run: every case with its status, warnings, time and picture.

Failed cases come first, then those with warnings, then the others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.report import page
from engines.report.page import Alarm, Column, Entry, Page, Picture
from engines.report.pictures import thumbnail

COLUMNS = (
    Column("case", "Case"),
    Column("status", "Status", "status"),
    Column("seconds", "Seconds", "number", 1),
)

ORDER: tuple[Alarm, ...] = ("failed", "warned", "")


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
    entries.sort(key=lambda entry: ORDER.index(entry.alarm))
    failed = [case["name"] for case in cases if _alarm(case) == "failed"]
    counted = _counted(cases)
    return page.html(
        Page(
            title,
            [counted, *facts] if counted else facts,
            COLUMNS,
            entries,
            alarms=[page.listed("failed", failed)] if failed else (),
        )
    )


def _counted(cases: Sequence[Mapping[str, Any]]) -> str:
    found = Counter[str](case["status"] for case in cases)
    warned = Counter[str](c["status"] for c in cases if _alarm(c) == "warned")
    return ", ".join(
        f"{count} {status}"
        + (f" ({warned[status]} with warnings)" if warned[status] else "")
        for status, count in sorted(found.items())
    )


def _alarm(case: Mapping[str, Any]) -> Alarm:
    if case["status"] == "failed":
        return "failed"
    return "warned" if case.get("warnings") else ""


def _entry(folder: Path, case: Mapping[str, Any]) -> Entry:
    notes = []
    error = case.get("error")
    if error:
        notes += [text for text in (error["message"], error["hint"]) if text]
    notes += [note["message"] for note in case.get("warnings", ())]
    stages = case.get("seconds", {})
    cells = {
        "case": case["name"],
        "status": case["status"],
        "seconds": float(sum(stages.values())) if stages else None,
    }
    details = None
    if stages:
        rows = [(stage, f"{seconds:.2f}") for stage, seconds in stages.items()]
        details = (("Stage", "Seconds"), rows)
    picture = _picture(folder, case)
    return Entry(cells, notes, details, picture, alarm=_alarm(case))


def _picture(folder: Path, case: Mapping[str, Any]) -> Picture | None:
    path = case.get("outputs", {}).get("preview")
    if not path or not (folder / path).is_file():
        return None
    small = thumbnail((folder / path).read_bytes())
    told = f"{case['name']}: sagittal and coronal view with the mask"
    return Picture(small, told, Path(path).as_posix(), case["name"])
