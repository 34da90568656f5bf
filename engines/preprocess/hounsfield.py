"""On which scale a scan has Hounsfield units, found from the values alone.

CT shows the same pattern in every patient: air and soft tissue lie about 1000 apart,
fat about 100 below muscle, and hardly anything lies between fat and air or above
dense bone. Of the CTs this was measured on, at least 62 % of all that is no air lies
within 150 HU of water; MR at any brightness has at most 27 % in such a window with
air where CT has it. So the pattern is looked for at 0, and at the offsets that
programs are known to add; a scale that was stretched has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["hu", "offset", "wrapped", "unknown"]

SAMPLE_VOXELS = 200_000
"""About so many voxels, evenly spread, stand for the scan."""

AIR_HU = (-1100.0, -900.0)
LUNG_HU = -800.0
"""Above this is body; lungs reach up to ``GAP_HU``."""
GAP_HU = (-800.0, -200.0)
SOFT_HU = (-150.0, 150.0)
FATTY_HU = (-150.0, -50.0)
MUSCLE_HU = (0.0, 120.0)
DENSE_HU = 1000.0

LEAST_AIR = 0.02
LEAST_OF_EITHER = 0.02
MOST_ALIKE = 0.05
"""More of the body with one value is no CT, whose noise spreads values."""

SMALL_OFFSETS = (1000.0, 1024.0, -1000.0, -1024.0)
"""What makes unsigned numbers of Hounsfield units, or was taken off them twice."""

LARGE_OFFSETS = (2048.0, 4096.0, 8192.0, 32768.0, 33792.0)
"""What makes 12 to 16 bits unsigned; nothing else lies near them."""

WRAPS = (2.0**16, 2.0**32)
"""Two's complement read without its sign."""

STEP = 20.0
"""Offsets that nobody knows are looked for so finely."""

CERTAIN_HU = 9.0
"""How far air may lie from -1000 to tell an offset of 1000 from one of 1024."""

FLOOR_SHARE = 0.005
"""Share of voxels with the lowest value from which on something was cut off there."""

FILLED = 0.03
"""A larger share of voxels with one value of air was cut off or filled in."""

