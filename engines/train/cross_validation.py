"""Train once without each labelled subject, and measure on the one left out.

A training of few scans says little of scans from elsewhere; leaving each subject out
in turn says more, and how far that varies. Every fold is a training of one round with
the same settings, from weights that never saw the subject: of a parent only the shape
is taken. The scan left out decides nothing in its fold, neither which step is kept nor
when the rate falls. The model labels it as ``spine segment`` does, on the scan's own
grid, and is scored between the end vertebrae of the truth (``engines.metrics.inner``).

Source: Stone, J. R. Stat. Soc. B 36:111, 1974.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import SettingsError, TrainingError
from engines.files import require_writable, sweep, write_json
from engines.metrics import overlap, surface
from engines.metrics.evaluate import plain
from engines.metrics.inner import FEWEST, inner
from engines.networks.manifest import record_training
from engines.segment.segment import SegmentRun
from engines.segment.settings import SegmentSettings
from engines.train import loop
from engines.train.data import Pair, Scans
from engines.train.losses import IGNORED
from engines.train.settings import UNLABELLED, TrainSettings
from engines.volume import Volume, read_mask

FOLDS = "cross-validation.json"


@dataclass(frozen=True, slots=True)
class Fold:
    """How a model did on a scan that it had not seen.

    Attributes:
        held_out: name of the scan.
        dice: of the spine as one; ``precision`` and ``recall`` likewise, 0 to 1.
        hd95_mm: 95th percentile of the Hausdorff distance, infinite if nothing was
            found.
        steps: that the fold was trained for.
        inner: whether only what lies between the end vertebrae was scored, as more
            may be in view than was labelled.
    """

    held_out: str
    dice: float
    precision: float
    recall: float
    hd95_mm: float
    steps: int
    inner: bool

    def line(self) -> str:
        """Return the result in one line."""
        told = f"precision {self.precision:.3f}, recall {self.recall:.3f}"
        return f"without {self.held_out}: Dice {self.dice:.4f} on it, {told}"


def train(
    settings: TrainSettings,
    data_root: Path,
    run: Path,
    *,
    resume: bool = True,
    command: str = "",
) -> Iterator[loop.Event | Fold]:
    """Train every fold in ``run``/without-NAME, and yield how it goes.

    ``run`` gets cross-validation.json, which ``record`` puts into a model's manifest. A
    fold that is done is not done again.

    Raises:
        TrainingError: fewer than two subjects with images and labels to learn from.
        SettingsError: folds over several processes.
        And as ``loop.train`` does.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        msg = "cross-validation runs in one process"
        raise SettingsError(msg, hint="Start it without torchrun.")
    require_writable(run)
    sweep(run)
    sources = [s for s in settings.sources if s.kind != UNLABELLED]
    alone = replace(
        settings, rounds=1, sources=tuple(sources), fresh=bool(settings.parent)
    )
    subjects = held_out(Scans(data_root, alone).dealt["train"])
    if len(subjects) < 2:
        msg = "cross-validation needs two labelled subjects to learn from"
        raise TrainingError(msg, hint="Add scans, or give their part as train.")
    folds: list[Fold] = []
    for subject in subjects:
        folder = run / f"without-{subject}"
        scans = Scans(data_root, alone)
        left_out = [p for p in scans.dealt["train"] if p.subject == subject]
        scans.dealt["train"] = [p for p in scans.dealt["train"] if p not in left_out]
        scans.dealt["test"] = left_out
        yield from loop.train(
            alone, data_root, folder, resume=resume, command=command, scans=scans
        )
        scans.forget()
        model = folder / f"{settings.name}.safetensors"
        for pair in left_out:
            if pair.image is not None:
                folds.append(_scored(pair, model, folder, alone))
                yield folds[-1]
        write_json(run / FOLDS, summary(folds))


def held_out(pairs: Sequence[Pair]) -> list[str]:
    """Return the subjects that can be measured on, having an image and its labels."""
    usable = [p for p in pairs if p.source.kind == "scan"]
    return sorted({p.subject for p in usable if p.source.scheme != "binary"})


def summary(folds: Sequence[Fold]) -> dict[str, Any]:
    """Return the folds with mean, spread and range of their Dice."""
    found = np.array([fold.dice for fold in folds])
    return {
        "folds": [plain(asdict(fold)) for fold in folds],
        "mean": round(float(found.mean()), 4),
        "sd": round(float(found.std(ddof=1)), 4) if len(found) > 1 else None,
        "lowest": round(float(found.min()), 4),
        "highest": round(float(found.max()), 4),
    }


def record(model: Path, told: Mapping[str, Any]) -> None:
    """Put what ``cross-validation.json`` says into the manifest of ``model``."""
    record_training(model, {"cross_validation": dict(told)})


def read(path: Path) -> dict[str, Any]:
    """Read what ``train`` wrote.

    Raises:
        SettingsError: it is no such file.
    """
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "folds" in told:
            return told
    except (OSError, ValueError) as error:
        msg = f"cannot read {path}: {error}"
        raise SettingsError(msg) from error
    msg = f"{path} has no folds"
    raise SettingsError(msg)


def _scored(pair: Pair, model: Path, folder: Path, settings: TrainSettings) -> Fold:
    image = pair.image
    if image is None:
        msg = f"{pair.name} has no image"
        raise TrainingError(msg)
    asked = SegmentSettings(str(model), device=settings.device, force=True)
    (case,) = SegmentRun([image], folder / "labelled", asked).results()
    if case.error is not None:
        msg = f"{pair.name}: {case.error.message}"
        raise TrainingError(msg, hint=case.error.hint)
    found = read_mask(Path(case.outputs["spine"]))
    return fold_of(pair.name, found, read_mask(pair.mask), settings.steps)


def fold_of(name: str, found: Volume, truth: Volume, steps: int) -> Fold:
    """Score a label map as one spine against the truth with a label per vertebra."""
    spacing = truth.grid.spacing_mm
    marked = (truth.voxels > 0) & (truth.voxels < IGNORED)
    seen = (found.voxels > 0) & (truth.voxels != IGNORED)
    between = len(np.unique(truth.voxels[marked])) >= FEWEST
    if between:
        scored = inner(np.where(marked, truth.voxels, 0), spacing)
        marked, seen = marked & scored, seen & scored
    counts = _counted(seen, marked)
    return Fold(
        name,
        round(overlap.dice(counts), 4),
        round(overlap.precision(counts), 4),
        round(overlap.recall(counts), 4),
        _hd95(seen, marked, spacing),
        steps,
        between,
    )


def _counted(seen: NDArray[np.bool_], marked: NDArray[np.bool_]) -> overlap.Overlap:
    both = int(np.count_nonzero(seen & marked))
    sizes = int(np.count_nonzero(seen)), int(np.count_nonzero(marked))
    return overlap.Overlap(1, both, *sizes, marked.size)


def _hd95(
    seen: NDArray[np.bool_],
    marked: NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> float:
    if not (seen.any() and marked.any()):
        return float("inf")
    return round(surface.hausdorff_95(surface.distances(seen, marked, spacing)), 2)
