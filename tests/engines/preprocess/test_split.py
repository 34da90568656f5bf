"""Subjects are dealt whole, and the same way each time."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import SettingsError
from engines.preprocess import split

NAMES = st.lists(st.text("abcdef0123456789", min_size=1), unique=True, max_size=60)


@given(NAMES, st.sampled_from(list(split.FRACTIONS)), st.integers(0, 99))
def test_each_subject_is_in_one_part(names: list[str], how: str, seed: int) -> None:
    dealt = split.deal(names, how, seed)

    assert sorted(chain(*dealt.values())) == sorted(names)
    for part, share in zip(split.PARTS, split.FRACTIONS[how], strict=True):
        assert abs(len(dealt[part]) - share * len(names)) <= 1.5
        if share and len(names) >= 3:
            assert dealt[part]


@pytest.mark.parametrize(
    ("count", "how", "sizes"),
    [
        (10, "80/10/10", (8, 1, 1)),
        (10, "80/20", (8, 2, 0)),
        (100, "80/20-of-train", (64, 16, 20)),
        (3, "80/20-of-train", (1, 1, 1)),
        (100, "80/10/10", (80, 10, 10)),
        (3, "80/10/10", (1, 1, 1)),
        (1, "80/20", (1, 0, 0)),
        (0, "80/20", (0, 0, 0)),
    ],
)
def test_sizes_of_parts(count: int, how: str, sizes: tuple[int, ...]) -> None:
    dealt = split.deal([f"s{n}" for n in range(count)], how, 0)

    assert tuple(len(dealt[part]) for part in split.PARTS) == sizes


def test_only_seed_and_names_decide() -> None:
    names = [f"s{n}" for n in range(20)]

    assert split.deal(names, "80/20", 3) == split.deal(names[::-1], "80/20", 3)
    assert split.deal(names, "80/20", 3) != split.deal(names, "80/20", 4)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("sub-verse004/sub-verse004", "sub-verse004"),
        ("raw/sub-gl003_dir-ax", "sub-gl003"),
        ("sub-7/ses-2/image", "sub-7"),
        ("p7_ses-1_acq-bone", "p7"),
        ("patient_12", "patient_12"),
        ("a/lidc0001", "lidc0001"),
        ("s0001/ct", "s0001"),
    ],
)
def test_subject(name: str, subject: str) -> None:
    assert split.subject_of(name) == subject


def test_unknown_split_is_refused() -> None:
    with pytest.raises(SettingsError, match="no split is called '50/50'") as caught:
        split.deal(["a"], "50/50", 0)
    assert "80/10/10" in caught.value.hint
