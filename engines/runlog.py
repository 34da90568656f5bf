"""The record of a run: ``spine-run.json``, kept up to date case by case.

Cases of earlier runs into the same folder stay in it, so that a case is skipped
only when its input, the model and the settings are those it was made with. Runs that
share a folder at the same time, as the jobs of an array do, keep each other's cases.
"""

import contextlib
import json
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from engines import __version__
from engines.errors import OutputError
from engines.files import held, sha256_of, write_json, write_text
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
        """Return the earlier record of a case made just so, whose files are intact.

        A file that is gone, or holds something else than it did when it was recorded,
        makes the case one that is not done.
        """
        record = self.earlier.get(name)
        if record is None or record.get("status") not in ("done", "skipped"):
            return None
        if record.get("made_from") != dict(fingerprint):
            return None
        outputs, files = record["outputs"], record.get("files")
        if not outputs or not isinstance(files, dict):
            return None
        folder = self.path.parent
        same = (_print_of(folder / path) == files.get(k) for k, path in outputs.items())
        return record if all(same) else None

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
            warnings=tuple(Note(**note) for note in record.get("warnings", ())),
            details={key: record[key] for key in details if key in record},
        )

    def add(self, result: CaseResult) -> None:
        """Record a case and save; a full disk is told by ``finish``, not here."""
        record = self._relative(result.as_json())
        if result.error is not None and result.error.traceback:
            record["error"]["traceback"] = result.error.traceback
        if result.status == "done":
            folder = self.path.parent
            outputs = record["outputs"].items()
            record["files"] = {k: _print_of(folder / path) for k, path in outputs}
        elif result.name in self.earlier:
            record["files"] = self.earlier[result.name].get("files")
        with self._lock:
            self.cases[result.name] = record
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
            cases = self._write()
            if table:
                write_text(self.path.with_suffix(".csv"), _table(cases))
        return cases

    def _write(self) -> list[dict[str, Any]]:
        """Write the record; the caller holds the folder's lock."""
        merged = {**self.earlier, **_earlier(self.path), **self.cases}
        cases = [merged[name] for name in sorted(merged)]
        write_json(self.path, {**self.header, "cases": cases})
        return cases

    def _relative(self, record: dict[str, Any]) -> dict[str, Any]:
        """Name outputs from the folder of the record, which may be moved as one."""
        folder = self.path.parent
        record["outputs"] = {
            kind: Path(path).relative_to(folder).as_posix()
            for kind, path in record["outputs"].items()
        }
        return record


def _print_of(path: Path) -> dict[str, Any] | None:
    """Return size and SHA-256 of a file; None where there is none."""
    try:
        return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    except OSError:
        return None


def _earlier(path: Path) -> dict[str, dict[str, Any]]:
    """Return the cases of a record by name, without those that make no sense.

    A record may be that of another program or version, or be cut short: what of it is
    no case of ours is a case that is not done.
    """
    found = _read(path).get("cases")
    if not isinstance(found, list):
        return {}
    return {case["name"]: case for case in found if _is_case(case)}


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _is_case(case: object) -> bool:
    """Say whether a record has all that its table, its page and a resumption read."""
    if not isinstance(case, dict):
        return False
    outputs, seconds = case.get("outputs", {}), case.get("seconds", {})
    notes, error = case.get("warnings", ()), case.get("error")
    return (
        _is_text(case, "name", "input")
        and bool(case["name"])
        and case.get("status") in ("done", "skipped", "failed")
        and isinstance(outputs, dict)
        and all(_is_below(path) for path in outputs.values())
        and isinstance(seconds, dict)
        and all(_is_number(value) for value in seconds.values())
        and isinstance(notes, list)
        and all(_is_note(note) for note in notes)
        and (error is None or _is_text(error, "code", "message", "hint"))
    )


def _is_text(record: object, *keys: str) -> bool:
    return isinstance(record, dict) and all(
        isinstance(record.get(key), str) for key in keys
    )


def _is_note(note: object) -> bool:
    two = isinstance(note, dict) and len(note) == 2
    return two and _is_text(note, "code", "message")


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value)


def _is_below(path: object) -> bool:
    """Say whether a path leads to a file below the record's folder."""
    if not isinstance(path, str) or not path or "\0" in path:
        return False
    way = PurePosixPath(path)
    return not way.is_absolute() and ".." not in way.parts


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
