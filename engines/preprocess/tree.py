"""Prepare a tree of scans and their masks; one bad case never stops the others."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from engines import __version__, batch
from engines.errors import InputError, MaskError, NameClashError, SettingsError
from engines.files import require_writable, sha256_of, write_bytes, write_json
from engines.preprocess import export, masks, split
from engines.preprocess.checks import require_scan
from engines.preprocess.modality import require_modality
from engines.preprocess.prepare import Prepared, prepare, prepare_mask
from engines.preprocess.recipe import Recipe
from engines.preprocess.restore import remaining, to_hounsfield
from engines.results import CaseResult, Note, Problem
from engines.runlog import RunLog
from engines.scans import Found, find_scans, read_case
from engines.volume import Volume, nifti_bytes, read_mask

Slices = Literal["all", "central"]
Format = Literal["nifti", "npz"]
Told = Callable[[str, str], None]

RECORD = "preprocess"
SPLIT_FILE = "split.json"
THREADS = 2


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """How to prepare.

    Attributes:
        recipe: what is done to the scans.
        classes: what the ids of masks are mapped to, one of ``masks.CLASS_CHOICES``.
        scheme: how the vertebrae in the masks are numbered.
        slices: ``all``, or the ``central`` sagittal one.
        format: ``nifti``, or ``npz`` for compact arrays.
        split: name of a split to write, None for no split file.
        seed: of the split.
        threads: that read, and that write.
        overwrite: redo cases that are done.
    """

    recipe: Recipe
    classes: str = "as-they-are"
    scheme: str = "verse"
    slices: str = "all"
    format: str = "nifti"
    split: str | None = None
    seed: int = 0
    threads: int = THREADS
    overwrite: bool = False

    def __post_init__(self) -> None:
        masks.check_choice(self.scheme, self.classes)
        if self.split is not None:
            split.fractions_of(self.split)
        for value, known, option in (
            (self.slices, get_args(Slices), "--slices"),
            (self.format, get_args(Format), "--format"),
        ):
            if value not in known:
                msg = f"{option} cannot be {value!r}"
                raise SettingsError(msg, hint=f"Choose one of: {', '.join(known)}.")

    def as_json(self) -> dict[str, Any]:
        """Return all that the files depend on."""
        keys = ("classes", "scheme", "slices", "format")
        chosen = {key: value for key, value in asdict(self).items() if key in keys}
        return {"recipe": self.recipe.as_json(), **chosen}


@dataclass(frozen=True, slots=True)
class _Case:
    """A scan with where its files go.

    Attributes:
        target: ``NAME`` in paths like ``NAME_ct.nii.gz``, below the output folder.
        ending: ``_ct`` or ``_mr``, as the scan's own name has it.
        masks: kind -> path.
    """

    found: Found
    target: PurePosixPath
    ending: str
    masks: Mapping[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def subject(self) -> str:
        """Whom the scan shows; DICOM is filed by patient, in the topmost folder."""
        if self.found.stack is not None:
            return self.target.parts[0]
        return split.subject_of(str(self.target))


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
            source: folder of scans, or one scan.
            output: where the prepared scans go.
            settings: how to prepare them.
            include: globs of names to take; empty takes all.
            exclude: globs of names to leave out.
            command: as the user typed it, for the record.
            told: is called with a case and the stage that begins.

        Raises:
            SettingsError: the originals lie in ``output`` or below it.
        """
        if source.resolve().is_relative_to(output.resolve()):
            msg = f"{output} holds the originals, which might be overwritten"
            raise SettingsError(msg, hint="Give another output folder.")
        self.output = output
        self.settings = settings
        self.told = told
        found = find_scans([source], include, exclude, avoid=output)
        self.cases = [_case(one, settings.recipe.modality) for one in found]
        self._by_name = {case.name: case for case in self.cases}
        self._problems = _clashes(self.cases)
        self._made_from: dict[str, dict[str, Any]] = {}
        self._log = RunLog(
            output, {"command": command, "settings": settings.as_json()}, RECORD
        )

    def results(self) -> Iterator[CaseResult]:
        """Prepare every case and yield its record.

        Raises:
            OutputError: the output folder cannot be written.
        """
        require_writable(self.output)
        started = time.monotonic()
        usable: list[_Case] = []
        todo: list[_Case] = []
        try:
            for case in self.cases:
                settled = self._skip_or_refuse(case)
                if settled is None:
                    todo.append(case)
                    continue
                if settled.status == "skipped":
                    usable.append(case)
                self._log.add(settled)
                yield settled
            for result in self._batch(todo):
                if result.status == "done":
                    usable.append(self._by_name[result.name])
                yield result
        finally:
            self._log.finish(seconds=round(time.monotonic() - started, 2))
        self._write_split(usable)

    def _batch(self, todo: Sequence[_Case]) -> Iterator[CaseResult]:
        jobs = [batch.Job(c.name, str(c.found.path), self.told) for c in todo]
        steps = batch.Steps(read=self._read, work=self._work, write=self._write)
        yield from batch.run(
            jobs, steps, threads=self.settings.threads, finished=self._log.add
        )

    def _skip_or_refuse(self, case: _Case) -> CaseResult | None:
        where = str(case.found.path)
        problem = case.found.problem or self._problems.get(case.name)
        if problem is not None:
            error = Problem.of(problem)
            return CaseResult(case.name, where, "failed", error=error)
        if self.settings.overwrite or case.name not in self._log.earlier:
            return None
        record = self._log.made_by(case.name, self._fingerprint(case))
        if record is None:
            return None
        outputs = {k: str(self.output / v) for k, v in record["outputs"].items()}
        notes = tuple(Note(**note) for note in record["warnings"])
        details: dict[str, Any] = {
            k: record[k] for k in ("made_from", "prepared") if k in record
        }
        return CaseResult(
            case.name, where, "skipped", outputs, warnings=notes, details=details
        )

    def _fingerprint(self, case: _Case) -> dict[str, Any]:
        """Return all that the result depends on; files are hashed once."""
        if case.name not in self._made_from:
            try:
                content = sha256_of(*case.found.files, *case.masks.values())
            except OSError:
                content = "unreadable"
            self._made_from[case.name] = {
                "input_sha256": content,
                "masks": list(case.masks),
                "settings": self.settings.as_json(),
                "version": __version__,
            }
        return self._made_from[case.name]

    def _read(self, job: batch.Job) -> _Read:
        case = self._by_name[job.name]
        with job.timed("read"):
            scan, notes = read_case(case.found)
            job.notes += notes
            require_scan(scan, case.found.path.name)
            scan = to_hounsfield(scan)
            modality = self.settings.recipe.modality
            job.notes += require_modality(scan, modality, force=True)
            read = {kind: read_mask(path) for kind, path in case.masks.items()}
            self._fingerprint(case)
        return _Read(scan, read)

    def _work(self, job: batch.Job, read: _Read) -> _Done:
        case, settings = self._by_name[job.name], self.settings
        with job.timed("prepare"):
            prepared = prepare(read.scan, remaining(settings.recipe, read.scan))
            volume = prepared.volume
            held: Mapping[str, NDArray[Any]] = {
                kind: self._mask(case.masks[kind], kind, mask, read.scan, volume)
                for kind, mask in read.masks.items()
            }
            for kind, mask in held.items():
                if not mask.any():
                    job.notes.append(Note("empty_mask", f"the {kind!r} mask is empty"))
            if settings.slices == "central":
                volume, held = export.central_slice(volume, held)
        return _Done(prepared, volume, held)

    def _mask(
        self, path: Path, kind: str, mask: Volume, scan: Volume, prepared: Volume
    ) -> NDArray[Any]:
        settings = self.settings
        try:
            near = prepare_mask(mask, scan.grid, prepared.grid, settings.recipe)
            return masks.mapped(
                near, kind, scheme=settings.scheme, classes=settings.classes
            )
        except MaskError as error:
            raise MaskError(f"{path.name}: {error}", hint=error.hint) from None

    def _write(self, job: batch.Job, done: _Done) -> CaseResult:
        case = self._by_name[job.name]
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

    def _files(self, case: _Case, done: _Done) -> dict[str, tuple[Path, bytes]]:
        """Return kind of output -> path and content, the scan last."""
        settings, volume = self.settings, done.volume
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

    def _write_split(self, usable: Sequence[_Case]) -> None:
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


def _case(found: Found, modality: str) -> _Case:
    base = masks.base_of(found.name)
    target, ending = PurePosixPath(base), found.name[len(base) :] or f"_{modality}"
    if found.problem is not None:
        return _Case(found, target, ending)
    try:
        return _Case(found, target, ending, masks.masks_of(found.path))
    except MaskError as error:
        broken = Found(found.name, found.path, found.files, error)
        return _Case(broken, target, ending)


def _clashes(cases: Sequence[_Case]) -> dict[str, InputError]:
    """Return case name -> problem, for cases whose files would have the same names."""
    by_target: defaultdict[PurePosixPath, list[_Case]] = defaultdict(list)
    for case in cases:
        by_target[case.target].append(case)
    problems: dict[str, InputError] = {}
    for target, same in by_target.items():
        if len(same) > 1:
            told = " and ".join(str(case.found.path) for case in same)
            msg = f"{told} would both be called {target}"
            error = NameClashError(msg, hint="Take one of them, with --include.")
            problems |= {case.name: error for case in same}
    return problems
