"""The learning rate step by step, and when a training has stopped gaining."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from engines.train.settings import TrainSettings

LEAST_SHARE = 0.01
"""The cosine ends at this share of the highest rate."""


@dataclass(slots=True)
class Pace:
    """What the validations so far mean for the next steps.

    Attributes:
        best: highest score so far; below every score before the first.
        since_best: validations since then.
        since_drop: validations since then or since the rate last fell.
        drops: how often the rate fell.
    """

    best: float = -math.inf
    since_best: int = 0
    since_drop: int = 0
    drops: int = 0

    def rate(self, settings: TrainSettings, step: int) -> float:
        """Return the learning rate of ``step``, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, settings.warmup_steps))
        fall = settings.plateau_factor**self.drops
        if settings.schedule == "cosine":
            cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            fall = max(cosine, LEAST_SHARE)
        return settings.learning_rate * rise * fall

    def told(self, settings: TrainSettings, score: float) -> bool:
        """Take in a validation's score, and return whether it is the best one.

        A score that is no number is no gain.
        """
        if score > self.best:
            self.best, self.since_best, self.since_drop = score, 0, 0
            return True
        self.since_best += 1
        self.since_drop += 1
        patient = self.since_drop < settings.plateau_patience
        if settings.schedule == "plateau" and not patient:
            self.drops, self.since_drop = self.drops + 1, 0
        return False

    def is_over(self, settings: TrainSettings) -> bool:
        """Say whether early stopping ends the training here."""
        return 0 < settings.early_stopping <= self.since_best

    def as_json(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return asdict(self)
