"""Score label maps against their truth, case by case."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines import __version__
from engines.errors import MaskError
from engines.files import write_json, write_text
from engines.geometry import Grid
from engines.labels import REGION_CLASSES, SPINE_CLASSES, VERTEBRAE, class_of
from engines.metrics import summary, table
from engines.metrics.overlap import overlaps
from engines.metrics.pairs import Pair, kind_of
from engines.results import CaseResult, Note, Problem
from engines.volume import Volume, read_mask

Comparison = Literal["labels", "binary", "regions"]
"""By the ids in the files, as one label, or by region of the spine."""

SPINE = SPINE_CLASSES["spine"]
REPORT = "evaluation"


@dataclass(frozen=True, slots=True)
class Compared:
    """Two label maps on one grid, with ids that mean the same in both."""

    prediction: NDArray[Any]
    truth: NDArray[Any]
    names: Mapping[int, str]
    notes: tuple[Note, ...] = ()


def evaluate(
    pairs: Sequence[Pair],
    *,
    binary: bool = False,
    told: Callable[[str, str], None] = lambda name, stage: None,
) -> Iterator[CaseResult]:
    """Yield the scores of each pair; a bad one never stops the others.

    Args:
        binary: compare all labels above zero as one, the spine.
        told: is called with the case's name and the stage that begins.
    """
    present = [pair.prediction for pair in pairs if pair.prediction is not None]
    # A missing mask has no values to look at: it is taken for one like the others.
    absent_is_binary = binary or all(kind_of(path) == "spine" for path in present)
    for pair in pairs:
        told(pair.name, "score")
        try:
            by_one = binary if pair.prediction else absent_is_binary
            yield _scored(pair, binary=by_one)
        except Exception as error:  # noqa: BLE001  one bad case never stops the others
            problem = Problem.of(error)
            where = str(pair.prediction or pair.truth)
            yield CaseResult(pair.name, where, "failed", error=problem)


def report(cases: Sequence[CaseResult]) -> dict[str, Any]:
    """Return the scores of the cohort, and those of each label alone."""
    return {"cohort": summary.cohort(cases), "by_label": summary.by_label(cases)}


def write_report(folder: Path, cases: Sequence[CaseResult]) -> None:
    """Write ``evaluation.csv`` and ``evaluation.json``; same scores, same bytes.

    Raises:
        OutputError: they cannot be written.
    """
    told = [{k: v for k, v in c.as_json().items() if k != "seconds"} for c in cases]
    record = {"version": __version__, "cases": told, **report(cases)}
    write_text(folder / f"{REPORT}.csv", table.as_csv(cases))
    write_json(folder / f"{REPORT}.json", record)


def _scored(pair: Pair, *, binary: bool) -> CaseResult:
    if pair.problem is not None:
        raise pair.problem
    started = time.monotonic()
    truth = read_mask(pair.truth)
    notes: tuple[Note, ...] = ()
    if pair.prediction is None:
        prediction = truth.with_voxels(np.zeros_like(truth.voxels))
        notes = (Note("missing_prediction", "no prediction: every label scores 0"),)
    else:
        prediction = read_mask(pair.prediction)
        _require_same_grid(prediction.grid, truth.grid)
    compared = _compared(pair, prediction, truth, binary=binary)
    counted = overlaps(compared.prediction, compared.truth)
    if not counted:
        notes += (Note("empty", "both label maps are empty: nothing to score"),)
    labels = [
        table.score(counts, compared.names.get(counts.label, f"label {counts.label}"))
        for counts in counted
    ]
    return CaseResult(
        pair.name,
        str(pair.prediction or pair.truth),
        "done",
        seconds={"score": time.monotonic() - started},
        warnings=notes + compared.notes,
        details={
            "prediction": str(pair.prediction) if pair.prediction else None,
            "truth": str(pair.truth),
            "labels": labels,
        },
    )


def _compared(
    pair: Pair, prediction: Volume, truth: Volume, *, binary: bool
) -> Compared:
    """Bring both maps to ids that mean the same."""
    notes: tuple[Note, ...] = ()
    if not binary and _says_spine_only(pair, prediction) and truth.voxels.max() > SPINE:
        told = "the prediction has one label: all labels of the truth count as spine"
        binary, notes = True, (Note("compared_binary", told),)
    if binary:
        return Compared(_above_zero(prediction), _above_zero(truth), _BINARY, notes)
    regions = _named(REGION_CLASSES)
    if _told_names(prediction) == regions and _told_names(truth) != regions:
        told = "the prediction has regions: vertebrae of the truth count as theirs"
        notes = (Note("compared_regions", told),)
        return Compared(prediction.voxels, _regions(truth), regions, notes)
    if _may_be_binary(prediction, truth):
        told = "the prediction has label 1 alone, which the truth lacks: try --binary"
        notes = (Note("perhaps_binary", told),)
    names = _told_names(prediction) or _names_of(kind_of(pair.truth))
    return Compared(prediction.voxels, truth.voxels, names, notes)


def _named(classes: Mapping[str, int]) -> dict[int, str]:
    return {index: name for name, index in classes.items() if index}


_BINARY = _named(SPINE_CLASSES)


def _names_of(kind: str) -> Mapping[int, str]:
    """Return label -> name for masks called ``_seg-KIND``; empty for unknown kinds."""
    if kind == "spine":
        return _BINARY
    vertebrae = kind in ("", "vert")
    return {v.id: v.name for v in VERTEBRAE.values()} if vertebrae else {}


def _told_names(mask: Volume) -> dict[int, str]:
    """Return label -> name as this program wrote it into the header, if it did."""
    labels = mask.provenance.get("labels", {})
    return {int(label): str(name) for label, name in labels.items()}


def _says_spine_only(pair: Pair, prediction: Volume) -> bool:
    named = pair.prediction is not None and kind_of(pair.prediction) == "spine"
    said = named or _told_names(prediction) == _BINARY
    return said and bool(prediction.voxels.max() <= SPINE)


def _may_be_binary(prediction: Volume, truth: Volume) -> bool:
    return bool(prediction.voxels.max() == SPINE) and not (truth.voxels == SPINE).any()


def _above_zero(mask: Volume) -> NDArray[np.uint8]:
    return (mask.voxels > 0).astype(np.uint8)


def _regions(truth: Volume) -> NDArray[np.uint8]:
    highest = int(truth.voxels.max())
    unknown = sorted(set(np.unique(truth.voxels).tolist()) - {0, *VERTEBRAE})
    if unknown:
        msg = f"the truth has labels that are no vertebra: {unknown[:5]}"
        raise MaskError(msg, hint="Compare with a truth that has VerSe ids.")
    turned = np.zeros(highest + 1, np.uint8)
    for label in range(1, highest + 1):
        turned[label] = class_of(label, REGION_CLASSES)
    regions: NDArray[np.uint8] = turned[truth.voxels]
    return regions


def _require_same_grid(prediction: Grid, truth: Grid) -> None:
    if prediction.matches(truth):
        return
    msg = (
        f"prediction and truth are on different grids: {_difference(prediction, truth)}"
    )
    raise MaskError(msg, hint="Bring the prediction back to the grid of its scan.")


def _difference(prediction: Grid, truth: Grid) -> str:
    for what, one, other in (
        ("voxels", prediction.shape, truth.shape),
        ("axes", prediction.axes, truth.axes),
        ("mm", prediction.spacing_mm, truth.spacing_mm),
    ):
        told, wanted = _text(one), _text(other)
        if told != wanted:
            return f"{told} {what} and {wanted} {what}"
    apart = np.linalg.norm(prediction.corners_mm() - truth.corners_mm(), axis=1).max()
    return f"{_text(truth.shape)} voxels each, but corners lie {apart:.2f} mm apart"


def _text(value: str | Sequence[float]) -> str:
    return value if isinstance(value, str) else " x ".join(f"{v:.4g}" for v in value)
