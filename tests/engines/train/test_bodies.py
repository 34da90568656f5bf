"""Bodies, discs and canal of vertebrae that are known exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from engines.preprocess.orient import reorient
from engines.train import bodies
from engines.volume import Volume

DATA = Path(__file__).parents[2] / "data"
MM = (1.5, 1.5, 1.5)
HEIGHT_MM, GAP_MM = 24.0, 9.0
Truth = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def vertebrae(turn_deg: float = 0.0, *, arches: bool = True) -> Truth:
    """Return ids of three vertebrae, and their tissues.

    A body is a box of 42 x 30 x 24 mm, its arch a ring 6 mm thick about a canal of
    18 x 15 mm, with a process behind it and one to each side.
    """
    shape = (72, 72, 96)
    sides = [
        (np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, MM, strict=True)
    ]
    places = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    turn = Rotation.from_euler("x", turn_deg, degrees=True).as_matrix()
    right, front, up = np.moveaxis(places @ turn, -1, 0)
    front = front - 8
    ids, tissues = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    aside, behind = np.abs(right), -15 - front  # behind the posterior wall
    for number, index in enumerate((20, 21, 22)):
        level = np.abs(up - (1 - number) * (HEIGHT_MM + GAP_MM))
        body = (aside < 21) & (np.abs(front) < 15) & (level < HEIGHT_MM / 2)
        ring = (aside < 15) & (behind >= 0) & (behind < 21) & (level < 7)
        ring &= ~((aside < 9) & (behind < 15))
        process = (aside < 3) & (behind >= 20) & (behind < 38) & (level < 7)
        process |= (aside < 34) & (behind >= 2) & (behind < 8) & (level < 4)
        process &= ~((aside < 9) & (behind < 15))
        if arches:
            ids[ring | process] = index
            tissues[ring | process] = bodies.ARCH
        ids[body] = index
        tissues[body] = bodies.BODY
        disc = (aside < 21) & (np.abs(front) < 15) & (level < HEIGHT_MM / 2 + GAP_MM)
        if number < 2:
            low = up < (1 - number) * (HEIGHT_MM + GAP_MM)
            tissues[disc & low & (tissues == 0) & (ids == 0)] = bodies.DISC
        if arches:
            hole = (aside < 9) & (behind >= 0) & (behind < 15) & (level < 7)
            tissues[hole] = bodies.CANAL
    return ids, tissues


def overlap(found: NDArray[Any], truth: NDArray[Any]) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.mark.parametrize("turn_deg", [0.0, 20.0])
def test_boxes_with_arches_are_told_apart(turn_deg: float) -> None:
    ids, truth = vertebrae(turn_deg)
    found = bodies.tissues_of(ids, MM)
    for tissue, least in ((bodies.BODY, 0.97), (bodies.ARCH, 0.93), (bodies.DISC, 0.9)):
        assert overlap(found == tissue, truth == tissue) > least
    held = truth == bodies.CANAL
    assert (found[held] == bodies.CANAL).mean() > 0.85
    assert ((found == bodies.ARCH) | (found == bodies.BODY)).sum() == (ids > 0).sum()


def test_the_canal_goes_on_between_arches() -> None:
    ids, _ = vertebrae()
    found = bodies.tissues_of(ids, MM)
    middle = found[36, :, 16:80] == bodies.CANAL
    assert middle.any(axis=0).all()


def test_bodies_alone_are_bodies() -> None:
    ids, truth = vertebrae(arches=False)
    found = bodies.tissues_of(ids, MM)
    assert overlap(found == bodies.BODY, truth == bodies.BODY) > 0.97
    assert not (found == bodies.CANAL).any()


def test_nothing_and_splinters_have_no_body() -> None:
    ids = np.zeros((20, 20, 20), np.uint8)
    assert not bodies.tissues_of(ids, MM).any()
    ids[3:6, 3:6, 3:6] = 21
    found = bodies.tissues_of(ids, MM)
    assert set(np.unique(found)) == {bodies.OTHER, bodies.ARCH}


def test_the_atlas_and_the_coccyx_have_no_body() -> None:
    ids, _ = vertebrae()
    for index in (1, 27):
        found = bodies.tissues_of(np.where(ids > 0, index, 0), MM)
        assert set(np.unique(found)) == {bodies.OTHER, bodies.ARCH}


def sacral(gap_mm: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return ids of L4, L5 and a sacrum below, and where the sacrum is."""
    ids, _ = vertebrae()
    ids[ids == 20] = 0
    ids = np.where(ids > 0, ids + 2, 0).astype(np.uint8)
    ids = np.roll(ids, 24, axis=2)
    low = int(np.argwhere(ids == 24)[:, 2].min())
    top = low - round(gap_mm / MM[2])
    ids[12:60, 28:52, max(0, top - 34) : top] = 26
    return ids, ids == 26


def test_the_first_sacral_body_lies_below_the_last_disc() -> None:
    ids, sacrum = sacral(GAP_MM)
    found = bodies.tissues_of(ids, MM)
    body = sacrum & (found == bodies.BODY)
    assert np.ptp(np.argwhere(body)[:, 2]) * MM[2] == pytest.approx(
        bodies.SACRAL_MM - 5, abs=3
    )
    assert np.ptp(np.argwhere(body)[:, 0]) * MM[0] == pytest.approx(38, abs=4)
    assert (found[sacrum] == bodies.UNSURE).any()
    assert (found[sacrum] == bodies.ARCH).any()
    between = found[36, 40, int(np.argwhere(sacrum)[:, 2].max()) + 3]
    assert between == bodies.DISC


def test_a_first_sacral_body_without_a_mask_is_not_guessed() -> None:
    ids, sacrum = sacral(22.0)
    found = bodies.tissues_of(ids, MM)
    assert not (found[sacrum] == bodies.BODY).any()
    above = int(np.argwhere(sacrum)[:, 2].max()) + 4
    assert found[36, 40, above] == bodies.UNKNOWN


def test_bodies_of_a_real_scan() -> None:
    mask = Volume.read(DATA / "tsexample_seg-vert_msk.nii.gz")
    turned = reorient(mask)
    ids = turned.voxels.round().astype(np.uint8)
    found = bodies.tissues_of(ids, turned.grid.spacing_mm)
    for index in range(20, 25):
        share = (found[ids == index] == bodies.BODY).mean()
        assert 0.5 < share < 0.75
