"""Take channels out of a network, or silence them."""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from engines.networks import resize
from engines.networks.resize import is_depthwise
from engines.prune.graph import Group

Removed = Mapping[str, Sequence[int]]
"""Name of a group -> its channels that leave."""

AFFINE = ("weight", "bias", "running_mean", "running_var")


def shrunken(
    network: nn.Module, groups: Sequence[Group], removed: Removed
) -> nn.Module:
    """Return a copy of ``network`` without the removed channels."""
    state = network.state_dict()
    for name, axis, gone in _cuts(network, groups, removed):
        kept = np.setdiff1d(np.arange(state[name].shape[axis]), gone)
        state[name] = state[name].index_select(axis, torch.from_numpy(kept))
    small = copy.deepcopy(network)
    resize.fit(small, {name: value.shape for name, value in state.items()})
    small.load_state_dict(state)
    return small


def shapes_without(
    network: nn.Module, groups: Sequence[Group], removed: Removed
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that ``shrunken`` would have."""
    shapes = {name: list(shape) for name, shape in resize.shapes_of(network).items()}
    for name, axis, gone in _cuts(network, groups, removed):
        shapes[name][axis] -= len(gone)
    return {name: tuple(shape) for name, shape in shapes.items()}


def silenced(
    network: nn.Module, groups: Sequence[Group], removed: Removed
) -> nn.Module:
    """Return a copy of ``network`` whose removed filters are zero, as the paper has it.

    Norms behind them are zero too, so that nothing of the filters is left in what
    others read, but in means over channels.
    """
    quiet = copy.deepcopy(network)
    state = quiet.state_dict()
    for name, axis, gone in _cuts(network, groups, removed, sides=("out",)):
        if not name.endswith("running_var"):
            state[name].index_fill_(axis, torch.from_numpy(gone), 0)
    return quiet


def _cuts(
    network: nn.Module,
    groups: Sequence[Group],
    removed: Removed,
    sides: Sequence[str] = ("out", "in"),
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield tensors with the axis and the places that leave, once each."""
    leaving: dict[tuple[str, str], set[int]] = defaultdict(set)
    for group in groups:
        channels = removed.get(group.name, ())
        for member in group.members if len(channels) else ():
            if member.side in sides:
                places = member.places[np.isin(member.channels, channels)]
                leaving[member.layer, member.side] |= set(places.tolist())
    held = network.state_dict()
    for (layer, side), channels_gone in leaving.items():
        gone = np.array(sorted(channels_gone), np.int64)
        for tensor, axis in _tensors(network.get_submodule(layer), side):
            if f"{layer}.{tensor}" in held:
                yield f"{layer}.{tensor}", axis, gone


def _tensors(layer: nn.Module, side: str) -> list[tuple[str, int]]:
    """Return the tensors that have the channels of one side, and on which axis."""
    weighs = isinstance(layer, (_ConvNd, nn.Linear))
    if not weighs or is_depthwise(layer):
        return [(name, 0) for name in AFFINE]
    turned = isinstance(layer, _ConvTransposeNd)
    if side == "out":
        return [("weight", 1 if turned else 0), ("bias", 0)]
    return [("weight", 0 if turned else 1)]


def filters_of(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return a layer's weights, or their gradient, as (filters, weights of each)."""
    if isinstance(layer, _ConvTransposeNd):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)
