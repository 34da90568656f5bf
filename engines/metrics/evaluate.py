"""Score label maps against their truth, case by case."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines import __version__
from engines.errors import SettingsError
from engines.files import write_json, write_text
from engines.labels import VERTEBRAE
from engines.metrics import identification, instances, nnunet, score, summary, table
from engines.metrics.identification import Identified
from engines.metrics.maps import Compared, MapSettings, is_spine_only, together
from engines.metrics.overlap import Overlap, iou, overlaps
from engines.metrics.pairs import Pair, key_of
from engines.metrics.score import Maps, Scored
from engines.metrics.table import Metric
from engines.results import CaseResult, Note, Problem

REPORT = "evaluation"
CENTRES = "_ctd.json"
NNUNET_SUMMARY = "summary.json"

Told = Callable[[str, str], None]
Seen = Callable[[CaseResult, Compared], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """How to score.

    Attributes:
        maps: how the two maps of a pair are brought together.
        tolerance: of the surface Dice, in mm, or in pixels for slices.
        slices: score sagittal slices, in pixels, and average them.
    """

    maps: MapSettings = field(default_factory=MapSettings)
    tolerance: float = score.TOLERANCE_MM
    slices: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < np.inf:
            msg = f"a tolerance of {self.tolerance}; 0 or more is needed"
            raise SettingsError(msg)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics that are computed."""
        return table.METRICS_2D if self.slices else table.METRICS


def evaluate(
    pairs: Sequence[Pair],
    settings: EvaluateSettings | None = None,
    *,
    told: Told = lambda name, stage: None,
    seen: Seen = lambda result, compared: None,
) -> Iterator[CaseResult]:
    """Yield the scores of each pair; a bad one never stops the others.

    Args:
        pairs: of label maps.
        settings: how to score.
        told: is called with the case's name and the stage that begins.
        seen: is called with each scored case and its maps, while they are in memory.
    """
    settings = settings or EvaluateSettings()
    present = [pair.prediction for pair in pairs if pair.prediction is not None]
    # A missing mask has no values to look at: it is taken for one like the others.
    only_spine = bool(present) and all(map(is_spine_only, present))
    absent_is_binary = settings.maps.binary or only_spine
    for pair in pairs:
        told(pair.name, "score")
        binary = settings.maps.binary if pair.prediction else absent_is_binary
        try:
            result, compared = _scored(pair, settings, binary=binary)
            seen(result, compared)
            yield result
        except Exception as error:  # noqa: BLE001  one bad case never stops the others
            problem = Problem.of(error)
            where = str(pair.prediction or pair.truth)
            yield CaseResult(pair.name, where, "failed", error=problem)


def report(
    cases: Sequence[CaseResult], settings: EvaluateSettings | None = None
) -> dict[str, Any]:
    """Return the scores of the cohort, of each label and of each region alone."""
    metrics = (settings or EvaluateSettings()).metrics
    return {
        "cohort": summary.cohort(cases, metrics),
        "identification": summary.identification(cases),
        "by_label": summary.by_label(cases, metrics),
        "by_region": summary.by_region(cases, metrics),
    }


def write_report(
    folder: Path,
    cases: Sequence[CaseResult],
    settings: EvaluateSettings | None = None,
    told: Mapping[str, Any] | None = None,
) -> None:
    """Write CSV, JSON and nnU-Net's summary; the same scores give the same bytes.

    Args:
        folder: where to.
        cases: all of them.
        settings: how they were scored.
        told: of the cohort, ``report`` if not given.

    Raises:
        OutputError: they cannot be written.
    """
    settings = settings or EvaluateSettings()
    rows = [{k: v for k, v in c.as_json().items() if k != "seconds"} for c in cases]
    about = {"version": __version__, "settings": asdict(settings)}
    record = {**about, "cases": rows, **(told or report(cases, settings))}
    write_text(folder / f"{REPORT}.csv", table.as_csv(cases, settings.metrics))
    write_json(folder / f"{REPORT}.json", plain(record))
    write_text(folder / NNUNET_SUMMARY, nnunet.summary_of(cases))


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a record in which infinite numbers are the text ``inf``."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and np.isinf(value) else value


