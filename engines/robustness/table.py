"""The robustness table: a row for each alteration, over all scans."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.files import write_json, write_text
from engines.results import CaseResult
from engines.robustness.alter import Alteration
from engines.tables import TableWriter

REPORT = "robustness"

FALL = 0.03
"""A fall of the Dice by more than this is told."""

COLUMNS = (
    "alteration",
    "scans",
    "dice",
    "worst",
    "unaltered",
    "fall",
    "exceeds",
    "identical",
    "told",
)


def rows(
    cases: Sequence[CaseResult], alterations: Sequence[Alteration]
) -> list[dict[str, Any]]:
    """Return the table.

    ``dice`` and ``unaltered`` are medians over scans, ``worst`` the lowest Dice and
    ``fall`` the median of what each scan lost. Rows of alterations that made sense for
    no scan have no numbers. ``identical`` says of an alteration after which the mask
    has to be the same whether it was, in all scans.
    """
    done = [row for case in cases for row in case.details.get("alterations", ())]
    table = []
    for one in alterations:
        found = [
            row
            for row in done
            if row["alteration"] == one.name and row["dice"] is not None
        ]
        table.append(_row(one, found))
    return table


def write(folder: Path, table: Sequence[Mapping[str, Any]], record: object) -> None:
    """Write robustness.csv, the table, and robustness.json, all there is.

    Raises:
        OutputError: they cannot be written.
    """
    write_text(folder / f"{REPORT}.csv", TableWriter(COLUMNS).text(table))
    write_json(folder / f"{REPORT}.json", record)


def _row(one: Alteration, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told = {"told": one.told, "source": one.source}
    row: dict[str, Any] = {"alteration": one.name, "kind": one.kind, **told}
    if not found:
        empty = dict.fromkeys(COLUMNS[2:8])
        return {**row, "scans": 0, **empty}
    fall = statistics.median(row["fall"] for row in found)
    same = [row["identical"] for row in found if row["identical"] is not None]
    return {
        **row,
        "scans": len(found),
        "dice": statistics.median(row["dice"] for row in found),
        "worst": min(row["dice"] for row in found),
        "unaltered": statistics.median(row["unaltered"] for row in found),
        "fall": fall,
        "exceeds": fall > FALL,
        "identical": all(same) if same else None,
    }
