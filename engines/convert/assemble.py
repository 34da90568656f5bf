"""From a stack of slices to a volume: decode, rescale, place and mend.

Voxels are (I, J, K) = (column, row, slice), K growing along the slice normal, with a
fourth axis for series that have one. DICOM's LPS world is turned to RAS here, once.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import geometry
from engines.convert import bits, checks, decode, mend, rescale
from engines.convert.findings import NONE, Finding, Repairs
from engines.convert.frames import Frame
from engines.convert.headers import quiet
from engines.convert.layout import Layout, distinct, layout_of
from engines.convert.series import series_in
from engines.convert.stack import Stack, direction_of, normal_of, ordered
from engines.errors import (
    DuplicateSliceError,
    InputError,
    MixedSeriesError,
    NotFoundError,
    UnreadableError,
    UnsupportedError,
)
from engines.geometry import Affine, Grid
from engines.results import Note
from engines.volume import Planes, Volume

READABLE_MODALITIES = ("CT", "MR")

DECODERS = max(2, min(8, os.cpu_count() or 2))
"""Threads that decode slices; more than the cores would only take memory."""

MAX_VOXELS = 1 << 33
"""More voxels than any series has: the headers are damaged."""

MAX_THICKNESS_MM = 1000.0
"""A single slice said to be thicker is taken for 1 mm, as one that says nothing."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Numbered = tuple[int, Frame]
"""Number of a slice in its volume, and its frame."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A converted stack.

    Attributes:
        planes: (I, J, K), (I, J, K, T), or of records (R, G, B) for colour.
        grid: where the voxels of each volume are, in RAS mm.
        repairs: what was mended, and how, for the sidecar.
        warnings: what the user should know.
    """

    planes: Planes
    grid: Grid
    repairs: Mapping[str, Any]
    warnings: tuple[Note, ...]

    @property
    def voxels(self) -> NDArray[Any]:
        """All voxels, in memory."""
        return self.planes.array()


def read_series(files: Sequence[Path]) -> Volume:
    """Read the slices of one series as a volume; see ``read_stack``.

    Raises:
        MixedSeriesError: the files make several volumes.
        InputError: as ``read_stack``, or a damaged file.
    """
    grouped = series_in(files)
    if grouped.unreadable:
        msg = f"{grouped.unreadable[0].name}: not an intact DICOM file"
        raise UnreadableError(msg)
    if not grouped.stacks:
        msg = "no DICOM images were given"
        raise NotFoundError(msg)
    if len(grouped.stacks) > 1:
        msg = f"the files make {len(grouped.stacks)} volumes"
        raise MixedSeriesError(msg, hint="Give the folder, or the files of one series.")
    return read_stack(grouped.stacks[0])[0]


def read_stack(stack: Stack) -> tuple[Volume, tuple[Note, ...]]:
    """Read a stack as a scan to work on: one grey CT or MR volume, nothing mended.

    Returns:
        The volume, its voxels whole numbers where the rescaled values are whole and
        float32 otherwise, and what the user should know.

    Raises:
        UnsupportedError: not CT or MR, colour, a single slice, or 4-D.
        MissingDecoderError: compressed in a way that needs another package.
        GeometryError: missing positions, tilt, gaps, duplicates, mixed slices.
        UnreadableError: a damaged or truncated file.
    """
    modality = stack.origin.modality
    if modality not in READABLE_MODALITIES:
        msg = f"{stack.name}: modality {modality or 'unknown'}; CT or MR is needed"
        raise UnsupportedError(msg)
    if stack.volumes[0][0].pixels.samples > 1:
        msg = f"{stack.name}: a colour image, not a scan"
        raise UnsupportedError(msg, hint="Give the scan, not a screenshot of it.")
    if len(stack.volumes) > 1:
        msg = f"{stack.name}: 4-D with {len(stack.volumes)} volumes; one is needed"
        hint = "Run 'spine convert --split' and give one of the volumes."
        raise UnsupportedError(msg, hint=hint)
    if len(stack.frames) == 1 and not stack.frames[0].missing:
        msg = f"{stack.name}: one slice only; 3-D is needed"
        raise UnsupportedError(msg, hint="Give the whole series.")
    assembled = assemble(stack)
    return Volume(assembled.voxels, assembled.grid), assembled.warnings


