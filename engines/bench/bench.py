"""Time this machine: its ceiling, the network by backend, the whole, the plain way.

For the first scan the network is timed alone, every backend and precision in turns.
Then ``spine segment`` runs over all scans as a process of its own, in turns with the
plain way where that is asked for. Everything is a median over repeats.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engines import __version__, batch
from engines.bench import ceiling, machine, network, plain, sample, whole
from engines.bench.ceiling import Ceiling
from engines.bench.whole import Once
from engines.errors import SettingsError, SpineError
from engines.files import require_writable, write_bytes, write_json
from engines.found import Found
from engines.metrics.overlap import Overlap, dice, overlaps
from engines.networks import catalog, shelf
from engines.report import bench_chart
from engines.results import CaseResult, Note, Problem
from engines.runtimes import devices
from engines.scans import find_scans, read_case
from engines.segment.models import Chosen
from engines.segment.segmenter import Segmenter
from engines.volume import NIFTI_SUFFIXES, Planes, read_mask, suffix_of, write_scan

REPORT = "bench"
Told = Callable[[str, str], None]
Way = Callable[[Path, str, Path], Once]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """What to time.

    Attributes:
        model: name or path.
        against: another model, whose network is timed beside it; None for none.
        backends: names; empty takes all that run on the device.
        precisions: empty takes all that the backends have.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        repeats: of each process; the network has ``network.TURNS`` rounds for each.
        plain: time the plain way, too.
    """

    model: str = shelf.DEFAULT_MODEL
    against: str | None = None
    backends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    device: str = "auto"
    repeats: int = 3
    plain: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1:
            msg = f"nothing can be timed {self.repeats} times"
            raise SettingsError(msg, hint="Give --repeats 1 or more.")


class BenchRun:
    """One benchmark: checks what it is given, then measures one thing after the other.

    Attributes:
        count: measurements that there will be.
        names: of the models, each unlike the other.
        notes: what concerns the whole run.
    """

    def __init__(
        self,
        scans: Sequence[Path],
        settings: BenchSettings,
        output: Path | None = None,
        *,
        command: str = "",
        told: Told = lambda name, stage: None,
    ) -> None:
        """Find scans and models and check what can be checked before the first.

        Args:
            scans: files and folders; without any, the phantom of ``sample``.
            settings: what to time.
            output: gets bench.json and bench.png.
            command: for the record.
            told: is called with each measurement and what is done for it.

        Raises:
            SettingsError: a backend, a precision or a model that makes no sense here.
            UnknownModelError, ModelFileError: a model cannot be used.
            DeviceError: the device is not there.
            InputError: a scan cannot be read, or is not of the model's modality.
            OutputError: ``output`` cannot be written.
        """
        self.settings = settings
        self.output = output
        self.command = command
        self.told = told
        self.device = devices.pick(settings.device)
        self.chosen = network.choices(
            self.device.type, settings.backends, settings.precisions
        )
        names = [settings.model, *filter(None, [settings.against])]
        self._segmenters = [Segmenter(name, device=settings.device) for name in names]
        self.models = [segmenter.model for segmenter in self._segmenters]
        self._require_fitting_models()
        self.names = _apart(self.models)
        if output is not None:
            require_writable(output)
        self.scans = tuple(scans)
        self.notes: list[Note] = []
        self._found = self._find(self.scans) if scans else []
        self._ceilings: dict[str, Ceiling] = {}
        self._results: list[CaseResult] = []
        self._subjects: list[dict[str, Any]] = []
        self.count = len(self.models) * len(self.chosen) + 1 + settings.plain

    def results(self) -> Iterator[CaseResult]:
        """Yield one record per measurement.

        Raises:
            InputError: a scan turns out to be of no use.
            OutputError: the results cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="spine-bench-") as name:
            folder = Path(name)
            scans, found = self.scans, self._found
            if not scans:
                scans = (sample.write(folder / "in"),)
                found = self._find(scans)
            for measured in (
                self._networks(found),
                self._wholes(scans, found, folder),
            ):
                for result in measured:
                    self._results.append(result)
                    yield result
        if self.output is not None:
            record = self.record()
            write_json(self.output / f"{REPORT}.json", record)
            write_bytes(self.output / f"{REPORT}.png", bench_chart.draw(record))

    def facts(self) -> dict[str, Any]:
        """Return the machine, the models, the scans and the ceilings."""
        models = [
            {"name": name, "sha256": model.sha256}
            for name, model in zip(self.names, self.models, strict=True)
        ]
        return {
            "machine": machine.facts(self.device),
            "device": str(self.device),
            "model": models[0],
            "against": models[1] if len(models) > 1 else None,
            "settings": asdict(self.settings),
            "synthetic": not self.scans,
            "scans": self._subjects,
            "ceilings": [one.as_json() for one in self._ceilings.values()],
        }

    def record(self) -> dict[str, Any]:
        """Return all that bench.json holds."""
        about = {"version": __version__, "command": self.command}
        measured = [result.as_json() for result in self._results]
        return {**about, **self.facts(), "measurements": measured}

    def _find(self, scans: Sequence[Path]) -> list[Found]:
        """Return the scans; one that cannot be used is an error.

        Figures of some of the scans would not be those that were asked for.
        """
        found = find_scans(scans)
        for one in found:
            if one.problem is not None:
                raise one.problem
        return found

    def _require_fitting_models(self) -> None:
        first, *others = self.models
        for other in others:
            if other.sha256 == first.sha256:
                msg = f"{first.manifest.name} cannot be compared with itself"
                raise SettingsError(msg, hint="Give another model to --against.")
            if other.manifest.modality != first.manifest.modality:
                msg = (
                    f"{first.manifest.name} is a model for {first.manifest.modality}, "
                    f"{other.manifest.name} for {other.manifest.modality}"
                )
                raise SettingsError(msg, hint="Compare models of one modality.")
        solid = catalog.find(first.manifest.architecture).dimensions == 3
        if self.settings.plain and solid:
            msg = f"the plain way goes slice by slice, {first.manifest.name} sees cubes"
            raise SettingsError(msg, hint="Leave --plain out.")

    def _networks(self, found: Sequence[Found]) -> Iterator[CaseResult]:
        """Time the networks on the first scan."""
        scan, _ = read_case(found[0])
        job = batch.Job(found[0].name, str(found[0].path))
        scan = self._segmenters[0].admit(job, scan, may_force=False)
        self._subjects = [
            {
                "name": found[0].name,
                "shape": list(scan.grid.shape),
                "spacing_mm": [round(mm, 4) for mm in scan.grid.spacing_mm],
            },
            *({"name": one.name} for one in found[1:]),
        ]
        self._ceilings = ceiling.measure(self.device)
        subjects = [
            network.subject_of(name, model.load(), scan, self.device)
            for name, model in zip(self.names, self.models, strict=True)
        ]
        self._note_unlike(subjects)
        rounds = network.TURNS * self.settings.repeats
        measured = network.measure(
            subjects, self.chosen, self.device, rounds, self.told
        )
        yield from network.results(measured, self._ceilings)

    def _note_unlike(self, subjects: Sequence[network.Subject]) -> None:
        shapes = [[batch.shape for batch in one.batches] for one in subjects]
        if any(other != shapes[0] for other in shapes[1:]):
            told = "the models see slices of different sizes or views: a slice of one "
            self.notes.append(
                Note("other_slices", told + "is not a slice of the other")
            )

    def _named(self) -> list[str]:
        """Return the options that name the one backend or precision asked for."""
        wanted = self.settings
        given = (("--backend", wanted.backends), ("--precision", wanted.precisions))
        return [word for name, one in given if len(one) == 1 for word in (name, *one)]

    def _wholes(
        self, scans: Sequence[Path], found: Sequence[Found], folder: Path
    ) -> Iterator[CaseResult]:
        """Time whole processes in turns, each kind until it fails."""
        ways: dict[str, Way] = {
            whole.KIND: partial(whole.segment, scans, options=self._named())
        }
        if self.settings.plain:
            files = [_as_nifti(one, folder / "in") for one in found]
            ways[plain.KIND] = partial(plain.segment, files)
        runs: dict[str, list[Once]] = {name: [] for name in ways}
        problems: dict[str, Problem] = {}
        for number in range(self.settings.repeats):
            for name, way in ways.items():
                if name in problems:
                    continue
                self.told(name, f"run {number + 1} of {self.settings.repeats}")
                output = folder / f"{name}-{number}"
                output.mkdir()
                try:
                    runs[name].append(
                        way(self.models[0].path, str(self.device), output)
                    )
                except SpineError as error:
                    problems[name] = Problem.of(error)
        for name, held in runs.items():
            if name in problems:
                details = {"kind": name}
                yield CaseResult(
                    name, "", "failed", error=problems[name], details=details
                )
                continue
            more = _against(held, runs[whole.KIND]) if name == plain.KIND else {}
            told = {"kind": name, **held[-1].facts, **whole.figures(held), **more}
            yield CaseResult(
                name, "", "done", seconds={"wall": told["wall_seconds"]}, details=told
            )


