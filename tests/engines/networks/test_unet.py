"""U-Net has the published weights and its dropout where it should be."""

import torch
from torch import nn

from engines.networks.complexity import parameter_counts
from engines.networks.unet import UNet


def test_counts_are_the_published_ones() -> None:
    assert parameter_counts(UNet()) == {
        "total": 31_050_114,
        "trainable": 31_040_386,
        "non_trainable": 9_728,
    }


def test_one_convolution_of_the_bottleneck_has_no_norm() -> None:
    network = UNet()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(norm.num_features for norm in norms) == 4_864
    inner = [m for m in network.bottleneck.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(inner) == 1


def test_the_two_deepest_levels_drop_half() -> None:
    network = UNet().train()
    dropped = {n: m.p for n, m in network.named_modules() if isinstance(m, nn.Dropout)}
    assert dropped == {"encoder.blocks.3.1": 0.5, "bottleneck.3": 0.5}
    *_, deepest, _ = network.encoder(torch.randn(2, 1, 16, 16))
    finer, *_ = network.encoder(torch.randn(2, 1, 16, 16))
    assert (deepest == 0).float().mean() > 0.6  # ReLU alone leaves half
    assert (finer == 0).float().mean() < 0.6


def test_each_level_halves_the_grid_and_doubles_the_channels() -> None:
    shapes = [tuple(x.shape[1:]) for x in UNet().encoder(torch.zeros(1, 1, 32, 64))]
    assert shapes == [
        (64, 32, 64),
        (128, 16, 32),
        (256, 8, 16),
        (512, 4, 8),
        (512, 2, 4),
    ]