def assemble(stack: Stack, repairs: Repairs = NONE, *, hold: bool = True) -> Assembled:
    """Return the voxels of a stack on a regular grid.

    Args:
        stack: the images.
        repairs: what may be mended.
        hold: keep all voxels in memory. Otherwise, where pixels are plain and nothing
            is to be mended, they are read again when they are asked for; they have
            been read once before, so that damage is found here.

    Raises:
        InputError: it is refused, for all that ``repairs`` do not allow, or a file
            is damaged.
    """
    findings = checks.findings_of(stack, repairs)
    checks.require(stack, findings)
    try:
        with quiet():
            return _assembled(stack, repairs, findings, hold=hold)
    except InputError as error:
        raise type(error)(f"{stack.name}: {error}", hint=error.hint) from None


def _assembled(
    stack: Stack, repairs: Repairs, findings: Sequence[Finding], *, hold: bool
) -> Assembled:
    stack, lowered = _lowered(stack)
    volumes, twice = _one_each(stack, repairs)
    layout = _layout(volumes[0])
    frames = tuple(frame for volume in volumes for frame in volume)
    shape = _shape(volumes)
    grid = Grid((shape[0], shape[1], shape[2]), _affine(volumes[0], layout))
    geometry.check_affine(grid.affine)
    done: dict[str, Any] = {}
    straight = layout is None or (layout.even and not layout.tilted)
    if straight and not hold and all(decode.is_plain(frame) for frame in frames):
        planes = _streamed(frames, shape)
    else:
        voxels = _held(frames, shape)
        voxels, grid, done = mend.mend(voxels, grid, layout, volumes[0], repairs)
        planes = Planes.of(voxels)
    done |= _told_repairs(repairs, findings)
    if twice is not None:
        done["duplicates"] = twice.message
    warned = [one.note() for one in findings if not one.fatal and one.code in _WARNED]
    found = [note for note in (twice, lowered) if note is not None]
    notes = (*stack.notes, *warned, *found)
    return Assembled(planes, grid, done, notes)


def _lowered(stack: Stack) -> tuple[Stack, Note | None]:
    """Return a stack whose values lie in the bits that its pixels show.

    Raises:
        UnreadableError: header and pixels do not fit.
    """
    odd = [frame for frame in stack.frames if bits.is_high(frame.pixels)]
    if not odd:
        return stack, None
    images = (image for _, image in decode.stored([bits.raw(f) for f in odd]))
    right = bits.lowered(odd, images)
    if right is None:
        return stack, None
    by_id = {id(old): new for old, new in zip(odd, right, strict=True)}
    volumes = tuple(
        tuple(by_id.get(id(frame), frame) for frame in volume)
        for volume in stack.volumes
    )
    high = odd[0].pixels.high_bit
    message = (
        f"the header says that bit {high} is the highest in {len(odd)} slices, but "
        "values lie in the lowest bits, where they were taken from"
    )
    return replace(stack, volumes=volumes), Note("high_bit", message)


