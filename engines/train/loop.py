"""Train one network: draw slices, step, validate, checkpoint, write the model.

Every random draw depends on the seed and the number of the step alone, so a run
that was killed and resumed draws the same slices as one that was not.
"""

import copy
import csv
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines import __version__, labels
from engines.errors import SettingsError, TrainingError
from engines.files import replacing, require_writable, sweep, write_json, write_text
from engines.networks import catalog, heads, pretrained, shelf
from engines.networks.manifest import Manifest, save_model
from engines.networks.snap import snapped
from engines.preprocess.recipe import RECIPES
from engines.report import curve
from engines.runtimes.devices import cpu_has_bfloat16, pick
from engines.segment import golden
from engines.train import data, distributed, feeder, losses, validate
from engines.train.data import Scans, Subject
from engines.train.distributed import Group
from engines.train.feeder import Batch, Feeder
from engines.train.pace import Pace
from engines.train.settings import UNLABELLED, TrainSettings

CHECKPOINT = "checkpoint.pt"
NOTES = "notes.json"
CURVE = "curve.csv"
PICTURE = "curve.png"
CURVE_COLUMNS = ("step", "loss", "learning_rate", "val_dice", "seconds", "waiting")
Images = NDArray[np.float32]
Targets = NDArray[np.uint8]

ONE_VALUE = "Expected more than 1 value per channel"
"""What torch says where batch norm has a single pixel to learn from."""

USUAL_DECAY = 0.01
"""Of adamw; in the other optimizers decay is a part of the gradient, and does harm."""

MOST_STEEP = 5.0
"""Norm of the gradient, to which a larger one is reduced."""

MAY_CHANGE = ("precision", "device")
"""Settings that may be others when a training is gone on with."""

LONGEST_TOLD = 160
"""Characters of two values that a message shows; of longer ones it has the name."""

TOLD_EVERY = 10
"""Steps between events."""


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
        waited = f", {self.waiting:.0%} of the time waiting for slices"
        told = f"step {self.step}/{self.steps}: loss {self.loss:.4f}{scored}"
        return told + (waited if self.val_dice is not None else "")

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
    scans: Scans | None = None,
    probes: bool = True,
) -> Iterator[Event]:
    """Train as ``settings`` say, in the folder ``run``, and yield how it goes.

    ``run`` gets settings.json, split.json, curve.csv, curve.png, checkpoint.pt and
    NAME.safetensors, and notes.json where something of a scan was mended. A checkpoint
    found there is gone on from when its settings are the same. The model file gets its
    golden probes when the last step is done.

    Args:
        settings: of the training.
        data_root: folder of the sources.
        run: folder of the training.
        resume: whether to go on from a checkpoint.
        command: as the user typed it, for the manifest.
        scans: what is trained on, where that is not for these settings to find; they
            are read and dealt as those settings say that they were found by.
        probes: whether the model file gets golden probes.

    Raises:
        TrainingError: no data, nothing to train on, or a loss that is not finite.
        SettingsError: the checkpoint in ``run`` belongs to other settings.
        OutputError: ``run`` cannot be written.
        UnknownModelError: there is no model of the name in ``guide``.
    """
    if settings.guide:
        shelf.locate(settings.guide)
    if settings.rounds > 1 or any(s.kind == UNLABELLED for s in settings.sources):
        msg = "self-training in rounds is for spine train alone"
        raise SettingsError(msg, hint="Give rounds = 1, without unlabelled scans.")
    with distributed.joined(settings.batch, settings.device) as (group, device):
        if group.leads:
            require_writable(run)
            sweep(run)
        scans = scans or data.Scans(data_root, settings)
        torch.manual_seed(settings.seed)
        network = _network(settings)
        subjects, validation = scans.subjects("train"), scans.subjects("val")
        chosen = counted(settings, len(feeder.items_of(subjects, settings)))
        trainer = _Trainer(
            chosen, network, subjects, validation, run, group, device, resume=resume
        )
        if group.leads:
            write_json(run / "settings.json", chosen.as_json())
            write_json(run / "split.json", data.split_record(scans.dealt, chosen.seed))
            if scans.notes():
                write_json(run / NOTES, scans.notes())
        provenance = _provenance(chosen, scans, command)
        with _determined(chosen):
            yield from trainer.run(provenance)
        if probes and group.leads and trainer.model.exists():
            golden.complete(trainer.model)


