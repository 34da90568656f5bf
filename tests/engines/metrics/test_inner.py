"""Only between the end vertebrae of the truth is anything scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import MaskError
from engines.labels import BY_NAME
from engines.metrics.evaluate import EvaluateSettings, evaluate
from engines.metrics.inner import inner
from engines.metrics.maps import MapSettings
from engines.metrics.pairs import Pair
from tests import phantoms

T12, T13, L1, L2, L3 = (BY_NAME[name].id for name in ("T12", "T13", "L1", "L2", "L3"))


def stack(*labels: int) -> Any:
    """Return a bone of one plane for each label, every second plane empty."""
    voxels = np.zeros((5, 4, 2 * len(labels)), np.uint8)
    for place, label in enumerate(labels):
        voxels[1:4, 1:3, 2 * place] = label
    return voxels


def test_voxels_go_with_their_nearest_vertebra() -> None:
    kept = inner(stack(L1, L2, L3), (1.0, 1.0, 10.0))

    assert kept[..., 2].all()
    assert not kept[..., [0, 4, 5]].any()


def test_distances_are_in_mm() -> None:
    voxels = np.zeros((1, 1, 10), np.uint8)
    voxels[0, 0, [0, 4, 9]] = L1, L2, L3
    aside = np.concatenate([voxels, np.zeros_like(voxels)])
    aside[1, 0, 1] = L3

    assert not inner(aside, (1.0, 1.0, 1.0))[0, 0, 1]
    assert inner(aside, (9.0, 1.0, 1.0))[0, 0, 3]


def test_the_thirteenth_thoracic_vertebra_lies_between() -> None:
    kept = inner(stack(T12, T13, L1), (1.0, 1.0, 1.0))

    assert kept[2, 2, 2]
    assert not kept[2, 2, 4]


@pytest.mark.parametrize("labels", [(), (1,), (L1, L2)])
def test_two_vertebrae_have_nothing_between_them(labels: tuple[int, ...]) -> None:
    truth = stack(*labels) if labels else np.zeros((3, 3, 3), np.uint8)

    with pytest.raises(MaskError, match="none lies between two others"):
        inner(truth, (1.0, 1.0, 1.0))


def score(tmp_path: Path, prediction: Any, truth: Any, kind: str = "spine") -> Any:
    paths = []
    for name, voxels in (
        (f"p/a_seg-{kind}_msk", prediction),
        ("t/a_seg-vert_msk", truth),
    ):
        path = tmp_path / f"{name}.nii.gz"
        paths.append(phantoms.write_nifti(path, phantoms.volume(voxels)))
    pair = Pair("a", paths[1], paths[0])
    (case,) = evaluate([pair], EvaluateSettings(maps=MapSettings(inner=True)))
    return case


def test_what_lies_beyond_is_not_counted_against_a_prediction(tmp_path: Path) -> None:
    found = stack(1, 1, 1)
    found[..., 1] = found[..., 0]  # too much, but beside the first vertebra
    found[1, 1:3, 2] = 0

    case = score(tmp_path, found, stack(L1, L2, L3))

    (row,) = case.details["labels"]
    assert row["dice"] == pytest.approx(2 * 4 / (4 + 6))


def test_an_end_vertebra_that_spills_over_is_no_label_of_its_own(
    tmp_path: Path,
) -> None:
    found = stack(L1, L2, L3)
    found[1, 1:3, 2] = L1  # of 6 voxels of L2, 2 are called by the name of an end

    case = score(tmp_path, found, stack(L1, L2, L3), "vert")

    (row,) = case.details["labels"]
    assert (row["label"], row["dice"]) == (L2, pytest.approx(2 * 4 / (4 + 6)))


def test_a_label_that_the_truth_has_nowhere_counts_in_between(tmp_path: Path) -> None:
    found = stack(L1, L2, L3)
    found[1, 1:3, 2] = T12

    case = score(tmp_path, found, stack(L1, L2, L3), "vert")

    dices = {row["label"]: row["dice"] for row in case.details["labels"]}
    assert dices == {T12: 0.0, L2: pytest.approx(2 * 4 / (4 + 6))}


def test_a_binary_truth_is_refused(tmp_path: Path) -> None:
    case = score(tmp_path, stack(1, 1, 1), stack(1, 1, 1))

    assert case.error is not None
    assert "--inner" in case.error.hint
