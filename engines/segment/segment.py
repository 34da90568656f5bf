"""From scans to label maps: one model, many cases.

find -> read -> canonical orientation -> resample -> slices of each view -> runtime
-> fuse -> clean -> back to the native grid -> write, picture, record.
"""

import contextlib
import math
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from engines import __version__, batch, labels
from engines.errors import LostDeviceError, SettingsError, SpineError
from engines.files import require_writable, sha256_of, write_bytes, write_text
from engines.geometry import Grid, cropped
from engines.networks import shelf
from engines.networks.manifest import Manifest, Model, read_intact
from engines.preprocess import orient
from engines.preprocess import prepare as steps
from engines.preprocess.checks import require_scan
from engines.preprocess.modality import admit
from engines.preprocess.recipe import Recipe
from engines.preprocess.restore import remaining, to_hounsfield
from engines.report import pictures, run_page
from engines.results import CaseResult, Note, Problem
from engines.runlog import RunLog
from engines.runtimes import backends, devices
from engines.runtimes.choose import AUTO, PRECISIONS, Choice, candidates, choose
from engines.runtimes.runtime import Runtime
from engines.runtimes.sturdy import SturdyRuntime
from engines.scans import Found, find_scans, read_case
from engines.segment import (
    clean,
    cubes,
    fuse,
    levels,
    locate,
    models,
    native,
    slices,
    views,
)
from engines.segment.models import Chosen
from engines.segment.native import UNCERTAIN
from engines.volume import Volume, write_nifti

MASK_SUFFIX = "_seg-spine_msk.nii.gz"
VERTEBRAE_SUFFIX = "_seg-vert_msk.nii.gz"
PREVIEW_SUFFIX = "_preview.png"
PROBE_SLICES = 2
"""Slices of each view that the parity gate looks at."""

AROUND_THE_MIDDLE = {"sagittal": (0.4, 0.6), "coronal": (0.4, 0.6), "axial": (0, 1)}
"""View -> between which shares of the bone the gate's slices lie: the spine is in the
middle from side to side and from front to back, and goes through from end to end."""

AROUND_MM = 75.0
"""What a guided network sees on each side of the spine that its guide found."""

BONE_HU = 200.0

CALIBRATION_SLICES = 12
"""Slices of each view that int8 is calibrated on, and then looked at by the gate."""

MOST_WIDENED = 3
"""Times that the box about the spine is widened, where the spine reaches its side."""

FOOTPRINT = 5
"""Bytes of memory that a scan on its way takes for each that its voxels have."""

PACKED = (".gz", ".zip", ".tgz", ".bz2", ".xz")
"""Files whose voxels have about three times as many bytes as they have themselves."""

COLOURS = {1: (70, 130, 240), 2: (60, 180, 90), 3: (240, 150, 50), 4: (220, 80, 160)}
"""Class index -> colour in previews; a single spine class is drawn in orange."""

VERTEBRA_COLOURS = {v.id: v.colour for v in labels.VERTEBRAE.values()}

