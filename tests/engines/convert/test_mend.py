"""Repairs have closed forms: lines stay lines, sheared bodies stand upright."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.convert.assemble import Assembled, assemble
from engines.convert.findings import Repairs
from engines.errors import (
    SeriesGapError,
    TiltError,
    UnevenSlicesError,
    UnsupportedError,
)
from engines.volume import Volume
from tests import dicom_phantoms as made
from tests import phantoms

STEP_MM = phantoms.SPACING_MM[2]


def ramp(count: int = 9) -> Volume:
    """Return voxels that grow by 40 HU from slice to slice."""
    plane = np.arange(42, dtype=np.int16).reshape(7, 6)
    slices = 40 * np.arange(count, dtype=np.int16)
    return phantoms.volume(plane[:, :, None] + slices, "LPS")


def converted(
    folder: Path,
    scan: Volume,
    repairs: Repairs,
    keep: Sequence[int],
    edit: made.Edit = made.as_is,
) -> Assembled:
    paths = phantoms.write_dicom(folder, scan, edit=edit)
    return assemble(made.stack_of([paths[number] for number in keep]), repairs)


@pytest.mark.parametrize("axes", ["LPS", "PSL", "RAI"])
@pytest.mark.parametrize("missing", [[4], [3, 4, 5], [1, 4, 7], [7]])
def test_gaps_in_a_ramp_are_filled_exactly(
    tmp_path: Path, axes: str, missing: list[int]
) -> None:
    scan = phantoms.volume(ramp().voxels, axes, turned_deg=(4, 9, -3))
    keep = [number for number in range(9) if number not in missing]
    whole = assemble(made.stack_of(phantoms.write_dicom(tmp_path / "whole", scan)))
    done = converted(tmp_path / "part", scan, Repairs(allow_gaps=True), keep)

    np.testing.assert_array_equal(done.voxels, whole.voxels)
    np.testing.assert_allclose(done.grid.affine, whole.grid.affine, atol=1e-9)
    flipped = [8 - number for number in reversed(missing)]
    forwards = np.array_equal(whole.voxels, scan.voxels)
    assert done.repairs == {"filled_slices": missing if forwards else flipped}
    (note,) = done.warnings
    assert note.code == "series_gap"
    assert f"{len(missing)} slice(s) missing" in note.message


def test_gaps_are_refused_without_leave(tmp_path: Path) -> None:
    with pytest.raises(SeriesGapError, match=r"1 slice\(s\) missing in 1 gap\(s\)"):
        converted(tmp_path, ramp(), Repairs(fix_tilt=True), [0, 1, 2, 4, 5])


def test_original_slices_between_gaps_are_untouched(tmp_path: Path) -> None:
    values = np.random.default_rng(5).integers(-1000, 2000, (7, 6, 9), np.int16)
    scan = ramp().with_voxels(values)
    keep = [0, 1, 3, 4, 7, 8]
    done = converted(tmp_path, scan, Repairs(allow_gaps=True), keep)

    np.testing.assert_array_equal(done.voxels[:, :, keep], values[:, :, keep])
    np.testing.assert_allclose(
        done.voxels[:, :, 2], values[:, :, [1, 3]].mean(axis=2), atol=0.5
    )
    thirds = (2 * values[:, :, 4].astype(float) + values[:, :, 7]) / 3
    np.testing.assert_allclose(done.voxels[:, :, 5], thirds, atol=0.51)


def _uneven(heights: Sequence[float]) -> tuple[Volume, made.Edit]:
    """Return a ramp that is sampled at other heights, in steps, than it was."""
    shifts = {n: (0, 0, (h - n) * STEP_MM) for n, h in enumerate(heights)}
    plane = np.arange(42.0).reshape(7, 6)
    values = plane[:, :, None] + 40 * np.array(heights)
    return phantoms.volume(np.rint(values).astype(np.int16), "LPS"), made.moved(shifts)


@pytest.mark.parametrize(
    ("heights", "count"),
    [
        ([0, 1, 2, 3.5, 5], 6),
        ([0, 1.5, 2.5, 3.5, 5], 6),
        ([0, 1, 2, 2.5, 3, 3.5, 4], 9),
        ([0, 1, 2, 2.1, 3, 4, 5], 14),
    ],
)
def test_uneven_slices_of_a_ramp_are_regridded_exactly(
    tmp_path: Path, heights: list[float], count: int
) -> None:
    scan, edit = _uneven(heights)
    done = converted(tmp_path, scan, Repairs(regrid=True), range(len(heights)), edit)

    assert done.planes.shape == (7, 6, count)
    places = np.linspace(0, heights[-1], count)
    plane = np.arange(42.0).reshape(7, 6)
    wanted = plane[:, :, None] + 40 * places
    np.testing.assert_allclose(done.voxels, wanted, atol=0.51)
    step_mm = heights[-1] * STEP_MM / (count - 1)
    assert done.grid.spacing_mm == pytest.approx((0.7, 1.1, step_mm))
    np.testing.assert_allclose(done.grid.affine[:, 3], scan.grid.affine[:, 3])


def test_what_was_regridded_is_recorded(tmp_path: Path) -> None:
    scan, edit = _uneven([0, 1, 2, 3.5, 5])
    done = converted(tmp_path, scan, Repairs(regrid=True), range(5), edit)

    assert done.repairs == {
        "uneven_steps_mm": [2.5, 2.5, 3.75, 3.75],
        "step_mm": 2.5,
    }
    (note,) = done.warnings
    assert note.message == "slices are unevenly spaced, 2.50 and 3.75 mm apart"


def test_uneven_slices_are_refused_without_leave(tmp_path: Path) -> None:
    scan, edit = _uneven([0, 1, 2, 3.5, 5])

    with pytest.raises(UnevenSlicesError, match=r"2\.50 and 3\.75 mm apart"):
        converted(tmp_path, scan, Repairs(allow_gaps=True), range(5), edit)


def test_regridding_fills_gaps_too(tmp_path: Path) -> None:
    done = converted(tmp_path, ramp(), Repairs(regrid=True), [0, 1, 2, 5, 6, 7, 8])

    np.testing.assert_array_equal(done.voxels, ramp().voxels)
    assert done.repairs == {"filled_slices": [3, 4]}


def _leaning(pixels_per_slice: float, count: int = 6) -> tuple[Volume, made.Edit]:
    """Return slices of an upright body as a tilted gantry takes them.

    The body is a ramp down the columns and over the slices; each slice is shifted by
    so many pixels, and its position says so.
    """
    rows = np.arange(12)
    shifts = pixels_per_slice * np.arange(count)
    down = 20 * (rows[:, None] + shifts)
    values = np.broadcast_to(down + 7 * np.arange(count), (5, 12, count))
    scan = phantoms.volume(np.rint(values).astype(np.int16), "LPS")
    edit = made.moved({n: (0, shifts[n] * 1.1, 0) for n in range(count)})
    return scan, edit


@pytest.mark.parametrize("pixels", [1.0, -1.0, 0.5, 0.3, -0.45])
def test_tilted_body_comes_back_upright(tmp_path: Path, pixels: float) -> None:
    scan, edit = _leaning(pixels)
    done = converted(tmp_path, scan, Repairs(fix_tilt=True), range(6), edit)

    assert done.grid.axes == "LPS"
    assert done.grid.spacing_mm == pytest.approx(phantoms.SPACING_MM)
    angle_deg = np.degrees(np.arctan(abs(pixels) * 1.1 / STEP_MM))
    assert done.repairs["tilt_deg"] == pytest.approx(angle_deg, abs=1e-3)
    assert done.repairs["tilt_padding_pixels"] == [0, np.ceil(abs(pixels) * 5 - 0.2)]
    values, body = _upright(done)
    wanted, rows = _wanted(done, scan)
    assert body.sum() > 5 * 6 * 10
    np.testing.assert_allclose(values[body], wanted[body], atol=0.51)
    assert rows == pytest.approx(0, abs=1e-9)


def _upright(done: Assembled) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return voxels and which of them no slice left outside."""
    values = done.voxels.astype(float)
    body = values > values.min()
    body[:, 1:] &= body[:, :-1] | (np.arange(1, values.shape[1]) < 2)[None, :, None]
    return values, body


