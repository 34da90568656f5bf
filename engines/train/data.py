"""Training subjects: found in folders, split by subject, held in memory.

Each subject lies along RAS axes. Voxels much finer than the network's are averaged
to ``FINEST_MM`` first; nothing else is resampled, slices are cut straight from it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from engines import geometry, labels
from engines.errors import MaskError, ModalityError, TrainingError, UnreadableError
from engines.files import files_below, sha256_of
from engines.preprocess import intensity, resample
from engines.preprocess import split as subjects
from engines.preprocess.checks import require_scan
from engines.preprocess.intensity import Line
from engines.preprocess.modality import admit, recognise, sidecar_modality
from engines.preprocess.orient import reorient
from engines.preprocess.prepare import normalised, target_grid
from engines.preprocess.recipe import Recipe
from engines.preprocess.restore import remaining, to_hounsfield
from engines.results import Note
from engines.train import bodies
from engines.train.losses import IGNORED, UNDIVIDED
from engines.train.settings import UNLABELLED, Source, TrainSettings
from engines.volume import SUFFIXES, Volume, read_mask, require_scan_size, stem_of

FINEST_MM = 1.2
"""Voxels finer than this are averaged to it."""

FINER = 2 / 3
"""Voxels finer than this share of the recipe's are averaged to it, too."""

AIR_HU = -1024.0
"""What is outside the field of view of a CT; of an MR it is 0."""

MR_BRIGHT = 500.0
"""What the brightest hundredth of an MR starts at, so that changes fit any scanner."""

WHOLE = 255
"""Share of a voxel, in a byte, that is all of it."""

_WRONG_KIND = (
    "Give the --recipe of its modality (lumbar-mr-2025 for MR), or leave the scan out."
)

_IMAGE = re.compile(r"^(?P<name>.+)_(ct|mr)$")
_MASK = re.compile(r"^(?P<name>.+?)(_(ct|mr))?_seg-(?P<kind>vert|spine|body|mr)_msk$")


Notes = tuple[Note, ...]

MASK_KINDS = ("vert", "body", "spine")
KINDS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"spine": MASK_KINDS, "mr": ("mr",)}
)
"""Class set -> the kinds of mask that tell its classes apart, the best one first."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of one scan: an image, a mask, or both."""

    name: str
    source: Source
    image: Path | None
    mask: Path

    @property
    def subject(self) -> str:
        """The person, whose scans all go to the same part of a split."""
        return subjects.subject_of(self.name)