def counted(settings: TrainSettings, items: int) -> TrainSettings:
    """Return the settings with epochs told in steps.

    Args:
        settings: of the training.
        items: planes that an epoch goes through.
    """
    if not settings.epochs:
        return settings
    an_epoch = max(1, round(items / settings.batch))
    every = settings.validate_every or an_epoch
    steps = max(1, round(settings.epochs * items / settings.batch))
    return replace(settings, steps=steps, validate_every=every)


class _Trainer:
    """The state of one training."""

    def __init__(
        self,
        settings: TrainSettings,
        network: nn.Module,
        subjects: Sequence[Subject],
        validation: Sequence[Subject],
        run: Path,
        group: Group,
        device: str,
        *,
        resume: bool,
    ) -> None:
        self.settings = settings
        self.subjects = subjects
        self.validation = validation
        self.folder = run
        self.model = run / f"{settings.name}.safetensors"
        self.group = group
        self.device = torch.device(str(pick(device)))
        self.solid = catalog.find(settings.network).dimensions == 3
        self.network = network.to(self.device)
        _channels_last(self.network)
        self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.optimizer = _optimizer(settings, self.network)
        self.loss = losses.make(settings)
        self.silent = _silent(self.network) if settings.hold_zeros else {}
        self.pace = Pace()
        self.step = 0
        self.recent: list[float] = []
        self.rows: list[dict[str, Any]] = []
        if resume and (run / CHECKPOINT).exists():
            self._resume()
        self.learner = group.wrap(self.network, self.device)

    def run(self, provenance: Mapping[str, Any]) -> Iterator[Event]:
        settings, group = self.settings, self.group
        started, waited = time.monotonic(), 0.0
        drawn = Feeder(self.subjects, settings, self.step, group.rank, group.ranks)
        with drawn:
            while self.step < settings.steps and not self.pace.is_over(settings):
                before = time.monotonic()
                batch = drawn.get()
                waited += time.monotonic() - before
                self.recent.append(self._learn(batch))
                self.step += 1
                event = self._look_up(provenance, started, waited)
                if event is not None and group.leads:
                    yield event

    def _look_up(
        self, provenance: Mapping[str, Any], started: float, waited: float
    ) -> Event | None:
        """Validate, record and save where this step is one to do so."""
        settings = self.settings
        last = self.step == settings.steps
        validates = last or self.step % settings.validate_every == 0
        keeps = last or self.step % settings.checkpoint_every == 0
        if not (validates or keeps or self.step % TOLD_EVERY == 0):
            return None
        loss = float(np.mean(self.recent)) if self.recent else 0.0
        rate = self.pace.rate(settings, self.step - 1)
        score, model = None, None
        if validates:
            score = self.group.agreed(self._validate())
            gained = self.pace.told(settings, -loss if score is None else score)
            last = last or self.pace.is_over(settings)
            if self.group.leads and (gained or settings.keep == "last"):
                model = self._save(provenance, score)
        seconds = time.monotonic() - started
        share = waited / max(seconds, 1e-9)
        event = None
        if validates or self.step % TOLD_EVERY == 0:
            event = Event(
                self.step, settings.steps, loss, rate, score, seconds, share, model
            )
            self.recent.clear()
        if self.group.leads:
            if event is not None:
                self._record(event, draws=validates)
            if keeps or last:
                self._checkpoint()
        return event

    def _learn(self, batch: Batch) -> float:
        self.network.train()
        torch.manual_seed(_dropout_seed(self.settings.seed, self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = self.pace.rate(self.settings, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total, count = 0.0, len(batch[0])
        for part in np.array_split(range(count), min(self.settings.accumulate, count)):
            loss = self._loss(batch[0][part], batch[1][part]) * (len(part) / count)
            if not torch.isfinite(loss):
                msg = f"the loss is {loss.item()} at step {self.step + 1}"
                raise TrainingError(msg, hint=self._remedy())
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.item())
        self._regularise()
        steepness = nn.utils.clip_grad_norm_(self.network.parameters(), MOST_STEEP)
        if not torch.isfinite(steepness):
            # Weights and checkpoints would hold no numbers from this step on.
            msg = f"the gradient is {steepness.item()} at step {self.step + 1}"
            raise TrainingError(msg, hint=self._remedy())
        self.optimizer.step()
        with torch.no_grad():
            for name, zeros in self.silent.items():
                self.network.get_parameter(name).masked_fill_(zeros, 0)
        self._update_average()
        return total

    def _loss(self, images: Images, targets: Targets) -> Tensor:
        last = torch.channels_last_3d if self.solid else torch.channels_last
        image = torch.from_numpy(images).to(self.device, memory_format=last)
        target = torch.from_numpy(targets).to(self.device).long()
        low = torch.autocast(self.device.type, torch.bfloat16, enabled=self._low())
        try:
            with low:
                outputs = self.learner(image)
        except ValueError as error:
            if ONE_VALUE not in str(error):
                raise
            msg = f"batch norm cannot learn from {len(image)} of {image.shape[-1]}"
            raise TrainingError(msg, hint="Give a larger batch or patches.") from error
        weight = self.settings.second_output_weight
        return losses.of_outputs(self.loss, outputs, target, weight)

    def _regularise(self) -> None:
        if self.settings.regulariser == "none":
            return
        strength = self.settings.regulariser_strength
        penalty = losses.PENALTIES[self.settings.regulariser]
        total = strength * penalty(_weights_of(self.network))
        torch.autograd.backward(total)

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

    def _low(self) -> bool:
        """Say whether layers compute in bfloat16.

        On a CPU cubes are learnt in float32 unless bfloat16 is asked for: there a
        training of cubes in bfloat16 came to a loss that is no number, once in hundreds
        of steps, and did not when it was resumed from the checkpoint before.
        """
        wanted = self.settings.precision
        if wanted == "auto":
            on_cpu = cpu_has_bfloat16() and not self.solid
            return self.device.type == "cuda" or on_cpu
        return wanted == "bfloat16"

    def _remedy(self) -> str:
        if self._low():
            return "Resume with --precision float32, or lower learning_rate."
        return "Lower learning_rate and resume."

    def _averaged(self) -> nn.Module:
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.average)
        return network.eval()

    def _validate(self) -> float | None:
        if not self.validation or not self.group.leads:
            return None
        network = self._averaged().to(self.device)
        return validate.dice(network, self.validation, self.settings, self.device)

    def _save(self, provenance: Mapping[str, Any], score: float | None) -> Path:
        settings = self.settings
        done = {"steps": self.step, "validation_slice_dice": score}
        manifest = Manifest(
            name=settings.name,
            architecture=settings.network,
            classes=labels.CLASS_SETS[settings.classes],
            modality=settings.prepared_by.modality,
            views=settings.views,
            patch=min(settings.patches),
            recipe=settings.labels_by,
            licence=settings.licence,
            training={**provenance, **done},
            parent=_parent(settings),
            guide=settings.guide,
            options=settings.network_options,
        )
        network = self._averaged().cpu()
        if settings.bfloat16_weights:
            spec = catalog.find(settings.network)
            network = snapped(network, torch.zeros(spec.shape(2 * spec.stride)))
        save_model(self.model, network, manifest)
        return self.model

    def _record(self, event: Event, *, draws: bool) -> None:
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
        if draws:
            curve.draw(self.folder / CURVE, self.folder / PICTURE)

    def _checkpoint(self) -> None:
        state = {
            "settings": self.settings.as_json(),
            "step": self.step,
            "pace": self.pace.as_json(),
            "recent": self.recent,
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
        other = _differing(state["settings"], self.settings.as_json())
        if other:
            msg = f"{path} belongs to a training with other settings: {other}"
            raise SettingsError(msg, hint="Choose another folder, or --restart.")
        self.step, self.pace = state["step"], Pace(**state["pace"])
        self.recent, self.rows = state["recent"], state["rows"]
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])