Told = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How to segment.

    Attributes:
        model: name or path, or ``auto`` for the default of each scan's modality.
        views: ``axial``, ``sagittal``, ``coronal``, several with commas between, or
            ``all``; None for those the model was trained on.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``auto``, or a row of ``engines.runtimes.backends``.
        precision: ``auto``, or one that the backend computes in.
        require_gpu: fail rather than compute on the CPU.
        memory_gib: that scans on their way may take together; None for half of what
            the machine has.
        threads: that read, and that write.
        overwrite: redo cases that are done.
        force: go on with a scan that does not look like the model's modality.
        mark_uncertain: label voxels that are neither surely spine nor surely not
            as 255, for training on the masks.
        include: globs of names to take; empty takes all.
        exclude: globs of names to leave out.
        vertebrae: number single vertebrae where the model tells regions.
        modality: what the scans are, ``ct`` or ``mr``; None lets each tell.
    """

    model: str = shelf.AUTO
    views: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int = 2
    overwrite: bool = False
    force: bool = False
    mark_uncertain: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    backend: str = AUTO
    require_gpu: bool = False
    memory_gib: float | None = None
    vertebrae: bool = False
    modality: str | None = None

    def __post_init__(self) -> None:
        if self.backend != AUTO:
            backends.find(self.backend)
        if self.memory_gib is not None and not self.memory_gib > 0:
            msg = f"{self.memory_gib:g} GiB of memory is too little"
            raise SettingsError(msg, hint="Give more, as in --memory 4G.")
        if self.precision not in PRECISIONS:
            msg = f"no precision is called {self.precision!r}"
            raise SettingsError(msg, hint=f"Choose one of: {', '.join(PRECISIONS)}.")


@dataclass(frozen=True, slots=True)
class Segmented:
    """A finished label map, still in memory.

    Attributes:
        labels: (I, J, K) of the scan's own grid, uint8.
        hu: (R, A, S), the scan on the recipe's grid.
        shown: (R, A, S), labels on the recipe's grid, for pictures.
        cleaned: what was taken out.
    """

    labels: NDArray[np.uint8]
    hu: NDArray[np.float32]
    shown: NDArray[np.uint8]
    cleaned: clean.Cleaned


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scan as the network sees it, with the way back.

    Attributes:
        scan: as it was read, without its voxels' weight in memory.
        canonical: grid of the scan along RAS axes.
        grid: grid of the recipe.
        hu: (R, A, S) on ``grid``.
        values: ``hu``, normalised.
        empty: the normalised value of air.
    """

    scan: Volume
    canonical: Grid
    grid: Grid
    hu: NDArray[np.float32]
    values: NDArray[np.float32]
    empty: float

    def cropped(self, box: locate.Box) -> "Prepared":
        """Return the part of the scan on the recipe's grid that ``box`` picks."""
        grid = cropped(self.grid, box)
        return replace(self, grid=grid, hu=self.hu[box], values=self.values[box])


def prepare(scan: Volume, recipe: Recipe) -> Prepared:
    """Bring a scan to the recipe's grid and intensities."""
    turned, grid, hu = steps.on_recipe_grid(scan, remaining(recipe, scan))
    values, _ = steps.normalised(hu, recipe)
    light = scan.with_voxels(np.empty(0, scan.voxels.dtype))
    return Prepared(light, turned, grid, hu, values, float(values.min()))


def frame_for(model: Model, prepared: Prepared) -> slices.Frame:
    """Return how slices of a scan are framed for a model."""
    return slices.Frame(model.stride, model.manifest.patch, prepared.empty)


def probe(
    prepared: Prepared,
    model: Model,
    planes: Sequence[str],
    count: int = PROBE_SLICES,
) -> list[torch.Tensor]:
    """Return for the gate what the network is tried on.

    It is a batch (N, 1, H, W) per view of slices through the middle of the bone, where
    the spine is, or one cube.
    """
    if model.dimensions == 3:
        edge = cube_edge(model)
        return [cubes.middle(prepared.values, edge, prepared.empty)]
    frame = frame_for(model, prepared)
    of_ct = model.manifest.modality == "ct"
    weight = prepared.hu > BONE_HU if of_ct else prepared.values - prepared.empty
    chosen = []
    for view in planes:
        stacked = views.stack(torch.from_numpy(prepared.values), view)
        across = tuple(axis for axis in range(3) if axis != views.NORMALS[view])
        below = np.cumsum(weight.sum(axis=across, dtype=np.float64))
        low, high = AROUND_THE_MIDDLE[view]
        shares = low + (high - low) * (np.arange(count) + 0.5) / count
        places = np.searchsorted(below, shares * below[-1])
        kept = np.unique(np.minimum(places, len(stacked) - 1))
        chosen.append(frame.put(stacked[torch.from_numpy(kept)]))
    return chosen