@dataclass(frozen=True, slots=True)
class Subject:
    """One scan in memory.

    Attributes:
        image: (I, J, K), values above ``outside``; None for masks alone.
        outside: value of what lies beyond the scan, in HU for CT.
        held: (I, J, K), uint8, which of ``values`` holds most of each voxel; 0 for
            background alone. With a class for each vertebra, shares of all of them in
            float32 would take gigabytes a scan.
        share: (I, J, K), uint8, how much of the voxel that is, 255 for all of it.
        values: class indices in view, ``IGNORED`` for what is not scored,
            ``UNDIVIDED`` for spine of an unknown class.
        spacing_mm: voxel size along (I, J, K).
        seen_mm: voxel size that the recipe gives this scan, which the network sees.
        bone: (N, 3), voxel indices of up to 20,000 foreground voxels.
        line: the normalisation of this scan; None where each slice gets its own.
        tissues: (5, I, J, K), shares of the tissues of ``bodies`` from ``BODY`` on, of
            CT that is shown as MR; None for what is seen as it is.
        notes: what was mended in the image when it was read.
    """

    name: str
    source: Source
    image: Tensor | None
    held: NDArray[np.uint8]
    share: NDArray[np.uint8]
    values: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    seen_mm: tuple[float, float, float]
    bone: NDArray[np.int32]
    line: Line | None
    outside: float = AIR_HU
    tissues: Tensor | None = None
    notes: Notes = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (I, J, K)."""
        i, j, k = self.held.shape
        return i, j, k

    def share_of(self, value: int) -> NDArray[np.float32]:
        """Return how much of a voxel (I, J, K) a value holds, where it holds most."""
        share = np.where(self.held == value, self.share, 0)
        return share.astype(np.float32) / np.float32(WHOLE)


def find_pairs(root: Path, settings: TrainSettings) -> list[Pair]:
    """Find the scans of every source below ``root`` that has masks.

    Raises:
        TrainingError: a source without a single usable scan.
    """
    kinds = KINDS_OF.get(settings.classes, MASK_KINDS[:2])
    pairs = [
        pair
        for source in settings.sources
        if source.kind != UNLABELLED
        for pair in _of_source(root, source, _kinds(kinds, source))
    ]
    if not pairs:
        msg = f"no training scans under {root}"
        raise TrainingError(
            msg, hint="Put NAME_ct.nii.gz beside NAME_seg-vert_msk.nii.gz."
        )
    return pairs


def split_pairs(pairs: Sequence[Pair], split: str, seed: int) -> dict[str, list[Pair]]:
    """Deal the pairs to ``train``, ``val`` and ``test``, a subject to one of them.

    Sources whose part is fixed go there; the others are dealt by ``split``, in an
    order that depends on ``seed`` and the subjects' names alone.
    """
    dealt: dict[str, list[Pair]] = {part: [] for part in subjects.PARTS}
    place = {p.subject: p.source.part for p in pairs if p.source.part != "auto"}
    free = sorted({p.subject for p in pairs} - set(place))
    if split == "all":
        place |= dict.fromkeys(free, "train")
    else:
        for part, names in subjects.deal(free, split, seed).items():
            place |= dict.fromkeys(names, part)
    for pair in pairs:
        dealt[place[pair.subject]].append(pair)
    return dealt


class Scans:
    """The scans of a training, read when they are first asked for.

    Attributes:
        dealt: ``train``, ``val`` and ``test`` -> pairs.
    """

    def __init__(self, root: Path, settings: TrainSettings) -> None:
        """Find and deal them, as the seed of ``settings`` does.

        Raises:
            TrainingError: a source without a scan, or nothing to train on.
        """
        self.dealt = split_pairs(
            find_pairs(root, settings), settings.split, settings.seed
        )
        if not self.dealt["train"]:
            msg = "the split leaves no scan to train on"
            raise TrainingError(msg, hint="Add scans or choose another --split.")
        self._settings = settings
        self._read: dict[str, list[Subject]] = {}

    def subjects(self, part: str) -> list[Subject]:
        """Return the scans of a part in memory."""
        if part not in self._read:
            self._read[part] = [load(pair, self._settings) for pair in self.dealt[part]]
        return self._read[part]

    def notes(self) -> dict[str, list[str]]:
        """Return what was mended in the scans that were read, by their names."""
        read = [subject for subjects in self._read.values() for subject in subjects]
        noted = {one.name: [note.message for note in one.notes] for one in read}
        return {name: notes for name, notes in noted.items() if notes}

    def names(self, part: str) -> list[str]:
        """Return what the scans of a part are called."""
        return [pair.name for pair in self.dealt[part]]

    def contents(self, part: str) -> dict[str, str]:
        """Return SHA-256 of the files of each scan of a part, by its name.

        Raises:
            UnreadableError: a file cannot be read.
        """
        found = {}
        for pair in self.dealt[part]:
            files = [path for path in (pair.image, pair.mask) if path is not None]
            try:
                found[pair.name] = sha256_of(*files)
            except OSError as error:
                msg = f"{pair.name}: cannot be read ({error.strerror})"
                raise UnreadableError(msg) from error
        return found

    def forget(self) -> None:
        """Leave the memory that the scans take."""
        self._read.clear()


def split_record(dealt: Mapping[str, Sequence[Pair]], seed: int) -> dict[str, Any]:
    """Return the split as it is saved."""
    parts = {part: [p.name for p in pairs] for part, pairs in dealt.items()}
    return {"seed": seed, **parts}


def load(pair: Pair, settings: TrainSettings) -> Subject:
    """Read one scan into memory.

    Scans are read as ``spine segment`` reads them: one that this program prepared is
    brought back to its units first.

    Raises:
        MaskError: the mask does not fit the image or the scheme.
        ModalityError: the image is not of the recipe's modality.
        IntensityError: voxels that are not numbers, or all alike.
        InputError: a file that cannot be read.
    """
    mask = read_mask(pair.mask)
    classes = labels.CLASS_SETS[settings.classes]
    how = settings.prepared_by
    target = _class_map(pair, mask, classes)
    turned = reorient(mask.with_voxels(target))
    finest = max(FINEST_MM, FINER * (how.spacing_mm or 0))
    spacing = [max(finest, mm) for mm in turned.grid.spacing_mm]
    grid = geometry.resampled(turned.grid, (spacing[0], spacing[1], spacing[2]))
    shown = settings.shows_as_mr(pair.source)
    source, target, tissues = turned.grid, turned.voxels, None
    if shown:
        ids = _verse_ids(reorient(mask).voxels, pair.source)
        ids = resample.nearest(ids, source, grid)
        tissue = bodies.tissues_of(ids, grid.spacing_mm)
        tissues = _shares(tissue, bodies.TISSUES, grid, grid)
        target = resample.nearest(target, source, grid)
        target[tissue != bodies.BODY] = 0
        target[tissue >= bodies.UNSURE] = IGNORED
        source = grid
    values = tuple(int(v) for v in np.unique(target) if v)
    held, share = _most(target, values, source, grid)
    image, line, notes = None, None, cast("Notes", ())
    if pair.image is not None:
        seen = replace(how, modality="ct") if shown else how
        image, line, notes = _load_image(pair, pair.image, mask, grid, seen)
    mostly = (share > WHOLE / 2) & (held != IGNORED)
    bone = np.argwhere(mostly).astype(np.int32)
    if not len(bone):
        msg = f"{pair.mask.name}: the mask is empty"
        raise MaskError(msg, hint="Remove the scan from the training data.")
    keep = np.random.default_rng(0).permutation(len(bone))[:20_000]
    return Subject(
        pair.name,
        pair.source,
        image,
        held,
        share,
        values,
        grid.spacing_mm,
        target_grid(turned.grid, how).spacing_mm,
        bone[keep],
        None if shown else line,
        AIR_HU if shown else outside_of(how),
        tissues,
        notes,
    )


def _most(
    target: NDArray[np.uint8],
    values: Sequence[int],
    source: geometry.Grid,
    grid: geometry.Grid,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what holds most of each voxel of ``grid``, and how much, 255 for all."""
    held, share = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    for value in values:
        part = target == value
        if source.matches(grid):
            much = part.astype(np.uint8) * np.uint8(WHOLE)
        else:
            much = np.rint(resample.share(part, source, grid) * WHOLE).astype(np.uint8)
        more = much > share
        held[more], share[more] = value, much[more]
    return held, share


