"""Scores of a trained network against counts made by hand."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engines.errors import TrainingError
from engines.metrics import surface
from engines.train import data, score, validate
from engines.train.losses import IGNORED
from engines.train.measures import MEASURES
from engines.train.settings import Source, TrainSettings

DATA = Path(__file__).parents[2] / "data"
TINY = TrainSettings(sources=(Source(path=".", part="test"),), batch=1, patches=(64,))


def slices(*rows: str) -> np.ndarray:
    """Return a slice from its rows, a digit per pixel and x for what is ignored."""
    values = [[IGNORED if one == "x" else int(one) for one in row] for row in rows]
    return np.array(values, np.uint8)


def test_one_class_with_an_ignored_zone() -> None:
    """Scored are 12 pixels: 3 hits, 1 miss, 2 false ones, 6 of the background."""
    truth = slices("1100", "1100", "0000", "xxxx")
    seen = slices("1110", "1010", "0000", "1111")

    found = score.of_pairs([(seen, truth)], 2)

    assert found["dice"] == found["f1"] == pytest.approx(2 * 3 / (5 + 4))
    assert found["iou"] == pytest.approx(3 / 6)
    assert found["miou"] == pytest.approx((3 / 6 + 6 / 9) / 2)
    assert found["accuracy"] == pytest.approx(9 / 12)
    assert found["precision"] == pytest.approx(3 / 5)
    assert found["recall"] == pytest.approx(3 / 4)
    assert set(found) == set(MEASURES)


def test_distances_are_those_of_the_metrics_without_the_ignored_zone() -> None:
    truth = slices("1100", "1100", "0000", "xxxx")
    seen = slices("1110", "1010", "0000", "1111")
    cut = seen.copy()
    cut[3] = 0
    pair = surface.distances(cut == 1, truth == 1, (1.0, 1.0))

    found = score.of_pairs([(seen, truth)], 2)

    assert found["hd_px"] == pytest.approx(surface.hausdorff(pair))
    assert found["assd_px"] == pytest.approx(surface.average(pair))
    moved = np.zeros((9, 9), np.uint8)
    moved[2:5, 2:5] = 1
    shifted = score.of_pairs([(np.roll(moved, 2, axis=1), moved)], 2)
    assert shifted["hd_px"] == pytest.approx(2.0)


def test_classes_are_averaged_and_absent_ones_left_out() -> None:
    """Class 1 is right, class 2 half there, class 3 on neither side."""
    truth = slices("1122", "0000")
    seen = slices("1120", "0000")

    found = score.of_pairs([(seen, truth)], 4)

    assert found["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["iou"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["miou"] == pytest.approx((1 + 1 / 2 + 4 / 5) / 3)
    assert found["accuracy"] == pytest.approx(7 / 8)
    assert found["recall"] == pytest.approx((1 + 1 / 2) / 2)


def test_pixels_of_all_slices_are_counted_together() -> None:
    """Not the mean of a slice that is right and one that is wrong."""
    right, empty = slices("1111"), slices("0000")
    few = slices("1000")

    found = score.of_pairs([(right, right), (empty, few)], 2)

    assert found["dice"] == pytest.approx(2 * 4 / (4 + 5))
    assert found["hd_px"] == math.inf
    assert score.of_pairs([(empty, empty)], 2) == {}


class Constant(nn.Module):
    """Labels every pixel with one class."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        chosen = torch.full(x.shape[-2:], self.label)
        return nn.functional.one_hot(chosen, 2).movedim(-1, 0)[None].float()


def subjects() -> Iterator[data.Subject]:
    for pair in data.find_pairs(DATA, TINY):
        if pair.name == "tptbox":
            yield data.load(pair, TINY)


def test_a_network_is_scored_on_the_unaltered_slices_of_each_scan() -> None:
    (scan,) = subjects()
    targets = [target for _, target in validate.examples(scan, TINY)]
    share = float(np.mean([target == 1 for target in targets]))

    found = score.score(Constant(1), [scan], TINY, torch.device("cpu"))

    assert list(found.cases) == ["tptbox"]
    assert found.metrics == found.cases["tptbox"]
    assert found.metrics["recall"] == 1
    assert found.metrics["precision"] == pytest.approx(share)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(TrainingError, match="nothing to score"):
        score.score(Constant(0), [], TINY, torch.device("cpu"))


def test_the_time_of_a_slice_is_the_median_after_a_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = [50.0, 50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 90.0]
    ticks = iter([tick for took in taken for tick in (0.0, took)])
    monkeypatch.setattr(score.time, "perf_counter", lambda: next(ticks))

    seconds = score.seconds_per_slice(Constant(0), TINY, torch.device("cpu"))

    assert seconds == 4.0
