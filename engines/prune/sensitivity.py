"""How much each filter matters, by one of several criteria.

``gradient``: S(F) = mean |dL/dw| over the weights of filter F, averaged over the
batches of a pruning set, in evaluation mode; "Attention LinkNet-152: a novel
encoder-decoder based deep learning network for automated spine segmentation", Sci Rep
2025.
``taylor``: mean of (sum of w dL/dw)^2; Molchanov et al., arXiv:1906.10771.
``magnitude``: mean |w|; Li et al., arXiv:1608.08710.
``random``: what every criterion should be held against.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.errors import TrainingError
from engines.prune.graph import Group, outputs_of
from engines.prune.shrink import filters_of

CRITERIA = ("gradient", "taylor", "magnitude", "random")
LEARNT = ("gradient", "taylor")
"""Criteria that need data."""

Scores = Mapping[str, NDArray[np.float64]]
"""Name of a layer, or group, -> one score per filter, or channel."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (N, 1, ...) and targets (N, ...), on the network's device."""


def of_layers(
    network: nn.Module,
    layers: Sequence[str],
    criterion: str,
    *,
    batches: Batches = (),
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Return the score of every filter of ``layers``; high ones matter.

    Args:
        network: evaluating; its gradients are gone afterwards.
        layers: names of convolutions and linear layers.
        criterion: one of ``CRITERIA``.
        batches: of the pruning set, for the criteria in ``LEARNT``; one backward
            pass each.
        loss: of logits and target, for the same.
        seed: of the random criterion.

    Raises:
        TrainingError: no batch, or a loss that is not finite.
    """
    held = {name: network.get_submodule(name) for name in layers}
    if criterion == "random":
        rng = np.random.default_rng(seed)
        return {name: rng.random(outputs_of(layer)) for name, layer in held.items()}
    weights = {name: layer.get_parameter("weight") for name, layer in held.items()}
    if criterion == "magnitude":
        return {
            name: _each(filters_of(held[name], weight.detach()).abs().mean(dim=1))
            for name, weight in weights.items()
        }
    if loss is None:
        msg = f"the criterion {criterion} needs a loss"
        raise ValueError(msg)
    sums = {name: np.zeros(outputs_of(layer)) for name, layer in held.items()}
    count = 0
    for images, targets in batches:
        _backward(network, images, targets, loss, number=count + 1)
        for name, weight in weights.items():
            if weight.grad is not None:
                score = _score(held[name], weight.detach(), weight.grad, criterion)
                sums[name] += _each(score)
        count += 1
    network.zero_grad(set_to_none=True)
    if not count:
        msg = "the pruning set is empty"
        raise TrainingError(msg, hint="Give --data a folder of scans with label maps.")
    return {name: total / count for name, total in sums.items()}


def of_groups(
    groups: Sequence[Group], scores: Scores
) -> dict[str, NDArray[np.float64]]:
    """Return the score of every channel: the mean over the filters that make it.

    Channels of a block share the mean of their scores.
    """
    found = {}
    for group in groups:
        total, count = np.zeros(group.size), np.zeros(group.size)
        for member in group.members:
            if member.side == "out" and member.layer in group.filters:
                np.add.at(total, member.channels, scores[member.layer][member.places])
                np.add.at(count, member.channels, 1)
        mean = total / np.maximum(count, 1)
        blocks = mean.reshape(-1, group.block).mean(axis=1)
        found[group.name] = np.repeat(blocks, group.block)
    return found


def _backward(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    number: int,
) -> None:
    network.zero_grad(set_to_none=True)
    value = loss(network(images).float(), targets)
    if not torch.isfinite(value):
        msg = f"the loss is {value.item()} on batch {number} of the pruning set"
        raise TrainingError(msg, hint="Check the model, and the scans' values.")
    torch.autograd.backward(value)


def _score(
    layer: nn.Module, weight: Tensor, gradient: Tensor, criterion: str
) -> Tensor:
    each = filters_of(layer, gradient)
    if criterion == "gradient":
        return each.abs().mean(dim=1)
    return (each * filters_of(layer, weight)).sum(dim=1).square()


def _each(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found