def _scored(
    pair: Pair, settings: EvaluateSettings, *, binary: bool
) -> tuple[CaseResult, Compared]:
    if pair.problem is not None:
        raise pair.problem
    started = time.monotonic()
    compared = together(pair, settings.maps, binary=binary)
    found = _by_label(compared, settings)
    maps = compared.maps
    counts = overlaps(maps.prediction, maps.truth, voxels=maps.voxels)
    labels = [
        _row(compared, scored, settings.metrics) for _, scored in sorted(found.items())
    ]
    details = {
        "prediction": str(pair.prediction) if pair.prediction else None,
        "truth": str(pair.truth),
        "labels": labels,
        "miou": _mean_iou(counts, compared.maps),
        "counts": {str(one.label): _counts(one) for one in counts},
        **_vertebrae(pair, compared, settings.maps),
    }
    notes = (*compared.notes, *_slice_notes(found, settings))
    result = CaseResult(
        pair.name,
        str(pair.prediction or pair.truth),
        "done",
        seconds={"score": time.monotonic() - started},
        warnings=notes,
        details=details,
    )
    return result, compared


def _by_label(
    compared: Compared, settings: EvaluateSettings
) -> Mapping[int, list[Scored]]:
    """Return label -> its scores in the volume, or in each slice."""
    maps = [compared.maps]
    if settings.slices:
        axis, shape = sagittal_axis(compared), compared.grid.shape
        maps = [*score.slices_of(compared.maps, axis, shape)]
    found: defaultdict[int, list[Scored]] = defaultdict(list)
    for one in maps:
        for scored in score.scores(one, settings.tolerance):
            found[scored.counts.label].append(scored)
    return found


def sagittal_axis(compared: Compared) -> int:
    """Return the axis along which sagittal slices lie."""
    return next(i for i, code in enumerate(compared.grid.axes) if code in "LR")


def _row(
    compared: Compared, scored: Sequence[Scored], metrics: Mapping[str, Metric]
) -> dict[str, Any]:
    label = scored[0].counts.label
    name = compared.names.get(label, f"label {label}")
    row = table.score(scored, name, metrics)
    known = compared.vertebrae and label in VERTEBRAE
    return row | ({"region": VERTEBRAE[label].region} if known else {})


def _counts(counts: Overlap) -> dict[str, int]:
    """Return the voxels of a label: in both maps, in each of them, and in all."""
    return {
        "both": counts.both,
        "prediction": counts.prediction,
        "truth": counts.truth,
        "voxels": counts.voxels,
    }


def _mean_iou(counts: Sequence[Overlap], maps: Maps) -> float | None:
    """Return the IoU averaged over all labels, and the background if there is some."""
    if not counts:
        return None
    ious = [iou(one) for one in counts]
    predicted, true = maps.prediction > 0, maps.truth > 0
    neither = maps.voxels - int(np.count_nonzero(predicted | true))
    not_both = maps.voxels - int(np.count_nonzero(predicted & true))
    if not_both:
        ious.append(neither / not_both)
    return float(np.mean(ious))


def _vertebrae(pair: Pair, compared: Compared, how: MapSettings) -> dict[str, Any]:
    """Return how vertebrae were identified and matched, for maps that hold some."""
    if not compared.vertebrae:
        return {}
    maps = compared.maps
    found, source = _identified(pair, compared, how)
    matched = instances.match(maps.prediction, maps.truth)
    return {
        "identification": found.as_json() | {"centres": source},
        "instances": matched.as_json(),
    }


def _identified(
    pair: Pair, compared: Compared, how: MapSettings
) -> tuple[Identified, str]:
    """Compare centres, from files where both sides have them, else from the maps.

    Files name all vertebrae, so they are of no use where only some are scored.
    """
    grid = compared.grid
    files = [centres_beside(path) for path in (pair.prediction, pair.truth)]
    if files[0] is not None and files[1] is not None and not how.inner:
        predicted = identification.read_centres(files[0], compared.own_grid)
        true = identification.read_centres(files[1], grid)
        return identification.identify(predicted, true), "files"
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(compared.corner)
    maps = compared.maps
    predicted, true = (
        identification.centres_of(labels, affine)
        for labels in (maps.prediction, maps.truth)
    )
    return identification.identify(predicted, true), "label maps"


def centres_beside(path: Path | None) -> Path | None:
    """Return the ``_ctd.json`` file that belongs to a label map, if there is one."""
    if path is None or path.is_dir():
        return None
    wanted = key_of(Path(path.name))
    found = [
        beside
        for beside in sorted(path.parent.glob(f"*{CENTRES}"))
        if key_of(Path(beside.name.removesuffix(CENTRES))) == wanted
    ]
    return found[0] if len(found) == 1 else None


def _slice_notes(
    found: Mapping[int, Sequence[Scored]], settings: EvaluateSettings
) -> tuple[Note, ...]:
    if not settings.slices:
        return ()
    single = sum(
        one.counts.present != "both" for scored in found.values() for one in scored
    )
    if not single:
        return ()
    told = f"{single} slice(s) have a label on one side only: infinite distances"
    return (Note("one_sided_slices", told),)
