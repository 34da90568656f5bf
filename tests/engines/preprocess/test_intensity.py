"""Normalisations are straight lines that can be undone."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from engines.preprocess import intensity
from engines.preprocess.intensity import Line, Normalisation
from engines.preprocess.recipe import NORMALISATION_NAMES

VALUES = np.array([-1024, -100, 0, 40, 60, 300, 3071], np.float32)


def test_table_has_each_name_once() -> None:
    assert set(get_args(Normalisation)) == set(intensity.NORMALISATIONS)
    assert set(NORMALISATION_NAMES) == set(intensity.NORMALISATIONS)


@pytest.mark.parametrize(
    ("name", "limits", "ends"),
    [
        ("none", None, (-1024, 3071)),
        ("zero-one", None, (0, 1)),
        ("minus-one-one", None, (-1, 1)),
        ("maximum", None, (0, 1)),
        ("zero-one", (-1024, 7166), (0, 0.5)),
        ("minus-one-one", (-5119, 3071), (0, 1)),
    ],
)
def test_ends_of_the_scan_land_where_the_name_says(
    name: Normalisation, limits: tuple[float, float] | None, ends: tuple[float, float]
) -> None:
    made, _ = intensity.normalise(VALUES, name, limits)

    assert (made.min(), made.max()) == pytest.approx(ends)


def test_zero_mean_has_mean_0_and_deviation_1() -> None:
    made, _ = intensity.normalise(VALUES, "zero-mean", None)

    assert float(made.mean()) == pytest.approx(0, abs=1e-6)
    assert float(made.std()) == pytest.approx(1)


@pytest.mark.parametrize("name", NORMALISATION_NAMES)
@given(st.lists(st.floats(-3000, 30000, width=32), min_size=2, max_size=30))
def test_undo_gives_the_values_back(name: Normalisation, held: list[float]) -> None:
    values = np.array(held, np.float32)
    made, line = intensity.normalise(values, name, None)
    wanted = np.maximum(values, 0) if name == "maximum" else values
    reach = max(1.0, float(np.abs(values).max()))

    assert np.isfinite(made).all()
    np.testing.assert_allclose(line.undo(made), wanted, atol=1e-5 * reach)


@pytest.mark.parametrize("name", NORMALISATION_NAMES)
def test_constant_scan_stays_finite(name: Normalisation) -> None:
    made, line = intensity.normalise(np.full((2, 2, 2), 7, np.float32), name, None)

    assert np.isfinite(made).all()
    np.testing.assert_allclose(line.undo(made), 7, atol=1e-4)


def test_line_by_hand() -> None:
    line = Line(shift=-1000, scale=2000)

    assert line.apply(np.float32([-1000, 0, 1000])).tolist() == [0, 0.5, 1]
    assert line.undo(np.float32([0, 0.5, 1])).tolist() == [-1000, 0, 1000]


def test_clamp_sets_to_the_nearer_limit() -> None:
    made = intensity.clamp(VALUES, (-200, 300))

    assert made.tolist() == [-200, -100, 0, 40, 60, 300, 300]


def test_smoothing_is_in_mm_along_each_axis() -> None:
    single = np.zeros((41, 31, 21), np.float32)
    single[20, 15, 10] = 1000
    made = intensity.smooth(single, 2.0, (0.5, 1.0, 2.0))

    wanted = ndimage.gaussian_filter(single, (4, 2, 1), mode="nearest")
    assert made.shape == single.shape
    assert made.sum() == pytest.approx(1000, rel=0.02)
    assert np.abs(made - wanted).max() < 0.1 * wanted.max()