def _shares(
    held: NDArray[np.uint8],
    values: Sequence[int],
    source: geometry.Grid,
    grid: geometry.Grid,
) -> Tensor:
    """Return how much of each voxel of ``grid`` belongs to each of ``values``."""
    shares = torch.empty((len(values), *grid.shape))
    for share, value in zip(shares, values, strict=True):
        part = held == value
        if not source.matches(grid):
            part = resample.share(part, source, grid)
        share.copy_(torch.from_numpy(part))
    return shares


def _verse_ids(voxels: NDArray[Any], source: Source) -> NDArray[np.uint8]:
    table = np.zeros(max(256, int(voxels.max()) + 1), np.uint8)
    for value, index in _scheme(source).items():
        table[value] = index
    ids: NDArray[np.uint8] = table[voxels]
    return ids


def _scheme(source: Source) -> Mapping[int, int]:
    return labels.SCHEMES[cast("labels.Scheme", source.scheme)]


def outside_of(how: Recipe) -> float:
    """Return the value of what lies beyond a scan."""
    return AIR_HU if how.modality == "ct" else 0.0


def _kinds(kinds: Sequence[str], source: Source) -> Sequence[str]:
    """Return the kinds of mask to look for; those of the spine as a whole hold 1."""
    blind = source.scheme == "binary" and "mr" not in kinds
    return MASK_KINDS if blind else kinds


def _of_source(root: Path, source: Source, kinds: Sequence[str]) -> Iterator[Pair]:
    folder = root / source.path
    masks = root / source.masks if source.masks else folder
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in _images_under(masks):
        match = _MASK.match(stem_of(path))
        if match and match["kind"] in kinds:
            rank = kinds.index(match["kind"])
            found.setdefault(match["name"], []).append((rank, path))
    if source.kind == "labels":
        for name, ranked in sorted(found.items()):
            yield Pair(name, source, None, min(ranked)[1])
        return
    count = 0
    for path in _images_under(folder):
        match = _IMAGE.match(stem_of(path))
        if match and match["name"] in found:
            count += 1
            yield Pair(match["name"], source, path, min(found[match["name"]])[1])
    if not count:
        msg = f"no image with a mask under {folder}"
        hint = f"Put NAME_ct.nii.gz beside NAME_seg-{kinds[0]}_msk.nii.gz."
        raise TrainingError(msg, hint=hint)


