"""Segment scans as they are and altered, and tell how far the Dice falls.

For every scan: read -> segment -> per alteration: alter, segment, score. The mask of
the scan as it is goes along with every alteration, and is scored on the same voxels
against the same truth, so that a fall is the network's, not that of the grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import __version__, batch
from engines.errors import InapplicableError, MaskError, SettingsError, SpineError
from engines.files import require_writable
from engines.found import Found
from engines.metrics.inner import inner
from engines.metrics.map_files import read_map
from engines.metrics.overlap import Overlap, dice
from engines.metrics.pairs import truths_of
from engines.networks import shelf
from engines.preprocess.orient import reorient
from engines.results import CaseResult, Note
from engines.robustness import alter, table
from engines.robustness.alter import Alteration
from engines.robustness.subject import (
    FOUND,
    LEFT_OUT,
    TRUTH,
    Subject,
    subject_of,
)
from engines.scans import find_scans, read_case
from engines.segment.segmenter import Segmenter
from engines.volume import Volume

Told = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessSettings:
    """How to alter and to score.

    Attributes:
        model: name or path.
        only: kinds or names of alterations; empty does all that are done by default.
        inner: score only between the first and the last labelled vertebra.
        seed: of the draws.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: as for ``segment``.
    """

    model: str = shelf.DEFAULT_MODEL
    only: tuple[str, ...] = ()
    inner: bool = False
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"


class RobustnessRun:
    """One table: finds scans and truths, loads the model once, goes scan by scan.

    Attributes:
        count: scans.
        rows: of the table, as far as it is known.
    """

    def __init__(
        self,
        scans: Path,
        truth: Path,
        settings: RobustnessSettings,
        output: Path | None = None,
        *,
        command: str = "",
        told: Told = lambda name, stage: None,
    ) -> None:
        """Find the scans and check what can be checked before the first of them.

        Raises:
            UnknownModelError, ModelFileError: the model cannot be used.
            SettingsError: no such alteration, or a model that is not for CT.
            NotFoundError: there is no truth.
            DeviceError: the device is not there.
            OutputError: ``output`` cannot be written.
        """
        self.alterations = alter.chosen(settings.only)
        self._segmenter = Segmenter(
            settings.model, device=settings.device, precision=settings.precision
        )
        manifest = self._segmenter.model.manifest
        if manifest.modality != "ct":
            msg = f"{manifest.name} is a model for {manifest.modality.upper()}"
            hint = "The alterations are those of CT: choose a model for CT."
            raise SettingsError(msg, hint=hint)
        if output is not None:
            require_writable(output)
        self.settings = settings
        self.output = output
        self.command = command
        self.told = told
        self._cases: list[CaseResult] = []
        self._found = find_scans([scans])
        names = [found.name for found in self._found if found.problem is None]
        kind = "vert" if settings.inner else ""
        self._truths = truths_of(names, truth, kind)
        self.count = len(self._found)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table: a row for each alteration."""
        return table.rows(self._cases, self.alterations)

    def results(self) -> Iterator[CaseResult]:
        """Alter and score every scan, in order, and yield its record.

        Raises:
            OutputError: the table cannot be written.
        """
        for found in self._found:
            job = batch.Job(found.name, str(found.path), self.told)
            try:
                result = self._case(job, found)
            except Exception as error:  # noqa: BLE001  one bad case never stops the others
                result = job.failed(error)
            self._cases.append(result)
            yield result
        if self.output is not None:
            table.write(self.output, self.rows, self.record())

    def facts(self) -> dict[str, Any]:
        """Return the table and how it came about, for the record."""
        computed = self._segmenter.computer.facts()
        return {
            "model": self._segmenter.model.told,
            "device": computed["device"],
            "precision": computed["precision"],
            "backend_reason": computed["backend_reason"],
            "settings": asdict(self.settings),
            "robustness": self.rows,
        }

    def record(self) -> dict[str, Any]:
        """Return all that the JSON file holds."""
        cases = [
            {key: value for key, value in case.as_json().items() if key != "seconds"}
            for case in self._cases
        ]
        about = {"version": __version__, "command": self.command}
        return {**about, **self.facts(), "cases": cases}

    def _case(self, job: batch.Job, found: Found) -> CaseResult:
        if found.problem is not None:
            raise found.problem
        path = self._truths[found.name]
        if isinstance(path, SpineError):
            raise path
        with job.timed("read"):
            scan, notes = read_case(found)
            job.notes += notes
        scan = self._segmenter.admit(job, scan, may_force=False)
        with job.timed("read"):
            truth, scored = self._truth(path, scan)
        with job.timed("unaltered"):
            before = self._labelled(scan)
        subject = subject_of(scan, truth, scored)
        subject = _marked(subject, scan.with_voxels(before))
        altered = []
        for alteration in self.alterations:
            with job.timed(alteration.name):
                altered.append(self._altered(alteration, subject))
        skipped = [row for row in altered if row["skipped"]]
        if skipped:
            told = "; ".join(
                f"{row['alteration']}: {row['skipped']}" for row in skipped
            )
            job.notes.append(Note("not_altered", f"left out: {told}"))
        details = {
            "truth": str(path),
            "dice": _dice(subject, _carried(subject, FOUND)),
            "alterations": altered,
        }
        return job.done({}, details)

    def _truth(self, path: Path, scan: Volume) -> tuple[Volume, NDArray[np.bool_]]:
        """Return the truth of a scan, and which of its voxels count."""
        truth = read_map(path)
        if not truth.grid.matches(scan.grid):
            msg = f"{path.name} lies on another grid than its scan"
            raise MaskError(msg, hint="Resample the mask to its scan first.")
        if self.settings.inner:
            return truth, inner(truth.voxels, truth.grid.spacing_mm)
        return truth, np.ones(truth.grid.shape, bool)

    def _altered(self, alteration: Alteration, subject: Subject) -> dict[str, Any]:
        row: dict[str, Any] = {
            "alteration": alteration.name,
            "dice": None,
            "unaltered": None,
            "fall": None,
            "identical": None,
            "skipped": "",
        }
        try:
            changed = alteration.of(subject, self.settings.seed)
        except InapplicableError as error:
            return row | {"skipped": str(error)}
        after = self._labelled(changed.scan) > 0
        before = _carried(changed, FOUND)
        now, then = _dice(changed, after), _dice(changed, before)
        same = (
            bool((after == before).all()) if alteration.kind == "orientation" else None
        )
        return row | {
            "dice": now,
            "unaltered": then,
            "fall": then - now,
            "identical": same,
        }

    def _labelled(self, scan: Volume) -> NDArray[np.uint8]:
        """Segment a scan, whatever was done to it."""
        job = batch.Job("altered", "altered")
        prepared = self._segmenter.prepare(job, scan)
        found = self._segmenter.computer.scan(job, prepared)
        return self._segmenter.label(job, prepared, found).labels


def _marked(subject: Subject, mask: Volume) -> Subject:
    """Return the subject with the mask of the scan as it is among its marks."""
    found = reorient(mask).voxels > 0
    marks = subject.marks.with_voxels(subject.marks.voxels | found * np.uint8(FOUND))
    return Subject(subject.scan, marks, subject.levels_mm)


def _carried(subject: Subject, mark: int) -> NDArray[np.bool_]:
    carried: NDArray[np.bool_] = (subject.marks.voxels & mark) > 0
    return carried


def _dice(subject: Subject, mask: NDArray[np.bool_]) -> float:
    scored = ~_carried(subject, LEFT_OUT)
    mask, truth = mask & scored, _carried(subject, TRUTH) & scored
    counts = (int(np.count_nonzero(one)) for one in (mask & truth, mask, truth, scored))
    return dice(Overlap(1, *counts))
