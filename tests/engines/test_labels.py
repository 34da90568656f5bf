"""Ids of every scheme, as their programs document them."""

import pytest

from engines.labels import (
    SCHEMES,
    STRUCTURES,
    VERTEBRAE,
    Scheme,
    class_of,
    structures,
)

SPINE = (
    [f"C{n}" for n in range(1, 8)]
    + [f"T{n}" for n in range(1, 13)]
    + [f"L{n}" for n in range(1, 6)]
)

DOCUMENTED: list[tuple[Scheme, int, str]] = [
    ("verse", 1, "C1"),
    ("verse", 8, "T1"),
    ("verse", 20, "L1"),
    ("verse", 25, "L6"),
    ("verse", 26, "sacrum"),
    ("verse", 27, "coccyx"),
    ("verse", 28, "T13"),
    ("totalsegmentator", 25, "sacrum"),
    ("totalsegmentator", 26, "sacrum"),  # S1
    ("totalsegmentator", 27, "L5"),
    ("totalsegmentator", 31, "L1"),
    ("totalsegmentator", 32, "T12"),
    ("totalsegmentator", 43, "T1"),
    ("totalsegmentator", 44, "C7"),
    ("totalsegmentator", 50, "C1"),
    ("totalsegmentator-v2", 26, "sacrum"),  # S1
    ("totalsegmentator-v2", 27, "L5"),
    ("totalsegmentator-v3", 25, "sacrum"),
    ("totalsegmentator-v3", 26, "L6"),
    ("totalsegmentator-v3", 27, "L5"),
    ("totalsegmentator-v3", 50, "C1"),
    ("moose", 1, "C1"),
    ("moose", 8, "T1"),
    ("moose", 24, "L5"),
    ("moose", 25, "sacrum"),  # S1
    ("moose", 28, "sacrum"),
    ("spine-segment", 1, "C1"),
    ("spine-segment", 20, "L1"),
    ("spine-segment", 28, "sacrum"),
    ("totalsegmentator-v1", 18, "L5"),
    ("totalsegmentator-v1", 22, "L1"),
    ("totalsegmentator-v1", 23, "T12"),
    ("totalsegmentator-v1", 34, "T1"),
    ("totalsegmentator-v1", 35, "C7"),
    ("totalsegmentator-v1", 41, "C1"),
    ("totalsegmentator-v1", 92, "sacrum"),
    ("totalsegmentator-mr", 1, "sacrum"),
    ("totalsegmentator-mr", 2, "L5"),
    ("totalsegmentator-mr", 6, "L1"),
    ("totalsegmentator-mr", 7, "T12"),
    ("totalsegmentator-mr", 18, "T1"),
    ("totalsegmentator-mr", 19, "C7"),
    ("totalsegmentator-mr", 25, "C1"),
    ("totalspineseg", 11, "C1"),
    ("totalspineseg", 17, "C7"),
    ("totalspineseg", 21, "T1"),
    ("totalspineseg", 32, "T12"),
    ("totalspineseg", 41, "L1"),
    ("totalspineseg", 45, "L5"),
    ("totalspineseg", 50, "sacrum"),
    ("spider", 1, "L5"),
    ("spider", 5, "L1"),
    ("spider", 6, "T12"),
    ("spider", 17, "T1"),
    ("spider", 18, "C7"),
]
NAMED = [scheme for scheme in SCHEMES if scheme != "binary"]


@pytest.mark.parametrize(("scheme", "label", "name"), DOCUMENTED)
def test_documented_ids(scheme: Scheme, label: int, name: str) -> None:
    assert VERTEBRAE[SCHEMES[scheme][label]].name == name


@pytest.mark.parametrize("scheme", NAMED)
def test_every_scheme_numbers_the_whole_spine_once(scheme: Scheme) -> None:
    names = [VERTEBRAE[verse].name for verse in SCHEMES[scheme].values()]

    assert [names.count(name) for name in SPINE] == [1] * len(SPINE)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_background_is_never_a_label(scheme: Scheme) -> None:
    assert 0 not in SCHEMES[scheme]
    assert set(SCHEMES[scheme].values()) <= set(VERTEBRAE)


def test_files_of_structures_are_called_like_their_vertebra() -> None:
    assert {STRUCTURES[f"vertebrae_{name}"] for name in SPINE} == {
        verse for verse, vertebra in VERTEBRAE.items() if vertebra.name in SPINE
    }
    assert STRUCTURES["sacrum"] == STRUCTURES["vertebrae_S1"] == 26


def test_classes_hold_every_vertebra_or_say_that_they_do_not() -> None:
    assert class_of(20, {"background": 0, "spine": 1}) == 1
    assert class_of(20, {"background": 0, "lumbar": 7}) == 7
    with pytest.raises(KeyError, match="lumbar"):
        class_of(20, {"background": 0, "cervical": 1})


@pytest.mark.parametrize(
    ("stems", "found"),
    [
        (["vertebrae_L1", "aorta"], {"vertebrae_L1": 20}),
        (["vertebra_S1", "Sacrum"], {"vertebra_S1": 26}),
        (["L2", "C7", "T1"], {"L2": 21, "C7": 7, "T1": 8}),
        (["T1", "T2"], {}),
        (["C1", "C2"], {}),
        (["s1", "l2"], {}),
        (["ct"], {}),
    ],
)
def test_names_of_structures(stems: list[str], found: dict[str, int]) -> None:
    assert structures(stems) == found


def test_hips_of_moose_are_no_vertebrae() -> None:
    assert not {26, 27} & SCHEMES["moose"].keys()
