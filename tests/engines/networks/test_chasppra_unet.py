"""CHASPPRAU-Net: its pyramid's reach, where it stands, gates and dropout."""

import torch
from torch import nn

from engines.networks.blocks import AttentionGate, Residual
from engines.networks.chasppra_unet import (
    BRANCH_RATES,
    ROOT_RATE,
    ChasppraUNet,
    _CascadedAspp,
)


def test_a_pyramid_follows_each_of_the_first_three_poolings() -> None:
    network = ChasppraUNet()
    held = {n: m for n, m in network.named_modules() if isinstance(m, _CascadedAspp)}
    widths = {name: pyramid.root[0].in_channels for name, pyramid in held.items()}
    assert widths == {
        "encoder.blocks.1.0": 64,
        "encoder.blocks.2.0": 128,
        "encoder.blocks.3.0.0": 256,
    }


def test_a_pyramid_reaches_as_far_as_root_and_branch_together() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 41, 41, requires_grad=True)
    _CascadedAspp(4).eval()(x)[0, :, 20, 20].sum().backward()
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten() - 20
    reach = ROOT_RATE + max(BRANCH_RATES)
    assert (rows.min(), rows.max()) == (-reach, reach)


def test_branches_see_the_root_alone() -> None:
    pyramid = _CascadedAspp(4).eval()
    nn.init.zeros_(pyramid.root[0].weight)
    first, second = (pyramid(torch.randn(1, 4, 16, 16)) for _ in range(2))
    torch.testing.assert_close(first, second)


def test_blocks_are_residual_and_skips_gated() -> None:
    modules = list(ChasppraUNet().modules())
    assert sum(isinstance(m, Residual) for m in modules) == 9
    assert sum(isinstance(m, AttentionGate) for m in modules) == 4
    assert {m.p for m in modules if isinstance(m, nn.Dropout)} == {0.3}
    assert not any(
        isinstance(m, nn.Conv2d) and max(m.dilation) > 1 and max(m.kernel_size) == 1
        for m in modules
    )
