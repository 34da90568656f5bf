"""Whether a mask that a network made of a scan is good enough to learn from.

Nobody looked at such a mask, so bone density and shape decide: a spine is denser than
what surrounds it, hangs together, and does not end within the scan. Where it narrows
abruptly, as where vertebral bodies were not found, it is trusted no further up. The
limits are this project's; they let a plausible spine of any age pass and are there to
keep gross failures out, which a network would repeat.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines import geometry, labels
from engines.preprocess import resample
from engines.preprocess.orient import reorient, undo
from engines.train.losses import IGNORED
from engines.volume import Volume

STEP_MM = 2.0
"""Voxels that masks are judged on."""

LEAST_ML = 15.0
LEAST_LENGTH_MM = 40.0
MOST_UNSURE = 1.5
"""Voxels that the network was unsure of, to those that it called spine."""

LEAST_MAIN = 0.9
"""Share of the spine that hangs together."""

LEAST_CONTRAST_HU = 50.0
"""Between the spine and the 6 mm around it."""

INSIDE_HU = (60.0, 700.0)
MOST_FALL = 2.0
"""How much the mean area may fall from one piece of the spine to the next above, each
as long as a vertebra, away from the ends. From the sacrum to L5 it falls by more, so
where a mask names vertebrae the sacrum is not looked at."""

SACRAL = [v.id for v in labels.VERTEBRAE.values() if v.region == "sacral"]

MISSING_MM = (35.0, 120.0)
"""A spine that ends so far below the top of the scan has lost its upper part; farther
below, a head may be above it."""

PIECE_MM = 24.0
END_MM = 30.0
"""A spine tapers so far where it ends within the scan."""

AT_EDGE = 2
"""Planes from the edge of the scan that still count as there."""

AROUND_MM = 6.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was measured of a mask, and what speaks against it.

    Attributes:
        volume_ml: of the spine.
        length_mm: from its lowest to its highest voxel.
        unsure: voxels marked as uncertain, to those of the spine.
        main: share of the spine in its largest piece, uncertain voxels joining pieces.
        inside_hu: mean within.
        contrast_hu: to the mean around.
        fall: largest ratio of the areas of a piece and the next one above.
        trusted_mm: height above the lowest plane of the scan up to which the mask may
            be used; that of the scan where it does not narrow.
        above_mm: from its highest voxel to the top of the scan.
        against: reasons not to learn from it; none for a good one.
    """

    volume_ml: float
    length_mm: float
    unsure: float
    main: float
    inside_hu: float
    contrast_hu: float
    fall: float
    above_mm: float
    trusted_mm: float
    against: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Say whether nothing speaks against the mask."""
        return not self.against

    def as_json(self) -> dict[str, Any]:
        """Return the record of the judgement."""
        return {**asdict(self), "against": list(self.against), "good": self.good}


def judge(scan: Volume, mask: Volume) -> Judgement:
    """Judge a mask by its scan.

    Args:
        scan: (I, J, K) in HU.
        mask: on the same grid, 0 background, ``IGNORED`` uncertain, else spine: 1, or
            VerSe ids.
    """
    turned, marked = reorient(scan), reorient(mask)
    grid = geometry.resampled(turned.grid, (STEP_MM, STEP_MM, STEP_MM))
    spine = _share((marked.voxels > 0) & (marked.voxels != IGNORED), turned, grid)
    unsure = _share(marked.voxels == IGNORED, turned, grid)
    step_mm = grid.spacing_mm[2]
    figures = dict.fromkeys(LIMITS, 0.0) | {"trusted_mm": 0.0}
    if not spine.any():
        return _weighed(figures)
    sacral = np.isin(marked.voxels, SACRAL)
    column = spine & ~_share(sacral, turned, grid) if sacral.any() else spine
    area = (column if column.any() else spine).sum(axis=(0, 1)).astype(float)
    fall, trusted = _fall(area, step_mm)
    planes = np.asarray(spine.any(axis=(0, 1)))
    highest = int(np.flatnonzero(planes)[-1])
    hu = resample.linear(turned.voxels, turned.grid, grid)
    box = _around(spine, grid.spacing_mm)
    spine, unsure, hu = spine[box], unsure[box], hu[box]
    reach = ndimage.distance_transform_edt(~spine, sampling=grid.spacing_mm)
    shell = (reach > 0) & (reach <= AROUND_MM) & ~unsure
    inside = float(hu[spine].mean())
    pieces, count = ndimage.label(spine | unsure, np.ones((3, 3, 3)))
    largest = ndimage.sum_labels(spine, pieces, range(1, count + 1)).max()
    figures |= {
        "volume_ml": spine.sum() * float(np.prod(grid.spacing_mm)) / 1000,
        "length_mm": np.count_nonzero(planes[:trusted]) * step_mm,
        "unsure": unsure.sum() / spine.sum(),
        "main": largest / spine.sum(),
        "inside_hu": inside,
        "contrast_hu": inside - float(hu[shell].mean()) if shell.any() else inside,
        "fall": fall,
        "above_mm": (len(planes) - 1 - highest) * step_mm,
        "trusted_mm": trusted * step_mm,
    }
    return _weighed(figures)


def trusted(mask: Volume, judgement: Judgement) -> Volume:
    """Return a mask for training: 1 spine, ``IGNORED`` uncertain or not trusted."""
    marked = reorient(mask)
    held = np.where(marked.voxels == IGNORED, IGNORED, marked.voxels > 0)
    first = round(judgement.trusted_mm / marked.grid.spacing_mm[2])
    held[:, :, first:] = IGNORED
    return mask.with_voxels(undo(held.astype(np.uint8), mask.grid))


def _share(
    where: NDArray[np.bool_], turned: Volume, grid: geometry.Grid
) -> NDArray[np.bool_]:
    return resample.linear(where, turned.grid, grid) > 0.5


def _around(
    spine: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> tuple[slice, ...]:
    """Return the box of the spine, with a margin."""
    box = ndimage.find_objects(spine.astype(np.uint8))[0]
    wider = [int(np.ceil(2 * AROUND_MM / mm)) for mm in spacing_mm]
    return tuple(
        slice(max(0, s.start - more), s.stop + more)
        for s, more in zip(box, wider, strict=True)
    )


def _fall(area: NDArray[np.float64], step_mm: float) -> tuple[float, int]:
    """Return how far the area falls upwards within a vertebra, and where from.

    Args:
        area: voxels of each plane of the scan, from below.
        step_mm: between planes.

    Returns:
        the largest ratio, 1 for a short spine, and the first plane that is not trusted.
    """
    planes = np.flatnonzero(area)
    end, piece = round(END_MM / step_mm), round(PIECE_MM / step_mm)
    first, last = int(planes[0]), int(planes[-1]) + 1
    first += 0 if first <= AT_EDGE else end
    last -= 0 if last >= len(area) - AT_EDGE else end
    inner = area[first : max(first, last)]
    if len(inner) < 2 * piece:
        return 1.0, len(area)
    means = np.convolve(inner, np.ones(piece) / piece, mode="valid")
    ratio = np.minimum(means[:-piece] / np.maximum(means[piece:], 1e-6), 99.0)
    falls = np.flatnonzero(ratio > MOST_FALL)
    lost = first + int(falls[0]) + piece // 2 if len(falls) else len(area)
    return float(ratio.max()), lost


LIMITS: Mapping[str, Callable[[float], str]] = MappingProxyType(
    {
        "volume_ml": lambda v: f"only {v:.0f} ml of spine" if v < LEAST_ML else "",
        "length_mm": lambda v: (
            f"only {v:.0f} mm of spine to trust" if v < LEAST_LENGTH_MM else ""
        ),
        "unsure": lambda v: (
            f"{v:.1f} times as much unsure as spine" if v > MOST_UNSURE else ""
        ),
        "main": lambda v: f"only {v:.0%} hang together" if v < LEAST_MAIN else "",
        "inside_hu": lambda v: (
            "" if INSIDE_HU[0] <= v <= INSIDE_HU[1] else f"a mean of {v:.0f} HU within"
        ),
        "contrast_hu": lambda v: (
            f"only {v:.0f} HU denser than around it" if v < LEAST_CONTRAST_HU else ""
        ),
        "fall": lambda _: "",
        "above_mm": lambda v: (
            f"it ends {v:.0f} mm below the top of the scan"
            if MISSING_MM[0] < v < MISSING_MM[1]
            else ""
        ),
    }
)
"""Figure -> what it says against the mask, if anything."""


def _weighed(figures: Mapping[str, float]) -> Judgement:
    against = [told(figures[name]) for name, told in LIMITS.items()]
    rounded = {name: round(float(value), 3) for name, value in figures.items()}
    return Judgement(**rounded, against=tuple(told for told in against if told))
