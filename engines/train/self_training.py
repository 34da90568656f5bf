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
from engines.results import Problem
from engines.scans import find_scans, read_scan
from engines.segment import golden
from engines.segment.models import IN_ORDER
from engines.segment.outputs import MASK_SUFFIX, VERTEBRAE_SUFFIX
from engines.segment.segmenter import Segmenter
from engines.train import data, judge, loop
from engines.train.losses import IGNORED
from engines.train.settings import UNLABELLED, Source, TrainSettings
from engines.volume import Volume, write_nifti

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
        segmenter = Segmenter(
            model, device=settings.device, mark_uncertain=True, vertebrae=named
        )
        number = int(folder.name.rpartition("-")[2])
        judged = list(_judged(segmenter, root / source.path, masks, number))
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
    segmenter: Segmenter, scans: Path, masks: Path, number: int
) -> Iterator[Labelled]:
    """Label scans and keep in ``masks`` those label maps that are good.

    Args:
        segmenter: that marks what is uncertain.
        scans: folder of scans called NAME_ct.nii.gz.
        masks: folder of the label maps.
        number: of the round.
    """
    suffix = VERTEBRAE_SUFFIX if segmenter.numbered else MASK_SUFFIX
    usable = data.names_of_images(scans)
    for found in find_scans([scans]):
        name = found.name.rsplit("/", 1)[-1]
        target = masks / (name + suffix)
        judgement, error = None, ""
        try:
            if found.problem is not None:
                raise found.problem
            if name in usable:
                scan = read_scan(found)
                judgement, error = _kept(segmenter, scan, name, target)
            else:
                error = "it is not called NAME_ct.nii.gz"
        except Exception as problem:  # noqa: BLE001  one bad case never stops the others
            error = Problem.of(problem).message
        if judgement is None or not judgement.good:
            target.unlink(missing_ok=True)
        yield Labelled(name, number, judgement, error)


def _kept(
    segmenter: Segmenter, scan: Volume, name: str, target: Path
) -> tuple[judge.Judgement | None, str]:
    """Label a scan, judge the label map and write it if it is good.

    Returns:
        the judgement, or None and why there is none.
    """
    found = segmenter(scan, name=name)
    mask = scan.with_voxels(found.labels)
    if segmenter.numbered and len(_regions(mask)) < 2:
        return None, "vertebrae are counted from where regions meet, and none do"
    if not segmenter.numbered:
        mask = scan.with_voxels(found.spine)
    judgement = judge.judge(to_hounsfield(scan), mask)
    if judgement.good:
        kept = judge.trusted(mask, judgement).voxels
        if segmenter.numbered:
            kept = np.where(kept == 1, mask.voxels, kept)
        write_nifti(target, kept, scan, found.provenance)
    return judgement, ""


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
