"""Bring the label maps of a pair together: one grid, one set of ids.

A map is a file, or a folder with one file per structure (``vertebrae_L1.nii.gz`` ...).
Everything that is done to a map, or that may surprise, is told in a note.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.errors import MaskError
from engines.geometry import Grid
from engines.labels import (
    BACKGROUND,
    EITHER,
    REGION_CLASSES,
    SCHEMES,
    SPINE_CLASSES,
    VERTEBRAE,
    Scheme,
    class_of,
)
from engines.metrics import score
from engines.metrics.inner import inner
from engines.metrics.map_files import read_side
from engines.metrics.overlap import LARGEST_LABEL
from engines.metrics.pairs import Pair, kind_of
from engines.results import Note
from engines.volume import Volume

SPINE = SPINE_CLASSES["spine"]

INDEX_DECIMALS = 6
"""Voxel indices are rounded to so many, so that whole ones stay whole."""

TOLD_LABELS = 5
"""So many labels are listed in a message; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSettings:
    """How two maps are brought together.

    Attributes:
        binary: compare all labels above zero as one, the spine.
        scheme: of the ids in predictions; None takes them as they are.
        truth_scheme: of the ids in the truth.
        resample: bring a prediction on another grid to that of the truth.
        inner: score only between the first and the last labelled vertebra.
    """

    binary: bool = False
    scheme: Scheme | None = None
    truth_scheme: Scheme | None = None
    resample: bool = False
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """Two label maps on one grid, with ids that mean the same in both.

    Attributes:
        maps: cut to the box that holds all labels.
        grid: of the truth, whole.
        own_grid: of the prediction as it was read, for centres in files beside it.
        corner: index on ``grid`` of the first voxel of ``maps``.
        names: label -> name.
        vertebrae: whether the ids are those of vertebrae.
    """

    maps: score.Maps
    grid: Grid
    own_grid: Grid
    corner: tuple[int, ...]
    names: Mapping[int, str]
    vertebrae: bool
    notes: tuple[Note, ...] = ()


def together(pair: Pair, settings: MapSettings, *, binary: bool) -> Compared:
    """Read the maps of a pair and bring them together.

    Args:
        pair: a missing prediction is taken for an empty one.
        settings: how.
        binary: compare all labels as one, whatever the settings say.

    Raises:
        MaskError: different grids, or labels that cannot be compared.
        InputError: a map cannot be read.
    """
    truth = read_side(pair.truth, "truth")
    own_grid = truth.grid
    notes: list[Note] = [*truth.notes]
    if pair.prediction is None:
        prediction = truth.with_voxels(np.zeros_like(truth.voxels))
        told = "no prediction: every label counts as missed"
        notes.append(Note("missing_prediction", told))
    else:
        prediction = read_side(pair.prediction, "prediction")
        notes += prediction.notes
        own_grid = prediction.grid
        if settings.resample and not prediction.grid.matches(truth.grid):
            notes.append(_resample_note(prediction.grid, truth.grid))
            prediction = _on_grid(prediction, truth.grid)
        _require_same_grid(prediction.grid, truth.grid)
    schemes = (
        _scheme_of(pair.prediction, settings.scheme),
        _scheme_of(pair.truth, settings.truth_scheme),
    )
    prediction, told_p = _translated(prediction, schemes[0], "prediction")
    truth, told_t = _translated(truth, schemes[1], "truth")
    if pair.prediction is not None:
        notes += told_p
    notes += told_t
    ends: frozenset[int] = frozenset()
    if settings.inner:
        whole = truth
        prediction, truth = _inner_alone(prediction, truth)
        ends = frozenset(np.setdiff1d(whole.voxels, truth.voxels).tolist())
    named = any(scheme not in (None, "binary") for scheme in schemes)
    binary = binary or "binary" in schemes
    compared = _compared(pair, prediction, truth, ends, binary=binary, translated=named)
    if pair.prediction is not None:
        notes += _empty(prediction, truth)
    return replace(compared, own_grid=own_grid, notes=(*notes, *compared.notes))


def is_spine_only(path: Path) -> bool:
    """Say whether a map is called as one that has the spine as its only label."""
    return not path.is_dir() and kind_of(path) == "spine"


