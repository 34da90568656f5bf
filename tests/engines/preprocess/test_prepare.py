"""A prepared scan lies where it lay, and its values can be brought back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from engines.errors import MaskError, UnreadableError, UnsupportedError
from engines.geometry import Grid
from engines.preprocess import recipe
from engines.preprocess.modality import admit, guess_modality
from engines.preprocess.orient import reorient
from engines.preprocess.prepare import prepare, prepare_mask, target_grid
from engines.preprocess.recipe import NORMALISATION_NAMES, RECIPES, Recipe
from engines.preprocess.restore import remaining, to_hounsfield
from engines.segment import inference
from engines.volume import Volume, read_mask, write_nifti
from tests import phantoms

DATA = Path(__file__).parents[2] / "data"


def scan(axes: str = "PIR") -> Volume:
    """Return a body whose spine lies left and behind, turned a little."""
    body = phantoms.volume(
        phantoms.ct_values(), spacing_mm=(4, 5, 6), turned_deg=(4, -6, 3)
    )
    return reorient(body, axes)


def centre_mm(held: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Return the centre of the voxels that are set, in world coordinates."""
    index = np.argwhere(held).mean(axis=0)
    placed: NDArray[Any] = grid.affine[:3, :3] @ index + grid.affine[:3, 3]
    return placed


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SRA"])
def test_recipe_leaves_the_spine_in_place(name: str, axes: str) -> None:
    made = prepare(scan(axes), RECIPES[name]).volume
    hounsfield = to_hounsfield(made).voxels

    where = centre_mm(hounsfield > 250, made.grid)
    original = scan(axes)
    wanted = centre_mm(original.voxels > 250, original.grid)
    assert np.linalg.norm(where - wanted) < 2
    assert made.grid.axes == "RAS"
    assert made.voxels.dtype == np.float32


@pytest.mark.parametrize(
    ("modality", "shape"), [("ct", (32, 32, 16)), ("mr", (24, 32, 32))]
)
def test_resize_is_within_the_slice(modality: str, shape: tuple[int, int, int]) -> None:
    made = prepare(scan(), recipe.adjusted(None, modality, size=32)).volume

    assert made.grid.shape == made.voxels.shape == shape
    sides_mm = np.multiply(made.grid.shape, made.grid.spacing_mm)
    np.testing.assert_allclose(sides_mm, (24 * 4, 20 * 5, 16 * 6))


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "SLA"])
def test_resize_follows_the_orientation(orientation: str) -> None:
    how = recipe.adjusted(None, "ct", orientation, size=32)
    made = prepare(scan(), how).volume

    assert made.grid.axes == orientation
    for count, code in zip(made.grid.shape, orientation, strict=True):
        assert count == (16 if code in "IS" else 32)


def test_spacing_is_the_one_asked_for() -> None:
    made = prepare(scan(), recipe.adjusted(None, spacing_mm=3.0)).volume

    assert made.grid.spacing_mm == pytest.approx((3, 3, 3))
    assert made.grid.shape == (32, 33, 32)


@pytest.mark.parametrize("normalisation", NORMALISATION_NAMES)
def test_units_come_back_through_a_file(tmp_path: Path, normalisation: str) -> None:
    how = recipe.adjusted("chasppra-2023", size=0, normalisation=normalisation)
    made = prepare(scan(), how).volume
    write_nifti(tmp_path / "x_ct.nii.gz", made.voxels, made, made.provenance)
    back = to_hounsfield(Volume.read(tmp_path / "x_ct.nii.gz"))

    turned = prepare(scan(), recipe.adjusted(None)).volume.voxels
    low = 0 if normalisation == "maximum" else -1000
    np.testing.assert_allclose(back.voxels, turned.clip(low, 800), atol=0.01)
    assert to_hounsfield(back).voxels is back.voxels


def test_nothing_to_do_keeps_int16_and_every_value() -> None:
    made = prepare(scan(), recipe.adjusted(None, orientation="PIR")).volume

    assert made.voxels.dtype == np.int16
    np.testing.assert_array_equal(made.voxels, scan().voxels)
    np.testing.assert_allclose(made.grid.affine, scan().grid.affine)


def test_steps_are_in_order() -> None:
    how = Recipe(
        "mine", clamp=(-100.0, 300.0), smoothing_mm=5, normalisation="zero-one"
    )
    made = prepare(scan("RAS"), how).volume.voxels

    smooth = ndimage.gaussian_filter(
        phantoms.ct_values().astype(float), (5 / 4, 1, 5 / 6), mode="nearest"
    )
    wanted = (smooth.clip(-100, 300) + 100) / 400
    assert np.abs(made - wanted).mean() < 0.01
    assert (made.min(), made.max()) == (0, 1)


def test_record_tells_what_was_done() -> None:
    record = prepare(scan(), RECIPES["linknet-2025"]).record

    assert record["axes"] == {"from": "PIR", "to": "RAS"}
    assert record["shape"] == {"from": [20, 16, 24], "to": [256, 256, 16]}
    assert record["spacing_mm"]["from"] == [5, 6, 4]
    assert record["clamp"] == [-1000, 800]
    assert (record["shift"], record["scale"]) == (-1000, 1800)


def test_prepared_ct_is_known_as_ct() -> None:
    made = prepare(scan(), RECIPES["chasppra-2023"]).volume

    assert made.provenance["modality"] == "ct"
    assert admit(to_hounsfield(made), "ct")[1] == ()


