"""Training in rounds: a network labels scans that nobody did, and learns from them.

The first round learns from what is labelled. Before each further one the last round's
model labels the scans of the sources of the kind ``unlabelled``; ``judge`` decides by
bone density and shape which of these masks are kept, and how far up. The round begins
with that model and learns from both. What the network is unsure of is not scored.

Another model may label them in its place, before the first round already
(``labelled_by`` of a source): one that knows the spine well teaches one that is to name
vertebrae. These are counted by the regions that the first one sees, so that a scan in
which no two regions meet is left out.

Source of the idea: Lee, "Pseudo-Label", ICML 2013 workshop; Xie et al., "Self-training
with Noisy Student", arXiv:1911.04252.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engines import labels
from engines.errors import SettingsError, TrainingError
from engines.files import require_writable, sha256_of, sweep, write_json
from engines.networks import shelf
from engines.networks.manifest import load_model, save_model
from engines.preprocess.restore import to_hounsfield
from engines.scans import find_scans, read_scan
from engines.segment import golden
from engines.segment.models import IN_ORDER
from engines.segment.segment import (
    MASK_SUFFIX,
    VERTEBRAE_SUFFIX,
    SegmentRun,
)
from engines.segment.settings import SegmentSettings
from engines.train import data, judge, loop
from engines.train.losses import IGNORED
from engines.train.settings import UNLABELLED, Source, TrainSettings
from engines.volume import Volume, read_mask, write_nifti

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

    With one round and nothing to label this is ``loop.train``. Else ``run`` gets
    round-1, round-2 and so on, each as that leaves it, with the masks that it learnt
    from in labelled/, and in the end NAME.safetensors of the last one. What is finished
    is not done again.

    Raises:
        SettingsError: rounds over several processes.
        TrainingError: unlabelled scans that are not there, or that no mask could be
            paired with; no mask of a round can be used; and as ``loop.train`` does.
        UnknownModelError: there is no model of the name in ``labelled_by``.
    """
    unlabelled = [s for s in settings.sources if s.kind == UNLABELLED]
    if settings.rounds == 1 and not unlabelled:
        yield from loop.train(settings, data_root, run, resume=resume, command=command)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        msg = "rounds of self-training run in one process"
        raise SettingsError(msg, hint="Start it without torchrun.")
    for source in unlabelled:
        data.names_of_images(data_root / source.path)
        if source.labelled_by:
            shelf.locate(source.labelled_by)
    require_writable(run)
    sweep(run)
    parent = settings.parent
    history: list[dict[str, Any]] = []
    for number in range(1, settings.rounds + 1):
        folder = run / f"round-{number}"
        sources = [s for s in settings.sources if s.kind != UNLABELLED]
        before = parent if number > 1 else ""
        there = [s for s in unlabelled if s.labelled_by or before]
        if there:
            made = _labelled(settings, there, data_root, folder, before)
            for given, (source, judged) in zip(there, made, strict=True):
                yield from judged
                sources.append(source)
                told: dict[str, Any] = {"round": number}
                if given.labelled_by:
                    told["by"] = Path(given.labelled_by).name
                history += [one.as_json() | told for one in judged]
            if not any(one["kept"] for one in history if one["round"] == number):
                named = {s.labelled_by or f"of round {number - 1}" for s in there}
                msg = f"no mask of the model {', '.join(sorted(named))} can be used"
                hint = f"See {folder / JUDGED}; the model has to learn for longer."
                raise TrainingError(msg, hint=hint)
            sources = [s for s in sources if s.kind != UNLABELLED]
        round_settings = replace(
            settings, rounds=1, parent=parent, sources=tuple(sources)
        )
        path = folder / f"{settings.name}.safetensors"
        if not _is_done(folder, round_settings, path) or not resume:
            yield from loop.train(
                round_settings,
                data_root,
                folder,
                resume=resume,
                command=command,
                probes=False,  # that of the last round gets them below
            )
            write_json(folder / DONE, _mark(round_settings, path))
        parent = str(path)
    last = load_model(Path(parent))
    training = {
        **last.manifest.training,
        "rounds": settings.rounds,
        "labelled": history,
    }
    path = run / f"{settings.name}.safetensors"
    save_model(path, last.network, replace(last.manifest, training=training))
    golden.complete(path)


