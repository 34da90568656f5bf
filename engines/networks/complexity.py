"""How large a network is: its parameters, and the operations of a forward pass."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engines.networks import catalog, resize
from engines.networks.build import UNSAVED
from engines.networks.resize import Shapes

CUBE_VOXELS = 64
"""Edge of the cube that operations are counted in."""


def parameter_counts(network: nn.Module) -> dict[str, int]:
    """Count weights, and batch norm's running statistics as non-trainable."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    kept = sum(b.numel() for n, b in network.named_buffers() if not n.endswith(UNSAVED))
    return {
        "total": trainable + frozen + kept,
        "trainable": trainable,
        "non_trainable": frozen + kept,
    }


def describe_network(
    architecture: str,
    classes: int,
    size: int,
    options: Mapping[str, Any] | None = None,
    shapes: Shapes | None = None,
) -> dict[str, Any]:
    """Return parameter counts and GFLOP of one (size, size) slice, without weights.

    A multiplication and an addition count as two operations. For a network in three
    dimensions it is a cube of ``CUBE_VOXELS`` per edge, divided by its slices.

    Args:
        architecture: row of the catalogue.
        classes: output channels.
        size: rows and columns of the slice.
        options: what the row was built with.
        shapes: of a pruned network's tensors, by name.
    """
    spec = catalog.find(architecture)
    size = size if spec.dimensions == 2 else CUBE_VOXELS
    with torch.device("meta"):
        network = spec.build(in_channels=1, classes=classes, options=options)
        resize.fit(network, shapes or {})
        flop = operations(network.eval(), torch.empty(spec.shape(size)))
    slices = 1 if spec.dimensions == 2 else size
    return {
        "parameters": parameter_counts(network),
        "gflop_per_slice": round(flop / 1e9 / slices, 2),
        "slice_size": size,
    }


def operations(network: nn.Module, image: Tensor) -> int:
    """Return the operations of one forward pass; both may be on the device meta."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(image)
    return int(counter.get_total_flops())
