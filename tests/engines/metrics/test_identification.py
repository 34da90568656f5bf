"""Which vertebrae carry the right name, by VerSe's rule."""

import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import MaskError
from engines.metrics.identification import (
    Identified,
    centres_of,
    identify,
    read_centres,
)
from tests import phantoms

T12, L1, L2 = 19, 20, 21


def column(**heights_mm: float) -> dict[int, NDArray[np.float64]]:
    """Return centres one above the other."""
    ids = {"T12": T12, "L1": L1, "L2": L2}
    return {ids[name]: np.array([1.0, 2.0, z]) for name, z in heights_mm.items()}


TRUTH = column(T12=0, L1=-30, L2=-60)


def write(path: Path, directions: Sequence[str], *rows: Sequence[float]) -> Path:
    points = [dict(zip(("label", "X", "Y", "Z"), row, strict=True)) for row in rows]
    path.write_text(json.dumps([{"direction": list(directions)}, *points]))
    return path


def test_the_same_centres_are_all_identified() -> None:
    found = identify(TRUTH, TRUTH)

    assert found == Identified({T12: 0.0, L1: 0.0, L2: 0.0}, (T12, L1, L2), 3)
    assert (found.rate, found.mean_error_mm) == (1, 0)


@pytest.mark.parametrize(("off_mm", "hit"), [(20.0, True), (20.001, False)])
def test_a_centre_may_be_off_by_twenty_millimetres(off_mm: float, hit: bool) -> None:
    found = identify(column(L1=-30 + off_mm), column(L1=-30))

    assert found.hits == ((L1,) if hit else ())
    assert found.error_mm[L1] == pytest.approx(off_mm)


@pytest.mark.parametrize(("off_mm", "hit"), [(14.9, True), (15.1, False)])
def test_no_other_true_centre_may_be_closer(off_mm: float, hit: bool) -> None:
    found = identify(column(L1=-30 - off_mm), TRUTH)

    assert found.hits == ((L1,) if hit else ())


def test_a_shift_by_one_level_identifies_none() -> None:
    found = identify(column(T12=-30, L1=-60), TRUTH)

    assert (found.hits, found.rate) == ((), 0)
    assert found.mean_error_mm == pytest.approx(30)


def test_a_vertebra_that_is_not_predicted_is_not_identified() -> None:
    found = identify(column(L1=-30), TRUTH)

    assert (found.hits, found.rate) == ((L1,), pytest.approx(1 / 3))
    assert found.mean_error_mm == 0


def test_a_vertebra_that_is_not_there_has_no_error() -> None:
    found = identify(TRUTH, column(L1=-30))

    assert found == Identified({L1: 0.0}, (L1,), 1)


def test_sacrum_and_coccyx_are_not_identified(tmp_path: Path) -> None:
    scan = phantoms.volume()
    labels = np.zeros(scan.grid.shape, np.uint8)
    labels[1, 1, 1], labels[3, 3, 3], labels[5, 5, 4] = L1, 26, 27
    path = write(tmp_path / "a_ctd.json", "RAS", (L1, 1, 1, 1), (26, 3, 3, 3))

    assert set(centres_of(labels, scan.grid.affine)) == {L1}
    assert set(read_centres(path, scan.grid)) == {L1}


def test_without_vertebrae_there_is_nothing_to_be_right_about() -> None:
    assert (identify({}, {}).rate, identify({}, {}).mean_error_mm) == (0, None)
    assert identify({}, TRUTH).as_json() == {
        "rate": 0,
        "mean_error_mm": None,
        "identified": 0,
        "vertebrae": 3,
        "errors_mm": {},
    }


def test_the_record_names_vertebrae() -> None:
    assert identify(column(L1=-25), TRUTH).as_json()["errors_mm"] == {"L1": 5.0}


