"""Round a network's weights so that bfloat16 holds them exactly.

In bfloat16 a runtime rounds every weight to 8 bits, after it has joined each batch norm
to the convolution before it. That is half of what it differs by from float32. Here the
weights are rounded once, for good, in a form in which joining changes nothing: what is
left is the rounding between layers. The network can be trained on as before.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Norm = nn.BatchNorm2d | nn.BatchNorm3d
_JOINED = (nn.Conv2d, nn.Conv3d)
_WEIGHTED = (*_JOINED, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def snapped(network: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of an evaluating network whose weights bfloat16 holds.

    A batch norm straight behind a convolution is left to scale by powers of two; the
    rest of its scale goes into the weights before they are rounded.

    Args:
        network: evaluating.
        example: (1, 1, H, W) or (1, 1, R, A, S), which it takes.
    """
    made = copy.deepcopy(network)
    with torch.no_grad():
        for conv, norm in _pairs(made, example):
            _scale_by_twos(conv, norm)
        for module in made.modules():
            if isinstance(module, _WEIGHTED):
                module.weight.copy_(module.weight.bfloat16().float())
    return made


def _pairs(network: nn.Module, example: Tensor) -> Sequence[tuple[nn.Module, Norm]]:
    """Return the convolutions whose output goes into a batch norm as it is."""
    made: dict[int, nn.Module] = {}
    kept: list[Tensor] = []  # so that no address is used twice
    found: dict[nn.Module, Norm] = {}
    often: list[nn.Module] = []

    def convolved(module: nn.Module, _: object, output: Tensor) -> None:
        made[output.data_ptr()] = module
        kept.append(output)

    def normed(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        conv = made.get(given[0].data_ptr())
        if conv is not None and isinstance(module, Norm):
            often.append(conv)
            found[conv] = module

    hooks = [
        module.register_forward_hook(convolved)
        for module in network.modules()
        if isinstance(module, _JOINED)
    ]
    hooks += [
        module.register_forward_pre_hook(normed)
        for module in network.modules()
        if isinstance(module, Norm)
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    norms = list(found.values())
    return [
        (conv, norm)
        for conv, norm in found.items()
        if often.count(conv) == 1 and norms.count(norm) == 1
    ]


def _scale_by_twos(conv: nn.Module, norm: Norm) -> None:
    """Leave to ``norm`` a power of two per channel, and the rest to ``conv``.

    What it shifts and divides by follows, so that training can go on from there.
    """
    weight, mean, var = norm.weight, norm.running_mean, norm.running_var
    if weight is None or mean is None or var is None:
        return
    old = weight.double() / torch.sqrt(var.double() + norm.eps)
    twos = torch.exp2(torch.round(torch.log2(old.abs().clamp(min=1e-30))))
    twos = torch.where(old == 0, torch.ones_like(old), twos * old.sign())
    rest = torch.where(old == 0, torch.ones_like(old), old / twos)
    kernel = conv.weight
    if not isinstance(kernel, Tensor):
        return
    kernel.mul_(rest.to(kernel.dtype).view(-1, *(1,) * (kernel.dim() - 1)))
    if isinstance(conv.bias, Tensor):
        conv.bias.mul_(rest.to(kernel.dtype))
    mean.copy_(mean.double() * rest)
    # A model file holds half precision of this one: the variance makes up for it.
    told = (twos * torch.sqrt(var.double() * rest**2 + norm.eps)).half().double()
    exact = ((told / twos) ** 2 - norm.eps).clamp(min=0)
    var.copy_(torch.where(old == 0, var.double(), exact))
    weight.copy_(torch.where(old == 0, weight.double(), told))
