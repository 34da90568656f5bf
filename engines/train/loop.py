"""Train one network: draw slices, step, validate, checkpoint, write the model.

Every random draw depends on the seed and the number of the step alone, so a run
that was killed and resumed draws the same slices as one that was not.
"""

import csv
import io
import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engines import __version__, labels
from engines.errors import SettingsError, TrainingError
from engines.files import replacing, require_writable, write_json, write_text
from engines.networks import catalog, shelf
from engines.networks.manifest import Manifest, save_model
from engines.preprocess import intensity, recipe
from engines.preprocess.prepare import normalised
from engines.report import curve
from engines.runtimes.devices import cpu_has_bfloat16, pick
from engines.train import augment, data, losses, sampling, synthesis
from engines.train.data import Pair, Subject
from engines.train.settings import TrainSettings

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.csv"
PICTURE = "curve.png"
CURVE_COLUMNS = ("step", "loss", "learning_rate", "val_dice", "seconds", "waiting")
VALIDATION_SLICES = 10
"""Slices per view of each validation scan, spread evenly over its spine."""

Batch = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Event:
    """How far the training is.

    Attributes:
        loss: mean since the last event.
        val_dice: over the validation slices, None between validations.
        seconds: since the start of this process.
        waiting: share of that time spent waiting for slices.
        model: the model file, when one was just written.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    val_dice: float | None
    seconds: float
    waiting: float
    model: Path | None = None

    def line(self) -> str:
        """Return the event in one line."""
        scored = (
            "" if self.val_dice is None else f", validation Dice {self.val_dice:.4f}"
        )
        return f"step {self.step}/{self.steps}: loss {self.loss:.4f}{scored}"

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        return record | {"model": str(self.model) if self.model else None}


def train(
    settings: TrainSettings,
    data_root: Path,
    run: Path,
    *,
    resume: bool = True,
    command: str = "",
) -> Iterator[Event]:
    """Train as ``settings`` say, in the folder ``run``, and yield how it goes.

    ``run`` gets settings.json, split.json, curve.csv, curve.png, checkpoint.pt and
    NAME.safetensors. A checkpoint found there is gone on from when its settings
    are the same.

    Raises:
        TrainingError: no data, nothing to train on, or a loss that is not finite.
        SettingsError: the checkpoint in ``run`` belongs to other settings.
        OutputError: ``run`` cannot be written.
    """
    require_writable(run)
    dealt = data.split_pairs(
        data.find_pairs(data_root, settings), settings.split, settings.seed
    )
    subjects = [data.load(pair, settings) for pair in dealt["train"]]
    if not subjects:
        msg = "the split leaves no scan to train on"
        raise TrainingError(msg, hint="Add scans or choose another --split.")
    validation = [data.load(pair, settings) for pair in dealt["val"]]
    trainer = _Trainer(settings, subjects, validation, run, resume=resume)
    write_json(run / "settings.json", settings.as_json())
    write_json(run / "split.json", data.split_record(dealt, settings.seed))
    provenance = _provenance(settings, dealt, command)
    yield from trainer.run(provenance)


def slice_for(
    subject: Subject, settings: TrainSettings, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw one training slice (size, size) and its target."""
    how = settings.augment
    recipe_row = recipe.find(settings.recipe)
    view = settings.views[int(rng.integers(len(settings.views)))]
    pose = sampling.draw(subject, view, how, rng)
    image, target = sampling.cut(subject, pose, size)
    spine = (target > 0) & (target != losses.IGNORED)
    if image is None:
        hu = synthesis.scan_of(spine, rng)
    elif subject.source.kind == "bone":
        hu = synthesis.around_bone(image, spine, rng)
    else:
        hu = image
    hu = augment.vary(hu, target, how, rng)
    if rng.random() < how.p_crop:
        outside = recipe_row.clamp[0] if recipe_row.clamp else data.AIR_HU
        hu, target = augment.crop(hu, target, outside, rng)
    return prepared(hu, subject, recipe_row), target


def prepared(
    hu: NDArray[np.float32], subject: Subject, how: recipe.Recipe
) -> NDArray[np.float32]:
    """Return a slice as the network sees it, by the recipe and the scan's line."""
    if subject.line is None:
        return normalised(hu, how)[0]
    values = intensity.clamp(hu, how.clamp) if how.clamp else hu
    if how.normalisation == "maximum":
        values = np.maximum(values, 0)
    return subject.line.apply(values.astype(np.float32))


