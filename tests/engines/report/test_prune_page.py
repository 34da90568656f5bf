"""The report of a pruning: its table, its pictures and what it says of chance."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.report import prune_page


def point(criterion: str, seed: int, number: int, dice: float | None) -> dict[str, Any]:
    left = 0.5**number
    return {
        "criterion": criterion,
        "seed": seed,
        "round": number,
        "left": left,
        "parameters": int(1e6 * left),
        "gflop": 10 * left,
        "size_bytes": int(2e6 * left),
        "ms": 80 * left,
        "dice_cut": dice and dice / 2,
        "dice": dice,
        "kept": {"first": left, "second": 1.0},
        "scores": {"first": [0.1, 0.2], "second": [3.0]} if number else {},
        "model": "",
    }


def points(**last: Sequence[float | None]) -> list[dict[str, Any]]:
    """Return the model as given and, by criterion, the Dice of each seed."""
    made = [point("", 0, 0, 0.95)]
    for criterion, found in last.items():
        for seed, dice in enumerate(found):
            made += [point(criterion, seed, 1, 0.93), point(criterion, seed, 2, dice)]
    return made


@pytest.mark.parametrize(
    ("gradient", "random", "said"),
    [
        ((0.91, 0.92, 0.915), (0.90, 0.895, 0.90), "leads by 0.0167, more than"),
        ((0.91, 0.92, 0.915), (0.91, 0.92, 0.914), "does not beat random"),
        ((0.90, 0.90, 0.90), (0.92, 0.92, 0.92), "does not beat random"),
        ((0.91,), (0.80,), "one seed, which decides nothing"),
    ],
)
def test_it_says_whether_chance_was_beaten(
    gradient: Sequence[float], random: Sequence[float], said: str
) -> None:
    assert said in prune_page.verdict(points(gradient=gradient, random=random))


def test_it_says_nothing_of_what_was_not_compared() -> None:
    assert prune_page.verdict(points(gradient=(0.9,))) == ""
    assert prune_page.verdict(points(gradient=(None,), random=(None,))) == ""


def test_the_report_is_written(tmp_path: Path) -> None:
    prune_page.write(
        tmp_path, points(gradient=(0.91, 0.92), random=(0.9, 0.9)), ["a <fact>"]
    )
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [row["speedup"] for row in rows[:3]] == ["1.0", "2.0", "4.0"]
    assert len(rows) == 9
    html = (tmp_path / "report.html").read_text()
    assert "a &lt;fact&gt;" in html
    assert "leads by" in html
    assert "as given" in html
    assert f"<figcaption>{prune_page.CURVES}" in html
    for name in ("report.png", "layers.png"):
        pixels = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert pixels.std() > 10


def test_without_validation_the_filters_left_are_drawn(tmp_path: Path) -> None:
    held = points(gradient=(None,))
    for one in held:
        one["dice"] = one["dice_cut"] = None
    prune_page.write(tmp_path, held, [])
    assert (tmp_path / "report.png").stat().st_size > 10_000
