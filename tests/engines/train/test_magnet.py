"""CT shown as MR: never negative, each slice with a contrast of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.train import bodies, data, feeder, magnet, receiver, sampling
from engines.train.data import Subject
from engines.train.lie import AXIAL, Lie
from engines.train.losses import IGNORED
from engines.train.settings import Source, TrainSettings

DATA = Path(__file__).parents[2] / "data"
SEEDS = range(8)
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
SHOWN = TrainSettings(
    network="inception-dual-unet",
    sources=(Source(path=".", modality="ct", part="train"),),
    normalisation="zero-mean",
    spacing_mm=1.5,
    augmentations=(),
    views=("sagittal", "coronal"),
    patches=(64,),
)


@pytest.fixture
def tissues(spine: Mask, lie: Lie) -> Image:
    """The fixture's spine: what is in front is body, what is behind is arch."""
    shares = np.zeros((len(bodies.TISSUES), *spine.shape), np.float32)
    front = np.zeros_like(spine)
    front[:, 44:] = True
    if lie.lateral == 1:
        front[:] = True
    elif lie is not AXIAL:
        front[:, :44], front[44:] = False, True
    shares[bodies.BODY - 1] = spine & front
    shares[bodies.ARCH - 1] = spine & ~front
    if lie is not AXIAL:
        shares[bodies.DISC - 1, 44:66, 36:42] = 1
        shares[bodies.CANAL - 1, 36:44, 18:60] = 1
    return shares


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [data.load(pair, SHOWN) for pair in data.find_pairs(DATA, SHOWN)]


def shown(hu: Image | None, tissues: Image, lie: Lie, seed: int) -> Image:
    kind = "labels" if hu is None else "scan"
    return magnet.scan_of(hu, tissues, kind, np.random.default_rng(seed), lie)


def test_values_are_those_of_mr(hu: Image, tissues: Image, lie: Lie) -> None:
    for seed in SEEDS:
        for ct in (hu, None):
            image = shown(ct, tissues, lie, seed)
            assert image.dtype == np.float32
            assert image.shape == hu.shape
            assert np.isfinite(image).all()
            assert image.min() >= 0
            assert 250 < np.quantile(image, 0.99) < 900