def _scheme_of(path: Path | None, scheme: Scheme | None) -> Scheme | None:
    """Return how a map is numbered; a folder of structures has VerSe ids already."""
    return "verse" if path is not None and path.is_dir() else scheme


def _resample_note(prediction: Grid, truth: Grid) -> Note:
    told = f"the prediction was resampled: {_difference(prediction, truth)}"
    return Note("resampled", told)


def _on_grid(mask: Volume, grid: Grid) -> Volume:
    """Return the nearest label at each voxel of ``grid``; 0 outside."""
    exact = np.linalg.inv(mask.grid.affine) @ grid.affine
    index = np.round(exact, INDEX_DECIMALS)
    moved = ndimage.affine_transform(
        mask.voxels,
        index[:3, :3],
        index[:3, 3],
        grid.shape,
        order=0,
        mode="grid-constant",
    )
    return Volume(moved, grid, None, mask.provenance)


def _translated(
    mask: Volume, scheme: Scheme | None, which: str
) -> tuple[Volume, list[Note]]:
    """Return a map with VerSe ids; labels that are none in its scheme are left out."""
    labels = [int(label) for label in _labels(mask.voxels, which)]
    if scheme is None:
        return mask, []
    _require_version(mask, scheme, labels, which)
    ids = SCHEMES[scheme]
    unknown = [label for label in labels if label not in ids]
    table = np.zeros(max([*labels, 0]) + 1, np.uint8)
    for label in labels:
        table[label] = ids.get(label, 0)
    notes = []
    if unknown:
        told = (
            f"labels of the {which} that {scheme!r} does not have: {_listed(unknown)}"
        )
        notes.append(Note("unknown_labels", told))
    return mask.with_voxels(table[mask.voxels]), notes


def _require_version(
    mask: Volume, scheme: Scheme, labels: Sequence[int], which: str
) -> None:
    """Refuse an id that means one thing or the other by the version of a program.

    Raises:
        MaskError: it is there, and the scheme does not tell the version.
    """
    if scheme not in EITHER:
        return
    label, meanings, hint = EITHER[scheme]
    if label in labels:
        msg = f"label {label} of the {which} is {meanings} of {scheme}"
        side = hint.replace("--scheme", "--truth-scheme") if which == "truth" else hint
        raise MaskError(msg, hint=side)


def _inner_alone(prediction: Volume, truth: Volume) -> tuple[Volume, Volume]:
    """Return both maps without what lies beyond the inner vertebrae of the truth."""
    spacing_mm = truth.grid.spacing_mm
    maps, corner = score.cut(prediction.voxels, truth.voxels, spacing_mm)
    kept = inner(maps.truth, spacing_mm)
    box = tuple(
        slice(start, start + count)
        for start, count in zip(corner, kept.shape, strict=True)
    )
    left = []
    for whole, part in ((prediction, maps.prediction), (truth, maps.truth)):
        voxels = np.zeros_like(whole.voxels)
        voxels[box] = np.where(kept, part, 0)
        left.append(whole.with_voxels(voxels))
    return left[0], left[1]


def _labels(voxels: NDArray[Any], which: str) -> NDArray[Any]:
    """Return the labels above zero, growing.

    Raises:
        MaskError: values below zero.
    """
    low, high = int(voxels.min()), int(voxels.max())
    if low < 0 or high > LARGEST_LABEL:
        msg = (
            f"the {which} holds values from {low} to {high}; "
            f"label ids are between 0 and {LARGEST_LABEL}"
        )
        raise MaskError(msg, hint="Give label maps, not scans.")
    seen = np.zeros(high + 1, bool)
    seen[voxels] = True
    seen[BACKGROUND] = False
    return np.flatnonzero(seen)


def _empty(prediction: Volume, truth: Volume) -> list[Note]:
    """Say which of the maps holds nothing."""
    found = [bool(prediction.voxels.any()), bool(truth.voxels.any())]
    if not any(found):
        return [Note("empty", "both label maps are empty: nothing to score")]
    if not found[1]:
        told = "the truth is empty: everything predicted counts as wrong"
        return [Note("empty_truth", told)]
    if not found[0]:
        told = "the prediction is empty: every label counts as missed"
        return [Note("empty_prediction", told)]
    return []


