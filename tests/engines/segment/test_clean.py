"""Islands go, what belongs to the spine stays, closed cavities are filled."""

import numpy as np
from numpy.typing import NDArray

from engines.segment import clean

SPACING = (1.0, 2.0, 1.5)


def spine_of(shape: tuple[int, int, int] = (60, 40, 80)) -> NDArray[np.float32]:
    probability = np.zeros((1, *shape), np.float32)
    probability[0, 25:35, 10:20, 5:40] = 0.9
    return probability


def test_far_islands_go_and_the_next_vertebra_stays() -> None:
    probability = spine_of()
    probability[0, 25:35, 10:20, 44:60] = 0.9  # 6 mm above: a disc space
    probability[0, 50:58, 30:38, 5:25] = 0.9  # 15 mm to the side
    told = clean.clean(probability, SPACING)
    assert told.islands == 1
    assert told.largest_ml == 8 * 8 * 20 * 3 / 1000
    assert probability[0, 50:58, 30:38].max() == 0
    assert (probability[0, 25:35, 10:20, 44:60] > 0.5).all()


def test_a_chain_of_close_parts_belongs_together() -> None:
    probability = spine_of()
    for start in (44, 56, 68):
        probability[0, 25:35, 10:20, start : start + 8] = 0.9
    assert clean.clean(probability, SPACING).islands == 0
    assert (probability[0, 25:35, 10:20, 68:76] > 0.5).all()


def test_specks_go_even_beside_the_spine() -> None:
    probability = spine_of()
    probability[0, 38:40, 12:14, 20:22] = 0.9
    assert clean.clean(probability, SPACING).islands == 1
    assert not (probability[0, 36:] > 0.5).any()


def test_a_cavity_is_filled_and_the_canal_is_not() -> None:
    probability = spine_of()
    probability[0, 29:31, 14:16, 20:24] = 0.1  # closed on all sides
    probability[0, 27:28, 12:13, :] = 0.1  # open at both ends
    clean.clean(probability, SPACING)
    assert (probability[0, 29:31, 14:16, 20:24] > 0.5).all()
    assert not (probability[0, 27:28, 12:13] > 0.5).any()


def test_nothing_in_nothing_out() -> None:
    probability = np.zeros((1, 8, 8, 8), np.float32)
    assert clean.clean(probability, SPACING).islands == 0
    assert np.count_nonzero(probability) == 0