def _labelled(
    settings: TrainSettings,
    sources: Sequence[Source],
    root: Path,
    folder: Path,
    before: str,
) -> Iterator[tuple[Source, Sequence[Labelled]]]:
    """Label and judge the scans of each unlabelled source; yield it as a source.

    Args:
        before: model of the round before, for sources that name none.
    """
    records = []
    for place, source in enumerate(sources):
        model = source.labelled_by or before
        taught = bool(source.labelled_by)
        named = taught and dict(labels.CLASS_SETS[settings.classes]) in IN_ORDER
        # What another model said is told apart, as a parent is, by the settings.
        own = f"-{sha256_of(shelf.locate(model))[:12]}" if taught else ""
        masks = (folder / "labelled" / f"{place}{own}").resolve()
        asked = SegmentSettings(
            model,
            device=settings.device,
            precision="auto",
            mark_uncertain=True,
            vertebrae=named,
        )
        judged = list(_judged(asked, root / source.path, masks, folder.name))
        records += [one.as_json() for one in judged]
        write_json(folder / JUDGED, records)
        kept = replace(
            source,
            kind="scan",
            labelled_by="",
            masks=str(masks),
            scheme="verse" if named else "binary",
        )
        if any(one.kept for one in judged):
            yield kept, judged
        else:
            yield source, judged


def _judged(
    asked: SegmentSettings, scans: Path, masks: Path, name: str
) -> Iterator[Labelled]:
    """Label scans as ``asked``, and keep in ``masks`` those masks that are good."""
    raw = masks.with_name(masks.name + "-raw")
    number = int(name.rpartition("-")[2])
    run = SegmentRun([scans], raw, asked)
    found = {one.name: one for one in find_scans([scans])}
    named = data.names_of_images(scans)
    for case in run.results():
        told = case.name.rsplit("/", 1)[-1]
        target = masks / (told + (VERTEBRAE_SUFFIX if asked.vertebrae else MASK_SUFFIX))
        if case.status == "failed" or case.name not in found:
            target.unlink(missing_ok=True)
            reason = case.error.message if case.error else "it could not be read"
            yield Labelled(told, number, None, reason)
            continue
        if told not in named:
            yield Labelled(told, number, None, "it is not called NAME_ct.nii.gz")
            continue
        kind = "vertebrae" if asked.vertebrae else "spine"
        mask = read_mask(Path(case.outputs[kind]))
        if asked.vertebrae and len(_regions(mask)) < 2:
            target.unlink(missing_ok=True)
            reason = "vertebrae are counted from where regions meet, and none do"
            yield Labelled(told, number, None, reason)
            continue
        scan = to_hounsfield(read_scan(found[case.name]))
        judgement = judge.judge(scan, mask)
        if judgement.good:
            kept = judge.trusted(mask, judgement).voxels
            if asked.vertebrae:
                kept = np.where(kept == 1, mask.voxels, kept)
            write_nifti(target, kept, mask, mask.provenance)
        else:
            target.unlink(missing_ok=True)
        yield Labelled(told, number, judgement)


def _regions(mask: Volume) -> set[str]:
    ids = np.unique(mask.voxels[(mask.voxels > 0) & (mask.voxels != IGNORED)])
    return {labels.VERTEBRAE[int(found)].region for found in ids}


def _mark(settings: TrainSettings, path: Path) -> dict[str, Any]:
    sha256 = sha256_of(path) if path.exists() else ""
    return {"settings": json.loads(json.dumps(settings.as_json())), "sha256": sha256}


def _is_done(folder: Path, settings: TrainSettings, path: Path) -> bool:
    record = folder / DONE
    if not record.exists():
        return False
    return bool(json.loads(record.read_text(encoding="utf-8")) == _mark(settings, path))
