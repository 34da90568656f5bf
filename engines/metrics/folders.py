"""Score two folders of label maps with one call."""

from pathlib import Path

from engines.metrics.evaluate import EvaluateSettings
from engines.metrics.evaluate import evaluate as scores
from engines.metrics.pairs import find_pairs
from engines.results import CaseResult


def evaluate(
    predictions: str | Path,
    truth: str | Path,
    *,
    settings: EvaluateSettings | None = None,
) -> list[CaseResult]:
    """Return the scores of label maps against the truth, case by case.

    Args:
        predictions: a label map, or a folder of them.
        truth: likewise; maps are paired by their names.
        settings: which labels and metrics; None for the usual ones.

    Returns:
        one record a pair, whose ``details`` hold the scores; a pair that cannot be
        scored is ``failed``, with its reason.

    Raises:
        NotFoundError: there are no pairs.
    """
    pairs, _ = find_pairs(Path(predictions), Path(truth))
    return list(scores(pairs, settings))