def _differing(held: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return in words which settings of a checkpoint are not those given.

    How exactly numbers are held is none: a training that went out of range in bfloat16
    goes on in float32, and then is not the same to the last bit.
    """
    keys = [key for key in dict.fromkeys([*held, *given]) if key not in MAY_CHANGE]
    told = [
        f"{key} was {held.get(key)!r}, now it is {given.get(key)!r}"
        if len(f"{held.get(key)!r}{given.get(key)!r}") < LONGEST_TOLD
        else key
        for key in keys
        if held.get(key) != given.get(key)
    ]
    return "; ".join(told)


def _silent(network: nn.Module) -> dict[str, Tensor]:
    """Return where weights are zero that gradients would move again."""
    return {
        name: value.detach() == 0
        for name, value in network.named_parameters()
        if (value == 0).any()
    }


def _weights_of(network: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions and linear layers."""
    return [value for value in network.parameters() if value.dim() > 1]


@contextmanager
def _determined(settings: TrainSettings) -> Iterator[None]:
    """Let torch refuse what it cannot repeat, while the training lasts."""
    if not settings.deterministic:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        msg = f"{settings.network} cannot be trained deterministically here: {error}"
        raise TrainingError(msg, hint="Leave deterministic out.") from error
    finally:
        torch.use_deterministic_algorithms(before)


def _dropout_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _bare(settings: TrainSettings) -> nn.Module:
    classes = len(labels.CLASS_SETS[settings.classes])
    spec = catalog.find(settings.network)
    return spec.build(in_channels=1, classes=classes, options=settings.network_options)


def _network(settings: TrainSettings) -> nn.Module:
    if not settings.parent:
        return _begun(settings)
    parent = shelf.load(settings.parent)
    held = parent.manifest
    wanted = labels.CLASS_SETS[settings.classes]
    same = dict(held.classes) == dict(wanted)
    _require_kin(settings, held)
    if not same:
        heads.divide(
            parent.network, held.architecture, held.options, held.classes, wanted
        )
    if settings.fresh:
        _forget(parent.network)
    return parent.network


def _require_kin(settings: TrainSettings, held: Manifest) -> None:
    """Refuse a parent whose weights cannot be gone on with.

    Raises:
        SettingsError: which of network, classes and modality differ, and what to give.
    """
    wanted = labels.CLASS_SETS[settings.classes]
    differ, give = [], []
    if held.architecture != settings.network:
        differ.append(f"its network is {held.architecture}, not {settings.network}")
        give.append(f"--network {held.architecture}")
    if dict(held.classes) != dict(wanted) and not heads.divides(held.classes, wanted):
        marks = ", ".join(name for name, index in held.classes.items() if index)
        differ.append(f"it marks {marks}, which cannot become {settings.classes}")
        sets = labels.CLASS_SETS.items()
        fits = [name for name, own in sets if heads.divides(held.classes, own)]
        give.append(f"--classes {' or '.join(fits)}" if fits else "")
    modality = settings.prepared_by.modality
    if held.modality != modality and not settings.fresh:
        differ.append(f"it is for {held.modality.upper()}, not {modality.upper()}")
        usual = (catalog.find(held.architecture).recipe, *RECIPES)
        fits = [name for name in usual if RECIPES[name].modality == held.modality]
        give.append(f"--recipe {fits[0]}")
    if differ:
        msg = f"{settings.parent} cannot be the parent: {'; '.join(differ)}"
        told = " ".join(part for part in give if part)
        or_give = f"Give {told}, or" if told else "Give"
        hint = f"{or_give} another --parent."
        raise SettingsError(msg, hint=hint)


def _forget(network: nn.Module) -> None:
    """Draw all weights anew, each layer's as torch draws them."""
    for module in network.modules():
        draw = getattr(module, "reset_parameters", None)
        if callable(draw):
            draw()


def _begun(settings: TrainSettings) -> nn.Module:
    network = _bare(settings)
    if settings.pretrained:
        usual = catalog.find(settings.network).encoder
        encoder = settings.network_options.get("encoder", usual)
        pretrained.load(network, encoder, settings.pretrained)
    return network


def _parent(settings: TrainSettings) -> dict[str, str] | None:
    if not settings.parent or settings.fresh:
        return None
    model = shelf.load(settings.parent)
    return {"name": model.manifest.name, "sha256": model.sha256}


def _channels_last(network: nn.Module) -> None:
    """Lay out the kernels of ``network`` as the CPU's convolutions take them."""
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        elif weight.ndim == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)


def _optimizer(settings: TrainSettings, network: nn.Module) -> torch.optim.Optimizer:
    kinds: Mapping[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adamax": torch.optim.Adamax,
    }
    decay = settings.weight_decay
    if decay is None:
        decay = USUAL_DECAY if settings.optimizer == "adamw" else 0.0
    options = {"lr": settings.learning_rate, "weight_decay": decay}
    made: torch.optim.Optimizer = kinds[settings.optimizer](
        network.parameters(), **options
    )
    return made


def _provenance(settings: TrainSettings, scans: Scans, command: str) -> dict[str, Any]:
    sources = [
        {"data": s.path, "kind": s.kind, "origin": s.origin, "licence": s.licence}
        for s in settings.sources
    ]
    return {
        "command": command,
        "version": __version__,
        "settings": replace(
            settings, sources=(), parent=Path(settings.parent).name
        ).as_json(),
        "sources": sources,
        "notes": scans.notes(),
        "train": scans.names("train"),
        "val": scans.names("val"),
    }
