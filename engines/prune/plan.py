"""What leaves a network: chosen by scores for a target, or written by a person."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import PlanError, SettingsError
from engines.prune.graph import Group
from engines.prune.sensitivity import Scores
from engines.prune.shrink import Removed

SCOPES = ("layer", "global")
TARGETS = ("ratio", "flops", "params", "latency")
MOST = 0.999
"""Largest share of filters that is tried for a target."""

HALVINGS = 12


@dataclass(frozen=True, slots=True)
class Target:
    """What pruning aims at.

    Attributes:
        kind: ``ratio`` of the filters that leave; ``flops`` or ``params``, the share
            of operations or weights that may be left; ``latency`` of a slice in ms.
        value: a share between 0 and 1, or milliseconds.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in TARGETS:
            msg = f"no target is called {self.kind!r}"
            raise SettingsError(msg, hint=f"Choose one of: {', '.join(TARGETS)}.")
        if self.kind == "latency":
            if not (self.value > 0 and math.isfinite(self.value)):
                msg = f"the latency must be above 0 ms, not {self.value:g}"
                raise SettingsError(msg)
        elif not 0 < self.value < 1:
            told = {"ratio": "--ratio", "flops": "--flops", "params": "--params"}
            msg = f"{told[self.kind]} must lie between 0 and 1, not {self.value:g}"
            raise SettingsError(msg, hint="Give a share, as 0.5 or 50%.")

    def part(self, number: int, rounds: int, now: float) -> "Target":
        """Return what the round ``number`` of ``rounds`` aims at, from 1.

        Args:
            number: of the round.
            rounds: in all.
            now: ms that a slice takes before the first round, for a latency.
        """
        done = number / rounds
        if self.kind == "ratio":
            return Target("ratio", 1 - (1 - self.value) ** (1 / rounds))
        if self.kind == "latency":
            return Target("latency", now * (self.value / now) ** done)
        return Target(self.kind, self.value**done)


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses channels of ``groups`` by ``scores``.

    Attributes:
        scope: ``layer`` takes the same share out of every group; ``global`` those
            that score lowest in the whole network.
        multiple: of which the number of channels left is, where a group has so many.
    """

    groups: Sequence[Group]
    scores: Scores
    scope: str = "layer"
    multiple: int = 8

    def removed(self, share: float) -> dict[str, list[int]]:
        """Return the channels that leave when ``share`` of the filters should."""
        left = self._left(share)
        found = {}
        for group in self.groups:
            blocks = np.asarray(self.scores[group.name]).reshape(-1, group.block)[:, 0]
            count = (group.size - left[group.name]) // group.block
            order = np.argsort(blocks, kind="stable")[:count]
            places = order[:, None] * group.block + np.arange(group.block)
            found[group.name] = sorted(places.ravel().tolist())
        return found

    def _left(self, share: float) -> dict[str, int]:
        if self.scope == "layer":
            wanted = {g.name: g.size * (1 - share) for g in self.groups}
        else:
            every = np.concatenate([self.scores[g.name] for g in self.groups])
            edge = np.quantile(every, share, method="inverted_cdf")
            wanted = {
                g.name: float((self.scores[g.name] > edge).sum()) for g in self.groups
            }
        return {g.name: self._rounded(g, wanted[g.name]) for g in self.groups}

    def _rounded(self, group: Group, wanted: float) -> int:
        """Return the number nearest to ``wanted`` that the group may have left."""
        step = math.lcm(self.multiple, group.block)
        return min(group.size, max(step, round(wanted / step) * step))


def choose(
    chooser: Chooser, target: Target, cost: Callable[[Removed], float]
) -> dict[str, list[int]]:
    """Return the least that must leave to reach ``target``.

    Args:
        chooser: of the channels.
        target: of this round.
        cost: of a network without some channels: the share of operations or weights
            that is left, or ms; not asked for a ratio.

    Raises:
        PlanError: the target cannot be reached without a layer vanishing.
    """
    require_reachable(chooser, target, cost)
    if target.kind == "ratio":
        return chooser.removed(target.value)
    low, high = 0.0, MOST
    best = chooser.removed(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        removed = chooser.removed(middle)
        if cost(removed) <= target.value:
            best, high = removed, middle
        else:
            low = middle
    return best


def require_reachable(
    chooser: Chooser, target: Target, cost: Callable[[Removed], float]
) -> None:
    """Refuse a target that needs more than can leave; arguments as for ``choose``.

    Raises:
        PlanError: a layer would vanish before the target is reached.
    """
    most = chooser.removed(MOST)
    if target.kind == "ratio":
        if chooser.removed(target.value) == most:
            _refuse(chooser, f"{target.value:.1%} of the filters cannot leave")
        return
    least = cost(most)
    if least > target.value:
        unit = f"{least:.1f} ms" if target.kind == "latency" else f"{least:.1%}"
        _refuse(chooser, f"{unit} is the least that can be reached")


def _refuse(chooser: Chooser, msg: str) -> None:
    smallest = min(chooser.groups, key=lambda g: g.size)
    msg = f"{msg}: layers would vanish, as {smallest.name}"
    hint = (
        f"Every layer keeps at least {chooser.multiple} channels (--round); "
        "aim lower, or round to less."
    )
    raise PlanError(msg, hint=hint)


@dataclass(frozen=True, slots=True)
class Plan:
    """Channels that leave, by group.

    Attributes:
        model: name of the model that it was made for, and
        sha256: the hash of that model.
        criterion: that chose.
        removed: name of a group -> channels that leave.
        scores: name of a group -> score of each channel.
    """

    model: str
    sha256: str
    criterion: str
    removed: Removed
    scores: Scores

    def as_json(self, groups: Sequence[Group]) -> dict[str, Any]:
        """Return the plan as it is stored, one entry per group."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "criterion": self.criterion,
            "groups": [
                {
                    "name": g.name,
                    "channels": g.size,
                    "left": g.size - len(self.removed.get(g.name, ())),
                    "block": g.block,
                    "read_by": sorted(g.readers()),
                    "remove": list(self.removed.get(g.name, ())),
                    "scores": [float(f"{v:.4g}") for v in self.scores[g.name]],
                }
                for g in groups
            ],
        }


