"""Run a study: train and score what is not done yet, and keep its tables current.

Each training has a folder of its own, in which it is resumed after an interruption;
``result.json`` there says that it ended, with the fingerprint of settings and data.
"""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from engines import __version__
from engines.errors import NotFoundError, SpineError, TrainingError
from engines.files import require_writable, sweep, write_json
from engines.networks.manifest import load_model
from engines.results import CaseResult, Problem, Status
from engines.runtimes.devices import pick
from engines.train import loop, score, study_table, study_text
from engines.train.loop import Event
from engines.train.study import Study
from engines.train.study_marks import fingerprint
from engines.train.study_plan import Known, Planned, planned
from engines.train.study_table import RESULT, Row

Told = Callable[[Planned, Event], None]

BEGUN = "begun.json"
"""What an unfinished training was begun with, by which its checkpoint is judged."""


class StudyRun:
    """The trainings of a study, in its folder."""

    def __init__(
        self,
        study: Study,
        output: Path,
        *,
        only: Sequence[str] = (),
        keep_models: bool = True,
        device: str = "auto",
        command: str = "",
    ) -> None:
        """Plan the trainings.

        Args:
            study: what is trained.
            output: folder for runs and tables.
            only: parts of names; what has none of them is not trained.
            keep_models: whether model files stay after they are scored.
            device: that it is trained and scored on.
            command: as the user typed it, for the models' manifests.

        Raises:
            SettingsError: ``only`` leaves nothing.
        """
        self.study = study
        self.output = output
        self.keep_models = keep_models
        self.device = device
        self.command = command
        self.planned = planned(study, output, only, device)

    def results(self, root: Path, told: Told) -> Iterator[CaseResult]:
        """Train, score and yield one training after the other; tables follow each.

        Args:
            root: data folder.
            told: is told of each event of a training.

        Raises:
            SpineError: before anything is trained, settings or data that cannot
                be used; the folder cannot be written.
        """
        require_writable(self.output)
        sweep(self.output)
        pick(self.device)
        known = Known(root)
        marks = {one.folder: known.fingerprint(one.settings) for one in self.planned}
        due = [one for one in self.planned if not _is_done(one, marks[one.folder])]
        for one in due:
            known.require_ready(one)
        for one in self.planned:
            status: Status = "skipped"
            if any(one is other for other in due):
                status = self._run(one, known, marks[one.folder], told)
            study_text.write(self.study, self.output)
            yield _case(one, status)

    def found(self) -> Iterator[CaseResult]:
        """Write the tables of what is there and yield it, without any training.

        Raises:
            NotFoundError: nothing has ended yet.
            OutputError: the folder cannot be written.
        """
        ended = [one for one in self.planned if study_table.read_result(one.folder)]
        if not ended:
            msg = f"no training of this study has ended in {self.output}"
            raise NotFoundError(msg, hint="Run it without --table first.")
        study_text.write(self.study, self.output)
        for one in ended:
            record = study_table.read_result(one.folder) or {}
            failed = record.get("status") == "failed"
            yield _case(one, "failed" if failed else "skipped")

    def rows(self) -> list[Row]:
        """Return the table as far as it is."""
        return study_table.gather(self.study, self.output)

    def _run(
        self,
        one: Planned,
        known: Known,
        mark: str,
        told: Told,
    ) -> Status:
        """Train and score, and record how it ended."""
        begun = {"fingerprint": mark, "device": self.device, "version": __version__}
        goes_on = _read(one.folder / BEGUN) == begun
        (one.folder / RESULT).unlink(missing_ok=True)
        if not goes_on:
            one.model.unlink(missing_ok=True)
        write_json(one.folder / BEGUN, begun)
        try:
            self._train(one, known.root, told, resume=goes_on)
            outcome = self._scored(one, known)
        except SpineError as error:
            outcome = {"status": "failed", "error": Problem.of(error).as_json()}
        record = _about(one) | {"fingerprint": mark} | outcome
        write_json(one.folder / RESULT, study_table.plain(record))
        # only now, so that an interruption before this line loses no training
        (one.folder / BEGUN).unlink()
        (one.folder / loop.CHECKPOINT).unlink(missing_ok=True)
        if not self.keep_models:
            one.model.unlink(missing_ok=True)
        status: Status = outcome["status"]
        return status

    def _train(
        self,
        one: Planned,
        root: Path,
        told: Told,
        *,
        resume: bool,
    ) -> None:
        events = loop.train(
            one.settings,
            root,
            one.folder,
            resume=resume,
            command=self.command,
            probes=self.keep_models,
        )
        try:
            for event in events:
                told(one, event)
        except torch.cuda.OutOfMemoryError as error:
            msg = "the memory of the device is too small"
            raise TrainingError(msg, hint="Lower batch, or set accumulate.") from error
        finally:
            gc.collect()

    def _scored(self, one: Planned, known: Known) -> dict[str, Any]:
        """Return what is known of a trained network."""
        device = torch.device(str(pick(self.device)))
        network = load_model(one.model).network.to(device)
        scans = known.scans(one.settings)
        found = score.score(network, scans, one.settings, device)
        curve = study_table.read_curve(one.folder / loop.CURVE)
        part = known.held_out(one.settings)[0]
        return {
            "status": "done",
            "metrics": dict(found.metrics),
            "cases": {name: dict(case) for name, case in found.cases.items()},
            "scored": {"part": part, "cases": len(found.cases)},
            **known.network(one.settings),
            "seconds_per_slice": score.seconds_per_slice(network, one.settings, device),
            "training_seconds": _seconds(curve),
            "steps": int(curve[-1]["step"]),
            "device": str(device),
        }


def _is_done(one: Planned, mark: str) -> bool:
    record = study_table.read_result(one.folder) or {}
    return record.get("status") == "done" and record.get("fingerprint") == mark


def _about(one: Planned) -> dict[str, Any]:
    return {
        "name": one.settings.name,
        "labels": list(one.configuration.labels),
        "seed": one.seed,
        "version": __version__,
        "settings": one.settings.as_json(),
        "settings_sha256": fingerprint(one.settings),
        "error": None,
    }


def _read(path: Path) -> Any:  # noqa: ANN401
    """Return what a JSON file holds, None where there is none that is whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _seconds(curve: Sequence[dict[str, str]]) -> float:
    """Return how long the training took, all its processes together."""
    taken, before = 0.0, 0.0
    for row in curve:
        now = float(row["seconds"])
        taken += now - before if now >= before else now
        before = now
    return round(taken, 1)


def _case(one: Planned, status: Status) -> CaseResult:
    record = study_table.read_result(one.folder) or {}
    error = record.get("error")
    took = 0.0 if status == "skipped" else record.get("training_seconds", 0.0)
    return CaseResult(
        one.name,
        str(one.folder),
        status,
        seconds={"train": took} if took else {},
        error=Problem(**error) if error else None,
        details={
            "labels": list(one.configuration.labels),
            "seed": one.seed,
            "metrics": record.get("metrics", {}),
        },
    )
