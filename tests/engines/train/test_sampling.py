"""A crushed body loses height, in the image and in the target alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.train import data, feeder, lie, sampling
from engines.train.data import Subject
from engines.train.sampling import Crush
from engines.train.settings import Augment, Source, TrainSettings

DATA = Path(__file__).parents[2] / "data"
PLAIN = TrainSettings(
    sources=(Source(path=".", part="train"),), augmentations=(), patches=(64,)
)


@pytest.fixture(scope="module")
def subject() -> Subject:
    (pair,) = (p for p in data.find_pairs(DATA, PLAIN) if p.name == "tptbox")
    return data.load(pair, PLAIN)


def test_a_crush_takes_its_share_of_the_height() -> None:
    crush = Crush(1, (0.0, 0.0), half_mm=6.0, share=0.4, reach_mm=20.0)
    along = np.array([-30.0, -6.0, 0.0, 3.0, 6.0, 30.0])
    before = along + crush.shift_mm(along, np.zeros(6))
    assert before[4] - before[1] == pytest.approx(12 / 0.6)
    assert before[5] - before[4] == pytest.approx(24)
    assert (np.diff(before) > 0).all()
    far = crush.shift_mm(along, np.full(6, 100.0))
    np.testing.assert_allclose(far, 0, atol=1e-4)


def test_image_and_target_are_crushed_together(subject: Subject) -> None:
    assert subject.image is not None
    values = torch.from_numpy(subject.share_of(1) * 1000)
    marked = replace(subject, image=values, outside=0.0)
    pose = sampling.straight(marked, "sagittal", 0.5)
    crushed = replace(pose, crush=Crush(1, (0.0, 0.0), 8.0, 0.5, 30.0))
    plain_image, plain = sampling.cut(marked, pose, 64)
    image, target = sampling.cut(marked, crushed, 64)
    assert image is not None
    assert plain_image is not None
    assert not np.array_equal(target, plain)
    assert not np.array_equal(image, plain_image)
    assert np.array_equal(target > 0, image > 500)


@pytest.mark.parametrize("view", ["axial", "sagittal", "coronal"])
def test_bodies_are_crushed_along_the_spine(view: str, subject: Subject) -> None:
    how = replace(Augment(), p_crush=1.0)
    poses = [
        sampling.draw(subject, view, how, np.random.default_rng(seed))
        for seed in range(20)
    ]
    crushes = [pose.crush for pose in poses if pose.crush]
    assert bool(crushes) == (view != "axial")
    for crush in crushes:
        assert crush.axis == 1
        assert 0.2 <= crush.share <= 0.6
        assert 12 <= 2 * crush.half_mm / (1 - crush.share) <= 28


def test_without_crushes_the_draws_are_as_before(subject: Subject) -> None:
    how = replace(Augment(), p_crush=0.0)
    rng = np.random.default_rng(0)
    pose = sampling.draw(subject, "sagittal", how, rng)
    assert pose.crush is None
    crushed = sampling.draw(
        subject, "sagittal", replace(how, p_crush=1.0), np.random.default_rng(0)
    )
    assert np.array_equal(pose.centre_mm, crushed.centre_mm)
    assert np.array_equal(pose.warp_mm, crushed.warp_mm)


def test_a_slice_knows_where_front_and_head_are(subject: Subject) -> None:
    upright = {"axial": None, "sagittal": 1, "coronal": 1}
    for view, axis in upright.items():
        pose = sampling.straight(subject, view, 0.5)
        assert pose.lie.upright == axis
        turned = replace(pose, turns=1).lie
        assert turned.upright == (None if axis is None else 1 - axis)
    sagittal = sampling.straight(subject, "sagittal", 0.5).lie
    assert not lie.shows(sagittal.right)
    assert sagittal.anterior == (1, 0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_directions_turn_as_the_image_does(turns: int) -> None:
    front = lie.along((9, 9), (1.0, 0.0))
    turned = lie.of(np.eye(3)[:, [1, 2, 0]], turns).anterior
    np.testing.assert_allclose(lie.along((9, 9), turned), np.rot90(front, turns))


def test_a_view_can_be_asked_for(subject: Subject) -> None:
    first, second = (
        feeder.example(subject, PLAIN, 64, np.random.default_rng(0), view=view)[0]
        for view in ("axial", "sagittal")
    )
    assert not np.array_equal(first, second)