def written(plan: Plan, groups: Sequence[Group]) -> str:
    """Return the plan as JSON with one line per list, for people to edit."""
    record = plan.as_json(groups)
    entries = record.pop("groups")
    head = json.dumps(record, indent=1)[:-2]
    lines = [
        "  {\n"
        + ",\n".join(f'   "{k}": {json.dumps(v)}' for k, v in e.items())
        + "\n  }"
        for e in entries
    ]
    return head + ',\n "groups": [\n' + ",\n".join(lines) + "\n ]\n}\n"


def read(path: Path, groups: Sequence[Group]) -> Plan:
    """Read a plan and check that it fits ``groups``.

    Raises:
        PlanError: not a plan, names or channels that the network has not, blocks
            torn apart, or a layer that would vanish.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        removed = {e["name"]: [*e["remove"]] for e in record["groups"]}
        scores = {e["name"]: np.array(e.get("scores", ())) for e in record["groups"]}
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise PlanError(msg) from error
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path} is not a pruning plan ({type(error).__name__}: {error})"
        raise PlanError(msg, hint="Begin with one that --dry-run wrote.") from error
    require_fit(removed, groups)
    for group in groups:
        if len(scores.get(group.name, ())) != group.size:
            scores[group.name] = np.ones(group.size)
    kept = {g.name: sorted(removed.get(g.name, ())) for g in groups}
    return Plan(
        str(record.get("model", "")),
        str(record.get("sha256", "")),
        str(record.get("criterion", "plan")),
        kept,
        scores,
    )


def require_fit(removed: Mapping[str, Sequence[Any]], groups: Sequence[Group]) -> None:
    """Refuse what a network cannot lose.

    Raises:
        PlanError: names or channels that it has not, blocks torn apart, or a layer
            that would vanish.
    """
    known = {g.name: g for g in groups}
    for name, channels in removed.items():
        if name not in known:
            msg = f"the plan names {name!r}, which this network cannot prune"
            hint = f"It has: {', '.join([*known][:8])} ..."
            raise PlanError(msg, hint=hint)
        group = known[name]
        whole = all(type(c) is int and 0 <= c < group.size for c in channels)
        if not whole or len({*channels}) != len(channels):
            msg = f"the plan removes channels of {name!r} that are not there, or twice"
            hint = f"It has the channels 0 to {group.size - 1}."
            raise PlanError(msg, hint=hint)
        if len(channels) == group.size:
            msg = f"the plan removes every channel of {name!r}: the layer would vanish"
            raise PlanError(msg, hint="Leave at least one.")
        torn = {c // group.block for c in channels}
        if len(torn) * group.block != len(channels):
            msg = f"{name!r} can only lose whole blocks of {group.block} channels"
            raise PlanError(msg, hint="A group norm follows it.")
