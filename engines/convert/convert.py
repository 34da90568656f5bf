"""From any tree of DICOM to NIfTI files with sidecars, series by series."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset

from engines import __version__, batch
from engines.convert import naming, sidecar
from engines.convert.assemble import Assembled, assemble
from engines.convert.damage import DAMAGE, require_damage
from engines.convert.findings import Repairs
from engines.convert.left_out import LeftOut
from engines.convert.stack import Stack
from engines.errors import (
    NameClashError,
    OutputError,
    SettingsError,
    SpineError,
    UnreadableError,
)
from engines.files import Stamps, require_writable, sha256_of, sweep, write_json
from engines.found import Found
from engines.results import CaseResult, Problem
from engines.runlog import RunLog
from engines.scans import survey
from engines.volume import Planes, write_scan

RECORD = "convert"
"""Name of the run's record, beside those of other commands."""

NIFTI_SUFFIX = ".nii.gz"

Told = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """How to convert.

    Attributes:
        repairs: what may be mended knowingly.
        name: template of file names, below the output folder and without suffix.
        split: whether each step of a fourth axis becomes a file of its own.
        keep_identifiers: whether names, dates and UIDs go into the sidecar.
        threads: series that are read, and that are written, at the same time.
        overwrite: redo cases that are done.
        include: globs of names to take; empty takes all.
        exclude: globs of names to leave out.
    """

    repairs: Repairs = field(default_factory=Repairs)
    name: str = naming.DEFAULT
    split: bool = False
    keep_identifiers: bool = False
    threads: int = 2
    overwrite: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        naming.check(self.name)

    def as_json(self) -> dict[str, Any]:
        """Return all that the results depend on."""
        return {
            "repairs": asdict(self.repairs),
            "name": self.name,
            "split": self.split,
            "keep_identifiers": self.keep_identifiers,
        }


@dataclass(frozen=True, slots=True)
class _Case:
    """A volume to convert, and where it goes below the output folder."""

    found: Found
    target: PurePosixPath

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def stack(self) -> Stack:
        if self.found.stack is None:
            msg = f"{self.found.name} holds no DICOM images"
            raise UnreadableError(msg)
        return self.found.stack


class ConvertRun:
    """One batch: finds the series and converts them one by one.

    Attributes:
        cases: what was found, problems included.
        left_out: DICOM files that hold no scan.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        output: Path,
        settings: ConvertSettings,
        *,
        command: str = "",
        told: Told = lambda name, stage: None,
    ) -> None:
        """Find the series and read their headers.

        Args:
            inputs: folders, archives and files.
            output: where the converted volumes go.
            settings: how to convert.
            command: as the user typed it, for the record.
            told: is called with a case and the stage that begins.

        Raises:
            SettingsError: an input lies in ``output``.
        """
        for source in inputs:
            if source.resolve() == output.resolve():
                msg = f"{output} holds the originals"
                raise SettingsError(msg, hint="Give another output folder.")
        self.output = output
        self.settings = settings
        self.told = told
        told("series", "find")
        seen = survey(
            inputs,
            settings.include,
            settings.exclude,
            avoid=output,
            images=False,
            keep_identifiers=settings.keep_identifiers,
        )
        self.left_out: tuple[LeftOut, ...] = seen.left_out
        self.cases = _distinct([*_cases(seen.found, settings)])
        self._by_name = {case.name: case for case in self.cases}
        self._made_from: dict[str, dict[str, Any]] = {}
        header = {"command": seen.hidden.text(command), "settings": settings.as_json()}
        self._log = RunLog(output, header, RECORD)

    def results(self) -> Iterator[CaseResult]:
        """Convert every series and yield its record.

        Raises:
            OutputError: the output folder cannot be written.
        """
        require_writable(self.output)
        sweep(self.output)
        started = time.monotonic()
        todo: list[_Case] = []
        try:
            for case in self.cases:
                settled = self._skip_or_refuse(case)
                if settled is None:
                    todo.append(case)
                    continue
                self._log.add(settled)
                yield settled
            yield from self._batch(todo)
        finally:
            self._log.finish(
                left_out=[one.as_json() for one in self.left_out],
                seconds=round(time.monotonic() - started, 2),
            )

    def facts(self) -> dict[str, Any]:
        """Return more keys of the run's record."""
        return {"left_out": [one.as_json() for one in self.left_out]}

    def _batch(self, todo: Sequence[_Case]) -> Iterator[CaseResult]:
        jobs = [batch.Job(c.name, str(c.found.path), self.told) for c in todo]
        steps = batch.Steps(read=self._read, work=_kept, write=self._write)
        yield from batch.run(
            jobs, steps, threads=self.settings.threads, finished=self._log.add
        )

    def _skip_or_refuse(self, case: _Case) -> CaseResult | None:
        where = str(case.found.path)
        if case.found.problem is not None:
            error = Problem.of(case.found.problem)
            return CaseResult(case.name, where, "failed", error=error)
        if self.settings.overwrite or case.name not in self._log.earlier:
            return None
        record = self._log.made_by(case.name, self._fingerprint(case))
        if record is None:
            return None
        return self._log.skipped(record, where, ("made_from", "volume"))

    def _fingerprint(self, case: _Case) -> dict[str, Any]:
        """Return all that the result depends on; files are hashed once."""
        if case.name not in self._made_from:
            try:
                content = sha256_of(*case.found.files)
            except OSError:
                content = "unreadable"
            self._made_from[case.name] = {
                "input_sha256": content,
                "settings": self.settings.as_json(),
                "version": __version__,
            }
        return self._made_from[case.name]

    def _read(self, job: batch.Job) -> Assembled:
        case = self._by_name[job.name]
        with job.timed("read"):
            hidden = case.found.hidden
            self._made_from.pop(case.name, None)
            self._fingerprint(case)
            with hidden.errors():
                made = assemble(case.stack, self.settings.repairs, hold=False)
                case.found.stamps.require_same()
            job.notes += (*case.found.notes, *hidden.notes(made.warnings))
        return made

    def _write(self, job: batch.Job, made: Assembled) -> CaseResult:
        case = self._by_name[job.name]
        nifti = self.output / f"{case.target}{NIFTI_SUFFIX}"
        beside = self.output / f"{case.target}.json"
        with job.timed("write"), case.found.hidden.errors():
            told = sidecar.record(
                case.stack,
                _header(case.stack),
                made,
                keep_identifiers=self.settings.keep_identifiers,
            )
            about = _provenance(case.stack, made)
            timed = case.stack.axis == "time"
            planes = _unchanged(made.planes, case.found.stamps)
            write_scan(nifti, planes, made.grid, about, timed=timed)
            try:
                write_json(beside, told)
            except OutputError:
                nifti.unlink(missing_ok=True)
                raise
        details = {"made_from": self._fingerprint(case), "volume": _volume(made)}
        return job.done({"nifti": str(nifti), "sidecar": str(beside)}, details)


