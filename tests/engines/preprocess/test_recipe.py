"""Recipes say what they mean, survive JSON, and refuse nonsense."""

import json
from typing import Any

import pytest

from engines.errors import SettingsError
from engines.preprocess import recipe
from engines.preprocess.recipe import RECIPES, Recipe

ROWS = pytest.mark.parametrize("name", list(RECIPES))


@ROWS
def test_row_survives_json(name: str) -> None:
    row = recipe.find(name)

    assert row.name == name
    assert Recipe.from_json(json.loads(json.dumps(row.as_json()))) == row


@ROWS
def test_row_names_its_source(name: str) -> None:
    assert RECIPES[name].source


def test_unknown_recipe_is_told_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="no recipe is called 'x'") as caught:
        recipe.find("x")
    assert all(name in caught.value.hint for name in RECIPES)


@pytest.mark.parametrize(
    "bad",
    [
        {"normalisation": "z"},
        {"modality": "pet"},
        {"orientation": "RLS"},
        {"orientation": "ras"},
        {"spacing_mm": 0.01},
        {"size": 4},
        {"size": 256, "spacing_mm": 1.0},
        {"clamp": (800.0, -1000.0)},
        {"clamp": (float("nan"), 1.0)},
        {"smoothing_mm": -1.0},
    ],
    ids=str,
)
def test_nonsense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(bad))}.* cannot be"):
        Recipe("mine", **bad)


def test_unknown_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="no setting called 'colour'"):
        Recipe.from_json({"name": "x", "colour": 1})


def test_adjusting_nothing_changes_nothing() -> None:
    assert recipe.adjusted("linknet-2025") == RECIPES["linknet-2025"]
    assert recipe.adjusted(None) == Recipe("custom")


def test_adjusted_recipe_does_not_claim_the_papers_name() -> None:
    made = recipe.adjusted("linknet-2025", normalisation="none")

    assert made.name == "linknet-2025, changed"
    assert made.normalisation == "none"
    assert made.clamp == (-1000.0, 800.0)


@pytest.mark.parametrize(
    ("base", "changes", "spacing_mm", "size"),
    [
        ("linknet-2025", {"spacing_mm": 1.0}, 1.0, None),
        ("spine-ct", {"size": 128}, None, 128),
        ("spine-ct", {"spacing_mm": 0.0}, None, None),
        ("linknet-2025", {"size": 0}, None, None),
        ("linknet-2025", {"spacing_mm": 0.0}, None, 256),
        (None, {"size": 64}, None, 64),
    ],
)
def test_spacing_and_size_take_each_others_place(
    base: str | None,
    changes: dict[str, Any],
    spacing_mm: float | None,
    size: int | None,
) -> None:
    made = recipe.adjusted(base, **changes)

    assert (made.spacing_mm, made.size) == (spacing_mm, size)


def test_spacing_and_size_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="size with spacing_mm"):
        recipe.adjusted(None, spacing_mm=1.0, size=64)
