"""What a pruning measured: the networks on the way from large to small."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """One network on the way from large to small.

    Attributes:
        criterion: that chose what left; empty for the model as it was given.
        left: share of the filters that may leave that are still there.
        parameters: trainable weights.
        gflop: of a slice of ``SLICE_PIXELS`` squared.
        size_bytes: of the model file, in half precision.
        dice_cut: on the validation slices before fine-tuning, None without any.
        dice: after it.
        ms: of a slice; measured together with the others in the end.
        kept: name of a group -> share of its channels that is left, of the original.
        scores: name of a group -> score of each channel before this round.
        model: the file, below the folder of the pruning; empty for the model as given.
    """

    criterion: str
    seed: int
    round: int
    left: float
    parameters: int
    gflop: float
    size_bytes: int
    dice_cut: float | None
    dice: float | None
    ms: float | None = None
    kept: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    model: str = ""

    @property
    def name(self) -> str:
        """What the point is called in tables."""
        if not self.criterion:
            return "as given"
        return f"{self.criterion} {self.seed}, round {self.round}"

    def line(self) -> str:
        """Return the point in one line."""
        scored = "" if self.dice is None else f", validation Dice {self.dice:.4f}"
        size = f"{self.parameters / 1e6:.2f} M weights, {self.gflop:.2f} GFLOP"
        return f"{self.name}: {size}{scored}"

    def as_json(self) -> dict[str, Any]:
        """Return the record of the point."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a pruning came to: every point, the model as it was given first."""

    dense: Point
    points: tuple[Point, ...]
    path: Path

    @property
    def last(self) -> Point:
        """The point whose network was kept."""
        first = (self.points[0].criterion, self.points[0].seed)
        return [p for p in self.points if (p.criterion, p.seed) == first][-1]

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``, without scores."""
        points = [p.as_json() for p in (self.dense, *self.points)]
        brief = [{k: v for k, v in p.items() if k != "scores"} for p in points]
        return {"model": str(self.path), "points": brief, "speedup": self.speedup}

    @property
    def speedup(self) -> float | None:
        """How many times as fast the kept network is as the one that was given."""
        held = (self.dense.ms, self.last.ms)
        return held[0] / held[1] if held[0] and held[1] else None


def read_point(path: Path) -> Point:
    """Read what ``Point.as_json`` wrote."""
    return Point(**json.loads(path.read_text(encoding="utf-8")))
