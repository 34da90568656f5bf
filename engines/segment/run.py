"""From scans to label maps: many cases into one folder, which is resumed.

find -> read -> the scan's model (``segmenter``) -> masks and picture (``outputs``) ->
record and page.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engines import __version__, batch
from engines.daemons import DaemonPool
from engines.errors import MemoryLimitError, SpineError
from engines.extent import size
from engines.files import require_writable, sha256_of, sweep, unchanged, write_text
from engines.found import Found
from engines.networks import shelf
from engines.preprocess.checks import require_scan
from engines.preprocess.restore import to_hounsfield
from engines.report import run_page
from engines.results import CaseResult, Note, Problem
from engines.runlog import RunLog
from engines.runtimes import devices
from engines.scans import read_case, survey
from engines.segment import compute, models
from engines.segment.compute import DevicePool
from engines.segment.inference import Prepared
from engines.segment.models import Chosen
from engines.segment.segmenter import Segmenter
from engines.segment.settings import SegmentSettings
from engines.volume import HEADER_ERRORS, Volume, extent_of

FOOTPRINT = 5
"""Bytes of memory that a scan on its way takes for each that its voxels have."""

Told = Callable[[str, str], None]


class SegmentRun:
    """One batch: finds the scans, loads the model once, labels case by case."""

    def __init__(
        self,
        inputs: Sequence[Path],
        output: Path,
        settings: SegmentSettings,
        *,
        command: str = "",
        told: Told = lambda name, stage: None,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Find the scans and check what can be checked before the first of them.

        Args:
            inputs: scans and folders of scans.
            output: folder of the results.
            settings: how to segment.
            command: for the record.
            told: is called with a case and the stage that begins.
            notify: is called with a line about work that is done once, on first use.

        Raises:
            UnknownModelError, ModelFileError: the model cannot be used.
            SettingsError: the views make no sense for it, or its classes are no
                regions of which vertebrae could be counted.
            OutputError: ``output`` cannot be written.
            DeviceError: the device is not there.
            MissingBackendError: the backend is not installed.
        """
        self.settings = settings
        self.output = output
        self.told = told
        self.models = models.pick(settings.model, settings.views)
        pool = DevicePool(settings.device, require_gpu=settings.require_gpu)
        self._workers = len(pool.devices)
        self._segmenters = {
            kind: _segmenter(model, settings, pool, notify)
            for kind, model in self.models.items()
        }
        self.used: dict[str, Chosen] = {}
        self.contents: dict[str, str] = {}
        self.log = RunLog(output, {"command": command, **self._header()})
        self._loader = DaemonPool(1, "load")
        seen = survey(inputs, settings.include, settings.exclude, avoid=output)
        self.found = [*seen.found]
        self.log.header["command"] = seen.hidden.text(command)

    def planned(self) -> Iterator[CaseResult]:
        """Yield, without doing anything, what would become of each case.

        ``planned`` of its details says it: ``segment``, or ``skip`` for what is done.
        """
        for found in self.found:
            known = self._skip_or_refuse(found)
            if known is None:
                yield CaseResult(
                    found.name,
                    str(found.path),
                    "skipped",
                    details={"planned": "segment"},
                )
            elif known.status == "skipped":
                yield replace(known, details={**known.details, "planned": "skip"})
            else:
                yield known

    def results(self) -> Iterator[CaseResult]:
        """Label every case, in order, and yield its record.

        Raises:
            ModelFileError: a model is damaged.
            OutputError: the results cannot be written.
        """
        require_writable(self.output)
        sweep(self.output)
        started = time.monotonic()
        todo: list[Found] = []
        try:
            for found in self.found:
                settled = self._skip_or_refuse(found)
                if settled is None:
                    todo.append(found)
                    continue
                self.log.add(settled)
                yield settled
            if todo:
                for one in self.models.values():
                    one.first.load()
                    one.load()
                self._loader.submit(self._load_early, todo[0])
            yield from self._batch(todo)
        finally:
            self._loader.close(0.0)
            cases = self.log.finish(
                **self.facts(), seconds=round(time.monotonic() - started, 2)
            )
            write_text(self.output / "index.html", self._page(cases))

    def facts(self) -> dict[str, Any]:
        """Return model, backend, device, precision and gate for the run record.

        With models for several modalities they are those of the one that labelled
        most scans, and ``models`` counts the scans of each.
        """
        one = self._main()
        return {
            "model": one.told,
            "models": self._counted(),
            **self._of(one).computer.facts(),
        }

    def _of(self, model: Chosen) -> Segmenter:
        return self._segmenters[model.manifest.modality]

    def _main(self) -> Chosen:
        everyone = list(self.models.values())
        used = list(self.used.values())
        return max(everyone, key=used.count)

    def _counted(self) -> list[dict[str, Any]]:
        used = list(self.used.values())
        return [
            {**one.told, "modality": one.manifest.modality, "scans": used.count(one)}
            for one in self.models.values()
        ]

    def _header(self) -> dict[str, Any]:
        return {"settings": asdict(self.settings), "models": self._counted()}

    def _load_early(self, first: Found) -> None:
        """Load libraries and what computes, while the first scan is read.

        What goes wrong here goes wrong again, and is told, where it is needed.
        """
        with contextlib.suppress(SpineError):
            kind = models.header_modality(first).lower()
            self._of(self.models.get(kind, self._only)).computer.load()

    def _batch(self, todo: Sequence[Found]) -> Iterator[CaseResult]:
        by_name = {found.name: found for found in todo}
        jobs = [
            batch.Job(f.name, str(f.path), self.told, bytes=footprint(f)) for f in todo
        ]
        stages = batch.Steps(
            read=lambda job: self._read(job, by_name[job.name]),
            work=self._work,
            write=lambda job, done: self._write(job, done, by_name[job.name]),
        )
        yield from batch.run(
            jobs,
            stages,
            threads=self.settings.threads,
            workers=self._workers,
            memory=self._memory(),
            finished=self.log.add,
        )

    def _memory(self) -> float:
        """Return the bytes that scans on their way may take together."""
        given = self.settings.memory_gib
        if given is None:
            there = devices.memory_gib()
            given = math.inf if there is None else there / 2
        return given * 2**30

    def _read(self, job: batch.Job, found: Found) -> tuple[Chosen, Prepared]:
        with job.timed("read"):
            _require_memory(found, self.settings.memory_gib)
            scan, notes = self._unchanged(found)
            job.notes += notes
            chosen = self._chosen(found, scan)
        segmenter = self._of(chosen)
        prepared = segmenter.prepare(job, segmenter.admit(job, scan))
        self.used[found.name] = chosen
        return chosen, prepared

    def _unchanged(self, found: Found) -> tuple[Volume, tuple[Note, ...]]:
        """Read a scan; keep the hash of what was read, for its record.

        Raises:
            UnreadableError: its files were changed meanwhile.
        """
        with unchanged(*found.files):
            self.contents.pop(found.name, None)
            self._content(found)
            return read_case(found)

    def _chosen(self, found: Found, scan: Volume) -> Chosen:
        """Return the model for a scan: the one that was named, or by what it is."""
        if self.settings.model != shelf.AUTO:
            return self._only
        require_scan(scan, found.path.name)
        wanted = self.settings
        return models.for_scan(
            self.models,
            found,
            to_hounsfield(scan),
            force=wanted.force,
            planes=wanted.views,
            told=wanted.modality,
        )

    @property
    def _only(self) -> Chosen:
        """The model that was named, or the first of the defaults, that for CT."""
        return next(iter(self.models.values()))

    def _work(
        self, job: batch.Job, read: tuple[Chosen, Prepared]
    ) -> tuple[Chosen, Prepared, compute.Found]:
        chosen, prepared = read
        return chosen, prepared, self._of(chosen).computer.scan(job, prepared)

    def _write(
        self,
        job: batch.Job,
        made: tuple[Chosen, Prepared, compute.Found],
        found: Found,
    ) -> CaseResult:
        chosen, prepared, computed = made
        done = self._of(chosen).label(job, prepared, computed)
        with job.timed("write"):
            folder = self.output / found.name
            files = done.save(folder / found.name.rsplit("/", 1)[-1])
        details = {
            "made_from": self._fingerprint(found, chosen),
            "model": chosen.told,
            "volume_ml": round(done.volume_ml, 2),
            "views": list(chosen.first.views),
            "computed": [one.as_json() for one in done.computed],
        }
        return job.done({kind: str(path) for kind, path in files.items()}, details)

    def _skip_or_refuse(self, found: Found) -> CaseResult | None:
        where = str(found.path)
        if found.problem is not None:
            error = Problem.of(found.problem)
            return CaseResult(found.name, where, "failed", error=error)
        if self.settings.overwrite or found.name not in self.log.earlier:
            return None
        prints = ((c, self._fingerprint(found, c)) for c in self.models.values())
        records = ((c, self.log.made_by(found.name, made)) for c, made in prints)
        chosen, record = next(((c, r) for c, r in records if r), (None, None))
        if chosen is None or record is None:
            return None
        self.used[found.name] = chosen
        known = ("made_from", "model", "volume_ml", "views", "computed")
        return self.log.skipped(record, where, known)

    def _fingerprint(self, found: Found, chosen: Chosen) -> dict[str, Any]:
        """Return all that the result depends on."""
        return {
            "input_sha256": self._content(found),
            "model_sha256": chosen.sha256,
            **({"guide_sha256": chosen.guide.sha256} if chosen.guide else {}),
            "views": list(chosen.first.views),
            "device": self.settings.device,
            "backend": self.settings.backend,
            "precision": self.settings.precision,
            "mark_uncertain": self.settings.mark_uncertain,
            "vertebrae": self.settings.vertebrae,
            "modality": self.settings.modality,
            **({"verify": True} if self.settings.verify else {}),
            "version": __version__,
        }

    def _content(self, found: Found) -> str:
        """Return the hash of a scan's files, which are read for it once."""
        if found.name not in self.contents:
            try:
                self.contents[found.name] = sha256_of(*found.files)
            except OSError:
                return "unreadable"
        return self.contents[found.name]

    def _page(self, cases: Sequence[Mapping[str, Any]]) -> str:
        facts = self.facts()
        used = [one for one in self.models.values() if one in self.used.values()]
        told = [
            f"Model {one.manifest.name} for {one.manifest.modality.upper()}, "
            f"SHA-256 {one.sha256[:16]}, views: {', '.join(one.first.views)}"
            + (f"; {one.guide.manifest.name} found the spine" if one.guide else "")
            for one in used or self.models.values()
        ]
        told += [
            f"spine {__version__}, {facts['backend']} on {facts['device']}",
            "Colours mark the spine. A mask is a proposal: look at it before use.",
        ]
        return run_page.html(self.output, "Spine segmentation", told, cases)


