"""Clamp, smooth and normalise intensities, in a way that can be undone.

Each normalisation is a straight line ``(value - shift) / scale``, so a prepared
scan whose header records the line can be brought back to Hounsfield units.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Normalisation = Literal["none", "zero-mean", "zero-one", "minus-one-one", "maximum"]
Floats = NDArray[np.float32]

PAPER_CLAMP_HU = (-1000.0, 800.0)
"""The range that the papers clamp CT to."""


@dataclass(frozen=True, slots=True)
class Line:
    """``normalised = (value - shift) / scale``."""

    shift: float = 0.0
    scale: float = 1.0

    def apply(self, values: Floats) -> Floats:
        """Return the normalised values."""
        normalised = values - np.float32(self.shift)
        normalised /= np.float32(self.scale)
        return normalised

    def undo(self, values: NDArray[Any]) -> Floats:
        """Return the values before normalisation."""
        back: Floats = values.astype(np.float32) * np.float32(self.scale)
        back += np.float32(self.shift)
        return back


def _range(values: Floats, clamp: tuple[float, float] | None) -> tuple[float, float]:
    low, high = clamp or (float(values.min()), float(values.max()))
    return low, max(high, low + 1e-6)


def _none(values: Floats, clamp: tuple[float, float] | None) -> Line:
    return Line()


def _zero_mean(values: Floats, clamp: tuple[float, float] | None) -> Line:
    deviation = float(values.std(dtype=np.float64))
    return Line(float(values.mean(dtype=np.float64)), deviation or 1.0)


def _zero_one(values: Floats, clamp: tuple[float, float] | None) -> Line:
    low, high = _range(values, clamp)
    return Line(low, high - low)


def _minus_one_one(values: Floats, clamp: tuple[float, float] | None) -> Line:
    low, high = _range(values, clamp)
    return Line((low + high) / 2, (high - low) / 2)


def _maximum(values: Floats, clamp: tuple[float, float] | None) -> Line:
    return Line(0.0, max(float(values.max()), 1e-6))


NORMALISATIONS: Mapping[
    Normalisation, Callable[[Floats, tuple[float, float] | None], Line]
] = MappingProxyType(
    {
        "none": _none,
        "zero-mean": _zero_mean,
        "zero-one": _zero_one,
        "minus-one-one": _minus_one_one,
        "maximum": _maximum,
    }
)
"""Name -> the line that fits these values.

``zero-one`` and ``minus-one-one`` stretch the clamp range if there is one, else
the scan's own range. ``maximum`` divides by the scan's maximum and sets negatives
to 0 (CT family 1); ``zero-mean`` is the z-score.
"""


def clamp(values: Floats, limits: tuple[float, float]) -> Floats:
    """Return ``values`` with those beyond ``limits`` set to the nearer limit."""
    return np.clip(values, *limits)


def normalise(
    values: Floats, name: Normalisation, limits: tuple[float, float] | None
) -> tuple[Floats, Line]:
    """Return the normalised values and the line that was used."""
    if name == "maximum":
        values = np.maximum(values, np.float32(0))
    line = NORMALISATIONS[name](values, limits)
    return line.apply(values), line


def smooth(
    values: Floats, sigma_mm: float, spacing_mm: tuple[float, float, float]
) -> Floats:
    """Return ``values`` (I, J, K) after a Gaussian of ``sigma_mm``."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing_mm)
    done = sitk.SmoothingRecursiveGaussian(image, sigma_mm)
    smoothed: Floats = sitk.GetArrayFromImage(done).T.astype(np.float32)
    return smoothed