def _wanted(done: Assembled, scan: Volume) -> tuple[NDArray[np.float64], float]:
    """Return the body's own values at each voxel of the upright grid."""
    columns, rows, count = done.planes.shape
    apart = np.linalg.inv(scan.grid.affine) @ done.grid.affine
    start = apart[1, 3]
    values = 20 * (start + np.arange(rows)[:, None]) + 7 * np.arange(count)
    return np.broadcast_to(values, (columns, rows, count)), apart[0, 3]


def test_whole_pixels_of_tilt_are_shifted_without_interpolation(
    tmp_path: Path,
) -> None:
    values = np.random.default_rng(7).integers(-900, 2000, (5, 12, 6), np.int16)
    scan = phantoms.volume(values, "LPS")
    edit = made.moved({n: (0, n * 1.1, 0) for n in range(6)})
    done = converted(tmp_path, scan, Repairs(fix_tilt=True), range(6), edit)

    assert done.planes.shape == (5, 17, 6)
    for number in range(6):
        made_slice = done.voxels[:, :, number]
        np.testing.assert_array_equal(
            made_slice[:, number : number + 12], values[:, :, number]
        )
        outside = np.delete(made_slice, range(number, number + 12), axis=1)
        assert (outside == values.min()).all()


def test_a_slice_that_was_shifted_sideways_is_shifted_back(tmp_path: Path) -> None:
    values = np.random.default_rng(8).integers(-900, 2000, (7, 6, 5), np.int16)
    edit = made.moved({2: (1.4, 0, 0)})
    scan = phantoms.volume(values, "LPS")
    done = converted(tmp_path, scan, Repairs(fix_tilt=True), range(5), edit)

    assert done.planes.shape == (9, 6, 5)
    np.testing.assert_array_equal(done.voxels[2:, :, 2], values[:, :, 2])
    for number in (0, 1, 3, 4):
        np.testing.assert_array_equal(done.voxels[:7, :, number], values[:, :, number])