def footprint(found: Found) -> int:
    """Return the bytes of memory that a scan takes on its way, by its headers.

    What cannot be told, since the scan is damaged, takes none.
    """
    if found.stack is not None:
        return (
            FOOTPRINT
            * sum(
                math.prod(frame.shape)
                * frame.pixels.samples
                * frame.pixels.bits_allocated
                for frame in found.stack.frames
            )
            // 8
        )
    if not found.files:
        return 0
    try:
        extent = extent_of(found.files[0])
    except HEADER_ERRORS:
        return 0
    return FOOTPRINT * extent.bytes if extent.is_possible else 0


def _require_memory(found: Found, given_gib: float | None) -> None:
    """Refuse a scan that takes more memory than there is, before it is read.

    Raises:
        MemoryLimitError: it does.
    """
    there = devices.memory_gib() if given_gib is None else given_gib
    needed = footprint(found)
    if there is None or needed <= there * 2**30:
        return
    whose = "this machine has" if given_gib is None else "--memory gives"
    msg = f"{found.path.name}: it takes about {size(needed)} of memory, {whose} "
    hint = None if given_gib is None else f"Give --memory {-(-needed // 2**20)}M."
    raise MemoryLimitError(f"{msg}{size(there * 2**30)}", hint=hint)


def _segmenter(
    model: Chosen,
    settings: SegmentSettings,
    pool: DevicePool,
    notify: Callable[[str], None],
) -> Segmenter:
    return Segmenter(
        model,
        backend=settings.backend,
        precision=settings.precision,
        modality=settings.modality,
        vertebrae=settings.vertebrae,
        mark_uncertain=settings.mark_uncertain,
        force=settings.force,
        verify=settings.verify,
        pool=pool,
        notify=notify,
    )
