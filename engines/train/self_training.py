"""Training in rounds: a network labels scans that nobody did, and learns from them.

The first round learns from what is labelled. Before each further one the last round's
model labels the scans of the sources of the kind ``unlabelled``; ``judge`` decides by
bone density and shape which of these masks are kept, and how far up. The round begins
with that model and learns from both. What the network is unsure of is not scored.

Source of the idea: Lee, "Pseudo-Label", ICML 2013 workshop; Xie et al., "Self-training
with Noisy Student", arXiv:1911.04252.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.errors import SettingsError, TrainingError
from engines.files import require_writable, sha256_of, write_json
from engines.networks.manifest import load_model, save_model
from engines.preprocess.restore import to_hounsfield
from engines.scans import find_scans, read_scan
from engines.segment.segment import MASK_SUFFIX, SegmentRun, SegmentSettings
from engines.train import data, judge, loop
from engines.train.settings import UNLABELLED, Source, TrainSettings
from engines.volume import read_mask, write_nifti

JUDGED = "judged.json"
DONE = "done.json"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A scan that a network labelled for the next round.

    Attributes:
        judgement: of its mask; None where there is none.
    """

    name: str
    round: int
    judgement: judge.Judgement | None
    error: str = ""

    @property
    def kept(self) -> bool:
        """Say whether the next round learns from it."""
        return self.judgement is not None and self.judgement.good

    def line(self) -> str:
        """Return what became of it in one line."""
        if self.judgement is None:
            return f"{self.name}: left out, {self.error}"
        if not self.kept:
            return f"{self.name}: left out, {'; '.join(self.judgement.against)}"
        length = self.judgement.length_mm
        return f"{self.name}: kept, {length:.0f} mm of spine"

    def as_json(self) -> dict[str, Any]:
        """Return the record of the scan."""
        found = self.judgement.as_json() if self.judgement else None
        return {
            "name": self.name,
            "kept": self.kept,
            "judgement": found,
            "error": self.error,
        }


def train(
    settings: TrainSettings,
    data_root: Path,
    run: Path,
    *,
    resume: bool = True,
    command: str = "",
) -> Iterator[loop.Event | Labelled]:
    """Train in as many rounds as ``settings`` say, and yield how it goes.

    With one round this is ``loop.train``. With more, ``run`` gets round-1, round-2 and
    so on, each as that leaves it, with the masks that it learnt from in labelled/, and
    in the end NAME.safetensors of the last one. What is finished is not done again.

    Raises:
        SettingsError: rounds over several processes.
        TrainingError: unlabelled scans that are not there, or that no mask could be
            paired with; no mask of a round can be used; and as ``loop.train`` does.
    """
    if settings.rounds == 1:
        yield from loop.train(settings, data_root, run, resume=resume, command=command)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        msg = "rounds of self-training run in one process"
        raise SettingsError(msg, hint="Start it without torchrun.")
    for source in settings.sources:
        if source.kind == UNLABELLED:
            data.names_of_images(data_root / source.path)
    require_writable(run)
    parent = settings.parent
    history: list[dict[str, Any]] = []
    for number in range(1, settings.rounds + 1):
        folder = run / f"round-{number}"
        sources = [s for s in settings.sources if s.kind != UNLABELLED]
        if number > 1:
            for source, judged in _labelled(settings, data_root, folder, parent):
                yield from judged
                sources.append(source)
                history += [one.as_json() | {"round": number} for one in judged]
            if not any(one["kept"] for one in history if one["round"] == number):
                msg = f"no mask of the model of round {number - 1} can be used"
                hint = f"See {folder / JUDGED}; train round 1 for longer."
                raise TrainingError(msg, hint=hint)
            sources = [s for s in sources if s.kind != UNLABELLED]
        round_settings = replace(
            settings, rounds=1, parent=parent, sources=tuple(sources)
        )
        path = folder / f"{settings.name}.safetensors"
        if not _is_done(folder, round_settings, path) or not resume:
            yield from loop.train(
                round_settings, data_root, folder, resume=resume, command=command
            )
            write_json(folder / DONE, _mark(round_settings, path))
        parent = str(path)
    last = load_model(Path(parent))
    told = {**last.manifest.training, "rounds": settings.rounds, "labelled": history}
    save_model(
        run / f"{settings.name}.safetensors",
        last.network,
        replace(last.manifest, training=told),
    )


def _labelled(
    settings: TrainSettings, root: Path, folder: Path, model: str
) -> Iterator[tuple[Source, Sequence[Labelled]]]:
    """Label and judge the scans of each unlabelled source; yield it as a source."""
    records = []
    unlabelled = [s for s in settings.sources if s.kind == UNLABELLED]
    for place, source in enumerate(unlabelled):
        masks = (folder / "labelled" / str(place)).resolve()
        judged = list(_judged(settings, root / source.path, masks, model, folder.name))
        records += [one.as_json() for one in judged]
        write_json(folder / JUDGED, records)
        kept = replace(source, kind="scan", masks=str(masks), scheme="binary")
        if any(one.kept for one in judged):
            yield kept, judged
        else:
            yield source, judged


def _judged(
    settings: TrainSettings, scans: Path, masks: Path, model: str, name: str
) -> Iterator[Labelled]:
    """Label scans with a model, and keep in ``masks`` those masks that are good."""
    raw = masks.with_name(masks.name + "-raw")
    number = int(name.rpartition("-")[2])
    asked = SegmentSettings(
        model, device=settings.device, precision="auto", mark_uncertain=True
    )
    run = SegmentRun([scans], raw, asked)
    found = {one.name: one for one in find_scans([scans])}
    named = data.names_of_images(scans)
    for case in run.results():
        told = case.name.rsplit("/", 1)[-1]
        target = masks / (told + MASK_SUFFIX)
        if case.status == "failed" or case.name not in found:
            target.unlink(missing_ok=True)
            reason = case.error.message if case.error else "it could not be read"
            yield Labelled(told, number, None, reason)
            continue
        if told not in named:
            yield Labelled(told, number, None, "it is not called NAME_ct.nii.gz")
            continue
        mask = read_mask(Path(case.outputs["spine"]))
        scan = to_hounsfield(read_scan(found[case.name]))
        judgement = judge.judge(scan, mask)
        if judgement.good:
            kept = judge.trusted(mask, judgement)
            write_nifti(target, kept.voxels, mask, mask.provenance)
        else:
            target.unlink(missing_ok=True)
        yield Labelled(told, number, judgement)


def _mark(settings: TrainSettings, path: Path) -> dict[str, Any]:
    sha256 = sha256_of(path) if path.exists() else ""
    return {"settings": json.loads(json.dumps(settings.as_json())), "sha256": sha256}


def _is_done(folder: Path, settings: TrainSettings, path: Path) -> bool:
    record = folder / DONE
    if not record.exists():
        return False
    return bool(json.loads(record.read_text(encoding="utf-8")) == _mark(settings, path))