def test_tilt_and_gap_are_mended_together(tmp_path: Path) -> None:
    scan, edit = _leaning(1.0, 8)
    both = Repairs(fix_tilt=True, allow_gaps=True)
    whole = converted(tmp_path / "a", scan, both, range(8), edit)
    done = converted(tmp_path / "b", scan, both, [0, 1, 2, 4, 5, 6, 7], edit)

    assert set(done.repairs) == {"tilt_deg", "tilt_padding_pixels", "filled_slices"}
    inside = np.s_[:, 5:11, 3]
    np.testing.assert_array_equal(done.voxels[inside], whole.voxels[inside])
    np.testing.assert_allclose(done.grid.affine, whole.grid.affine, atol=1e-9)
    with pytest.raises(TiltError, match=r"gantry tilt.*; 1 slice\(s\) missing"):
        converted(tmp_path / "c", scan, Repairs(), [0, 1, 2, 4, 5, 6, 7], edit)


@pytest.mark.parametrize("hold", [True, False])
def test_a_fourth_axis_is_mended_volume_by_volume(
    tmp_path: Path, *, hold: bool
) -> None:
    first = ramp()
    second = first.with_voxels(first.voxels + 11)
    paths = made.write_marked(tmp_path, [first, second], "temporal")
    stack = made.stack_of([path for n, path in enumerate(paths) if n % 9 != 4])
    done = assemble(stack, Repairs(allow_gaps=True), hold=hold)

    np.testing.assert_array_equal(done.voxels[..., 0], first.voxels)
    np.testing.assert_array_equal(done.voxels[..., 1], second.voxels)


def test_values_with_a_fraction_are_not_rounded(tmp_path: Path) -> None:
    scan = ramp().with_voxels(ramp().voxels + np.float32(0.25))
    paths = phantoms.write_dicom(tmp_path, scan, slope=0.25)
    done = assemble(made.stack_of(paths[:3] + paths[4:]), Repairs(allow_gaps=True))

    assert done.planes.dtype == np.float32
    np.testing.assert_array_equal(done.voxels, scan.voxels)


def test_colour_is_not_interpolated(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, ramp(), edit=made.as_colour)

    with pytest.raises(UnsupportedError, match="colour slices cannot be interpolated"):
        assemble(made.stack_of(paths[:3] + paths[4:]), Repairs(allow_gaps=True))


def test_absurd_shear_is_refused(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=made.tilted(85))

    with pytest.raises(
        UnsupportedError, match=r"shearing it would need 7 x \d+ pixels"
    ):
        assemble(made.stack_of(paths), Repairs(fix_tilt=True))


def test_leave_that_is_not_needed_changes_nothing(tmp_path: Path) -> None:
    stack = made.stack_of(phantoms.write_dicom(tmp_path, made.ct()))
    everything = Repairs(
        allow_gaps=True,
        regrid=True,
        fix_tilt=True,
        allow_few_slices=True,
        allow_slopes=True,
        duplicates="first",
    )
    done = assemble(stack, everything)

    np.testing.assert_array_equal(done.voxels, made.ct().voxels)
    assert (dict(done.repairs), done.warnings) == ({}, ())