class _Trainer:
    """The state of one training."""

    def __init__(
        self,
        settings: TrainSettings,
        subjects: Sequence[Subject],
        validation: Sequence[Subject],
        run: Path,
        *,
        resume: bool,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.subjects = subjects
        self.validation = validation
        self.folder = run
        self.device = pick(settings.device)
        self.network = _network(settings).to(self.device)
        self.network.to(memory_format=torch.channels_last)
        self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.optimizer = _optimizer(settings, self.network)
        self.loss = losses.make(settings)
        self.step = 0
        self.best = -1.0
        self.rows: list[dict[str, Any]] = []
        if resume and (run / CHECKPOINT).exists():
            self._resume()

    def run(self, provenance: Mapping[str, Any]) -> Iterator[Event]:
        settings = self.settings
        started, waited, recent = time.monotonic(), 0.0, []
        with _Feeder(self.subjects, settings, self.step) as feeder:
            while self.step < settings.steps:
                before = time.monotonic()
                batch = feeder.get()
                waited += time.monotonic() - before
                recent.append(self._learn(batch))
                self.step += 1
                last = self.step == settings.steps
                validate = last or self.step % settings.validate_every == 0
                score = self._validate() if validate else None
                if not (validate or self.step % 10 == 0):
                    continue
                seconds = time.monotonic() - started
                model = self._save(provenance, score) if validate else None
                event = Event(
                    self.step,
                    settings.steps,
                    float(np.mean(recent)),
                    self._rate(),
                    score,
                    seconds,
                    waited / max(seconds, 1e-9),
                    model,
                )
                recent.clear()
                self._record(event)
                if last or self.step % settings.checkpoint_every == 0:
                    self._checkpoint()
                yield event

    def _learn(self, batch: Batch) -> float:
        image = torch.from_numpy(batch[0]).to(self.device)
        image = image.to(memory_format=torch.channels_last)
        target = torch.from_numpy(batch[1]).to(self.device).long()
        self.network.train()
        torch.manual_seed(_dropout_seed(self.settings.seed, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._low()):
            outputs = self.network(image)
        weight = self.settings.second_output_weight
        loss = losses.of_outputs(self.loss, outputs, target, weight)
        if not torch.isfinite(loss):
            msg = f"the loss is {loss.item()} at step {self.step + 1}"
            raise TrainingError(msg, hint="Lower learning_rate and resume.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self._update_average()
        return float(loss.item())

    def _update_average(self) -> None:
        decay = min(self.settings.average, (self.step + 1) / (self.step + 10))
        if not self.settings.average:
            decay = 0.0
        for name, value in self.network.state_dict().items():
            kept = self.average[name]
            if value.is_floating_point():
                kept.lerp_(value, 1 - decay)
            else:
                kept.copy_(value)

    def _rate(self) -> float:
        settings = self.settings
        rise = min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        fall = 1.0
        if settings.schedule == "cosine":
            fall = 0.5 * (1 + math.cos(math.pi * self.step / settings.steps))
        return settings.learning_rate * rise * max(fall, 0.01)

    def _low(self) -> bool:
        wanted = self.settings.precision
        if wanted == "auto":
            return self.device.type == "cuda" or cpu_has_bfloat16()
        return wanted == "bfloat16"

    def _averaged(self) -> nn.Module:
        network = _bare(self.settings)
        network.load_state_dict(self.average)
        return network.eval()

    def _validate(self) -> float | None:
        if not self.validation:
            return None
        network = self._averaged().to(self.device)
        both = total = 0
        for subject in self.validation:
            for image, target in _validation_slices(subject, self.settings):
                with torch.inference_mode():
                    logits = network(
                        torch.from_numpy(image)[None, None].to(self.device)
                    )
                found = logits[0].argmax(dim=0).cpu().numpy() > 0
                scored = target != losses.IGNORED
                truth = (target > 0) & scored
                both += int((found & truth).sum())
                total += int((found & scored).sum() + truth.sum())
        return 2 * both / max(1, total)

    def _save(self, provenance: Mapping[str, Any], score: float | None) -> Path | None:
        if self.settings.keep == "best" and score is not None and score <= self.best:
            return None
        self.best = max(self.best, -1.0 if score is None else score)
        settings = self.settings
        done = {"steps": self.step, "validation_slice_dice": score}
        manifest = Manifest(
            name=settings.name,
            architecture=settings.network,
            classes=labels.CLASS_SETS[settings.classes],
            modality=recipe.find(settings.recipe).modality,
            views=settings.views,
            patch=min(settings.patches),
            recipe=recipe.find(settings.recipe),
            licence=settings.licence,
            training={**provenance, **done},
            parent=_parent(settings),
        )
        path = self.folder / f"{settings.name}.safetensors"
        save_model(path, self._averaged(), manifest)
        return path

    def _record(self, event: Event) -> None:
        values = (
            event.step,
            round(event.loss, 5),
            f"{event.learning_rate:.3e}",
            "" if event.val_dice is None else round(event.val_dice, 4),
            round(event.seconds, 1),
            round(event.waiting, 3),
        )
        self.rows.append(dict(zip(CURVE_COLUMNS, values, strict=True)))
        text = io.StringIO()
        writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / CURVE, text.getvalue())
        if event.val_dice is not None or event.step == event.steps:
            curve.draw(self.folder / CURVE, self.folder / PICTURE)

    def _checkpoint(self) -> None:
        state = {
            "settings": self.settings.as_json(),
            "step": self.step,
            "best": self.best,
            "rows": self.rows,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(self.folder / CHECKPOINT) as part:
            torch.save(state, part)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except (RuntimeError, OSError, EOFError) as error:
            msg = f"{path} is damaged"
            raise TrainingError(msg, hint="Start again in another folder.") from error
        if state["settings"] != self.settings.as_json():
            msg = f"{path} belongs to a training with other settings"
            raise SettingsError(msg, hint="Choose another folder, or --restart.")
        self.step, self.best = state["step"], state["best"]
        self.rows = state["rows"]
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])


class _Feeder:
    """Draws batches ahead in threads, in the order of the steps."""

    THREADS = 1
    AHEAD = 3

    def __init__(
        self, subjects: Sequence[Subject], settings: TrainSettings, first: int
    ) -> None:
        weights = np.array([s.source.weight for s in subjects], float)
        counts = {s.source: 0 for s in subjects}
        for subject in subjects:
            counts[subject.source] += 1
        weights /= [counts[s.source] for s in subjects]
        self.chance = weights / weights.sum()
        self.subjects = subjects
        self.settings = settings
        self.next = first
        self.ready: queue.Queue[Batch | BaseException] = queue.Queue(self.AHEAD)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "_Feeder":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        while self.thread.is_alive():
            try:
                self.ready.get(timeout=0.1)
            except queue.Empty:
                continue

    def get(self) -> Batch:
        """Return the next batch: images (N, 1, H, W), targets (N, H, W)."""
        found = self.ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _work(self) -> None:
        try:
            while not self.stopping.is_set():
                self.ready.put(self._batch(self.next))
                self.next += 1
        except BaseException as error:  # noqa: BLE001  raised again by get()
            self.ready.put(error)

    def _batch(self, step: int) -> Batch:
        images, targets = [], []
        seed, patches = self.settings.seed, self.settings.patches
        size = int(np.random.default_rng([seed, step]).choice(patches))
        share = (self.settings.middle_patch / size) ** 2
        for place in range(max(1, round(self.settings.batch * share))):
            rng = np.random.default_rng([seed, step, place])
            subject = self.subjects[rng.choice(len(self.subjects), p=self.chance)]
            image, target = slice_for(subject, self.settings, size, rng)
            images.append(image)
            targets.append(target)
        return np.stack(images)[:, None], np.stack(targets)


def _validation_slices(
    subject: Subject, settings: TrainSettings
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    how = recipe.find(settings.recipe)
    for view in settings.views:
        for share in np.linspace(0.1, 0.9, VALIDATION_SLICES):
            pose = sampling.straight(subject, view, float(share))
            image, target = sampling.cut(subject, pose, settings.middle_patch)
            if image is not None:
                yield prepared(image, subject, how), target


def _dropout_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _bare(settings: TrainSettings) -> nn.Module:
    classes = len(labels.CLASS_SETS[settings.classes])
    return catalog.find(settings.network).build(in_channels=1, classes=classes)


def _network(settings: TrainSettings) -> nn.Module:
    if not settings.parent:
        return _bare(settings)
    parent = shelf.load(settings.parent)
    held = parent.manifest
    wanted = (settings.network, labels.CLASS_SETS[settings.classes])
    if (held.architecture, dict(held.classes)) != (wanted[0], dict(wanted[1])):
        msg = f"{settings.parent} is a {held.architecture} of other classes"
        raise SettingsError(msg, hint="Choose a parent of the same kind.")
    return parent.network


def _parent(settings: TrainSettings) -> dict[str, str] | None:
    if not settings.parent:
        return None
    model = shelf.load(settings.parent)
    return {"name": model.manifest.name, "sha256": model.sha256}


def _optimizer(settings: TrainSettings, network: nn.Module) -> torch.optim.Optimizer:
    kinds: Mapping[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adamax": torch.optim.Adamax,
    }
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    made: torch.optim.Optimizer = kinds[settings.optimizer](
        network.parameters(), **options
    )
    return made


def _provenance(
    settings: TrainSettings, dealt: Mapping[str, Sequence[Pair]], command: str
) -> dict[str, Any]:
    sources = [
        {"data": s.path, "kind": s.kind, "origin": s.origin, "licence": s.licence}
        for s in settings.sources
    ]
    return {
        "command": command,
        "version": __version__,
        "settings": replace(settings, sources=()).as_json(),
        "sources": sources,
        "train": [p.name for p in dealt["train"]],
        "val": [p.name for p in dealt["val"]],
    }
