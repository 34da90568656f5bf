"""Each change of a slice does what its scanner or patient would, and no more."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from engines.train import augment, metal, scanner
from engines.train.lie import AXIAL, Lie
from engines.train.settings import (
    AUGMENTATIONS,
    CT_ALONE,
    SLICES_ALONE,
    Augment,
    TrainSettings,
)

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
OFF = Augment().only([])
NEW = ("contrast-agent", "metal", "table", "sharpening", "grain", "starvation")
SEEDS = range(5)


def only(name: str) -> Augment:
    return replace(OFF, **dict.fromkeys(AUGMENTATIONS[name], 1.0))


def varied(
    hu: Image, spine: Mask, how: Augment, seed: int, lie: Lie, modality: str = "ct"
) -> Image:
    rng = np.random.default_rng(seed)
    target = spine.astype(np.uint8)
    return augment.vary(hu.copy(), target, how, rng, modality, lie)


def test_off_means_untouched(hu: Image, spine: Mask, lie: Lie) -> None:
    assert np.array_equal(varied(hu, spine, OFF, 0, lie), hu)


@pytest.mark.parametrize("name", NEW)
def test_same_seed_same_change(name: str, hu: Image, spine: Mask, lie: Lie) -> None:
    first = varied(hu, spine, only(name), 1, lie)
    assert np.array_equal(first, varied(hu, spine, only(name), 1, lie))
    assert first.dtype == np.float32
    others = [varied(hu, spine, only(name), seed, lie) for seed in SEEDS]
    assert any(not np.array_equal(other, hu) for other in others)
    assert any(not np.array_equal(other, others[0]) for other in others)


@pytest.mark.parametrize("name", NEW)
def test_the_spine_stays_bone(name: str, hu: Image, spine: Mask, lie: Lie) -> None:
    for seed in SEEDS:
        changed = varied(hu, spine, only(name), seed, lie)
        assert np.median(changed[spine]) > 200


@pytest.mark.parametrize("name", NEW)
def test_nothing_of_ct_is_done_to_mr(
    name: str, hu: Image, spine: Mask, lie: Lie
) -> None:
    image = hu + 1000
    changed = varied(image, spine, only(name), 0, lie, "mr")
    np.testing.assert_array_equal(changed, image)


def test_settings_of_an_mr_training_have_nothing_of_ct() -> None:
    how = TrainSettings(network="unet", recipe="lumbar-mr-2025").varied_by
    assert {getattr(how, key) for key in CT_ALONE} == {0}
    assert how.p_bias == Augment().p_bias


def test_cubes_take_what_is_not_for_slices_alone() -> None:
    cube = np.random.default_rng(0).normal(40, 200, (12, 12, 12)).astype(np.float32)
    target = (cube > 300).astype(np.uint8)
    slices = replace(OFF, **dict.fromkeys(SLICES_ALONE, 1.0))
    rng = np.random.default_rng(0)
    same = augment.vary(cube, target, slices.without(["p_vessels"]), rng)
    assert np.array_equal(same, cube)
    changed = augment.vary(cube, target, only("sharpening"), rng)
    assert not np.array_equal(changed, cube)


def test_metal_is_bright_and_within_12_bits(hu: Image, spine: Mask, lie: Lie) -> None:
    most = []
    for seed in range(10):
        changed = metal.implants(hu, spine, np.random.default_rng(seed), lie)
        assert changed.min() >= metal.LOWEST_HU
        assert changed.max() <= metal.HIGHEST_HU
        most.append(changed.max())
    assert np.median(most) > 2000


def test_streaks_are_there_and_even_out(hu: Image, spine: Mask, lie: Lie) -> None:
    tissue = (hu > 0) & ~spine
    added, shifts = [], []
    for seed in range(10):
        changed = metal.implants(hu, spine, np.random.default_rng(seed), lie)
        beside = tissue & (changed < 1000)
        added.append(float(changed[beside].std()))
        shifts.append(float(changed[beside].mean() - hu[beside].mean()))
    assert hu[tissue].std() == 0
    assert np.median(added) > 5
    assert np.abs(shifts).max() < 60


def test_radial_streaks_are_strongest_near_the_metal() -> None:
    iron = np.zeros((128, 128), np.float32)
    iron[60:68, 60:68] = 1
    streaks = metal.radial(iron, np.random.default_rng(0))
    rows, columns = np.ogrid[:128, :128]
    apart = np.hypot(rows - 63.5, columns - 63.5)
    near, far = (apart > 8) & (apart < 20), apart > 45
    assert abs(float(streaks[apart > 8].mean())) < 0.3
    assert streaks[near].std() > 1.5 * streaks[far].std()


@pytest.mark.parametrize("upright", [0, 1])
def test_banded_streaks_keep_to_the_rows_of_the_metal(upright: int) -> None:
    iron = np.zeros((96, 96), np.float32)
    iron[40:46, 30:60] = 1
    if upright == 1:
        iron = iron.T.copy()
    streaks = metal.banded(iron, upright, np.random.default_rng(0))
    rows = streaks if upright == 0 else streaks.T
    assert rows[40:46].std() > 10 * np.delete(rows, range(35, 51), axis=0).std()


def test_grain_has_no_lowest_frequency_and_more_high_ones() -> None:
    flat = np.full((128, 128), np.float32(40))

    def spectrum(rng: Generator) -> Image:
        noise = scanner.grain(flat, 80, rng, AXIAL) - flat
        assert abs(float(noise.mean())) < 0.5
        return np.abs(np.fft.fft2(noise)) ** 2

    power = sum(spectrum(np.random.default_rng(seed)) for seed in range(8))
    pitch = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
    low = power[(pitch > 0) & (pitch < 0.03)].mean()
    middle = power[(pitch > 0.12) & (pitch < 0.2)].mean()
    assert middle > 3 * low


def test_noise_is_weakest_in_air(hu: Image, spine: Mask, lie: Lie) -> None:
    for change in (scanner.grain, scanner.starved):
        changed = change(hu, 80, np.random.default_rng(2), lie) - hu
        assert changed[hu < -900].std() < changed[hu > 0].std()


def test_starved_lines_run_from_side_to_side() -> None:
    flat = np.full((96, 96), np.float32(40))
    for lateral, lie in enumerate((AXIAL, Lie((0.0, 1.0), (1.0, 0.0), (0.0, 0.0)))):
        streaks = scanner.starved(flat, 80, np.random.default_rng(0), lie) - flat
        along = np.abs(np.diff(streaks, axis=lateral)).mean()
        across = np.abs(np.diff(streaks, axis=1 - lateral)).mean()
        assert lie.lateral == lateral
        assert across > 4 * along


def test_a_sharp_kernel_overshoots_at_edges(hu: Image) -> None:
    for seed in SEEDS:
        changed = scanner.sharpened(hu, np.random.default_rng(seed))
        assert changed.max() > hu.max() + 20
        assert changed.min() >= metal.LOWEST_HU
        bright = scanner.sharpened(hu * 8, np.random.default_rng(seed))
        assert bright.max() <= metal.HIGHEST_HU


def test_the_table_lies_in_the_air(hu: Image, spine: Mask, lie: Lie) -> None:
    shown = 0
    for seed in range(10):
        changed = scanner.table(hu, spine, np.random.default_rng(seed), lie)
        assert np.array_equal(changed[hu > -300], hu[hu > -300])
        assert changed.max() <= 800
        shown += bool((changed[hu < -900] > 0).any())
    assert shown >= 3
