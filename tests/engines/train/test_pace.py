"""The learning rate, and when a training stops."""

import math
from dataclasses import replace

import pytest

from engines.train.pace import Pace
from engines.train.settings import TrainSettings

PLAIN = TrainSettings(
    learning_rate=1.0, steps=100, warmup_steps=0, schedule="plateau", plateau_patience=3
)


def after(scores: list[float], settings: TrainSettings = PLAIN) -> Pace:
    pace = Pace()
    for score in scores:
        pace.told(settings, score)
    return pace


def test_a_plateau_divides_the_rate_by_ten() -> None:
    """As the papers have it, but after 3 validations without gain instead of 10."""
    scores = [0.5, 0.6, 0.6, 0.5, 0.6]
    assert after(scores[:4]).rate(PLAIN, 50) == 1.0
    assert after(scores).rate(PLAIN, 50) == pytest.approx(0.1)
    assert after([*scores, 0.5, 0.5]).rate(PLAIN, 50) == pytest.approx(0.1)
    assert after([*scores, 0.5, 0.5, 0.5]).rate(PLAIN, 50) == pytest.approx(0.01)


def test_a_gain_starts_the_patience_anew() -> None:
    assert after([0.5, 0.4, 0.4, 0.6, 0.4, 0.4]).rate(PLAIN, 50) == 1.0


def test_a_score_that_is_no_number_is_no_gain() -> None:
    pace = after([0.5, math.nan, math.nan, math.nan])
    assert (pace.best, pace.drops) == (0.5, 1)


def test_early_stopping_counts_validations_since_the_best() -> None:
    settings = replace(PLAIN, early_stopping=2)
    assert not after([0.5, 0.4], settings).is_over(settings)
    assert after([0.5, 0.4, 0.5], settings).is_over(settings)
    assert not after([0.5, 0.4, 0.6], settings).is_over(settings)
    assert not after([0.5] * 9).is_over(PLAIN)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 0.1),
        ("constant", 4, 0.5),
        ("constant", 99, 1.0),
        ("cosine", 50, 0.5),
        ("cosine", 99, 0.01),
    ],
)
def test_rise_and_fall(schedule: str, step: int, expected: float) -> None:
    settings = replace(PLAIN, schedule=schedule, warmup_steps=10)
    assert Pace().rate(settings, step) == pytest.approx(expected)


def test_it_comes_back_from_a_checkpoint() -> None:
    pace = after([0.5, 0.4, 0.3, 0.2])
    assert Pace(**pace.as_json()) == pace