def names_of_images(folder: Path) -> set[str]:
    """Return the names, without suffixes, of scans that masks can be paired with.

    Raises:
        TrainingError: no such folder, or none in it.
    """
    named = {stem_of(path) for path in _images_under(folder)}
    found = {name for name in named if _IMAGE.match(name)}
    if not found:
        msg = f"no scan under {folder} is named for training"
        raise TrainingError(msg, hint="Call them NAME_ct.nii.gz.")
    return found


def _images_under(folder: Path) -> list[Path]:
    if not folder.is_dir():
        msg = f"there is no folder {folder}"
        raise TrainingError(msg, hint="Check --data and the sources' paths.")
    return sorted(p for p in files_below(folder) if p.name.endswith(SUFFIXES))


def _class_map(
    pair: Pair, mask: Volume, classes: Mapping[str, int]
) -> NDArray[np.uint8]:
    if "disc" in classes:
        scheme: Mapping[int, int] = {index: index for index in classes.values()}
    else:
        scheme = _scheme(pair.source)
    ids = np.unique(mask.voxels)
    table = np.zeros(max(256, int(ids.max()) + 1), np.uint8)
    for value in ids[ids != labels.BACKGROUND].tolist():
        if value == IGNORED:
            table[value] = IGNORED
        elif value not in scheme:
            told = "classes" if "disc" in classes else f"scheme {pair.source.scheme!r}"
            msg = f"{pair.mask.name}: no {value} in the {told}"
            raise MaskError(msg, hint="Set the source's scheme.")
        elif "disc" in classes:
            table[value] = value
        elif pair.source.scheme == "binary" and "spine" not in classes:
            table[value] = UNDIVIDED
        else:
            table[value] = labels.class_of(scheme[value], classes)
    target: NDArray[np.uint8] = table[mask.voxels]
    if pair.source.unlabelled_ends:
        target[_beyond_ends(mask) & (target == 0)] = IGNORED
    return target


def _beyond_ends(mask: Volume) -> NDArray[np.bool_]:
    """Say which voxels are nearest to the first or the last labelled vertebra."""
    ids = np.unique(mask.voxels[(mask.voxels > 0) & (mask.voxels != IGNORED)])
    nearest = ndimage.distance_transform_edt(
        mask.voxels == 0,
        sampling=mask.grid.spacing_mm,
        return_distances=False,
        return_indices=True,
    )
    return np.isin(mask.voxels[tuple(nearest)], [ids[0], ids[-1]])


def _read_image(pair: Pair, image: Path, wanted: str) -> tuple[Volume, Notes]:
    """Read an intact scan of the modality that is learnt from.

    Images of bone alone have nothing in them that CT could be told by.

    Raises:
        ModalityError: it is of another, or cannot be told.
        IntensityError: its voxels are not those of an intact scan.
    """
    require_scan_size(image)
    scan = Volume.read(image)
    require_scan(scan, image.name)
    scan = to_hounsfield(scan)
    read = scan.notes
    if pair.source.kind == "bone":
        return scan, read
    found = recognise(scan, stem_of(image), sidecar_modality(image))
    if {found, wanted} == {"ct", "mr"}:
        msg = f"{image.name}: it is {found.upper()}; {wanted.upper()} is needed"
        raise ModalityError(msg, hint=_WRONG_KIND)
    try:
        told = wanted if found == wanted == "mr" else ""
        scan, notes = admit(scan, wanted, told=told, may_force=False)
    except ModalityError as error:
        raise ModalityError(f"{image.name}: {error}", hint=_WRONG_KIND) from error
    return scan, (*read, *notes)


def _load_image(
    pair: Pair, image: Path, mask: Volume, grid: geometry.Grid, how: Recipe
) -> tuple[Tensor, Line, Notes]:
    scan, notes = _read_image(pair, image, how.modality)
    if not scan.grid.matches(mask.grid):
        msg = f"{pair.mask.name} does not lie on the grid of {image.name}"
        raise MaskError(msg, hint="Resample the mask to its scan first.")
    turned = reorient(scan)
    values = resample.linear(turned.voxels, turned.grid, grid)
    smoothing_mm = remaining(how, scan).smoothing_mm
    if smoothing_mm:
        values = intensity.smooth(values, smoothing_mm, grid.spacing_mm)
    if how.modality == "mr":
        bright = float(np.quantile(values, 0.99))
        values = values * np.float32(MR_BRIGHT / max(bright, 1e-6))
    line = normalised(values, how)[1]
    above = np.maximum(values - np.float32(outside_of(how)), 0).astype(np.float32)
    return torch.from_numpy(above), line, notes