@pytest.mark.parametrize("axes", phantoms.ORIENTATIONS)
def test_centres_of_mass_by_pencil(axes: str) -> None:
    labels = np.zeros(phantoms.SHAPE, np.uint8)
    labels[1:4, 2:4, 3] = L1
    affine = phantoms.affine(axes, turned_deg=(10, 20, 30))

    centres = centres_of(labels, affine)

    assert list(centres) == [L1]
    wanted = affine @ [2, 2.5, 3, 1]
    np.testing.assert_allclose(centres[L1], wanted[:3], atol=1e-9)


def test_what_is_no_vertebra_has_no_centre() -> None:
    labels = np.zeros(phantoms.SHAPE, np.uint8)
    labels[0, 0, 0], labels[1, 1, 1] = 99, L2

    assert list(centres_of(labels, np.eye(4))) == [L2]


@pytest.mark.parametrize(
    ("axes", "told"), [*product(["RAS", "PIR", "LPS"], phantoms.ORIENTATIONS)]
)
def test_centres_are_read_along_any_axes(tmp_path: Path, axes: str, told: str) -> None:
    grid = phantoms.volume(axes=axes).grid
    index = np.array([1.5, 2.0, 3.25])
    point = _along(index, axes, grid.shape, told)

    found = read_centres(write(tmp_path / "a_ctd.json", told, (L1, *point)), grid)

    wanted = grid.affine[:3, :3] @ index + grid.affine[:3, 3]
    np.testing.assert_allclose(found[L1], wanted, atol=1e-9)


def _along(
    index: NDArray[np.float64], axes: str, shape: Sequence[int], told: str
) -> list[float]:
    """Return ``index`` counted along the axes ``told`` instead of ``axes``."""
    opposite = dict(zip("RLAPIS", "LRPASI", strict=True))
    point = []
    for code in told:
        if code in axes:
            point.append(float(index[axes.index(code)]))
        else:
            axis = axes.index(opposite[code])
            point.append(float(shape[axis] - 1 - index[axis]))
    return point


def test_centres_of_anything_but_vertebrae_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a_ctd.json", "RAS", (L1, 1, 2, 3), (143, 1, 2, 3))

    assert list(read_centres(path, phantoms.volume().grid)) == [L1]


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        "{}",
        "3",
        '[{"direction": ["R", "A"]}]',
        '[{"direction": ["R", "R", "S"]}]',
        '[{"direction": ["X", "Y", "Z"]}]',
        '[{"direction": 3}]',
        '[{"direction": ["R", "A", "S"]}, {"label": 20, "X": 1, "Y": 2}]',
        '[{"direction": ["R", "A", "S"]}, {"label": "L1", "X": 1, "Y": 2, "Z": 3}]',
        '[{"direction": ["R", "A", "S"]}, {"label": 20, "X": null, "Y": 2, "Z": 3}]',
        '[{"direction": ["R", "A", "S"]}, {"label": 20, "X": NaN, "Y": 2, "Z": 3}]',
        '[{"direction": ["R", "A", "S"]}, {"label": 20, "X": [1], "Y": 2, "Z": 3}]',
        '[{"direction": ["R", "A", "S"]}, [20, 1, 2, 3]]',
        '[["direction"]]',
        "[null]",
    ],
)
def test_what_is_no_centroid_file_is_refused_by_name(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "a_ctd.json"
    path.write_text(content)

    with pytest.raises(MaskError, match=r"a_ctd\.json: not a centroid file"):
        read_centres(path, phantoms.volume().grid)


def test_a_file_without_vertebrae_has_no_centres(tmp_path: Path) -> None:
    found: dict[int, Any] = dict(
        read_centres(write(tmp_path / "a_ctd.json", "RAS"), phantoms.volume().grid)
    )

    assert found == {}


def test_the_mean_error_is_that_of_all_that_both_have() -> None:
    found = identify(column(L1=-33, L2=-64), TRUTH)

    assert found.mean_error_mm == pytest.approx((3 + 4) / 2)
    assert math.isfinite(found.rate)
