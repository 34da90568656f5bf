"""Every row of the table alters a scan as it says, and its truth along with it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import InapplicableError, SettingsError
from engines.robustness import alter, grids, looks
from engines.robustness.alter import ALTERATIONS, Alteration
from engines.robustness.subject import (
    FOUND,
    LEFT_OUT,
    TRUTH,
    Subject,
    subject_of,
)
from tests import phantoms

SHAPE = (60, 56, 30)
SPACING_MM = (2.0, 2.5, 2.0)
BY_NAME = {one.name: one for one in ALTERATIONS}
GRIDS = ("field", "slices", "orientation", "spacing")
LOOKS = [one for one in ALTERATIONS if one.kind not in GRIDS]


def subject(axes: str = "LPS", **where: Any) -> Subject:
    """Return a body with two vertebrae one above the other."""
    bone = phantoms.spine(SHAPE)
    upper = np.arange(SHAPE[2]) >= SHAPE[2] // 2
    labels = bone * np.where(upper, 20, 21).astype(np.uint8)
    place = {"axes": axes, "spacing_mm": SPACING_MM, **where}
    scan = phantoms.volume(phantoms.ct_values(SHAPE), **place)
    truth = phantoms.volume(labels, **place)
    return subject_of(scan, truth, np.ones(SHAPE, bool))


def marked(one: Subject, mark: int = TRUTH) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (one.marks.voxels & mark) > 0
    return found


def test_names_are_unique_and_told() -> None:
    assert len(BY_NAME) == len(ALTERATIONS)
    assert all(one.told and one.source for one in ALTERATIONS)


def test_by_default_a_few_orientations_are_tried() -> None:
    names = [one.name for one in alter.chosen()]

    assert sum(name.startswith("orientation-") for name in names) == 6
    assert {one.kind for one in alter.chosen()} == {one.kind for one in ALTERATIONS}


def test_all_48_orientations_can_be_asked_for() -> None:
    assert len(alter.chosen(["orientation-all"])) == 48
    assert [one.name for one in alter.chosen(["orientation-RAS"])] == [
        "orientation-RAS"
    ]
    assert len(alter.chosen(["orientation", "kernel"])) == 8


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="'rust'") as refused:
        alter.chosen(["rust"])
    assert "orientation-all" in refused.value.hint


def test_the_levels_are_those_of_two_neighbours() -> None:
    low, high = subject().levels_mm

    assert (low, high) == (pytest.approx(7 * 2.0), pytest.approx(22 * 2.0))


def test_a_truth_without_spine_is_refused() -> None:
    scan = phantoms.volume(phantoms.ct_values())
    empty = phantoms.volume(np.zeros(scan.grid.shape, np.uint8))

    with pytest.raises(InapplicableError, match="no spine"):
        subject_of(scan, empty, np.ones(scan.grid.shape, bool))


@pytest.mark.parametrize("one", LOOKS, ids=lambda one: one.name)
def test_looks_change_values_alone_and_the_same_each_time(one: Alteration) -> None:
    before = subject()

    after, again = one.of(before, 0), one.of(before, 0)

    assert after.scan.grid.matches(before.scan.grid)
    assert after.marks is before.marks
    assert after.scan.voxels.dtype == np.int16
    assert (after.scan.voxels != before.scan.voxels).any()
    np.testing.assert_array_equal(after.scan.voxels, again.scan.voxels)


@pytest.mark.parametrize("axes", phantoms.ORIENTATIONS)
def test_an_orientation_is_the_same_scan(axes: str) -> None:
    before = subject()

    after = BY_NAME[f"orientation-{axes}"].of(before, 0)

    assert after.scan.grid.axes == axes
    assert after.scan.grid.matches(after.marks.grid)
    back = grids.turned(after, before.scan.grid.axes)
    assert back.scan.grid.matches(before.scan.grid)
    np.testing.assert_array_equal(back.scan.voxels, before.scan.voxels)
    np.testing.assert_array_equal(back.marks.voxels, before.marks.voxels)


@pytest.mark.parametrize("size_mm", alter.SPACINGS_MM)
def test_spacing_keeps_what_lies_where(size_mm: float) -> None:
    before = subject(spacing_mm=(1.5, 1.5, 2.5))

    after = BY_NAME[f"spacing-{size_mm:g}mm"].of(before, 0)

    assert after.scan.grid.spacing_mm == pytest.approx((size_mm,) * 3)
    volumes = [
        marked(one).sum() * np.prod(one.scan.grid.spacing_mm) for one in (before, after)
    ]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.2)
    assert after.scan.voxels[marked(after)].mean() > 250


def test_the_same_spacing_is_no_alteration() -> None:
    with pytest.raises(InapplicableError, match="2 mm already"):
        grids.spaced(subject(spacing_mm=(2.0, 2.0, 2.0)), 2.0)


def test_a_grid_of_too_many_voxels_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "MOST_VOXELS", 1000)

    with pytest.raises(InapplicableError, match="million voxels"):
        grids.spaced(subject(), 1.0)


def test_a_thick_slice_is_the_mean_of_its_planes() -> None:
    before = subject(spacing_mm=(2.0, 2.0, 2.5))

    after = BY_NAME["slices-5mm"].of(before, 0)

    assert after.scan.grid.shape == (*SHAPE[:2], SHAPE[2] // 2)
    assert after.scan.grid.spacing_mm[2] == pytest.approx(5)
    pairs = before.scan.voxels.reshape(*SHAPE[:2], -1, 2).mean(axis=3)
    assert np.abs(after.scan.voxels - pairs).max() <= 0.5
    middles = [one.scan.grid.corners_mm().mean(axis=0) for one in (before, after)]
    np.testing.assert_allclose(middles[0], middles[1], atol=1e-6)


def test_thick_slices_get_no_thicker() -> None:
    with pytest.raises(InapplicableError, match="thick already"):
        BY_NAME["slices-5mm"].of(subject(spacing_mm=(1.0, 1.0, 5.0)), 0)


def test_a_box_is_cut_about_the_spine() -> None:
    before = subject()

    after = BY_NAME["field-box"].of(before, 0)

    assert after.scan.grid.shape[:2] == (round(90 / 2), round(90 / 2.5))
    inverse = np.linalg.inv(before.scan.grid.affine)
    start = np.rint(inverse @ after.scan.grid.affine[:, 3])[:3].astype(int)
    box = tuple(
        slice(s, s + n) for s, n in zip(start, after.scan.grid.shape, strict=True)
    )
    np.testing.assert_array_equal(after.scan.voxels, before.scan.voxels[box])
    assert marked(after).sum() == marked(before).sum()


def test_outside_a_circle_is_air_that_is_not_scored() -> None:
    before = subject()

    after = BY_NAME["field-circle"].of(before, 0)

    out = marked(after, LEFT_OUT)
    assert out[0, 0].all()
    assert (after.scan.voxels[out] == -1024).all()
    assert (after.scan.voxels[~out] == before.scan.voxels[~out]).all()
    assert not (out & marked(after)).any()


@pytest.mark.parametrize("name", ["field-box", "field-circle"])
def test_a_narrow_field_gets_no_narrower(name: str) -> None:
    with pytest.raises(InapplicableError, match="no wider than 90 mm"):
        BY_NAME[name].of(subject(spacing_mm=(0.5, 0.5, 2.0)), 0)


def test_noise_has_the_deviation_it_says() -> None:
    before = subject()

    added = BY_NAME["noise-60hu"].of(before, 0).scan.voxels - before.scan.voxels

    assert added[before.scan.voxels > looks.BODY_HU].std() == pytest.approx(
        60, rel=0.02
    )


def test_kernels_add_and_take_edges() -> None:
    before = subject()
    shown = [
        BY_NAME["kernel-soft"].of(before, 0),
        before,
        BY_NAME["kernel-sharp"].of(before, 0),
    ]
    soft, plain, sharp = (
        np.abs(np.diff(one.scan.voxels.astype(float), axis=0)).mean() for one in shown
    )

    assert soft < 0.95 * plain
    assert sharp > 1.05 * plain


def test_metal_lies_in_the_spine_at_its_levels() -> None:
    before = subject()

    for name in ("metal-screws", "metal-cage"):
        after = BY_NAME[name].of(before, 0)
        metal = after.scan.voxels > 2500
        heights = np.flatnonzero(metal.any(axis=(0, 1))) * SPACING_MM[2]
        low, high = before.levels_mm
        assert metal.any(), name
        assert low - 12 <= heights.min() <= heights.max() <= high + 12


def test_contrast_agent_leaves_the_bone_alone() -> None:
    before = subject()

    after = BY_NAME["contrast"].of(before, 0)

    added = after.scan.voxels.astype(int) - before.scan.voxels
    assert (added > 120).any()
    assert np.abs(added[marked(before)]).max() <= 1


def test_marks_follow_the_voxels() -> None:
    one = subject()
    twice = one.marks.voxels * np.uint8(TRUTH | FOUND)
    both = Subject(one.scan, one.marks.with_voxels(twice), one.levels_mm)

    for alteration in ALTERATIONS:
        try:
            after = alteration.of(both, 0)
        except InapplicableError:
            continue
        assert after.scan.grid.matches(after.marks.grid), alteration.name
        np.testing.assert_array_equal(marked(after), marked(after, FOUND))
