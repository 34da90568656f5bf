"""The phantom: the same each time, taken for a CT, with a spine that is found."""

from pathlib import Path

import numpy as np
import pytest

from engines.bench import sample
from engines.preprocess.modality import guess_modality
from engines.volume import Volume

SMALL = ((96, 96, 24), (3.7, 3.7, 5.0))


def test_the_same_voxels_each_time() -> None:
    first, second = sample.phantom(*SMALL), sample.phantom(*SMALL)

    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert first.voxels.dtype == np.int16
    assert first.grid.axes == "LPS"
    assert first.grid.spacing_mm == pytest.approx(SMALL[1])


def test_it_looks_like_a_ct_of_the_chest() -> None:
    made = sample.phantom(*SMALL)

    assert guess_modality(made) == "ct"
    shares = [
        float(np.mean(made.voxels < -900)),
        float(np.mean((made.voxels > -900) & (made.voxels < -800))),
        float(np.mean((made.voxels > 0) & (made.voxels < 110))),
        float(np.mean(made.voxels > 150)),
    ]
    assert shares[0] > 0.3  # around the body
    assert shares[1] > 0.1  # lungs
    assert shares[2] > 0.1  # muscle
    assert 0.002 < shares[3] < 0.03  # bone


def test_vertebrae_lie_above_each_other_with_discs_between() -> None:
    made = sample.phantom((128, 128, 120), (2.8, 2.8, 1.0))
    bright = (made.voxels > 150).sum(axis=(0, 1))
    discs = np.flatnonzero(bright < 0.4 * np.median(bright))

    parts = np.split(discs, np.flatnonzero(np.diff(discs) > 1) + 1)
    middles = [part.mean() for part in parts]
    assert len(middles) >= 3
    np.testing.assert_allclose(np.diff(middles), sample.VERTEBRA_MM, atol=1.5)


def test_the_file_holds_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SHAPE", SMALL[0])
    monkeypatch.setattr(sample, "SPACING_MM", SMALL[1])

    read = Volume.read(sample.write(tmp_path))

    np.testing.assert_array_equal(read.voxels, sample.phantom(*SMALL).voxels)
    assert read.grid.matches(sample.phantom(*SMALL).grid)
