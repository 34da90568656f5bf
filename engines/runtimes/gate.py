"""The parity gate: does a faster runtime label as the reference does?

``judge`` holds a runtime against the golden probes of its model, whose labels torch
gave in float32 when the model was made; ``compare`` holds two runtimes against each
other on the scans at hand. Pixels that are a tie between two classes in the reference
itself, whose label is a matter of rounding, count neither for nor against a runtime.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.arrays import Array, on_device, to_numpy
from engines.networks.probes import Probe
from engines.runtimes.runtime import Runtime

LEAST_AGREEMENT = 0.999
"""Share of pixels that must get the same label."""

LEAST_DICE = 0.999
"""Least Dice between the two foregrounds."""

TIE = 0.05
"""Margin between the two likeliest classes of the reference below which its own label
is a matter of rounding: bfloat16 moves a probability by about half of that."""

SURE = 0.5
"""Margin of the reference from which on no pixel may get another label."""

BATCH: Mapping[int, int] = {2: 8, 3: 1}
"""Dimensions -> slices or cubes of a probe that are computed together."""

MARGIN_STEPS = 255
"""Steps in which a probe holds a margin of 1."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What the comparison gave.

    Attributes:
        agreement: share of pixels with the same label, ties left out; 0 where a
            probability is no number.
        dice: between the two foregrounds, ties left out; 1 when both are empty.
        slices: that were compared, or cubes.
        ties: pixels of another label where the margin of the reference is below
            ``TIE``.
        errors: the other pixels of another label.
        surest: largest margin of a pixel of another label, 0 where there is none.
    """

    backend: str
    precision: str
    agreement: float
    dice: float
    slices: int
    ties: int = 0
    errors: int = 0
    surest: float = 0.0

    @property
    def passed(self) -> bool:
        """Say whether the faster runtime may be used."""
        enough = self.agreement >= LEAST_AGREEMENT and self.dice >= LEAST_DICE
        return enough and self.surest < SURE

    @property
    def figures(self) -> str:
        """Return agreement and Dice in words, and what was sure but labelled so."""
        told = f"agreement {self.agreement:.4%}, Dice {self.dice:.4f}"
        if self.surest >= SURE:
            told += f", another label at a margin of {self.surest:.2f}"
        return told

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Gate":
        """Rebuild the figures from ``as_json``."""
        return cls(
            str(record["backend"]),
            str(record["precision"]),
            float(record["agreement"]),
            float(record["dice"]),
            int(record["slices"]),
            int(record.get("ties", 0)),
            int(record.get("errors", 0)),
            float(record.get("surest", 0)),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures for records; rounding changes no verdict."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "agreement": _rounded(self.agreement, LEAST_AGREEMENT),
            "dice": _rounded(self.dice, LEAST_DICE),
            "slices": self.slices,
            "ties": self.ties,
            "errors": self.errors,
            "surest": _rounded(self.surest, SURE),
            "passed": self.passed,
        }


def judge(runtime: Runtime, probes: Sequence[Probe]) -> Gate:
    """Return how a runtime labels the golden probes of its model.

    Without any probe nothing agrees.
    """
    tally = _Tally()
    for probe in probes:
        step = BATCH[probe.dimensions]
        for start in range(0, len(probe), step):
            part = slice(start, start + step)
            given = on_device(probe.images[part], runtime.device)
            tally.add(
                to_numpy(runtime.predict(given)),
                probe.labels[part],
                probe.margins[part],
            )
    return tally.gate(runtime)


def compare(reference: Runtime, candidate: Runtime, batches: Sequence[Array]) -> Gate:
    """Run both on each batch (N, 1, H, W), or of cubes, and compare their labels.

    Args:
        reference: what is right.
        candidate: what is held against it.
        batches: arrays of the device of both.
    """
    tally = _Tally()
    for batch in batches:
        right = to_numpy(reference.predict(batch))
        second, first = np.moveaxis(np.partition(right, -2, axis=1)[:, -2:], 1, 0)
        margins = np.rint((first - second) * MARGIN_STEPS).astype(np.uint8)
        found = to_numpy(candidate.predict(batch))
        tally.add(found, right.argmax(axis=1), margins)
    return tally.gate(candidate)


class _Tally:
    """Counts of what agrees."""

    def __init__(self) -> None:
        self._slices = self._pixels = self._same = 0
        self._both = self._foreground = 0
        self._ties = self._errors = self._surest = 0
        self._finite = True

    def add(
        self,
        probabilities: NDArray[np.float32],
        truth: NDArray[np.integer[Any]],
        margins: NDArray[np.uint8],
    ) -> None:
        """Count a batch: probabilities (N, classes, ...), labels and margins (N, ...).

        Raises:
            ValueError: the shapes do not fit each other.
        """
        found = probabilities.argmax(axis=1)
        if found.shape != truth.shape:
            msg = f"labels of {found.shape} were given where {truth.shape} was expected"
            raise ValueError(msg)
        self._finite &= bool(np.isfinite(probabilities).all())
        same, clear = found == truth, margins >= TIE * MARGIN_STEPS
        self._slices += len(truth)
        self._pixels += int(clear.sum())
        self._same += int((same & clear).sum())
        self._both += int((same & (truth > 0) & clear).sum())
        self._foreground += int(((found > 0) & clear).sum())
        self._foreground += int(((truth > 0) & clear).sum())
        self._ties += int((~same & ~clear).sum())
        self._errors += int((~same & clear).sum())
        self._surest = max(self._surest, int(margins[~same].max(initial=0)))

    def gate(self, runtime: Runtime) -> Gate:
        """Return the figures of all batches."""
        dice = 2 * self._both / self._foreground if self._foreground else 1.0
        return Gate(
            runtime.backend,
            runtime.precision,
            self._same / max(1, self._pixels) if self._finite else 0.0,
            dice if self._finite else 0.0,
            self._slices,
            self._ties,
            self._errors,
            self._surest / MARGIN_STEPS,
        )


def _rounded(value: float, least: float) -> float:
    short = round(value, 6)
    return short if (short >= least) == (value >= least) else value