_UNCUT = (-24.0, -24.0)
"""The floor of CT, -1024, after 1000 was added."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How stored values become Hounsfield units.

    Attributes:
        kind: ``hu``: they are; ``offset``: after ``offset`` is taken off;
            ``wrapped``: those above half of ``offset`` lost their sign.
        offset: what was added; of two that are possible, the larger.
        certain: whether the offset is one that is known and no other fits.
        candidates: offsets that fit where none is certain.
    """

    kind: Kind
    offset: float = 0.0
    certain: bool = True
    candidates: tuple[float, ...] = ()

    @property
    def usable(self) -> bool:
        """Say whether Hounsfield units can be had."""
        return self.kind != "unknown" and self.certain

    @property
    def told(self) -> str:
        """What was found, for messages; empty for Hounsfield units or nothing."""
        if self.kind == "wrapped":
            return "CT whose negative values lost their sign"
        if self.kind != "offset":
            return ""
        if self.certain:
            return f"CT stored with an offset of {self.offset:g}"
        if self.candidates:
            either = " or ".join(f"{one:g}" for one in self.candidates)
            return f"CT stored with an offset of {either}"
        return f"CT stored with an offset of about {self.offset:g}"

    def apply(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Return the voxels in Hounsfield units, exact where they are whole."""
        if self.kind not in ("offset", "wrapped"):
            return voxels
        if voxels.dtype.kind not in "iu":
            values = voxels.astype(np.float64)
        else:
            values = voxels.astype(np.int32 if voxels.dtype.itemsize < 4 else np.int64)
        offset = values.dtype.type(self.offset)
        if self.kind == "wrapped":
            values[values >= offset / 2] -= offset
        else:
            values -= offset
        return _compact(values)


HU = Scale("hu")
UNKNOWN = Scale("unknown", certain=False)


def find_scale(voxels: NDArray[Any]) -> Scale:
    """Return the scale on which ``voxels`` show the pattern of CT.

    Wherever it shows at 0 they are Hounsfield units, whatever else would fit.
    """
    values = np.sort(sample(voxels).astype(np.float64))
    if shows_ct(values):
        return HU
    for wrap in WRAPS:
        unwrapped = _unwrapped(values, wrap)
        if unwrapped is not None and shows_ct(unwrapped):
            return Scale("wrapped", wrap)
    for offset in LARGE_OFFSETS:
        if shows_ct(values - offset):
            return Scale("offset", offset)
    for offset in SMALL_OFFSETS:
        if shows_ct(values - offset):
            return _small(values, float(np.sign(offset)))
    return _unknown_offset(values)


def sample(voxels: NDArray[Any]) -> NDArray[Any]:
    """Return about ``SAMPLE_VOXELS`` voxels, every n-th along each axis."""
    step = max(1, round((voxels.size / SAMPLE_VOXELS) ** (1 / 3)))
    steps = tuple(slice(None, None, min(step, max(1, n // 8))) for n in voxels.shape)
    return voxels[steps].ravel()


def shows_ct(values: Floats, *, needs_air: bool = False) -> bool:
    """Say whether sorted ``values`` in Hounsfield units show the pattern of CT.

    Where air is in view less is asked for; a crop inside the body has to show fat,
    muscle and little else.
    """
    body = values[np.searchsorted(values, LUNG_HU) :]
    if body.size < 2:
        return False
    air = _share(values, *AIR_HU)
    gap, soft = _share(body, *GAP_HU), _share(body, *SOFT_HU)
    fat, muscle = _share(body, *FATTY_HU), _share(body, *MUSCLE_HU)
    dense = _share(body, DENSE_HU, np.inf)
    if air >= LEAST_AIR:
        tissues = min(fat, muscle) >= LEAST_OF_EITHER
        shown = soft >= 0.5 and gap <= 0.3 and dense <= 0.08 and tissues
    elif needs_air:
        return False
    else:
        inside = soft >= 0.65 and gap <= 0.1 and dense <= 0.03
        shown = inside and fat >= LEAST_OF_EITHER and muscle >= 0.2
    return shown and _most_alike(body) <= MOST_ALIKE


def _share(values: Floats, low: float, high: float) -> float:
    """Return the share of sorted ``values`` within limits."""
    ends = np.searchsorted(values, low), np.searchsorted(values, high, "right")
    return float(ends[1] - ends[0]) / values.size


def _most_alike(values: Floats) -> float:
    """Return the largest share of sorted ``values`` that are the same."""
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf))
    return float(np.diff(starts, append=values.size).max()) / values.size


def _unwrapped(values: Floats, wrap: float) -> Floats | None:
    """Return sorted values with their signs back, None where none lost its sign."""
    above = values[np.searchsorted(values, wrap / 2) :]
    low_enough = (above >= wrap - 5000) | (above == wrap / 2)
    if above.size < FLOOR_SHARE * values.size or not low_enough.all():
        return None
    return np.sort(np.where(values >= wrap / 2, values - wrap, values))


def _small(values: Floats, sign: float) -> Scale:
    """Tell offsets of 1000 and 1024 apart, by where air lies, if that is clear."""
    pair = (sign * 1000, sign * 1024)
    if sign > 0 and _share(values, *_UNCUT) >= FLOOR_SHARE:
        return Scale("offset", 1000.0)
    air = _air(values, pair)
    near = [k for k in pair if air is not None and abs(air - k + 1000) <= CERTAIN_HU]
    if len(near) == 1:
        return Scale("offset", near[0])
    return Scale("offset", max(pair, key=abs), certain=False, candidates=pair)


def _air(values: Floats, offsets: Sequence[float]) -> float | None:
    """Return the commonest value of air, None where it is missing or has no noise.

    Values that were cut off or filled in say nothing of the air that was measured.
    """
    low, high = min(offsets) + AIR_HU[0], max(offsets) + AIR_HU[1]
    air = values[np.searchsorted(values, low) : np.searchsorted(values, high)]
    if air.size < LEAST_AIR * values.size:
        return None
    if _most_alike(air) * air.size > FILLED * values.size:
        return None
    counts, edges = np.histogram(air, np.arange(air[0], air[-1] + 8, 4))
    place = int(np.convolve(counts, np.ones(5), "same").argmax())
    return float(edges[place] + edges[place + 1]) / 2


def _unknown_offset(values: Floats) -> Scale:
    """Look for the pattern with air at any offset; which, only roughly."""
    low, high = values[0] + 800, values[-1] + 1200
    if not high - low < 1e5:
        return UNKNOWN
    offsets = np.arange(low, high, STEP)
    fitting = [one for one in offsets if shows_ct(values - one, needs_air=True)]
    if not fitting:
        return UNKNOWN
    middle = float(np.median(fitting))
    air = _air(values, (middle,))
    about = middle if air is None else air + 1000
    return Scale("offset", round(about, -1), certain=False)


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """Return int16 or int32 where whole numbers fit, float32 for others."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    low, high = int(values.min()), int(values.max())
    small = np.iinfo(np.int16)
    fits = small.min <= low and high <= small.max
    return values.astype(np.int16 if fits else np.int32)