def test_same_seed_same_slice(hu: Image, tissues: Image, lie: Lie) -> None:
    before = hu.copy()
    first, second = (shown(hu, tissues, lie, 5) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(hu, before)
    assert not np.array_equal(first, shown(hu, tissues, lie, 6))


def test_contrast_turns_over(hu: Image, tissues: Image) -> None:
    disc = tissues[bodies.DISC - 1] > 0.5
    body = tissues[bodies.BODY - 1] > 0.5
    if not disc.any():
        return
    lie = Lie((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    brighter = set()
    for seed in range(20):
        image = shown(hu, tissues, lie, seed)
        brighter.add(bool(np.median(image[disc]) > np.median(image[body])))
    assert brighter == {True, False}


def test_discs_never_look_like_marrow() -> None:
    for seed in range(200):
        levels = magnet.drawn_levels(np.random.default_rng(seed))
        apart = abs(levels["nucleus"] - levels["marrow"])
        assert apart >= min(magnet.LEAST_STEP, levels["marrow"]) - 1e-6
        assert min(levels.values()) >= 0


def test_fat_and_muscle_are_known_by_their_hounsfield_units() -> None:
    hu = np.full((40, 40), np.float32(-1000))
    hu[:, 10:25], hu[:, 25:] = -100, 50
    levels = {"fat": 0.9, "muscle": 0.2, "organ": 0.3, "marrow": 0.5, "cortex": 0.0}
    levels |= {"fluid": 0.1, "blood": 0.1}
    fat, muscle = [], []
    for seed in SEEDS:
        image = magnet.soft_tissue(hu, levels, np.random.default_rng(seed))
        assert image[:, :6].max() < 0.01
        fat.append(np.median(image[:, 14:22]))
        muscle.append(np.median(image[:, 30:]))
    assert np.mean(fat) == pytest.approx(0.9, abs=0.15)
    assert np.mean(muscle) == pytest.approx(0.2, abs=0.1)


def test_marrow_lies_within_a_dark_rim() -> None:
    bone = np.zeros((64, 64), np.float32)
    bone[20:44, 20:44] = 1
    levels = {"marrow": 0.6, "cortex": 0.0, "fluid": 0.9, "fat": 0.9}
    hu = np.full(bone.shape, np.float32(200))
    edge, middle = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = magnet.marrow(hu, bone, levels, rng, AXIAL)
        edge.append(image[30:34, 20].mean())
        middle.append(np.median(image[26:38, 26:38]))
    assert np.mean(edge) < 0.75 * np.mean(middle)
    assert np.mean(middle) == pytest.approx(0.6, abs=0.1)


def test_vessels_lie_in_the_body_and_beside_the_spine(lie: Lie) -> None:
    spine = np.zeros((80, 80), np.float32)
    spine[30:50, 30:50] = 1
    body = np.full(spine.shape, np.float32(0.5))
    body[:8] = 0
    changed = 0
    for seed in SEEDS:
        image = body.copy()
        rng = np.random.default_rng(seed)
        magnet.vessels(image, spine, {"blood": 1.0}, rng, lie)
        assert np.array_equal(image[spine > 0], body[spine > 0])
        assert not image[:8].any()
        changed += not np.array_equal(image, body)
    assert changed


def test_coils_behind_the_back_hear_the_front_least() -> None:
    bone = np.zeros((80, 80), np.float32)
    bone[:, 38:42] = 1  # AXIAL's columns run to the front
    found = [
        receiver.sensitivity(bone, np.random.default_rng(seed), AXIAL)
        for seed in range(20)
    ]
    mean = np.mean(found, axis=(0, 1))
    assert mean[:10].mean() > 1.3 * mean[-10:].mean()
    assert min(image.min() for image in found) > 0


def test_half_of_k_space_holds_no_finer_detail() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((32, 48)).astype(np.float32)
    whole = receiver.cut_off(image, np.ones(2))
    np.testing.assert_allclose(whole, image, atol=1e-5)
    spectrum = np.abs(np.fft.fft2(receiver.cut_off(image, np.array([0.5, 1.0]))))
    rows = np.abs(np.fft.fftfreq(32)) > 0.25
    assert spectrum[rows].max() < 1e-3
    assert spectrum[0, 0] == pytest.approx(image.sum(), rel=1e-4)


def test_noise_alone_is_that_of_rayleigh() -> None:
    nothing = np.zeros((128, 128), np.float32)
    image = receiver.noisy(nothing, 2.0, np.random.default_rng(2))
    assert image.min() >= 0
    assert image.mean() == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.03)


def test_bodies_alone_are_learnt(subjects: list[Subject]) -> None:
    for subject in subjects:
        assert subject.tissues is not None
        assert subject.line is None
        assert subject.outside == data.AIR_HU
        body = subject.tissues[bodies.BODY - 1] > 0.5
        assert torch.equal(torch.from_numpy(subject.share_of(1) > 0.5), body)
        assert subject.tissues[bodies.ARCH - 1].any()
        at = tuple(subject.bone.T)
        assert body.numpy()[at].all()
    assert {s.values for s in subjects} == {(1,), (1, IGNORED)}


def test_tissues_are_cut_where_the_target_is(subjects: list[Subject]) -> None:
    for subject in subjects:
        rng = np.random.default_rng(4)
        for view in SHOWN.views:
            pose = sampling.draw(subject, view, replace(SHOWN.augment, p_turn=1), rng)
            pose = replace(pose, thickness_mm=0.0)
            _, target = sampling.cut(subject, pose, 64)
            tissues = sampling.cut_tissues(subject, pose, 64)
            assert np.array_equal(target == 1, tissues[bodies.BODY - 1] > 0.5)


def test_slices_are_fed_as_mr(subjects: list[Subject]) -> None:
    settings = replace(SHOWN, normalisation="none")
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        image, target = feeder.example(subjects[0], settings, 64, rng)
        assert image.min() >= 0
        assert image.max() > 100
        assert set(np.unique(target)) <= {0, 1, IGNORED}


def test_what_is_seen_as_it_is_has_no_tissues(subjects: list[Subject]) -> None:
    plain: Any = replace(subjects[0], tissues=None)
    pose = sampling.whole(plain, "sagittal", 3)
    with pytest.raises(ValueError, match="tissues are known"):
        sampling.cut_tissues(plain, pose, 16)
