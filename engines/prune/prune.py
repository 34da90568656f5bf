"""Prune a model: rounds of scoring filters, taking some out and fine-tuning.

Everything lies in a folder beside the model that comes out, NAME-pruning: the plan, the
network and the fine-tuning of each round. What is finished there is not done again.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engines import __version__
from engines.errors import PlanError, SettingsError
from engines.files import (
    files_below,
    require_writable,
    sha256_of,
    sweep,
    write_json,
    write_text,
)
from engines.networks import catalog
from engines.networks.complexity import CUBE_VOXELS, operations, parameter_counts
from engines.networks.manifest import SUFFIX, Manifest, Model, load_model, save_model
from engines.prune import graph, plan, sensitivity, shrink, speed
from engines.prune.graph import Group
from engines.prune.plan import Chooser, Plan, Target
from engines.prune.points import Point, Pruned, read_point
from engines.prune.settings import DEFAULT_EPOCHS, PruneSettings
from engines.report import prune_page
from engines.runtimes.devices import pick
from engines.segment import golden
from engines.train import loop, losses, sampling, validate
from engines.train.data import Scans, Subject
from engines.train.feeder import Feeder
from engines.train.settings import TrainSettings

FOLDER_SUFFIX = "-pruning"
PLAN, START, POINT, BEGUN = "plan.json", "start.safetensors", "point.json", "begun.json"
SLICE_PIXELS = 256
"""Rows and columns of the slice that operations and times are told for."""

Told = Callable[[str], None]


class Pruning:
    """A pruning in its folder."""

    def __init__(
        self,
        model: Model,
        settings: PruneSettings,
        training: TrainSettings,
        root: Path,
        output: Path,
        *,
        command: str = "",
    ) -> None:
        """Check all that can be checked before data are read.

        Args:
            model: what is pruned.
            settings: how.
            training: how it is fine-tuned; its sources are the pruning set too.
            root: data folder.
            output: model file that comes out.
            command: as the user typed it, for the manifest.

        Raises:
            SpineError: data without masks, a target out of reach, an output that is no
                model file or is the model itself.
        """
        if output.suffix != SUFFIX:
            msg = f"{output} is no name for a model file"
            raise SettingsError(msg, hint=f"Let it end in {SUFFIX}.")
        if output.resolve() == model.path.resolve():
            msg = f"{output} is the model that should be pruned"
            raise SettingsError(msg, hint="Name another -o.")
        self.model = model
        self.settings = settings
        self.training = training
        self.root = root
        self.output = output
        self.command = command
        self.folder = output.with_name(output.stem + FOLDER_SUFFIX)
        self.device = torch.device(str(pick(settings.device)))
        self.spec = catalog.find(model.manifest.architecture)
        self.scans = Scans(root, training)
        self.size = _example_size(self.spec, training)
        self.original = self._groups(model.network)
        if not self.original:
            msg = f"nothing of {model.manifest.name} can leave"
            raise PlanError(msg, hint="Its layers are all fixed or lead out of sight.")
        self._require_reachable()

    def write_plan(self, told: Told) -> Path:
        """Write the plan of the first round beside the output, and nothing else."""
        criterion, seed = self.settings.trials()[0]
        network, groups = self.model.network, self.original
        chosen = self._chosen(network, groups, criterion, seed, 1, told)
        small = self._size(shrink.shrunken(network, groups, chosen.removed))
        whole = self._size(network)
        for key, unit, digits in (("parameters", "weights", 0), ("gflop", "GFLOP", 2)):
            left, of = (f"{size[key]:,.{digits}f}" for size in (small, whole))
            told(f"{unit}: {left} of {of} left, {small[key] / whole[key]:.1%}")
        path = self.output.with_name(self.output.stem + "-plan.json")
        require_writable(path.parent)
        write_text(path, plan.written(chosen, groups))
        return path

    def begin(self, *, restart: bool = False) -> None:
        """Take the folder, going on with what lies there when it is the same.

        Raises:
            SettingsError: another pruning lies there.
            OutputError: it cannot be written.
        """
        require_writable(self.folder)
        sweep(self.folder)
        path = self.folder / BEGUN
        mark = json.loads(json.dumps(self._mark()))
        if path.exists() and not restart:
            if json.loads(path.read_text(encoding="utf-8")) != mark:
                msg = f"{self.folder} holds a pruning with other settings or scans"
                raise SettingsError(msg, hint="Name another -o, or give --restart.")
            return
        for old in files_below(self.folder):
            if old.name in (POINT, PLAN, START, loop.CHECKPOINT):
                old.unlink()
        write_json(path, mark)

    def run(self, told: Told) -> Iterator[loop.Event | Point]:
        """Go every way and yield how it goes; the model is written in the end.

        Raises:
            SpineError: a target out of reach, a loss that is not finite.
        """
        dense = self._dense(told)
        yield dense
        points = []
        for criterion, seed in self.settings.trials():
            for event in self._trial(criterion, seed, told):
                if isinstance(event, Point):
                    points.append(event)
                yield event
        self.scans.forget()
        told("timing")
        timed = self._timed([dense, *points])
        self.result = Pruned(timed[0], tuple(timed[1:]), self.output)
        self._write()

    def _mark(self) -> dict[str, Any]:
        """Return what a pruning can be told by from another."""
        given = self.settings.plan
        return {
            "version": __version__,
            "model": self.model.sha256,
            "settings": self.settings.as_json(),
            "plan": sha256_of(given) if given else "",
            "training": self.training.as_json(),
            "scans": {part: self.scans.contents(part) for part in self.scans.dealt},
        }

    def _groups(self, network: nn.Module) -> list[Group]:
        return graph.groups(network, torch.rand(self.spec.shape(self.size)))

    def _dense(self, told: Told) -> Point:
        path = self.folder / POINT
        if path.exists():
            return read_point(path)
        score = self._dice(self.model.network, told)
        size = self.model.path.stat().st_size
        point = Point(
            "",
            self.settings.seed,
            0,
            1.0,
            dice_cut=score,
            dice=score,
            size_bytes=size,
            **self._size(self.model.network),
            kept={g.name: 1.0 for g in self.original},
        )
        write_json(path, point.as_json())
        return point

    def _trial(
        self, criterion: str, seed: int, told: Told
    ) -> Iterator[loop.Event | Point]:
        current = self.model
        for number in range(1, self.settings.rounds + 1):
            folder = self.folder / f"{criterion}-{seed}" / f"round-{number}"
            if (folder / POINT).exists():
                point = read_point(folder / POINT)
            else:
                told(f"{criterion}, round {number} of {self.settings.rounds}")
                yield from self._round(current, criterion, seed, number, folder, told)
                point = read_point(folder / POINT)
            yield point
            current = load_model(self.folder / point.model)

    def _round(
        self,
        current: Model,
        criterion: str,
        seed: int,
        number: int,
        folder: Path,
        told: Told,
    ) -> Iterator[loop.Event | Point]:
        """Score, remove, fine-tune and write down what came of it."""
        start = folder / START
        groups = self._groups(current.network)
        if not start.exists():
            chosen = self._chosen(
                current.network, groups, criterion, seed, number, told
            )
            write_text(folder / PLAN, plan.written(chosen, groups))
            cut = shrink.silenced if self.settings.mask_only else shrink.shrunken
            network = cut(current.network, groups, chosen.removed)
            save_model(start, network, self._manifest(current, criterion), half=False)
        chosen = plan.read(folder / PLAN, groups)
        begun = load_model(start)
        dice_cut = self._dice(begun.network, told)
        settings = self._finetuning(start, seed + number)
        path = folder / self.output.name
        if settings is not None:
            yield from loop.train(
                settings,
                self.root,
                folder,
                command=self.command,
                scans=self.scans,
                probes=False,
            )
            tuned = load_model(path)
            save_model(path, tuned.network, self._manifest(tuned, criterion, begun))
        else:
            save_model(path, begun.network, self._manifest(begun, criterion, begun))
        network = load_model(path).network
        kept = self._kept(network)
        share = {name: left / self._sizes[name] for name, left in kept.items()}
        point = Point(
            criterion,
            seed,
            number,
            sum(kept.values()) / sum(self._sizes.values()),
            size_bytes=path.stat().st_size,
            dice_cut=dice_cut,
            dice=self._dice(network, told),
            **self._size(network),
            kept=share,
            scores={k: [float(x) for x in v] for k, v in chosen.scores.items()},
            model=str(path.relative_to(self.folder)),
        )
        write_json(folder / POINT, point.as_json())

    @property
    def _sizes(self) -> dict[str, int]:
        return {g.name: g.size for g in self.original}

    def _kept(self, network: nn.Module) -> dict[str, int]:
        """Return how many channels of each group are left; silent ones are not."""
        found = {}
        for group in self.original:
            layer = network.get_submodule(group.name)
            filters = shrink.filters_of(layer, layer.get_parameter("weight").detach())
            found[group.name] = int(filters.any(dim=1).sum())
        return found

    def _chosen(
        self,
        network: nn.Module,
        groups: Sequence[Group],
        criterion: str,
        seed: int,
        number: int,
        told: Told,
    ) -> Plan:
        """Return what leaves in one round."""
        held = self.model
        if self.settings.plan:
            found = plan.read(self.settings.plan, groups)
            if found.sha256 not in ("", held.sha256):
                msg = f"{self.settings.plan} was made for another model"
                hint = f"It was made for {found.model} ({found.sha256[:12]})."
                raise SettingsError(msg, hint=hint)
            return found
        layers = list(dict.fromkeys(name for g in groups for name in g.filters))
        told("scoring filters")
        scores = sensitivity.of_groups(
            groups,
            sensitivity.of_layers(
                network.to(self.device),
                layers,
                criterion,
                batches=(
                    self._batches(seed, told) if criterion in sensitivity.LEARNT else ()
                ),
                loss=losses.make(self.training),
                seed=seed,
            ),
        )
        network.cpu()
        chooser = Chooser(groups, scores, self.settings.scope, self.settings.multiple)
        goal, cost = self._goal(network, groups, number)
        removed = plan.choose(chooser, goal, cost)
        return Plan(held.manifest.name, held.sha256, criterion, removed, scores)

    def _require_reachable(self) -> None:
        """Refuse what no scores can reach, before any are computed."""
        target = self.settings.target
        if target is None:
            return
        same = {g.name: np.zeros(g.size) for g in self.original}
        chooser = Chooser(self.original, same, multiple=self.settings.multiple)
        last = self.settings.rounds
        _, cost = self._goal(self.model.network, self.original, last)
        plan.require_reachable(chooser, target, cost)

    def _goal(
        self, network: nn.Module, groups: Sequence[Group], number: int
    ) -> tuple[Target, Callable[[shrink.Removed], float]]:
        target = self.settings.target
        if target is None:
            msg = "a pruning without a plan has a target"
            raise ValueError(msg)
        now = 0.0
        if target.kind == "latency":
            now = self._ms([self.model.network])[0]
        goal = target.part(number, self.settings.rounds, now)
        whole = self._size(self.model.network)

        def cost(removed: shrink.Removed) -> float:
            small = shrink.shrunken(network, groups, removed)
            if goal.kind == "latency":
                return self._ms([small])[0]
            key = {"flops": "gflop", "params": "parameters"}[goal.kind]
            return float(self._size(small)[key] / whole[key])

        return goal, cost

    def _batches(
        self, seed: int, told: Told
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        told("reading the scans")
        subjects = self.scans.subjects("train")
        drawn = replace(
            self.training,
            steps=self.settings.batches,
            epochs=0,
            sampling="oblique",
            seed=seed,
        )
        with Feeder(subjects, drawn, 0) as source:
            for number in range(1, drawn.steps + 1):
                told(f"scoring filters, batch {number} of {drawn.steps}")
                images, targets = source.get()
                yield (
                    torch.from_numpy(images).to(self.device),
                    torch.from_numpy(targets).to(self.device).long(),
                )

    def _finetuning(self, start: Path, seed: int) -> TrainSettings | None:
        """Return the settings of a fine-tuning; None for none."""
        epochs, base = self.settings.finetune, self.training
        steps = base.steps
        if epochs is None and not self.settings.has_steps:
            epochs = DEFAULT_EPOCHS
        if epochs is not None:
            an_epoch = _slices(self.scans.subjects("train"), base) / base.batch
            steps = round(epochs * an_epoch)
        if not steps:
            return None
        return replace(
            base,
            name=self.output.stem,
            parent=str(start),
            steps=steps,
            epochs=0,
            sampling="oblique",
            seed=seed,
            warmup_steps=min(base.warmup_steps, steps // 10),
        )

    def _dice(self, network: nn.Module, told: Told) -> float | None:
        subjects = self.scans.subjects("val")
        if not subjects:
            return None
        told("validating")
        network = network.to(self.device).eval()
        score = validate.dice(network, subjects, self.training, self.device)
        network.cpu()
        return score

    def _size(self, network: nn.Module) -> dict[str, Any]:
        """Return the trainable weights, and the operations of a slice in 1e9."""
        solid = self.spec.dimensions == 3
        edge = CUBE_VOXELS if solid else SLICE_PIXELS
        image = torch.empty(self.spec.shape(edge), device="meta")
        flop = operations(_on_meta(network), image) / (edge if solid else 1)
        trainable = parameter_counts(network)["trainable"]
        return {"parameters": trainable, "gflop": flop / 1e9}

    def _manifest(
        self, model: Model, criterion: str, begun: Model | None = None
    ) -> Manifest:
        held = self.model
        asked = self.settings.as_json() | {"criterion": criterion}
        told = dict(model.manifest.training)
        if begun is not None:
            told |= {"pruning": asked, "parent_training": held.manifest.training}
        return replace(
            held.manifest,
            name=self.output.stem,
            training=told,
            metrics=(),
            parent={"name": held.manifest.name, "sha256": held.sha256},
        )

    def _timed(self, points: Sequence[Point]) -> list[Point]:
        times = self._ms([self._network_of(p) for p in points])
        return [replace(p, ms=ms) for p, ms in zip(points, times, strict=True)]

    def _network_of(self, point: Point) -> nn.Module:
        if not point.model:
            return self.model.network
        return load_model(self.folder / point.model).network

    def _ms(self, networks: Sequence[nn.Module]) -> list[float]:
        solid = self.spec.dimensions == 3
        edge = CUBE_VOXELS if solid else SLICE_PIXELS
        return speed.ms_per_slice(networks, edge, self.device, solid=solid)

    def _write(self) -> None:
        """Put the model that was asked for at its place, with what was measured."""
        kept = load_model(self.folder / self.result.last.model)
        dice = self.result.last.dice
        scored = self.scans.names("val")
        rows = [{"metric": "slice Dice", "value": dice, "data": ", ".join(scored)}]
        metrics = tuple(rows) if dice is not None else ()
        save_model(self.output, kept.network, replace(kept.manifest, metrics=metrics))
        golden.complete(self.output)
        found = self.result
        points = [p.as_json() for p in (found.dense, *found.points)]
        prune_page.write(self.folder, points, self._facts(scored))

    def _facts(self, scored: Sequence[str]) -> list[str]:
        held, settings = self.model.manifest, self.settings
        aim = settings.target
        told = f"aim: {aim.kind} {aim.value:g}" if aim else f"plan: {settings.plan}"
        return [
            f"{held.name} ({held.architecture}), {told}, {settings.rounds} rounds, "
            f"scope {settings.scope}, {settings.multiple} channels at a time",
            f"Scored on unaltered slices of: {', '.join(scored) or 'nothing'}",
            f"Times in float32 on {self.device}, {torch.get_num_threads()} threads, "
            "all networks in turns",
        ]


def _example_size(spec: catalog.NetworkSpec, training: TrainSettings) -> int:
    return (
        max(2 * spec.stride, min(training.patches))
        if spec.dimensions == 2
        else (2 * spec.stride)
    )


def _on_meta(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to("meta")


def _slices(subjects: Sequence[Subject], training: TrainSettings) -> int:
    """Return how many slices, or cubes, an epoch has."""
    if catalog.find(training.network).dimensions == 3:
        edge = training.middle_patch
        return sum(
            max(1, round(float(torch.tensor(s.shape).prod()) / edge**3))
            for s in subjects
        )
    return sum(
        len(sampling.places(subject, view, central=False))
        for subject in subjects
        for view in training.views
    )