def test_prepared_mr_does_not_pass_for_ct() -> None:
    bright = phantoms.volume(phantoms.ct_values().clip(min=0), spacing_mm=(4, 5, 6))
    as_ct = prepare(bright, RECIPES["chasppra-2023"]).volume
    as_mr = prepare(bright, RECIPES["lumbar-mr-2025"]).volume

    assert guess_modality(as_ct) != "ct"
    assert guess_modality(as_mr) == "mr"


def test_cut_off_values_are_noted() -> None:
    made = to_hounsfield(prepare(scan(), RECIPES["deeplab-unet-2025"]).volume)

    _, (note,) = admit(made, "ct")
    assert note.code == "cut_off"
    assert "below 0 HU" in note.message


@pytest.mark.parametrize(
    "intensity",
    [None, {}, [1, 2], {"shift": 0, "scale": 0}, {"shift": "a", "scale": 1}],
    ids=str,
)
def test_damaged_record_is_unreadable(intensity: object) -> None:
    made = scan()
    broken = {"kind": "preprocessed", "intensity": intensity}

    with pytest.raises(UnreadableError, match="how the scan was prepared is damaged"):
        to_hounsfield(Volume(made.voxels, made.grid, None, broken))


def test_scan_from_elsewhere_comes_back_untouched() -> None:
    made = scan()

    assert to_hounsfield(made) is made


def test_too_few_voxels_to_smooth() -> None:
    thin = phantoms.volume(phantoms.ct_values()[:, :, :3])

    with pytest.raises(UnsupportedError, match="24 x 20 x 3 voxels are too few"):
        prepare(thin, Recipe("mine", smoothing_mm=1))


@pytest.mark.parametrize("name", list(RECIPES))
def test_mask_follows_its_scan(name: str) -> None:
    how = RECIPES[name]
    original = scan()
    mask = original.with_voxels((original.voxels > 250).astype(np.uint8) * 20)
    made = prepare(original, how).volume
    near = prepare_mask(mask, original.grid, made.grid, how)

    assert near.shape == made.grid.shape
    assert set(np.unique(near)) == {0, 20}
    bone = to_hounsfield(made).voxels > 250
    overlap = 2 * (bone & (near > 0)).sum() / (bone.sum() + (near > 0).sum())
    assert overlap > 0.9


def test_real_mask_keeps_its_volume_and_ids() -> None:
    how = RECIPES["spine-ct"]
    image = Volume.read(DATA / "tsexample_ct.nii.gz")
    mask = read_mask(DATA / "tsexample_seg-vert_msk.nii.gz")
    grid = target_grid(prepare(image, recipe.adjusted(None)).volume.grid, how)
    near = prepare_mask(mask, image.grid, grid, how)

    np.testing.assert_array_equal(np.unique(near), np.unique(mask.voxels))
    before_ml = np.count_nonzero(mask.voxels) * np.prod(mask.grid.spacing_mm) / 1000
    after_ml = np.count_nonzero(near) * np.prod(grid.spacing_mm) / 1000
    assert after_ml == pytest.approx(before_ml, rel=0.02)


def test_mask_on_another_grid_is_refused() -> None:
    original = scan()
    how = RECIPES["spine-ct"]
    grid = prepare(original, how).volume.grid
    smaller = phantoms.volume(np.zeros((3, 4, 5), np.uint8))
    moved = original.grid.affine.copy()
    moved[2, 3] += 1.5
    aside = Volume(original.voxels, Grid(original.grid.shape, moved))

    with pytest.raises(MaskError, match="3 x 4 x 5 voxels, the scan 20 x 16 x 24"):
        prepare_mask(smaller, original.grid, grid, how)
    with pytest.raises(MaskError, match=r"up to 1\.50 mm away from the scan's"):
        prepare_mask(aside, original.grid, grid, how)


@pytest.mark.parametrize("name", list(RECIPES))
def test_preparing_twice_is_preparing_once(name: str) -> None:
    how = RECIPES[name]
    once = prepare(Volume.read(DATA / "tptbox_ct.nii.gz"), how).volume
    restored = to_hounsfield(once)
    twice = prepare(restored, remaining(how, restored)).volume

    assert twice.grid.matches(once.grid)
    np.testing.assert_allclose(twice.voxels, once.voxels, atol=1e-4)
    assert twice.provenance["modality"] == once.provenance["modality"]
    assert twice.provenance["recipe"] == once.provenance["recipe"]


def test_smoothing_that_is_left_adds_up() -> None:
    how = recipe.adjusted(None, smoothing_mm=5.0)
    made = to_hounsfield(
        prepare(scan(), recipe.adjusted(None, smoothing_mm=4.0)).volume
    )

    assert remaining(how, made).smoothing_mm == pytest.approx(3)
    assert remaining(how, scan()) == how


def test_network_sees_the_same_in_a_prepared_scan() -> None:
    how = RECIPES["spine-ct"]
    image = Volume.read(DATA / "tptbox_ct.nii.gz")
    seen = inference.prepare(image, how)
    again = inference.prepare(to_hounsfield(prepare(image, how).volume), how)

    assert again.grid.matches(seen.grid)
    np.testing.assert_allclose(again.values, seen.values, atol=1e-4)
