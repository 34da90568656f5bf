"""ResUNet has the published weights and shortcuts that carry the signal."""

import torch
from torch import nn

from engines.networks.blocks import Residual
from engines.networks.complexity import parameter_counts
from engines.networks.resunet import ResUNet


def test_counts_are_the_published_ones() -> None:
    assert parameter_counts(ResUNet()) == {
        "total": 32_461_634,
        "trainable": 32_443_970,
        "non_trainable": 17_664,
    }


def test_nine_blocks_have_a_shortcut() -> None:
    blocks = [m for m in ResUNet().modules() if isinstance(m, Residual)]
    assert len(blocks) == 9
    assert {block.shortcut[0].kernel_size for block in blocks} == {(1, 1)}


def test_a_block_without_body_is_its_shortcut() -> None:
    block = Residual(3, 5).eval()
    nn.init.zeros_(block.body[-1].weight)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(block(x), block.shortcut(x).relu())
