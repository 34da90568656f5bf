"""Objects found, missed, invented, split and merged."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from engines.errors import MaskError
from engines.metrics.instances import Instances, match

SHAPE = (12, 2, 1)


def bars(**spans: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a map with label N along I from ``start`` up to ``stop`` for each lN."""
    voxels = np.zeros(SHAPE, np.uint8)
    for name, (start, stop) in spans.items():
        voxels[start:stop] = int(name.removeprefix("l"))
    return voxels


TRUTH = bars(l20=(0, 4), l21=(4, 8), l22=(8, 12))


def test_the_same_objects_under_other_names_are_found() -> None:
    found = match(bars(l1=(0, 4), l2=(4, 8), l3=(8, 12)), TRUTH)

    assert found.found == ((20, 1), (21, 2), (22, 3))
    assert (found.sq, found.rq, found.pq) == (1, 1, 1)
    assert (found.missed, found.invented, found.split, found.merged) == ((),) * 4


def test_qualities_by_pencil() -> None:
    # L1 loses one of four rows, L2 is not there, 9 is invented beside L3.
    found = match(bars(l20=(0, 3), l22=(8, 12), l9=(5, 6)), TRUTH)

    assert found.found == ((20, 20), (22, 22))
    assert found.ious == (0.75, 1.0)
    assert (found.missed, found.invented) == ((21,), (9,))
    assert (found.sq, found.rq) == (0.875, 2 * 2 / 6)
    assert found.pq == pytest.approx(0.875 * 2 / 3)


def test_half_an_object_is_not_that_object() -> None:
    found = match(bars(l20=(0, 2)), bars(l20=(0, 4)))

    assert (found.found, found.missed, found.invented) == ((), (20,), (20,))


def test_an_object_in_two_parts_is_split() -> None:
    found = match(bars(l20=(0, 3), l30=(3, 4), l21=(4, 8), l22=(8, 12)), TRUTH)

    assert found.split == (20,)
    assert found.merged == ()
    assert found.found == ((20, 20), (21, 21), (22, 22))
    assert found.invented == (30,)


def test_an_object_over_two_is_merged() -> None:
    found = match(bars(l20=(0, 8), l22=(8, 12)), TRUTH)

    assert found.merged == (20,)
    assert found.split == ()
    assert (found.missed, found.invented) == ((20, 21), (20,))


def test_a_sliver_of_a_neighbour_is_no_part() -> None:
    truth = bars(l20=(0, 6), l21=(6, 12))

    found = match(bars(l20=(0, 7), l21=(7, 12)), truth)

    assert (found.split, found.merged) == ((), ())


def test_nothing_predicted_misses_all() -> None:
    found = match(bars(), TRUTH)

    assert found.missed == (20, 21, 22)
    assert (found.sq, found.rq, found.pq) == (0, 0, 0)


def test_nothing_anywhere_is_no_quality() -> None:
    assert match(bars(), bars()).pq == 0


def test_the_record_can_be_written_as_json() -> None:
    record = match(bars(l20=(0, 3), l9=(5, 6)), TRUTH).as_json()

    assert record == {
        "pq": pytest.approx(0.75 * 0.4),
        "sq": 0.75,
        "rq": 0.4,
        "found": 1,
        "missed": [21, 22],
        "invented": [9],
        "split": [],
        "merged": [],
    }
    assert {type(label) for label in record["missed"]} == {int}


def test_intensities_are_no_objects() -> None:
    with pytest.raises(MaskError, match="truth holds values from -5 to -5"):
        match(bars(), np.full(SHAPE, -5, np.int16))


label_maps = arrays.arrays(np.uint8, (4, 3, 2), elements=st.integers(0, 3))


@given(label_maps, label_maps)
@settings(max_examples=100)
def test_matches_agree_with_loops(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> None:
    found = match(prediction, truth)

    assert found == by_loops(prediction.ravel().tolist(), truth.ravel().tolist())
    assert found.pq == pytest.approx(found.sq * found.rq)
    assert len(found.found) + len(found.missed) == len(set(truth.ravel()) - {0})
    assert len(found.found) + len(found.invented) == len(set(prediction.ravel()) - {0})


def by_loops(prediction: list[int], truth: list[int]) -> Instances:
    places: dict[tuple[str, int], set[int]] = {}
    for side, labels in (("p", prediction), ("t", truth)):
        for place, label in enumerate(labels):
            if label:
                places.setdefault((side, label), set()).add(place)
    true = sorted(label for side, label in places if side == "t")
    predicted = sorted(label for side, label in places if side == "p")
    ious: dict[tuple[int, int], float] = {}
    parts: list[tuple[int, int]] = []
    for t in true:
        for p in predicted:
            one, other = places["t", t], places["p", p]
            iou = len(one & other) / len(one | other)
            if iou > 0.5:
                ious[t, p] = iou
            if one & other and len(one & other) >= 0.2 * len(one):
                parts.append((t, p))
    return Instances(
        tuple(sorted(ious)),
        tuple(ious[pair] for pair in sorted(ious)),
        tuple(t for t in true if t not in {pair[0] for pair in ious}),
        tuple(p for p in predicted if p not in {pair[1] for pair in ious}),
        _several([t for t, _ in parts]),
        _several([p for _, p in parts]),
    )


def _several(labels: list[Any]) -> tuple[Any, ...]:
    return tuple(sorted({label for label in labels if labels.count(label) > 1}))
