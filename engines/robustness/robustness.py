"""Segment scans as they are and altered, and tell how far the Dice falls.

For every scan: read -> segment -> per alteration: alter, segment, score. The mask of
the scan as it is goes along with every alteration, and is scored on the same voxels
against the same truth, so that a fall is the network's, not that of the grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import __version__, batch
from engines.errors import InapplicableError, MaskError, SettingsError, SpineError
from engines.files import require_writable, sha256_of
from engines.found import Found
from engines.metrics.inner import inner
from engines.metrics.map_files import read_map
from engines.metrics.overlap import Overlap, dice
from engines.metrics.pairs import truths_of
from engines.networks import catalog, shelf
from engines.networks.manifest import Model, read_manifest
from engines.preprocess.checks import require_scan
from engines.preprocess.modality import admit
from engines.preprocess.orient import reorient
from engines.preprocess.restore import to_hounsfield
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
from engines.runtimes.backends import REFERENCE
from engines.runtimes.choose import Choice, choose, reference
from engines.runtimes.devices import pick
from engines.scans import find_scans, read_case
from engines.segment import inference, views
from engines.volume import Volume

Told = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
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
        path = shelf.locate(settings.model)
        manifest = read_manifest(path)
        if manifest.modality != "ct":
            msg = f"{manifest.name} is a model for {manifest.modality.upper()}"
            hint = "The alterations are those of CT: choose a model for CT."
            raise SettingsError(msg, hint=hint)
        if manifest.guide:
            msg = f"{manifest.name} marks the spine that {manifest.guide} finds"
            raise SettingsError(msg, hint=f"Measure {manifest.guide}.")
        if output is not None:
            require_writable(output)
        solid = catalog.find(manifest.architecture).dimensions == 3
        self.views = views.resolve(None, manifest.views, together=solid)
        self.settings = settings
        self.output = output
        self.command = command
        self.told = told
        self._path = path
        self._name, self._sha256 = manifest.name, sha256_of(path)
        self._device = pick(settings.device)
        self._model: Model | None = None
        self._choice: Choice | None = None
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
        choice = self._choice
        return {
            "model": {"name": self._name, "sha256": self._sha256},
            "device": choice.runtime.device if choice else str(self._device),
            "precision": choice.runtime.precision if choice else None,
            "backend_reason": choice.reason if choice else None,
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
            require_scan(scan, found.path.name)
            scan = to_hounsfield(scan)
            scan, notes = admit(scan, "ct", may_force=False)
            job.notes += notes
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
        if self._model is None:
            self._model = shelf.load(str(self._path))
        model = self._model
        prepared = inference.prepare(scan, model.manifest.recipe)
        if self._choice is None:
            tried = inference.probe(prepared, model, self.views)
            self._choice = choose(model, self._device, self.settings.precision, tried)
        try:
            return inference.segment_prepared(
                prepared, model, self._choice.runtime, self.views
            ).labels
        except Exception as error:  # a library may raise anything
            used = self._choice.runtime
            if (used.backend, used.precision) == REFERENCE:
                raise
            reason = f"{used.backend} in {used.precision} failed on a scan: {error}"
            self._choice = replace(
                self._choice, runtime=reference(model, self._device), reason=reason
            )
            return self._labelled(scan)


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
