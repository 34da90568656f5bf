"""Networks with other numbers of channels than the catalogue's, told by their tensors.

A pruned network is that of its row with fewer channels in some layers. Which, the
shapes of its tensors say, so a model file needs no more than itself.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Shapes = Mapping[str, Sequence[int]]
"""Name in the state dictionary -> shape."""


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a network."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def fit(network: nn.Module, shapes: Shapes) -> None:
    """Give the layers of ``network`` the channels that ``shapes`` say, in place.

    Tensors whose shape changes become uninitialised ones on the device they were on;
    all others stay. Names that ``shapes`` has not are left as they are.
    """
    for prefix, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        own |= dict(module.named_buffers(recurse=False))
        changed = False
        for name, value in own.items():
            wanted = tuple(shapes.get(f"{prefix}.{name}" if prefix else name, ()))
            if not wanted or wanted == tuple(value.shape):
                continue
            changed = True
            empty = torch.empty(wanted, dtype=value.dtype, device=value.device)
            if isinstance(value, nn.Parameter):
                setattr(module, name, nn.Parameter(empty, value.requires_grad))
            else:
                setattr(module, name, empty)
        if changed:
            _count(module)


def is_depthwise(module: nn.Module) -> bool:
    """Say whether a layer convolves each channel by itself."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels


def _count(module: nn.Module) -> None:
    """Bring the numbers that a layer keeps of itself in line with its weights."""
    if isinstance(module, _ConvNd):
        first, second = module.weight.shape[:2]
        if is_depthwise(module):
            module.groups = module.in_channels = first
            module.out_channels = first * second
        elif isinstance(module, _ConvTransposeNd):
            module.in_channels = first
            module.out_channels = second * module.groups
        else:
            module.in_channels = second * module.groups
            module.out_channels = first
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _BatchNorm):
        module.num_features = module.weight.shape[0]
    elif isinstance(module, nn.GroupNorm):
        each = module.num_channels // module.num_groups
        module.num_channels = module.weight.shape[0]
        module.num_groups = module.num_channels // each
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
