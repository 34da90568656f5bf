"""Prepare a tree of scans and their masks; one bad case never stops the others."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from engines import __version__, batch
from engines.errors import MaskError, SettingsError
from engines.files import (
    require_writable,
    sha256_of,
    sweep,
    unchanged,
    write_bytes,
    write_json,
)
from engines.found import SHOWN
from engines.geometry import Grid
from engines.preprocess import cases, export, layouts, masks, split
from engines.preprocess.cases import Case
from engines.preprocess.checks import require_scan
from engines.preprocess.modality import admit
from engines.preprocess.prepare import Prepared, prepare, prepare_mask
from engines.preprocess.recipe import Recipe
from engines.preprocess.restore import remaining, to_hounsfield
from engines.results import CaseResult, Note, Problem
from engines.runlog import RunLog
from engines.scans import find_scans, read_case
from engines.volume import Volume, nifti_bytes

Slices = Literal["all", "central"]
Format = Literal["nifti", "npz"]
Told = Callable[[str, str], None]

RECORD = "preprocess"
SPLIT_FILE = "split.json"
THREADS = 2

LISTED = 5
"""So many names are listed in a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSettings:
    """How to prepare.

    Attributes:
        recipe: what is done to the scans.
        classes: what the ids of masks are mapped to, one of ``masks.CLASS_CHOICES``.
        scheme: how the vertebrae in the masks are numbered; None for the layout's
            own scheme, which is VerSe's without a layout.
        slices: ``all``, or the ``central`` sagittal one.
        format: ``nifti``, or ``npz`` for compact arrays.
        split: name of a split to write, None for no split file.
        seed: of the split.
        threads: that read, and that write.
        overwrite: redo cases that are done.
        layout: of the data set, one of ``layouts.LAYOUTS``, or None for scans with
            their masks beside them.
        modality_told: take the modality that the data set tells of a scan, where it
            does, in place of the recipe's.
        said: what the user says the scans are, ``ct`` or ``mr``; empty where nothing
            was said.
    """

    recipe: Recipe
    classes: str = "as-they-are"
    scheme: str | None = None
    slices: str = "all"
    format: str = "nifti"
    split: str | None = None
    seed: int = 0
    threads: int = THREADS
    overwrite: bool = False
    layout: str | None = None
    modality_told: bool = True
    said: str = ""

    def __post_init__(self) -> None:
        masks.check_choice(self.numbering, self.classes)
        if self.split is not None:
            split.fractions_of(self.split)
        for value, known, option in (
            (self.slices, get_args(Slices), "--slices"),
            (self.format, get_args(Format), "--format"),
        ):
            if value not in known:
                msg = f"{option} cannot be {value!r}"
                raise SettingsError(msg, hint=f"Choose one of: {', '.join(known)}.")

    @property
    def numbering(self) -> str:
        """The scheme of the masks, one of ``labels.SCHEMES``."""
        return layouts.scheme_of(self.layout, self.scheme)

    def as_json(self) -> dict[str, Any]:
        """Return all that the files depend on."""
        keys = ("classes", "scheme", "slices", "format")
        held = asdict(self) | {"scheme": self.numbering}
        chosen = {key: value for key, value in held.items() if key in keys}
        layout = {"layout": self.layout} if self.layout else {}
        return {"recipe": self.recipe.as_json(), **chosen, **layout}


@dataclass(frozen=True, slots=True)
class _Read:
    scan: Volume
    masks: Mapping[str, Volume]


@dataclass(frozen=True, slots=True)
class _Done:
    prepared: Prepared
    volume: Volume
    masks: Mapping[str, NDArray[Any]]