def cube_edge(model: Model) -> int:
    """Return the edge in voxels of the cubes that a network in 3D is given."""
    stride = model.stride
    return -(-max(model.manifest.patch, stride) // stride) * stride


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a network says of a scan.

    Attributes:
        box: the part of the scan on the recipe's grid that was looked at.
        probability: (classes - 1, R, A, S) of that part, on the CPU.
        device: that computed it, and is to interpolate it.
        named: what a guided network says of the vertebrae, on a grid of its own.
    """

    box: locate.Box
    probability: torch.Tensor
    device: str
    named: levels.Opinion | None = None


def segment_prepared(
    prepared: Prepared,
    model: Model,
    runtime: Runtime,
    planes: Sequence[str],
    told: Callable[[str], None] = lambda _: None,
    *,
    mark_uncertain: bool = False,
) -> Segmented:
    """Label one prepared scan on its own grid."""
    inferred = infer(prepared, model, runtime, planes, told)
    return label(prepared, inferred, model.manifest, mark_uncertain=mark_uncertain)


def infer(
    prepared: Prepared,
    model: Model,
    runtime: Runtime,
    planes: Sequence[str],
    told: Callable[[str], None] = lambda _: None,
) -> Inferred:
    """Run the network over one prepared scan."""
    box = locate.WHOLE
    if model.dimensions == 3:
        probability = cubes.probabilities(
            prepared.values,
            runtime,
            classes=model.classes,
            edge=cube_edge(model),
            empty=prepared.empty,
            told=told,
        )
    else:
        box, probability = _from_slices(prepared, model, runtime, planes, told)
    return Inferred(box, probability, runtime.device)


def around_spine(prepared: Prepared, found: Inferred, recipe: Recipe) -> Prepared:
    """Return what a guided network looks at: ``AROUND_MM`` about the spine.

    Args:
        prepared: the scan as its guide sees it.
        found: what the guide says of it; some of it is spine.
        recipe: of the guided network.
    """
    spine = np.zeros(prepared.grid.shape, bool)
    spine[found.box] = (found.probability.sum(dim=0) > locate.SURE).numpy()
    spacing_mm = prepared.grid.spacing_mm
    margins = [round(AROUND_MM / mm) for mm in spacing_mm]
    (sides,) = ndimage.find_objects(spine.astype(np.uint8))
    wide = [
        slice(max(0, side.start - margin), side.stop + margin)
        for side, margin in zip(sides, margins, strict=True)
    ]
    part = prepared.cropped((wide[0], wide[1], wide[2]))
    return prepare(Volume(part.hu, part.grid), recipe)


def opinion(
    prepared: Prepared, box: locate.Box, seen: Prepared, named: Inferred
) -> levels.Opinion:
    """Return what a guided network says, for ``box`` of the grid of its guide.

    Args:
        prepared: the scan as the guide sees it.
        box: the part of it in which the guide found the spine.
        seen: what the guided network was given.
        named: what it says of that.
    """
    here = cropped(prepared.grid, box).affine
    own = cropped(seen.grid, named.box).affine
    return levels.Opinion(named.probability, np.linalg.inv(own) @ here)


def label(
    prepared: Prepared,
    inferred: Inferred,
    manifest: Manifest,
    *,
    mark_uncertain: bool = False,
    vertebrae: bool = False,
) -> Segmented:
    """Clean what the network said, in place, and bring it to the scan's own grid.

    Args:
        manifest: of the model that found the spine.
        vertebrae: number the vertebrae of a model of regions, too: labels are then
            VerSe ids.
    """
    part = prepared.cropped(inferred.box)
    probability = inferred.probability
    cleaned = clean.clean(probability, part.grid.spacing_mm)
    if dict(manifest.classes) in models.IN_ORDER:
        probability = levels.settle(
            probability,
            manifest.classes,
            part.grid.spacing_mm,
            part.hu,
            into=labels.VERTEBRA_CLASSES if vertebrae else None,
            second=inferred.named if vertebrae else None,
        )
    probability = probability.to(inferred.device)
    turned = native.labels(
        probability, part.grid, part.canonical, mark_uncertain=mark_uncertain
    )
    shown = np.zeros(prepared.grid.shape, np.uint8)
    shown[inferred.box] = native.labels(probability, part.grid, part.grid)
    held = orient.undo(turned, prepared.scan.grid, manifest.recipe.orientation)
    return Segmented(held, prepared.hu, shown, cleaned)


def _from_slices(
    prepared: Prepared,
    model: Model,
    runtime: Runtime,
    planes: Sequence[str],
    told: Callable[[str], None],
) -> tuple[locate.Box, torch.Tensor]:
    """Return a box about the spine and probabilities (classes - 1, R, A, S) in it."""
    frame = frame_for(model, prepared)
    spacing_mm = prepared.grid.spacing_mm
    told("locate")
    values = torch.from_numpy(prepared.values).to(runtime.device)
    found = locate.spine(values, runtime, planes, spacing_mm, frame)
    box, seen = found.box, found.seen
    for left in reversed(range(1 + MOST_WIDENED)):
        probability = fuse.probabilities(
            values[box],
            runtime,
            planes,
            classes=model.classes,
            frame=frame,
            spacing_mm=spacing_mm,
            seen=seen,
            told=told,
        ).cpu()
        spine = (probability.sum(dim=0) > locate.SURE).numpy()
        wider = locate.outgrown(spine, box, prepared.grid.shape, spacing_mm)
        if wider is None or not left:
            break
        box, seen = wider, locate.carried(spine, box, wider)
    return box, probability


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
        self.devices = devices.pick_all(settings.device, gpu=settings.require_gpu)
        for device in self.devices:
            candidates(device, settings.precision, settings.backend)
        self._free: queue.SimpleQueue[torch.device] = queue.SimpleQueue()
        for device in self.devices:
            self._free.put(device)
        self._loader = ThreadPoolExecutor(1, "load")
        self.found = find_scans(
            inputs, settings.include, settings.exclude, avoid=output
        )
        self.log = RunLog(output, {"command": command, **self._header()})

    def planned(self) -> Iterator[CaseResult]:
        """Yield, without doing anything, what would become of each case."""
        for found in self.found:
            yield self._skip_or_refuse(found) or CaseResult(
                found.name, str(found.path), "skipped", details={"planned": "segment"}
            )

    def results(self) -> Iterator[CaseResult]:
        """Label every case, in order, and yield its record.

        Raises:
            ModelFileError: a model is damaged.
            OutputError: the results cannot be written.
        """
        require_writable(self.output)
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
            self._loader.shutdown(wait=False, cancel_futures=True)
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
        choice = one.choice
        return {
            "model": one.told,
            "models": self._counted(),
            "backend": choice.runtime.backend if choice else "torch",
            "device": choice.runtime.device if choice else str(self.devices[0]),
            "precision": choice.runtime.precision if choice else None,
            "gate": choice.gate.as_json() if choice and choice.gate else None,
            "backend_reason": choice.reason if choice else "nothing to compute",
            "tried": [one.as_json() for one in choice.tried] if choice else [],
            "devices": [str(device) for device in self.devices],
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
            workers=len(self.devices),
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
            scan, notes = read_case(found)
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

    def _chosen(self, found: Found, scan: Volume) -> Chosen:
        if self.settings.model == shelf.AUTO:
            force = self.settings.force
            told = self.settings.modality
            return models.for_scan(self.models, found, scan, force=force, told=told)
        return self._only

    @property
    def _only(self) -> Chosen:
        """The model that was named."""
        return next(iter(self.models.values()))

    def _work(
        self, job: batch.Job, read: tuple[Chosen, Prepared]
    ) -> tuple[Chosen, Prepared, Inferred]:
        chosen, prepared = read
        device = self._free.get()
        try:
            done = self._found(job, chosen, prepared, device)
        except LostDeviceError as error:
            if self.settings.require_gpu:
                raise
            job.notes.append(Note(error.code, f"{error}; the CPU did this scan"))
            device = torch.device("cpu")
            done = self._found(job, chosen, prepared, device)
        finally:
            self._free.put(device)  # a lost one is not tried again
        return chosen, prepared, done

    def _found(
        self, job: batch.Job, chosen: Chosen, prepared: Prepared, device: torch.device
    ) -> Inferred:
        """Run one network over a scan, or the guide and then the guided one."""
        found = self._inferred(job, chosen.first, prepared, device)
        spine = found.probability.sum(dim=0) > locate.SURE
        if chosen.guide is None or not spine.any():
            return found
        with job.timed("prepare"):
            seen = around_spine(prepared, found, chosen.manifest.recipe)
        named = self._inferred(job, chosen, seen, device)
        return replace(found, named=opinion(prepared, found.box, seen, named))

    def _inferred(
        self, job: batch.Job, chosen: Chosen, prepared: Prepared, device: torch.device
    ) -> Inferred:
        """Run the network over a scan on one device."""
        if str(device) not in chosen.choices:
            with job.timed("gate"):
                chosen.choices[str(device)] = self._choose(chosen, prepared, device)
        choice = chosen.choices[str(device)]
        if choice.refused:
            job.notes.append(Note("backend_refused", choice.reason))
        runtime = SturdyRuntime(choice.runtime)
        started = time.monotonic()
        self.told(job.name, "network")
        try:
            return infer(
                prepared,
                chosen.load(),
                runtime,
                chosen.views,
                lambda stage: self.told(job.name, stage),
            )
        finally:
            spent = time.monotonic() - started
            network, _, notes = runtime.take()
            job.notes += notes
            for stage, seconds in (("network", network), ("segment", spent - network)):
                job.seconds[stage] = job.seconds.get(stage, 0.0) + seconds

    def _choose(
        self, chosen: Chosen, prepared: Prepared, device: torch.device
    ) -> Choice:
        wanted = self.settings
        count = CALIBRATION_SLICES if wanted.precision == "int8" else PROBE_SLICES
        tried = probe(prepared, chosen.load(), chosen.views, count)
        backend, precision = wanted.backend, wanted.precision
        if device not in self.devices:  # after one was lost
            backend, precision = AUTO, AUTO
        return choose(chosen.load(), device, precision, tried, backend)

    def _write(
        self, job: batch.Job, made: tuple[Chosen, Prepared, Inferred], found: Found
    ) -> CaseResult:
        chosen, prepared, inferred = made
        with job.timed("label"):
            done = label(
                prepared,
                inferred,
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
                folder / stem, done.labels, prepared.scan, chosen
            )
            colours = VERTEBRA_COLOURS if self._numbers(chosen) else _colours(chosen)
            write_bytes(preview, pictures.preview(done.hu, done.shown, colours))
        found_voxels = np.count_nonzero((done.labels > 0) & (done.labels != UNCERTAIN))
        volume_ml = found_voxels * _voxel_ml(prepared.scan.grid)
        details = {
            "made_from": self._fingerprint(found, chosen),
            "model": chosen.told,
            "volume_ml": round(float(volume_ml), 2),
            "views": list(chosen.first.views),
        }
        return job.done({**outputs, "preview": str(preview)}, details)

    def _write_masks(
        self, stem: Path, found: NDArray[np.uint8], scan: Volume, chosen: Chosen
    ) -> dict[str, str]:
        """Write the label map, and for single vertebrae also what is spine at all."""
        told = self._provenance(chosen)
        spine = stem.with_name(stem.name + MASK_SUFFIX)
        if not self._numbers(chosen):
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

    def _provenance(self, chosen: Chosen) -> dict[str, Any]:
        choice = chosen.choice
        classes = chosen.manifest.classes
        if self._numbers(chosen):
            classes = labels.VERTEBRA_CLASSES
        return {
            "kind": "segmentation",
            "labels": {str(v): k for k, v in classes.items() if v},
            "model": chosen.told,
            "version": __version__,
            "backend": choice.runtime.backend if choice else "torch",
            "precision": choice.runtime.precision if choice else None,
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
        known = ("made_from", "model", "volume_ml", "views")
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
    """Return the bytes of memory that a scan takes on its way, roughly."""
    size = 0
    for path in found.files:
        with contextlib.suppress(OSError):
            size += path.stat().st_size * (3 if path.suffix in PACKED else 1)
    return FOOTPRINT * size


def _colours(chosen: Chosen) -> dict[int, tuple[int, int, int]]:
    return COLOURS if len(chosen.manifest.classes) > 2 else {1: COLOURS[3]}


def _note(job: batch.Job, done: Segmented) -> None:
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
