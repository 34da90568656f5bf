"""The dual-output U-Net has the published weights and both its outputs in training."""

import pytest
import torch
from torch import nn

from engines.networks.complexity import parameter_counts
from engines.networks.inception_dual_unet import (
    DualOutput,
    InceptionDualUNet,
    _Inception,
)


@pytest.fixture(scope="module")
def network() -> InceptionDualUNet:
    torch.manual_seed(0)
    return InceptionDualUNet()


def test_counts_are_the_published_ones(network: InceptionDualUNet) -> None:
    assert parameter_counts(network) == {
        "total": 31_475_396,
        "trainable": 31_463_140,
        "non_trainable": 12_256,
    }


def test_training_gives_both_outputs(network: InceptionDualUNet) -> None:
    outputs = network.train()(torch.randn(2, 1, 128, 96))
    assert isinstance(outputs, DualOutput)
    assert outputs.mask.shape == (2, 2, 128, 96)
    assert outputs.bottleneck.shape == (2, 2, 8, 6)


def test_evaluating_gives_the_mask_alone(network: InceptionDualUNet) -> None:
    with torch.inference_mode():
        assert network.eval()(torch.randn(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_the_second_output_teaches_the_encoder_alone(
    network: InceptionDualUNet,
) -> None:
    network.train().zero_grad()
    network(torch.randn(2, 1, 32, 32)).bottleneck.square().sum().backward()
    reached = {
        name.split(".")[0]
        for name, p in network.named_parameters()
        if p.grad is not None
    }
    assert reached == {"encoder", "bottleneck", "second_head"}
    network.zero_grad()


def test_the_first_block_is_inception_and_its_output_the_finest_skip(
    network: InceptionDualUNet,
) -> None:
    finest, *_ = network.encoder(torch.randn(2, 1, 16, 16))
    assert finest.shape == (2, 256, 16, 16)
    assert network.decoder.merge[-1][0][0].in_channels == 64 + 256


def test_inception_joins_its_branches_in_order() -> None:
    module = _Inception(1)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0]) for c in convolutions] == [
        (64, 1),
        (96, 1),
        (128, 3),
        (16, 1),
        (32, 5),
        (32, 1),
    ]
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(module.eval()(x)[:, :64], module.point(x))
