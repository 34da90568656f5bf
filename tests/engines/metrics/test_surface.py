"""Surface distances: by pencil, in pure Python, and against DeepMind's package."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage

from engines.metrics import surface, surfels
from engines.volume import read_mask
from tests import surface_oracle

DATA = Path(__file__).parents[2] / "data"
MASKS = ("tptbox_seg-vert_msk.nii.gz", "tsexample_seg-vert_msk.nii.gz")
SPACING = (0.7, 1.1, 2.5)
TOLERANCES = (0.0, 0.6151, 1.4142, 3.7183)
"""No sum of whole steps of any spacing here, but for 0, which nothing rounds to."""

Mask = NDArray[np.bool_]


def box(shape: Sequence[int], *along: tuple[int, int]) -> Mask:
    """Return a mask with the voxels ``start`` up to ``stop`` along each axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*ends) for ends in along)] = True
    return mask


def sphere(radius_mm: float, size: int, spacing: Sequence[float]) -> Mask:
    places = [
        (np.arange(math.ceil(size / mm)) - (math.ceil(size / mm) - 1) / 2) * mm
        for mm in spacing
    ]
    x, y, z = np.meshgrid(*places, indexing="ij")
    return np.asarray(x**2 + y**2 + z**2 <= radius_mm**2)


def told(
    prediction: Mask,
    truth: Mask,
    spacing: Sequence[float],
    tolerances: Sequence[float] = TOLERANCES,
) -> dict[str, float]:
    pair = surface.distances(prediction, truth, tuple(spacing))
    return {
        "hd": surface.hausdorff(pair),
        "hd95": surface.hausdorff_95(pair),
        "msd_truth": pair.truth.mean,
        "msd_prediction": pair.prediction.mean,
        **{f"nsd {mm}": surface.surface_dice(pair, mm) for mm in tolerances},
    }


def by_loops(
    prediction: Mask,
    truth: Mask,
    spacing: Sequence[float],
    tolerances: Sequence[float] = TOLERANCES,
) -> dict[str, float]:
    """Return the same, one corner after the other."""
    sides = [_elements(mask, spacing) for mask in (truth, prediction)]
    far = []
    for own, other in (sides, sides[::-1]):
        apart = [
            (min((math.dist(p, q) for q, _ in other), default=math.inf), size)
            for p, size in own
        ]
        far.append(sorted(apart))
    total = sum(size for side in far for _, size in side)
    return {
        "hd": max(_within_share(side, 1.0) for side in far),
        "hd95": max(_within_share(side, 0.95) for side in far),
        "msd_truth": _mean(far[0]),
        "msd_prediction": _mean(far[1]),
        **{
            f"nsd {mm}": sum(size for side in far for d, size in side if d <= mm)
            / total
            for mm in tolerances
        },
    }


def _elements(
    mask: Mask, spacing: Sequence[float]
) -> list[tuple[tuple[float, ...], float]]:
    if mask.ndim == 3:
        sizes = surface_oracle.areas_mm2(spacing).tolist()
        bits = surfels.CORNERS_3D
    else:
        sizes = surface_oracle.lengths_mm(spacing).tolist()
        bits = surfels.CORNERS_2D
    found = []
    for place in product(*(range(count + 1) for count in mask.shape)):
        code = 0
        for corner in product((0, 1), repeat=mask.ndim):
            voxel = tuple(p - 1 + c for p, c in zip(place, corner, strict=True))
            inside = all(
                0 <= v < n for v, n in zip(voxel, mask.shape, strict=True)
            ) and bool(mask[voxel])
            code += int(bits[corner]) * inside
        if 0 < code < len(sizes) - 1:
            point = tuple(p * mm for p, mm in zip(place, spacing, strict=True))
            found.append((point, sizes[code]))
    return found