def _told_repairs(repairs: Repairs, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what was allowed that changes no voxel, for the record."""
    codes = {finding.code for finding in findings}
    told: dict[str, Any] = {}
    if repairs.allow_slopes and "inconsistent_slope" in codes:
        told["slopes_applied_per_slice"] = True
    if repairs.allow_few_slices and "too_few_slices" in codes:
        told["step_not_confirmed"] = True
    return told


_WARNED = (
    "single_slice",
    "no_rescale",
    "other_units",
    "gantry_tilt",
    "tilt_only_told",
    "series_gap",
    "uneven_slices",
    "inconsistent_slope",
    "too_few_slices",
    "rounded_positions",
)
"""Findings that are told even when the stack is converted."""


def _one_each(
    stack: Stack, repairs: Repairs
) -> tuple[list[tuple[Frame, ...]], Note | None]:
    """Return ordered volumes with one image at each place.

    Raises:
        DuplicateSliceError: images at one place differ, and none is to be preferred.
    """
    volumes, dropped, differing = [], 0, 0
    for volume in stack.volumes:
        kept = []
        for same in _by_place(ordered(volume)):
            if len(same) > 1 and not _identical(same):
                differing += 1
            kept.append(same[-1 if repairs.duplicates == "last" else 0])
            dropped += len(same) - 1
        volumes.append(tuple(kept))
    if differing and repairs.duplicates == "error":
        msg = f"different images at {differing} of {len(volumes[0])} places"
        raise DuplicateSliceError(msg)
    if not dropped:
        return volumes, None
    kind = f"{differing} of them different" if differing else "identical"
    told = f"{dropped} slices that lie where another does were left out ({kind})"
    return volumes, Note("duplicate_slices", told)


def _by_place(frames: Sequence[Frame]) -> list[list[Frame]]:
    starts = {id(frame) for frame in distinct(frames)}
    groups: list[list[Frame]] = []
    for frame in frames:
        if id(frame) in starts:
            groups.append([])
        groups[-1].append(frame)
    return groups


def _identical(frames: Sequence[Frame]) -> bool:
    scales = {(frame.slope, frame.intercept) for frame in frames}
    images = [image for _, image in decode.stored(frames)]
    return len(scales) == 1 and all(np.array_equal(images[0], i) for i in images[1:])


def _layout(volume: Sequence[Frame]) -> Layout | None:
    return layout_of(volume) if len(volume) > 1 else None


def _shape(volumes: Sequence[Sequence[Frame]]) -> tuple[int, ...]:
    rows, columns = volumes[0][0].shape
    shape = (columns, rows, len(volumes[0]), len(volumes))
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        msg = f"{' x '.join(map(str, shape))} voxels"
        raise UnreadableError(msg)
    return shape if len(volumes) > 1 else shape[:3]


def _affine(volume: Sequence[Frame], layout: Layout | None) -> Affine:
    """Return index to RAS mm; steps are even only after ``mend``."""
    first = volume[0]
    across, down = direction_of(first)
    between_rows_mm, between_columns_mm = first.spacing_mm or (1.0, 1.0)
    normal = normal_of(first)
    if layout is None:
        thick = first.thickness_mm or 0.0
        step = normal * (thick if 0 < thick < MAX_THICKNESS_MM else 1.0)
    else:
        step = normal * np.ptp(layout.heights_mm) / (len(volume) - 1)
    affine = np.eye(4)
    affine[:3, 0] = across * between_columns_mm
    affine[:3, 1] = down * between_rows_mm
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    turned: Affine = _LPS_TO_RAS @ affine
    return turned


def _streamed(frames: Sequence[Frame], shape: tuple[int, ...]) -> Planes:
    """Return voxels that are read when they are written."""
    kind = rescale.narrowest(frames)
    for group in _in_threads(frames, partial(_kind_of, kind)):
        kind = np.result_type(kind, group)

    def planes() -> Iterator[NDArray[Any]]:
        for frame, image in decode.stored(frames):
            yield rescale.rescaled(frame, image, kind)

    return Planes(shape, kind, planes)


def _kind_of(kind: np.dtype[Any], numbered: Sequence[Numbered]) -> np.dtype[Any]:
    for frame, image in decode.stored([frame for _, frame in numbered]):
        kind = rescale.needed(frame, image, kind)
    return kind


def _held(frames: Sequence[Frame], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the rescaled voxels; the type is widened until all of them fit."""
    kind = rescale.narrowest(frames)
    while True:
        voxels = np.empty((*shape[:2], len(frames)), kind, order="F")
        kinds = set(_in_threads(frames, partial(_fill, voxels)))
        if kinds == {kind}:
            return voxels.reshape(shape, order="F")
        kind = np.result_type(*kinds)


def _fill(voxels: NDArray[Any], numbered: Sequence[Numbered]) -> np.dtype[Any]:
    """Put frames into their slices; return the type that they need."""
    images = decode.stored([frame for _, frame in numbered])
    for (place, frame), (_, image) in zip(numbered, images, strict=True):
        kind = rescale.needed(frame, image, voxels.dtype)
        if kind != voxels.dtype:
            return kind
        voxels[:, :, place] = rescale.rescaled(frame, image, kind).T
    return voxels.dtype


def _in_threads(
    frames: Sequence[Frame], work: Callable[[Sequence[Numbered]], np.dtype[Any]]
) -> Iterator[np.dtype[Any]]:
    """Yield what ``work`` makes of the frames of each file, with their numbers."""
    groups = groupby(enumerate(frames), lambda pair: pair[1].path)
    files = [list(group) for _, group in groups]
    with ThreadPoolExecutor(DECODERS, "decode") as pool:
        try:
            yield from pool.map(work, files)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