class PrepareRun:
    """One batch: finds the scans and prepares them case by case."""

    def __init__(
        self,
        source: Path,
        output: Path,
        settings: PrepareSettings,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        *,
        command: str = "",
        told: Told = lambda name, stage: None,
    ) -> None:
        """Find the scans and check what can be checked before the first of them.

        Args:
            source: folder of scans, or one scan; with a layout, the data set.
            output: where the prepared scans go.
            settings: how to prepare them.
            include: globs of names to take; empty takes all.
            exclude: globs of names to leave out.
            command: as the user typed it, for the record.
            told: is called with a case and the stage that begins.

        Raises:
            SettingsError: the originals lie in ``output`` or below it.
            InputError: ``source`` is not laid out as the settings say.
        """
        _require_apart(output, [source])
        self.output = output
        self.settings = settings
        self.told = told
        self.notes: list[Note] = []
        self.cases = self._find(source, include, exclude)
        recipes = {case.recipe for case in self.cases if case.found.problem is None}
        if len(recipes) == 1:
            self.settings = replace(settings, recipe=recipes.pop())
        self._leaves_out_empty = (
            settings.layout is not None
            and layouts.row_of(settings.layout).leaves_out_empty
        )
        self._left_out: list[str] = []
        self._by_name = {case.name: case for case in self.cases}
        self._problems = cases.clashes(self.cases)
        self._made_from: dict[str, dict[str, Any]] = {}
        hidden = (case.found.hidden for case in self.cases if case.found.stack)
        shown = next(hidden, SHOWN).text(command)
        header = {"command": shown, "settings": self.settings.as_json()}
        self._log = RunLog(output, header, RECORD)

    def results(self) -> Iterator[CaseResult]:
        """Prepare every case and yield its record.

        Raises:
            OutputError: the output folder cannot be written.
        """
        require_writable(self.output)
        sweep(self.output)
        started = time.monotonic()
        usable: list[Case] = []
        todo: list[Case] = []
        try:
            for case in self.cases:
                settled = self._skip_or_refuse(case)
                if settled is None:
                    todo.append(case)
                    continue
                if settled.outputs:
                    usable.append(case)
                self._log.add(settled)
                yield settled
            for result in self._batch(todo):
                if result.status == "done":
                    usable.append(self._by_name[result.name])
                yield result
        finally:
            self._note_left_out()
            notes = [note.as_json() for note in self.notes]
            facts = {"notes": notes} if notes else {}
            self._log.finish(seconds=round(time.monotonic() - started, 2), **facts)
        self._write_split(usable)

    def _find(
        self, source: Path, include: Sequence[str], exclude: Sequence[str]
    ) -> list[Case]:
        how, avoid = self.settings, self.output
        if how.layout is None:
            found = find_scans([source], include, exclude, avoid=avoid)
            return [cases.beside(one, how.recipe) for one in found]
        held = layouts.find_cases(
            how.layout, source, how.numbering, include, exclude, avoid
        )
        self.notes += held.notes
        for one in held.cases:
            files = [path for mask in one.masks.values() for path in mask.files]
            _require_apart(avoid, [one.path, *files])
        told = how.modality_told
        return [cases.laid_out(c, how.recipe, modality_told=told) for c in held.cases]

    def _note_left_out(self) -> None:
        """Name the cases that show no spine, in one line for all."""
        names = sorted(self._left_out)
        count, first = len(names), ", ".join(names[:LISTED])
        if count:
            more = f" and {count - LISTED} more" if count > LISTED else ""
            told = f"{count} of {len(self.cases)} cases show no spine and were left out"
            self.notes.append(Note("no_spine", f"{told}: {first}{more}"))

    def _batch(self, todo: Sequence[Case]) -> Iterator[CaseResult]:
        jobs = [batch.Job(c.name, str(c.found.path), self.told) for c in todo]
        steps = batch.Steps(read=self._read, work=self._work, write=self._write)
        yield from batch.run(
            jobs, steps, threads=self.settings.threads, finished=self._log.add
        )

    def _skip_or_refuse(self, case: Case) -> CaseResult | None:
        where = str(case.found.path)
        problem = case.found.problem or self._problems.get(case.name)
        if problem is not None:
            error = Problem.of(problem)
            return CaseResult(case.name, where, "failed", error=error)
        if self.settings.overwrite or case.name not in self._log.earlier:
            return None
        earlier = self._log.earlier[case.name]
        same = earlier.get("made_from") == self._fingerprint(case)
        if earlier.get("left_out") and same:
            return self._without_spine(case)
        record = self._log.made_by(case.name, self._fingerprint(case))
        if record is None:
            return None
        return self._log.skipped(record, where, ("made_from", "prepared"))

    def _settings(self, case: Case) -> PrepareSettings:
        """Return how a case is prepared."""
        return replace(self.settings, recipe=case.recipe)

    def _fingerprint(self, case: Case) -> dict[str, Any]:
        """Return all that the result depends on; files are hashed once."""
        if case.name not in self._made_from:
            try:
                held = (path for mask in case.masks.values() for path in mask.contents)
                content = sha256_of(*case.found.files, *held)
            except OSError:
                content = "unreadable"
            ids = {kind: mask.as_json() for kind, mask in case.masks.items()}
            self._made_from[case.name] = {
                "input_sha256": content,
                "masks": list(case.masks),
                "settings": self._settings(case).as_json(),
                "version": __version__,
                **({"ids": ids} if self.settings.layout else {}),
            }
        return self._made_from[case.name]

    def _without_spine(
        self, case: Case, seconds: Mapping[str, float] | None = None
    ) -> CaseResult:
        """Return the record of a case that is left out, and count it."""
        self._left_out.append(case.name)
        return CaseResult(
            case.name,
            str(case.found.path),
            "skipped",
            seconds=seconds or {},
            details={"made_from": self._fingerprint(case), "left_out": "no_spine"},
        )

    def _read(self, job: batch.Job) -> _Read | None:
        """Return a scan with its masks, None for one that is to be left out."""
        case = self._by_name[job.name]
        files = [path for mask in case.masks.values() for path in mask.contents]
        with job.timed("read"), unchanged(*case.found.files, *files):
            self._made_from.pop(case.name, None)
            self._fingerprint(case)
            early = self._read_masks(case, job) if self._leaves_out_empty else None
            if early is not None and not any(m.voxels.any() for m in early.values()):
                return None
            scan, notes = read_case(case.found)
            job.notes += notes
            require_scan(scan, case.found.path.name)
            scan = to_hounsfield(scan)
            modality = case.recipe.modality
            scan, notes = admit(scan, modality, force=True, told=self.settings.said)
            job.notes += notes
            held = self._read_masks(case, job) if early is None else early
        return _Read(scan, held)

    def _read_masks(self, case: Case, job: batch.Job) -> Mapping[str, Volume]:
        read: dict[str, Volume] = {}
        for kind, mask in case.masks.items():
            read[kind], told = mask.read()
            job.notes += told
        return read

    def _work(self, job: batch.Job, read: _Read | None) -> _Done | None:
        if read is None:
            return None
        case = self._by_name[job.name]
        settings = self._settings(case)
        with job.timed("prepare"):
            prepared = prepare(read.scan, remaining(settings.recipe, read.scan))
            volume = prepared.volume
            held: Mapping[str, NDArray[Any]] = {
                kind: self._mask(case, kind, mask, read.scan.grid, volume.grid)
                for kind, mask in read.masks.items()
            }
            for kind, mask in held.items():
                if not mask.any():
                    job.notes.append(Note("empty_mask", f"the {kind!r} mask is empty"))
            if settings.slices == "central":
                volume, held = export.central_slice(volume, held)
        return _Done(prepared, volume, held)

    def _mask(
        self, case: Case, kind: str, mask: Volume, scan: Grid, prepared: Grid
    ) -> NDArray[Any]:
        how = self._settings(case)
        try:
            near = prepare_mask(mask, scan, prepared, how.recipe)
            if how.layout:
                return masks.mapped_scored(near, kind, classes=how.classes)
            return masks.mapped(near, kind, scheme=how.numbering, classes=how.classes)
        except MaskError as error:
            name = case.masks[kind].name
            raise MaskError(f"{name}: {error}", hint=error.hint) from None

    def _write(self, job: batch.Job, done: _Done | None) -> CaseResult:
        case = self._by_name[job.name]
        if done is None:
            return self._without_spine(case, job.seconds)
        with job.timed("write"):
            outputs = self._files(case, done)
            for path, content in outputs.values():
                write_bytes(path, content)
        details = {
            "made_from": self._fingerprint(case),
            "prepared": {**done.prepared.record, "masks": list(done.masks)},
        }
        paths = {kind: str(path) for kind, (path, _) in outputs.items()}
        return job.done(paths, details)

    def _files(self, case: Case, done: _Done) -> dict[str, tuple[Path, bytes]]:
        """Return kind of output -> path and content, the scan last."""
        settings, volume = self._settings(case), done.volume
        base = self.output / case.target
        if settings.format == "npz":
            arrays = export.stacked(volume, done.masks, settings.recipe.modality)
            path = base.with_name(f"{base.name}{case.ending}.npz")
            return {"arrays": (path, export.npz_bytes(arrays))}
        about = {
            "kind": "preprocessed-mask",
            **settings.as_json(),
            "version": __version__,
        }
        files = {}
        for kind, mask in done.masks.items():
            path = base.with_name(f"{base.name}_seg-{kind}_msk.nii.gz")
            files[f"mask-{kind}"] = path, nifti_bytes(mask, volume, about)
        path = base.with_name(f"{base.name}{case.ending}.nii.gz")
        content = nifti_bytes(volume.voxels, volume, volume.provenance)
        files["scan"] = path, content
        return files

    def _write_split(self, usable: Sequence[Case]) -> None:
        """Write which of the prepared scans belong to which part, by subject."""
        if self.settings.split is None or not usable:
            return
        names: defaultdict[str, list[str]] = defaultdict(list)
        for case in usable:
            names[case.subject].append(str(case.target))
        dealt = split.deal(list(names), self.settings.split, self.settings.seed)
        parts = {
            part: sorted(name for subject in subjects for name in names[subject])
            for part, subjects in dealt.items()
        }
        record = {
            "seed": self.settings.seed,
            "fractions": list(split.fractions_of(self.settings.split)),
            **parts,
        }
        write_json(self.output / SPLIT_FILE, record)


def prepare_tree(
    source: Path, output: Path, settings: PrepareSettings
) -> Iterator[CaseResult]:
    """Prepare every scan under ``source`` into ``output``; yield a record for each.

    Raises:
        SettingsError: the originals lie in ``output`` or below it.
        OutputError: ``output`` cannot be written.
    """
    yield from PrepareRun(source, output, settings).results()


def _require_apart(output: Path, originals: Sequence[Path]) -> None:
    inside = output.resolve()
    if any(path.resolve().is_relative_to(inside) for path in originals):
        msg = f"{output} holds the originals, which might be overwritten"
        raise SettingsError(msg, hint="Give another output folder.")