def _unchanged(planes: Planes, stamps: Stamps) -> Planes:
    """Return slices, the last of which is followed by an error if files have changed.

    Some are read only now; nothing is written then.
    """

    def read() -> Iterator[NDArray[Any]]:
        yield from planes.planes()
        stamps.require_same()

    return replace(planes, planes=read)


def _kept(_: batch.Job, made: Assembled) -> Assembled:
    """Pass a volume on: all work is reading and writing."""
    return made


def _cases(found: Sequence[Found], settings: ConvertSettings) -> Iterator[_Case]:
    for one in found:
        if one.stack is None:
            yield _Case(one, PurePosixPath(one.name))
            continue
        for stack in one.stack.split() if settings.split else (one.stack,):
            parted = len(one.stack.volumes) > 1 and settings.split
            bare = one.name.removesuffix(f"_{one.stack.part}")
            name = f"{bare}_{stack.part}" if parted else one.name
            here = replace(one, name=name, stack=stack)
            try:
                yield _Case(here, _target(stack, name, settings))
            except SpineError as error:
                yield _Case(replace(here, problem=error), PurePosixPath(name))


def _target(stack: Stack, case: str, settings: ConvertSettings) -> PurePosixPath:
    header = _header(stack) if naming.needs_header(settings.name) else Dataset()
    kept = settings.keep_identifiers
    named = naming.name_of(stack, case, header, settings.name, keep_identifiers=kept)
    return PurePosixPath(named)


def _header(stack: Stack) -> Dataset:
    path = stack.volumes[0][0].path
    try:
        return sidecar.facts(path)
    except DAMAGE as error:
        require_damage(error)
        msg = f"{path.name}: not an intact DICOM file ({type(error).__name__})"
        raise UnreadableError(msg) from None


def _provenance(stack: Stack, made: Assembled) -> dict[str, Any]:
    return {
        "kind": "converted",
        "version": __version__,
        "series": stack.origin.digest,
        "repairs": dict(made.repairs),
    }


def _volume(made: Assembled) -> Mapping[str, Any]:
    return {
        "shape": list(made.planes.shape),
        "type": "rgb" if made.planes.dtype.names else str(made.planes.dtype),
        "spacing_mm": [round(size, 6) for size in made.grid.spacing_mm],
        "axes": made.grid.axes,
        "repairs": dict(made.repairs),
    }


def _distinct(cases: Sequence[_Case]) -> list[_Case]:
    """Return the cases with names of files that no two of them share.

    Where a template gives several the same name, each gets the letters of its series.
    """
    for longer in (True, False):
        by_target: defaultdict[PurePosixPath, list[_Case]] = defaultdict(list)
        for case in cases:
            by_target[case.target].append(case)
        cases = [
            _renamed(case, by_target[case.target], longer=longer) for case in cases
        ]
    return [*cases]


def _renamed(case: _Case, same: Sequence[_Case], *, longer: bool) -> _Case:
    if len(same) == 1 or case.found.stack is None or case.found.problem is not None:
        return case
    if longer:
        digest = case.found.stack.origin.digest
        return replace(
            case, target=case.target.with_name(f"{case.target.name}_{digest}")
        )
    told = " and ".join(other.name for other in same)
    msg = f"{told} would both be called {case.target}"
    problem = NameClashError(msg, hint="Put {case} into --name.")
    return replace(case, found=replace(case.found, problem=problem))