def _within_share(side: list[tuple[float, float]], share: float) -> float:
    if not side:
        return math.inf
    total, reached = sum(size for _, size in side), 0.0
    for distance, size in side:
        reached += size / total
        if reached >= share - 1e-12:
            return distance
    return side[-1][0]


def _mean(side: list[tuple[float, float]]) -> float:
    total = sum(size for _, size in side)
    return sum(d * size for d, size in side) / total if total else math.inf


def test_two_voxels_apart_by_pencil() -> None:
    truth = box((9, 3, 3), (1, 2), (1, 2), (1, 2))
    prediction = box((9, 3, 3), (5, 6), (1, 2), (1, 2))

    pair = surface.distances(prediction, truth, SPACING)

    # Each voxel has four corners near the other, 3 steps away, and four 4 away.
    assert surface.hausdorff(pair) == pytest.approx(4 * 0.7)
    assert surface.hausdorff_95(pair) == pytest.approx(4 * 0.7)
    assert pair.truth.mean == pytest.approx(3.5 * 0.7)
    assert pair.prediction.mean == pytest.approx(3.5 * 0.7)
    assert surface.average(pair) == pytest.approx(3.5 * 0.7)
    assert surface.surface_dice(pair, 3.5 * 0.7) == pytest.approx(0.5)
    assert surface.surface_dice(pair, 2.9 * 0.7) == 0
    assert surface.surface_dice(pair, 4.1 * 0.7) == 1


def test_the_surface_of_a_box_by_pencil() -> None:
    counts = (5, 4, 3)
    mask = box((7, 6, 5), (1, 6), (1, 5), (1, 4))
    i, j, k = SPACING
    a, b, c = (count - 1 for count in counts)
    faces = 2 * (b * c * j * k + a * c * i * k + a * b * i * j)
    bevels = a * i * math.hypot(j, k) + b * j * math.hypot(i, k)
    bevels += c * k * math.hypot(i, j)
    corners = math.hypot(j * k, i * k, i * j)

    pair = surface.distances(mask, mask, SPACING)

    assert pair.truth.size == pytest.approx(faces + 2 * bevels + corners)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_shifted_box_is_as_far_as_it_was_shifted(axis: int, steps: int) -> None:
    truth = box((14, 13, 12), (2, 8), (2, 8), (2, 8))
    shifted = np.roll(truth, steps, axis)

    found = told(shifted, truth, SPACING)

    assert found["hd"] == pytest.approx(steps * SPACING[axis])
    assert found["msd_truth"] == pytest.approx(found["msd_prediction"])


def test_a_box_in_a_box_by_pencil() -> None:
    truth = box((12, 12, 12), (1, 11), (1, 11), (1, 11))
    prediction = box((12, 12, 12), (2, 10), (2, 10), (2, 10))

    pair = surface.distances(prediction, truth, SPACING)

    assert surface.hausdorff(pair) == pytest.approx(math.hypot(*SPACING))
    assert pair.prediction.largest == pytest.approx(2.5)  # amid the face across K
    assert pair.prediction.distances[0] == pytest.approx(0.7)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.4, 0.5, 0.8)])
def test_concentric_spheres_are_the_difference_of_their_radii_apart(
    spacing: tuple[float, float, float],
) -> None:
    small, large = sphere(6, 22, spacing), sphere(9, 22, spacing)

    pair = surface.distances(small, large, spacing)

    voxel = max(spacing)
    assert pair.truth.mean == pytest.approx(3, abs=0.6 * voxel)
    assert pair.prediction.mean == pytest.approx(3, abs=0.6 * voxel)
    assert surface.hausdorff(pair) == pytest.approx(3, abs=voxel)
    assert surface.surface_dice(pair, 3 - 2 * voxel) == 0
    assert surface.surface_dice(pair, 3 + 2 * voxel) == 1
    assert large.sum() * math.prod(spacing) == pytest.approx(
        4 / 3 * math.pi * 9**3, rel=0.01
    )
    # Marching cubes on a binary mask overrates a sphere by about a tenth.
    assert pair.truth.size == pytest.approx(4 * math.pi * 9**2, rel=0.12)