def _compared(
    pair: Pair,
    prediction: Volume,
    truth: Volume,
    ends: frozenset[int],
    *,
    binary: bool,
    translated: bool,
) -> Compared:
    """Bring both maps to ids that mean the same.

    Labels of the vertebrae ``ends``, which the truth has beyond what is scored alone,
    are nothing of their own: what is marked so in between is missed by the others.
    """
    notes: tuple[Note, ...] = ()
    if not binary and _says_spine_only(pair, prediction) and truth.voxels.max() > SPINE:
        told = "the prediction has one label: all labels of the truth count as spine"
        binary, notes = True, (Note("compared_binary", told),)
    if binary:
        one = _above_zero(prediction), _above_zero(truth)
        return _cut(*one, truth.grid, _BINARY, notes)
    regions = _named(REGION_CLASSES)
    if _told_names(prediction) == regions and _told_names(truth) != regions:
        told = "the prediction has regions: vertebrae of the truth count as theirs"
        notes = (Note("compared_regions", told),)
        true = _regions(truth)
        outer = {class_of(end, REGION_CLASSES) for end in ends & {*VERTEBRAE}}
        found = _without(prediction, outer - set(np.unique(true).tolist()))
        return _cut(found, true, truth.grid, regions, notes)
    if not translated and _may_be_binary(prediction, truth):
        told = "the prediction has label 1 alone, which the truth lacks: try --binary"
        notes = (Note("perhaps_binary", told),)
    names = _told_names(prediction) or _names_of(kind_of(pair.truth))
    names = _VERTEBRAE if translated else names
    found = prediction.voxels if notes else _without(prediction, ends)
    return _cut(found, truth.voxels, truth.grid, names, notes)


def _without(prediction: Volume, ids: Set[int]) -> NDArray[Any]:
    """Return a map whose labels ``ids`` are background."""
    voxels = prediction.voxels
    return np.where(np.isin(voxels, [*ids]), BACKGROUND, voxels) if ids else voxels


def _cut(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    grid: Grid,
    names: Mapping[int, str],
    notes: tuple[Note, ...],
) -> Compared:
    maps, corner = score.cut(prediction, truth, grid.spacing_mm)
    vertebrae = names == _VERTEBRAE
    return Compared(maps, grid, grid, corner, names, vertebrae, notes)


def _named(classes: Mapping[str, int]) -> dict[int, str]:
    return {index: name for name, index in classes.items() if index}


_BINARY = _named(SPINE_CLASSES)
_VERTEBRAE = {v.id: v.name for v in VERTEBRAE.values()}


def _names_of(kind: str) -> Mapping[int, str]:
    """Return label -> name for masks called ``_seg-KIND``; empty for unknown kinds."""
    if kind == "spine":
        return _BINARY
    return _VERTEBRAE if kind in ("", "vert") else {}


def _told_names(mask: Volume) -> dict[int, str]:
    """Return label -> name as this program wrote it into the header, if it did."""
    labels = mask.provenance.get("labels", {})
    return {int(label): str(name) for label, name in labels.items()}


def _says_spine_only(pair: Pair, prediction: Volume) -> bool:
    named = pair.prediction is not None and is_spine_only(pair.prediction)
    said = named or _told_names(prediction) == _BINARY
    return said and bool(prediction.voxels.max() <= SPINE)


def _may_be_binary(prediction: Volume, truth: Volume) -> bool:
    return bool(prediction.voxels.max() == SPINE) and not (truth.voxels == SPINE).any()


def _above_zero(mask: Volume) -> NDArray[np.uint8]:
    return (mask.voxels > 0).view(np.uint8)


def _regions(truth: Volume) -> NDArray[np.uint8]:
    highest = int(truth.voxels.max())
    unknown = sorted(set(_labels(truth.voxels, "truth").tolist()) - {*VERTEBRAE})
    if unknown:
        msg = f"the truth has labels that are no vertebra: {_listed(unknown)}"
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
    hint = (
        "Bring the prediction back to the grid of its scan, or resample it to the "
        "truth's with --resample."
    )
    raise MaskError(msg, hint=hint)


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


def _listed(labels: Sequence[int]) -> str:
    more = len(labels) - TOLD_LABELS
    told = ", ".join(map(str, labels[:TOLD_LABELS]))
    return told + (f" and {more} more" if more > 0 else "")
