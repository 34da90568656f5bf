"""The parity gate: does a faster runtime label as the reference does?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engines.runtimes.runtime import Runtime

LEAST_AGREEMENT = 0.999
"""Share of probe pixels that must get the same label."""

LEAST_DICE = 0.999
"""Least Dice between the two foregrounds."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What the comparison gave.

    Attributes:
        agreement: share of pixels with the same label.
        dice: between the two foregrounds; 1 when both are empty.
        slices: probe slices that were compared.
    """

    backend: str
    precision: str
    agreement: float
    dice: float
    slices: int

    @property
    def passed(self) -> bool:
        """Say whether the faster runtime may be used."""
        return self.agreement >= LEAST_AGREEMENT and self.dice >= LEAST_DICE

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Gate":
        """Rebuild the figures from ``as_json``."""
        return cls(
            str(record["backend"]),
            str(record["precision"]),
            float(record["agreement"]),
            float(record["dice"]),
            int(record["slices"]),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures for the run record."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "agreement": round(self.agreement, 6),
            "dice": round(self.dice, 6),
            "slices": self.slices,
            "passed": self.passed,
        }


def compare(reference: Runtime, candidate: Runtime, probe: Sequence[Tensor]) -> Gate:
    """Run both on each batch (N, 1, H, W) of ``probe`` and compare their labels.

    Probabilities that are not numbers count as no agreement at all.
    """
    same = pixels = both = total = 0
    finite = True
    for batch in probe:
        probabilities = candidate.predict(batch)
        finite &= bool(torch.isfinite(probabilities).all())
        truth = reference.predict(batch).argmax(dim=1).cpu()
        found = probabilities.argmax(dim=1).cpu()
        pixels += truth.numel()
        same += int((found == truth).sum())
        both += int(((found == truth) & (truth > 0)).sum())
        total += int((found > 0).sum() + (truth > 0).sum())
    agreement = same / max(1, pixels) if finite else 0.0
    dice = (2 * both / total if total else 1.0) if finite else 0.0
    slices = sum(len(batch) for batch in probe)
    return Gate(candidate.backend, candidate.precision, agreement, dice, slices)


class Remembered:
    """A runtime that answers a batch that it has seen from memory.

    Several candidates are held against one reference, on the same batches.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.backend, self.precision = runtime.backend, runtime.precision
        self.device = runtime.device
        self._runtime = runtime
        self._known: dict[int, Tensor] = {}

    def predict(self, slices: Tensor) -> Tensor:
        """Return class probabilities; ``slices`` has to live as long as this."""
        if id(slices) not in self._known:
            self._known[id(slices)] = self._runtime.predict(slices)
        return self._known[id(slices)]
