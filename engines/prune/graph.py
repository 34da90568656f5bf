"""Which channels of which layers can only leave together.

A filter's output goes on through norms, sums, concatenations, gates and depthwise
convolutions to the layers that read it. torch-pruning (Fang et al., "DepGraph: Towards
Any Structural Pruning", arXiv:2301.12900) traces these ways; here its findings become
groups that name layers, and are doubted where they cannot be right.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd

from engines.networks.resize import is_depthwise

Places = NDArray[np.int64]
FIXED = "FIXED_CHANNELS"
"""Attribute of a module: names of its layers whose outputs its forward counts on."""


@dataclass(frozen=True, slots=True)
class Member:
    """One side of a layer that a group's channels pass.

    Attributes:
        layer: name of the module.
        side: ``out`` for what it gives, ``in`` for what it reads.
        channels: (N,), of the group, and
        places: (N,), the layer's own channels that these are.
    """

    layer: str
    side: str
    channels: Places = field(repr=False)
    places: Places = field(repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that leave together, counted from 0 to ``size``.

    Attributes:
        name: of the first layer that gives them.
        filters: layers whose filters make them.
        block: so many neighbours leave together, for a group norm's sake.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    filters: tuple[str, ...]
    block: int = 1

    def readers(self) -> list[str]:
        """Return the layers that weigh these channels on their way in."""
        return [m.layer for m in self.members if m.side == "in"]


def groups(network: nn.Module, image: torch.Tensor) -> list[Group]:
    """Return every group of a network whose channels may leave.

    Left out are the class layers (nothing reads them), layers that a module names in
    ``FIXED_CHANNELS``, and channels whose way was lost, because it leads to a layer of
    which other inputs come from nowhere.

    Args:
        network: evaluating, on the CPU; it stays as it is.
        image: a batch that it can take, of any values.
    """
    traced = torch_pruning.DependencyGraph().build_dependency(
        network, image, forward_fn=_all_outputs
    )
    names = {module: name for name, module in network.named_modules()}
    fixed = {id(layer) for layer in _fixed(network)}
    found: list[Group] = []
    seen: set[str] = set()
    for module, name in names.items():
        if not makes_channels(module) or name in seen or id(module) in fixed:
            continue
        group = _group(traced, module, names)
        seen |= {m.layer for m in group.members if m.side == "out"}
        found.append(group)
    kept = [g for g in found if g.readers() and not _touches(g, fixed, network)]
    lost = set(_half_read(found, network))
    return [g for g in kept if not lost.intersection(g.readers())]


def _all_outputs(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """Run a network so that the tracer sees all of it, and nothing that is not so.

    Outputs that it only has in training are there, with its layers as always. Maps of
    one channel, which gates spread over all others, count as outputs of their own,
    since the tracer would tie the others to each other by them.
    """
    ends: list[torch.Tensor] = []

    def end(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        ends.append(output)
        return output.detach()

    narrow = [m for m in network.modules() if _weighs(m) and outputs_of(m) == 1]
    hooks = [layer.register_forward_hook(end) for layer in narrow]
    before = network.training
    network.training = True
    try:
        outputs = network(image)
    finally:
        network.training = before
        for hook in hooks:
            hook.remove()
    whole = [outputs] if isinstance(outputs, torch.Tensor) else [*outputs]
    return whole + ends


def _weighs(module: nn.Module) -> bool:
    return isinstance(module, (_ConvNd, nn.Linear))


def makes_channels(module: nn.Module) -> bool:
    """Say whether a layer has filters, each of which makes a channel."""
    return _weighs(module) and not is_depthwise(module) and outputs_of(module) > 1


def _fixed(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        for name in getattr(module, FIXED, ()):
            yield module.get_submodule(name)


def _touches(group: Group, fixed: set[int], network: nn.Module) -> bool:
    made = [network.get_submodule(m.layer) for m in group.members if m.side == "out"]
    return any(id(layer) in fixed for layer in made)


def _group(
    traced: torch_pruning.DependencyGraph,
    module: nn.Module,
    names: dict[nn.Module, str],
) -> Group:
    size = outputs_of(module)
    prune = traced.get_pruner_of_module(module).prune_out_channels
    ways: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for item in traced.get_pruning_group(module, prune, idxs=list(range(size))):
        layer = item.dep.target.module
        if layer not in names:
            continue
        side = "out" if traced.is_out_channel_pruning_fn(item.dep.handler) else "in"
        if is_depthwise(layer):
            side = "out"
        most = outputs_of(layer) if side == "out" else inputs_of(layer)
        if most == 1 or max(item.idxs) >= most:
            continue  # one weight for all channels, or a mean over them
        roots = item.root_idxs if item.root_idxs is not None else item.idxs
        ways[names[layer], side] |= set(zip(roots, item.idxs, strict=True))
    members = tuple(
        _member(layer, side, pairs) for (layer, side), pairs in ways.items()
    )
    reverse = {name: layer for layer, name in names.items()}
    filters = [
        m.layer for m in members if m.side == "out" and makes_channels(reverse[m.layer])
    ]
    norms = [reverse[m.layer] for m in members]
    blocks = [
        norm.num_channels // norm.num_groups
        for norm in norms
        if isinstance(norm, nn.GroupNorm)
    ]
    return Group(names[module], size, members, tuple(filters), math.lcm(1, *blocks))


def _member(layer: str, side: str, pairs: Iterable[tuple[int, int]]) -> Member:
    held = np.array(sorted(pairs), np.int64)
    return Member(layer, side, held[:, 0], held[:, 1])


def _half_read(found: Iterable[Group], network: nn.Module) -> Iterator[str]:
    """Yield layers of whose inputs groups account for some, and not for all."""
    covered: dict[str, set[int]] = defaultdict(set)
    for group in found:
        for member in group.members:
            if member.side == "in":
                covered[member.layer] |= set(member.places.tolist())
    for layer, places in covered.items():
        if len(places) < inputs_of(network.get_submodule(layer)):
            yield layer


def outputs_of(module: nn.Module) -> int:
    """Return how many channels a layer gives."""
    if isinstance(module, _ConvNd):
        return module.out_channels
    return _sizes(module)[0]


def inputs_of(module: nn.Module) -> int:
    """Return how many channels a layer reads."""
    if isinstance(module, _ConvNd):
        return module.in_channels
    return _sizes(module)[-1]


def _sizes(module: nn.Module) -> tuple[int, ...]:
    weight = getattr(module, "weight", None)
    return tuple(weight.shape[:2]) if isinstance(weight, torch.Tensor) else (0,)
