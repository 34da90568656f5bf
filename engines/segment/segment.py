"""From scans to label maps: one model, many cases.

find -> read -> canonical orientation -> resample -> slices of each view -> runtime
-> fuse -> clean -> back to the native grid -> write, picture, record.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import __version__, batch, labels
from engines.daemons import DaemonPool
from engines.errors import MemoryLimitError, SettingsError, SpineError
from engines.extent import size
from engines.files import (
    require_writable,
    sha256_of,
    sweep,
    unchanged,
    write_bytes,
    write_text,
)
from engines.found import Found
from engines.geometry import Grid
from engines.networks import shelf
from engines.networks.manifest import read_intact
from engines.preprocess.checks import require_scan
from engines.preprocess.modality import admit
from engines.preprocess.restore import to_hounsfield
from engines.report import pictures, run_page
from engines.results import CaseResult, Note, Problem
from engines.runlog import RunLog
from engines.runtimes import devices
from engines.scans import read_case, survey
from engines.segment import compute, models
from engines.segment.compute import Computed, Computer
from engines.segment.inference import Prepared, Segmented, label, prepare
from engines.segment.models import Chosen
from engines.segment.native import UNCERTAIN
from engines.segment.settings import SegmentSettings
from engines.volume import HEADER_ERRORS, Volume, extent_of, write_nifti

MASK_SUFFIX = "_seg-spine_msk.nii.gz"
VERTEBRAE_SUFFIX = "_seg-vert_msk.nii.gz"
PREVIEW_SUFFIX = "_preview.png"
FOOTPRINT = 5
"""Bytes of memory that a scan on its way takes for each that its voxels have."""

COLOURS = {1: (70, 130, 240), 2: (60, 180, 90), 3: (240, 150, 50), 4: (220, 80, 160)}
"""Class index -> colour in previews; a single spine class is drawn in orange."""

UNCERTAIN_COLOUR = (200, 200, 200)

VERTEBRA_COLOURS = {v.id: v.colour for v in labels.VERTEBRAE.values()}

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
    ) -> None:
        """Find the scans and check what can be checked before the first of them.

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
        for one in self.models.values():
            if settings.vertebrae and not one.tells_order:
                msg = f"{one.manifest.name} does not tell vertebrae, nor regions"
                raise SettingsError(msg, hint="Name a model of regions.")
        self.used: dict[str, Chosen] = {}
        self.contents: dict[str, str] = {}
        self.log = RunLog(output, {"command": command, **self._header()})
        self._computer = Computer(settings, self.log, told)
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
                    read_intact(one.path)
                    if one.guide:
                        read_intact(one.guide.path)
                self._loader.submit(self._load_early)
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
            **self._computer.facts(one.choice),
        }

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

    def _load_early(self) -> None:
        """Load libraries and, where it is known, the model, behind the first scan.

        What goes wrong here goes wrong again, and is told, where it is needed.
        """
        with contextlib.suppress(SpineError):
            self._only.first.load()
            self._only.load()

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
            workers=len(self._computer.devices),
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
            require_scan(scan, found.path.name)
            scan = to_hounsfield(scan)
            chosen = self._chosen(found, scan)
            modality, how = chosen.manifest.modality, self.settings
            told = how.modality or ""
            scan, notes = admit(scan, modality, force=how.force, told=told)
            job.notes += notes
            self.used[found.name] = chosen
        with job.timed("prepare"):
            return chosen, prepare(scan, chosen.first.manifest.recipe)

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
        if self.settings.model == shelf.AUTO:
            wanted = self.settings
            return models.for_scan(
                self.models,
                found,
                scan,
                force=wanted.force,
                planes=wanted.views,
                told=wanted.modality,
            )
        return self._only

    @property
    def _only(self) -> Chosen:
        """The model that was named."""
        return next(iter(self.models.values()))

    def _work(
        self, job: batch.Job, read: tuple[Chosen, Prepared]
    ) -> tuple[Chosen, Prepared, compute.Found]:
        chosen, prepared = read
        return chosen, prepared, self._computer.scan(job, chosen, prepared)

    def _write(
        self,
        job: batch.Job,
        made: tuple[Chosen, Prepared, compute.Found],
        found: Found,
    ) -> CaseResult:
        chosen, prepared, computed = made
        with job.timed("label"):
            done = label(
                prepared,
                computed.inferred,
                chosen.first.manifest,
                mark_uncertain=self.settings.mark_uncertain,
                vertebrae=self.settings.vertebrae or chosen.guide is not None,
            )
        _note(job, done)
        if self._numbers(chosen):
            _note_unsure_names(job, done)
        stem = found.name.rsplit("/", 1)[-1]
        folder = self.output / found.name
        preview = folder / (stem + PREVIEW_SUFFIX)
        with job.timed("write"):
            outputs = self._write_masks(
                folder / stem,
                done.labels,
                prepared.scan,
                self._provenance(chosen, computed.by),
                numbered=self._numbers(chosen),
            )
            write_bytes(preview, self._preview(done, chosen))
        found_voxels = np.count_nonzero((done.labels > 0) & (done.labels != UNCERTAIN))
        volume_ml = found_voxels * _voxel_ml(prepared.scan.grid)
        details = {
            "made_from": self._fingerprint(found, chosen),
            "model": chosen.told,
            "volume_ml": round(float(volume_ml), 2),
            "views": list(chosen.first.views),
            "computed": [one.as_json() for one in computed.by],
        }
        return job.done({**outputs, "preview": str(preview)}, details)

    def _preview(self, done: Segmented, chosen: Chosen) -> bytes:
        """Draw what was written over the scan, as a PNG."""
        colours = VERTEBRA_COLOURS if self._numbers(chosen) else _colours(chosen)
        drawn = {**colours, UNCERTAIN: UNCERTAIN_COLOUR}
        window = pictures.window_of(done.hu, chosen.manifest.modality)
        return pictures.preview(done.hu, done.shown, drawn, window)

    @staticmethod
    def _write_masks(
        stem: Path,
        found: NDArray[np.uint8],
        scan: Volume,
        told: Mapping[str, Any],
        *,
        numbered: bool,
    ) -> dict[str, str]:
        """Write the label map, and for single vertebrae also what is spine at all."""
        spine = stem.with_name(stem.name + MASK_SUFFIX)
        if not numbered:
            write_nifti(spine, found, scan, told)
            return {"spine": str(spine)}
        vertebrae = stem.with_name(stem.name + VERTEBRAE_SUFFIX)
        write_nifti(vertebrae, found, scan, told)
        any_bone = np.where(found == UNCERTAIN, found, found > 0).astype(np.uint8)
        write_nifti(spine, any_bone, scan, {**told, "labels": {"1": "spine"}})
        return {"spine": str(spine), "vertebrae": str(vertebrae)}

    def _numbers(self, chosen: Chosen) -> bool:
        """Say whether labels are VerSe ids."""
        return chosen.tells_vertebrae or self.settings.vertebrae

    def _provenance(self, chosen: Chosen, by: Sequence[Computed]) -> dict[str, Any]:
        """Return what the mask's header says of how this very mask was made."""
        classes = chosen.manifest.classes
        if self._numbers(chosen):
            classes = labels.VERTEBRA_CLASSES
        return {
            "kind": "segmentation",
            "labels": {str(v): k for k, v in classes.items() if v},
            "model": chosen.told,
            "version": __version__,
            **compute.summary(by),
            "views": list(chosen.first.views),
        }

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


def _colours(chosen: Chosen) -> dict[int, tuple[int, int, int]]:
    return COLOURS if len(chosen.manifest.classes) > 2 else {1: COLOURS[3]}


def _note(job: batch.Job, done: Segmented) -> None:
    job.notes += done.notes
    if not done.labels.any():
        job.notes.append(Note("empty_mask", "no spine was found in this scan"))
    if done.cleaned.largest_ml >= 2:
        told = (
            f"{done.cleaned.islands} islands away from the spine were removed, "
            f"the largest {done.cleaned.largest_ml:.1f} ml"
        )
        job.notes.append(Note("islands_removed", told))


def _note_unsure_names(job: batch.Job, done: Segmented) -> None:
    """Warn of vertebrae that no border between two regions helped to number."""
    found = set(np.unique(done.labels).tolist()) & set(labels.VERTEBRAE)
    regions = {labels.VERTEBRAE[number].region for number in found}
    if len(regions) == 1:
        told = (
            f"only {regions.pop()} vertebrae are in view: nothing shows which they "
            "are for sure, and all their names may be wrong by one or more"
        )
        job.notes.append(Note("names_unsure", told))


def _voxel_ml(grid: Grid) -> float:
    return float(np.prod(grid.spacing_mm)) / 1000