def test_shifted_squares_by_pencil() -> None:
    truth = box((9, 9), (1, 5), (1, 5))
    prediction = box((9, 9), (1, 5), (4, 8))

    found = told(prediction, truth, (1.0, 1.0))

    assert (found["hd"], found["msd_truth"]) == (3, found["msd_prediction"])


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5)])
def test_one_empty_mask_is_infinitely_far_away(shape: tuple[int, ...]) -> None:
    full, empty = np.ones(shape, bool), np.zeros(shape, bool)

    for prediction, truth in ((empty, full), (full, empty)):
        found = told(prediction, truth, SPACING[: len(shape)])
        assert {found[name] for name in ("hd", "hd95")} == {math.inf}
        assert {found[name] for name in ("msd_truth", "msd_prediction")} == {math.inf}
        assert {v for name, v in found.items() if name.startswith("nsd")} == {0}
        pair = surface.distances(prediction, truth, SPACING[: len(shape)])
        assert surface.average(pair) == math.inf


def test_two_empty_masks_are_never_taken_for_a_perfect_pair() -> None:
    empty = np.zeros((3, 3, 3), bool)

    pair = surface.distances(empty, empty, SPACING)

    assert (surface.hausdorff(pair), surface.average(pair)) == (math.inf, math.inf)
    assert surface.surface_dice(pair, 1.0) == 0


def test_a_mask_against_itself_is_exact() -> None:
    mask = np.random.default_rng(0).random((6, 5, 4)) < 0.4

    pair = surface.distances(mask, mask, SPACING)

    assert (surface.hausdorff(pair), surface.average(pair)) == (0, 0)
    assert surface.surface_dice(pair, 0) == 1


def test_the_share_within_counts_area_and_not_elements() -> None:
    side = surface.Side(np.array([0.0, 1.0, 2.0]), np.array([94.0, 2.0, 4.0]))

    assert side.percentile(0.94) == 0
    assert side.percentile(0.95) == 1
    assert side.percentile(0.97) == 2
    assert side.mean == pytest.approx(0.1)
    assert side.within(1.0) == 96


def test_the_average_is_over_both_surfaces_together() -> None:
    far = surface.Side(np.array([4.0]), np.array([1.0]))
    near = surface.Side(np.array([1.0]), np.array([3.0]))

    assert surface.average(surface.Distances(far, near)) == pytest.approx(7 / 4)


@pytest.mark.parametrize(("step_mm", "steps"), [(0.2, 5), (0.1, 3), (0.7, 3)])
def test_what_is_as_far_as_the_tolerance_is_within_it_wherever_it_lies(
    step_mm: float, steps: int
) -> None:
    spacing, tolerance = (step_mm, 10.0, 10.0), steps * step_mm
    shares = []
    for start in range(12):
        truth = box((20, 1, 1), (start, start + 1), (0, 1), (0, 1))
        prediction = np.roll(truth, steps, 0)
        pair = surface.distances(prediction, truth, spacing)
        shares.append(surface.surface_dice(pair, tolerance))
        oracle = surface_oracle.measured(prediction, truth, spacing, [tolerance])
        assert oracle[f"nsd {tolerance}"] == 1

    assert shares == [1] * 12


masks_3d = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6).flatmap(
    lambda shape: st.tuples(*[arrays.arrays(bool, shape)] * 2)
)
masks_2d = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(
    lambda shape: st.tuples(*[arrays.arrays(bool, shape)] * 2)
)
millimetres = st.sampled_from([0.3, 0.7, 0.9765625, 1.0, 1.1, 2.5, 3.0])


def _agrees(masks: tuple[Mask, Mask], spacing: Sequence[float]) -> None:
    if not (masks[0].any() and masks[1].any()):
        return
    wanted = surface_oracle.measured(*masks, spacing, TOLERANCES)
    assert told(*masks, spacing) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


