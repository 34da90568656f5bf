"""The record of a run: ``spine-run.json``, kept up to date case by case.

Cases of earlier runs into the same folder stay in it, so that a case is skipped
only when its input, the model and the settings are those it was made with. Runs that
share a folder at the same time, as the jobs of an array do, keep each other's cases.
"""

import contextlib
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines import __version__
from engines.errors import OutputError
from engines.files import held, write_json, write_text
from engines.results import CaseResult, Note
from engines.tables import TableWriter

NAME = "spine-run"
CSV_COLUMNS = (
    "name",
    "input",
    "status",
    "seconds",
    "warnings",
    "error",
    "message",
    "hint",
)


class RunLog:
    """Collects records from any thread and saves after each."""

    def __init__(
        self, folder: Path, header: Mapping[str, Any], name: str = NAME
    ) -> None:
        self.path = folder / f"{name}.json"
        self.header = {"version": __version__, **header}
        self.earlier = _earlier(self.path)
        self.cases: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def made_by(
        self, name: str, fingerprint: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Return the earlier record of a case made just so whose files still exist."""
        record = self.earlier.get(name)
        if record is None or record.get("status") not in ("done", "skipped"):
            return None
        if record.get("made_from") != dict(fingerprint):
            return None
        outputs = record.get("outputs", {})
        here = all((self.path.parent / path).is_file() for path in outputs.values())
        return record if outputs and here else None

    def skipped(
        self, record: Mapping[str, Any], where: str, details: Collection[str]
    ) -> CaseResult:
        """Return the result of a case that an earlier run did.

        Args:
            record: what ``made_by`` returned.
            where: the input, as it is called now.
            details: the further keys of the record that hold for the case still.
        """
        folder = self.path.parent
        return CaseResult(
            record["name"],
            where,
            "skipped",
            {kind: str(folder / path) for kind, path in record["outputs"].items()},
            warnings=tuple(Note(**note) for note in record["warnings"]),
            details={key: record[key] for key in details if key in record},
        )

    def add(self, result: CaseResult) -> None:
        """Record a case and save; a full disk is told by ``finish``, not here."""
        with self._lock:
            self.cases[result.name] = self._relative(result.as_json())
            with contextlib.suppress(OutputError):
                self._save()

    def finish(self, **facts: object) -> list[dict[str, Any]]:
        """Put ``facts`` into the header and save the record and its table.

        Returns:
            The cases in it, those of other runs into the folder too.

        Raises:
            OutputError: they cannot be written.
        """
        with self._lock:
            self.header |= facts
            return self._save(table=True)

    def _save(self, *, table: bool = False) -> list[dict[str, Any]]:
        with held(self.path):
            merged = {**self.earlier, **_earlier(self.path), **self.cases}
            cases = [merged[name] for name in sorted(merged)]
            write_json(self.path, {**self.header, "cases": cases})
            if table:
                write_text(self.path.with_suffix(".csv"), _table(cases))
        return cases

    def _relative(self, record: dict[str, Any]) -> dict[str, Any]:
        """Name outputs from the folder of the record, which may be moved as one."""
        folder = self.path.parent
        record["outputs"] = {
            kind: Path(path).relative_to(folder).as_posix()
            for kind, path in record["outputs"].items()
        }
        return record


def _earlier(path: Path) -> dict[str, dict[str, Any]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {case["name"]: case for case in record["cases"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _table(cases: Sequence[Mapping[str, Any]]) -> str:
    table = TableWriter(CSV_COLUMNS)
    for case in cases:
        error = case.get("error") or {}
        warnings = "; ".join(note["message"] for note in case.get("warnings", ()))
        table.add(
            {
                "name": case["name"],
                "input": case["input"],
                "status": case["status"],
                "seconds": round(sum(case.get("seconds", {}).values()), 2),
                "warnings": warnings,
                "error": error.get("code", ""),
                "message": error.get("message", ""),
                "hint": error.get("hint", ""),
            }
        )
    return table.text()