def _apart(models: Sequence[Chosen]) -> list[str]:
    """Return the names of models; those of one name are told apart by their hash."""
    names = [model.manifest.name for model in models]
    if len(set(names)) == len(names):
        return names
    return [f"{model.manifest.name} {model.sha256[:8]}" for model in models]


def _as_nifti(found: Found, folder: Path) -> Path:
    """Return the scan as a NIfTI file, which the plain way reads."""
    if suffix_of(found.path) in NIFTI_SUFFIXES and found.path.is_file():
        return found.path
    scan, _ = read_case(found)
    path = folder / f"{found.name.replace('/', '_')}.nii.gz"
    write_scan(path, Planes.of(scan.voxels), scan.grid, {})
    return path


def _against(plain_runs: Sequence[Once], ours: Sequence[Once]) -> dict[str, Any]:
    """Return how much longer the plain way takes, and how alike the masks are."""
    if not ours:
        return {"times_as_long": None, "agreement": []}
    seconds = [whole.figures(runs)["wall_seconds"] for runs in (plain_runs, ours)]
    masks = zip(ours[-1].masks, plain_runs[-1].masks, strict=True)
    return {
        "times_as_long": round(seconds[0] / seconds[1], 3),
        "agreement": [_alike(*pair) for pair in masks],
    }


def _alike(one: Path, other: Path) -> dict[str, float]:
    """Return the Dice of what is spine at all, and the mean over labels.

    Two empty maps are alike.
    """
    first, second = (read_mask(path).voxels for path in (one, other))
    both = int(np.count_nonzero((first > 0) & (second > 0)))
    sizes = (int(np.count_nonzero(first)), int(np.count_nonzero(second)))
    if not any(sizes):
        return {"dice": 1.0, "dice_labels": 1.0}
    labels = [dice(counts) for counts in overlaps(first, second)]
    return {
        "dice": round(dice(Overlap(1, both, *sizes, first.size)), 6),
        "dice_labels": round(sum(labels) / len(labels), 6),
    }
