"""What cannot be an intact scan is refused with the reason."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import (
    GeometryError,
    IntensityError,
    SpineError,
    UnsupportedError,
)
from engines.preprocess import checks
from engines.preprocess.checks import require_scan
from tests import phantoms


def _with(value: float, count: int) -> NDArray[Any]:
    voxels = phantoms.ct_values().astype(np.float32)
    voxels.ravel()[7 : 7 + count] = value
    return voxels


@pytest.mark.parametrize(
    ("voxels", "error", "match"),
    [
        (np.arange(30).reshape(6, 5, 1), UnsupportedError, "6 x 5 x 1 .* one slice"),
        (np.arange(30).reshape(1, 6, 5), UnsupportedError, "1 x 6 x 5 .* one slice"),
        (_with(np.nan, 3), IntensityError, "3 of 7680 voxels are NaN or infinite"),
        (_with(-np.inf, 1), IntensityError, "1 of 7680 voxels are NaN or infinite"),
        (np.zeros((4, 4, 4), np.int16), IntensityError, "empty, every voxel is 0"),
        (np.full((4, 4, 4), -1024), IntensityError, "every voxel is -1024"),
    ],
)
def test_bad_values_are_refused(
    voxels: NDArray[Any], error: type[SpineError], match: str
) -> None:
    with pytest.raises(error, match=f"case7: .*{match}") as caught:
        require_scan(phantoms.volume(voxels), "case7")
    assert caught.value.hint


@pytest.mark.parametrize("spacing_mm", [(7e-4, 7e-4, 2e-3), (700, 700, 2000)])
def test_size_that_no_patient_has_is_refused(spacing_mm: tuple[float, ...]) -> None:
    scan = phantoms.volume(phantoms.ct_values(), spacing_mm=spacing_mm)

    with pytest.raises(GeometryError, match="mm in size, which no scan has"):
        require_scan(scan, "case7")


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_sound_scan_passes(dtype: type[np.generic], order: Any) -> None:
    voxels = np.zeros((2, 3, 4), dtype, order=order)
    voxels[1, 2, 3] = 1

    require_scan(phantoms.volume(voxels), "case7")


def test_last_block_of_a_large_scan_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "BLOCK_VOXELS", 100)
    last = np.zeros((9, 8, 7), np.float32)
    last[-1, -1, -1] = 5
    require_scan(phantoms.volume(last), "case7")

    last[-1, -1, -1] = np.nan
    with pytest.raises(IntensityError, match="1 of 504 voxels"):
        require_scan(phantoms.volume(last), "case7")
