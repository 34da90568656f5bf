"""What leaves: by share, by target, and by a plan that a person changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engines.errors import PlanError, SettingsError
from engines.prune import graph, plan
from engines.prune.graph import Group
from engines.prune.plan import Chooser, Plan, Target


def made(sizes: dict[str, int], block: int = 1) -> list[Group]:
    return [Group(name, size, (), (name,), block) for name, size in sizes.items()]


def scored(groups: list[Group], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {g.name: np.repeat(rng.random(g.size // g.block), g.block) for g in groups}


@given(
    share=st.floats(0.01, 0.99),
    size=st.integers(1, 12).map(lambda n: 8 * n),
    multiple=st.sampled_from([1, 4, 8, 16]),
    block=st.sampled_from([1, 2, 4]),
    scope=st.sampled_from(plan.SCOPES),
)
def test_what_is_left_is_rounded_and_never_nothing(
    share: float, size: int, multiple: int, block: int, scope: str
) -> None:
    groups = made({"a": size, "b": 64}, block)
    removed = Chooser(groups, scored(groups), scope, multiple).removed(share)
    for group in groups:
        gone = removed[group.name]
        left = group.size - len(gone)
        assert left > 0
        assert left == group.size or left % multiple == 0
        assert gone == sorted(set(gone))
        assert {c // block for c in gone} == {c // block for c in gone[::block]}
        assert len(gone) % block == 0


def test_the_lowest_scores_leave() -> None:
    groups = made({"a": 16})
    scores = {"a": np.arange(16.0)[::-1]}
    removed = Chooser(groups, scores, "layer", 8).removed(0.5)
    assert removed == {"a": [*range(8, 16)]}


def test_global_takes_where_the_scores_are_low() -> None:
    groups = made({"a": 32, "b": 32})
    scores = {"a": np.linspace(0, 1, 32), "b": np.linspace(2, 3, 32)}
    removed = Chooser(groups, scores, "global", 8).removed(0.375)
    assert {name: len(gone) for name, gone in removed.items()} == {"a": 24, "b": 0}


@pytest.mark.parametrize("wanted", [0.8, 0.5, 0.2, 0.13])
def test_a_target_is_reached_with_the_least(wanted: float) -> None:
    groups = made({"a": 512, "b": 512})
    chooser = Chooser(groups, scored(groups), "layer", 8)

    def cost(removed: dict[str, list[int]]) -> float:
        return 1 - sum(map(len, removed.values())) / 1024

    removed = plan.choose(chooser, Target("params", wanted), cost)
    assert wanted - 16 / 512 < cost(removed) <= wanted


def test_a_target_out_of_reach_is_refused() -> None:
    groups = made({"a": 16, "b": 64})
    chooser = Chooser(groups, scored(groups))
    with pytest.raises(PlanError, match=r"30\.0% is the least.*vanish") as caught:
        plan.choose(chooser, Target("flops", 0.1), lambda _: 0.3)
    assert "--round" in caught.value.hint
    with pytest.raises(PlanError, match="vanish"):
        plan.choose(chooser, Target("ratio", 0.95), lambda _: 0.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 1.5, float("nan")])
@pytest.mark.parametrize("kind", ["ratio", "flops", "params"])
def test_a_share_lies_between_0_and_1(kind: str, value: float) -> None:
    with pytest.raises(SettingsError, match="between 0 and 1"):
        Target(kind, value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_latency_is_above_0(value: float) -> None:
    with pytest.raises(SettingsError, match="above 0 ms"):
        Target("latency", value)


def test_rounds_come_to_the_target() -> None:
    assert Target("flops", 0.25).part(2, 2, 0).value == pytest.approx(0.25)
    assert Target("flops", 0.25).part(1, 2, 0).value == pytest.approx(0.5)
    each = Target("ratio", 0.75).part(1, 2, 0).value
    assert 1 - (1 - each) ** 2 == pytest.approx(0.75)
    assert Target("latency", 20).part(1, 2, 80).value == pytest.approx(40)


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 1),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1),
        nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    ).eval()


@pytest.fixture
def groups(network: nn.Module) -> list[Group]:
    return graph.groups(network, torch.rand(1, 1, 4, 4))


@pytest.fixture
def held(groups: list[Group], tmp_path: Path) -> Path:
    chooser = Chooser(groups, scored(groups), "layer", 2)
    chosen = Plan("m", "abc", "random", chooser.removed(0.5), chooser.scores)
    path = tmp_path / "plan.json"
    path.write_text(plan.written(chosen, groups))
    return path


def test_a_plan_comes_back_as_it_was_written(held: Path, groups: list[Group]) -> None:
    record = json.loads(held.read_text())
    assert [(g["name"], g["channels"], g["left"]) for g in record["groups"]] == [
        ("0", 8, 4),
        ("3", 16, 8),
    ]
    assert record["groups"][0]["read_by"] == ["3"]
    back = plan.read(held, groups)
    assert (back.model, back.sha256, back.criterion) == ("m", "abc", "random")
    assert {g["name"]: g["remove"] for g in record["groups"]} == back.removed


def test_a_person_can_change_it(held: Path, groups: list[Group]) -> None:
    record = json.loads(held.read_text())
    record["groups"] = [{"name": "3", "remove": [5, 1]}]
    held.write_text(json.dumps(record))
    assert plan.read(held, groups).removed == {"0": [], "3": [1, 5]}


@pytest.mark.parametrize(
    ("name", "remove", "said"),
    [
        ("7", [0], "cannot prune"),
        ("5", [0], "cannot prune"),
        ("3", [16], "not there"),
        ("3", [1, 1], "twice"),
        ("3", ["1"], "not there"),
        ("3", [*range(16)], "vanish"),
        ("0", [0], "whole blocks of 2"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(
    name: str, remove: list[object], said: str, held: Path, groups: list[Group]
) -> None:
    held.write_text(json.dumps({"groups": [{"name": name, "remove": remove}]}))
    with pytest.raises(PlanError, match=said) as caught:
        plan.read(held, groups)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"groups": [3]}', '{"groups": 3}'])
def test_what_is_no_plan_is_refused(text: str, held: Path, groups: list[Group]) -> None:
    held.write_text(text)
    with pytest.raises(PlanError, match="not a pruning plan"):
        plan.read(held, groups)
