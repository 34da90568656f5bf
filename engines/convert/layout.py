"""Where the slices of a volume lie, and how they are stacked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines import geometry
from engines.convert import spacing
from engines.convert.frames import Frame
from engines.convert.spacing import PLACE_TOLERANCE_MM
from engines.convert.stack import (
    duplicate_mm,
    height_rounding_mm,
    heights_mm,
    normal_of,
    rounding_mm,
)

ASIDE_ROUNDING_MM = 0.05
"""Headers that round more coarsely than this excuse no more of a sideways shift."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the slices of a volume lie, in LPS mm.

    Attributes:
        heights_mm: (K,), along the slice normal, growing.
        sideways_mm: (K, 3), across it, from the first slice.
        steps: (K,), places on an even grid, whole numbers where slices are missing
            or evenly spaced; empty where they are uneven.
        rounding_mm: how far headers round positions, along the normal and across.
    """

    heights_mm: NDArray[np.float64]
    sideways_mm: NDArray[np.float64]
    steps: NDArray[np.int64]
    rounding_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def tilted(self) -> bool:
        """Whether slices are stacked sideways."""
        return bool(off_axis(self) or shifted(self)[1])

    @property
    def gaps(self) -> bool:
        """Whether slices are missing in an otherwise even stack."""
        return bool(self.steps.size) and int(self.steps[-1]) >= self.steps.size

    @property
    def even(self) -> bool:
        """Whether steps are even, as far as headers round."""
        return bool(self.steps.size) and not self.gaps


def layout_of(volume: Sequence[Frame]) -> Layout:
    """Return where ordered slices, one at each place, lie."""
    heights = heights_mm(volume)
    normal = normal_of(volume[0])
    positions = np.array([frame.position_mm for frame in volume], float)
    moved = positions - positions[0]
    sideways = moved - (moved @ normal)[:, None] * normal
    along_mm = height_rounding_mm(volume)
    across = np.minimum(rounding_mm(volume), ASIDE_ROUNDING_MM)
    rounded = (along_mm, float(np.linalg.norm(across)))
    return Layout(heights, sideways, spacing.places_of(heights, along_mm), rounded)


def distinct(volume: Sequence[Frame]) -> tuple[Frame, ...]:
    """Return one image for each place, the first of those that lie there."""
    kept, same_mm = [volume[0]], duplicate_mm(volume)
    for frame in volume[1:]:
        if _apart_mm(kept[-1], frame) >= same_mm:
            kept.append(frame)
    return tuple(kept)


def tilt_deg(layout: Layout) -> float:
    """Return the angle between the way slices are stacked and their normal.

    A few slices that are shifted sideways do not change it.
    """
    return float(np.degrees(np.arctan(np.linalg.norm(_lean(layout)))))


def off_axis(layout: Layout) -> bool:
    """Say whether slices are stacked aslant, by more than headers round."""
    lean = float(np.linalg.norm(_lean(layout)))
    drift_mm = lean * float(np.ptp(layout.heights_mm))
    angle = np.arctan(lean)
    far = drift_mm > _aside_tolerance_mm(layout)
    return far and bool(np.sin(angle) > geometry.SHEAR_TOLERANCE)


def shifted(layout: Layout) -> tuple[float, int]:
    """Return how far slices lie off the line of the others, and how many do, or 0."""
    off_mm = _aside_mm(layout, _lean(layout))
    count = int((off_mm > _aside_tolerance_mm(layout)).sum())
    return (float(off_mm.max()), count) if count else (0.0, 0)


def _lean(layout: Layout) -> NDArray[np.float64]:
    """Return how far slices move sideways for each mm along the normal, (3,)."""
    heights, sideways = layout.heights_mm, layout.sideways_mm
    span = max(1, len(heights) // 4)  # long, so that rounding counts for little
    rises = (heights[span:] - heights[:-span])[:, None]
    usual: NDArray[np.float64] = np.median(
        (sideways[span:] - sideways[:-span]) / rises, axis=0
    )
    line = sideways[-1] / np.ptp(heights)
    off_mm = _aside_mm(layout, line)
    return line if off_mm.max() <= _aside_tolerance_mm(layout) else usual


def _aside_mm(layout: Layout, lean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each slice lies off the line that most of them lie on, (K,)."""
    rise = layout.heights_mm - layout.heights_mm[0]
    off = layout.sideways_mm - rise[:, None] * lean
    asides = [np.linalg.norm(off - off[one], axis=1) for one in (0, len(off) // 2, -1)]
    fitting = [int((aside <= _aside_tolerance_mm(layout)).sum()) for aside in asides]
    most: NDArray[np.float64] = asides[int(np.argmax(fitting))]
    return most


def _aside_tolerance_mm(layout: Layout) -> float:
    return PLACE_TOLERANCE_MM + 2 * layout.rounding_mm[1]


def _apart_mm(one: Frame, other: Frame) -> float:
    return float(
        np.abs(np.subtract(one.position_mm or 0, other.position_mm or 0)).max()
    )