@given(masks_3d, st.tuples(millimetres, millimetres, millimetres))
@settings(max_examples=250)
def test_random_volumes_agree_with_the_package(
    masks: tuple[Mask, Mask], spacing: tuple[float, float, float]
) -> None:
    _agrees(masks, spacing)


@given(masks_2d, st.tuples(millimetres, millimetres))
@settings(max_examples=250)
def test_random_slices_agree_with_the_package(
    masks: tuple[Mask, Mask], spacing: tuple[float, float]
) -> None:
    _agrees(masks, spacing)


tiny = st.one_of(
    arrays.array_shapes(min_dims=dims, max_dims=dims, min_side=1, max_side=3).flatmap(
        lambda shape: st.tuples(*[arrays.arrays(bool, shape)] * 2)
    )
    for dims in (2, 3)
).filter(lambda masks: bool(masks[0].any() or masks[1].any()))


@given(tiny)
@settings(max_examples=60)
def test_tiny_masks_agree_with_loops(masks: tuple[Mask, Mask]) -> None:
    spacing = SPACING[: masks[0].ndim]

    wanted = by_loops(*masks, spacing)

    assert told(*masks, spacing) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@given(masks_3d)
@settings(max_examples=40)
def test_exchanged_masks_exchange_the_directions(masks: tuple[Mask, Mask]) -> None:
    one, other = (surface.distances(*pair, SPACING) for pair in (masks, masks[::-1]))

    np.testing.assert_array_equal(one.truth.distances, other.prediction.distances)
    np.testing.assert_array_equal(one.prediction.sizes, other.truth.sizes)


@given(masks_3d, st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=60)
def test_turned_masks_have_the_same_distances(
    masks: tuple[Mask, Mask], axes: list[int], flipped: tuple[bool, bool, bool]
) -> None:
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flipped)
    turned = [mask.transpose(axes)[turn] for mask in masks]

    found = told(turned[0], turned[1], [SPACING[axis] for axis in axes])

    assert found == pytest.approx(told(*masks, SPACING), rel=1e-9, abs=1e-12)


@given(masks_3d)
@settings(max_examples=40)
def test_background_around_changes_nothing(masks: tuple[Mask, Mask]) -> None:
    padded = [np.pad(mask, ((3, 0), (1, 2), (0, 4))) for mask in masks]

    assert told(padded[0], padded[1], SPACING) == pytest.approx(
        told(*masks, SPACING), rel=1e-9, abs=1e-12
    )


def _shifted(labels: NDArray[Any], label: int) -> Mask:
    return np.asarray(np.roll(labels == label, (1, -2, 1), (0, 1, 2)))


def _eroded(labels: NDArray[Any], label: int) -> Mask:
    return ndimage.binary_erosion(labels == label)


def _relabelled(labels: NDArray[Any], label: int) -> Mask:
    """Return the neighbour that was taken for this vertebra, and half of it."""
    taken = labels == label
    taken[: len(taken) // 2] = False
    present = np.unique(labels[labels > 0])
    return np.asarray(taken | (labels == present[present != label][0]))


@pytest.mark.parametrize("change", [_shifted, _eroded, _relabelled])
@pytest.mark.parametrize("name", MASKS)
def test_real_masks_agree_with_the_package(name: str, change: Any) -> None:
    mask = read_mask(DATA / name)
    spacing = mask.grid.spacing_mm

    for label in np.unique(mask.voxels[mask.voxels > 0]).tolist():
        truth, prediction = mask.voxels == label, change(mask.voxels, label)
        if not prediction.any():
            continue
        wanted = surface_oracle.measured(prediction, truth, spacing, TOLERANCES)
        assert told(prediction, truth, spacing) == pytest.approx(wanted, rel=1e-6)
