"""Attention U-Net has the published weights, and its gates open and shut."""

import pytest
import torch
from torch import nn

from engines.networks.attention_unet import AttentionUNet
from engines.networks.blocks import AttentionGate
from engines.networks.complexity import parameter_counts


def test_counts_are_the_published_ones() -> None:
    assert parameter_counts(AttentionUNet()) == {
        "total": 31_753_414,
        "trainable": 31_741_638,
        "non_trainable": 11_776,
    }


def test_each_skip_has_a_gate() -> None:
    gates = [m for m in AttentionUNet().modules() if isinstance(m, AttentionGate)]
    assert [gate.theta.in_channels for gate in gates] == [512, 256, 128, 64]


@pytest.mark.parametrize(("bias", "share"), [(-100.0, 0.0), (0.0, 0.5), (100.0, 1.0)])
def test_a_gate_lets_its_share_through(bias: float, share: float) -> None:
    gate = AttentionGate(4)
    nn.init.zeros_(gate.psi.weight)
    nn.init.constant_(gate.psi.bias, bias)
    skip, coming = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(gate(skip, coming), share * skip)


def test_a_gate_weighs_pixels_by_what_is_coming() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(4)
    skip, coming = torch.ones(1, 4, 2, 1), torch.zeros(1, 4, 2, 1)
    coming[:, :, 1] = 5.0
    weighed = gate(skip, coming)
    assert not torch.allclose(weighed[:, :, 0], weighed[:, :, 1])
    torch.testing.assert_close(weighed[:, 0], weighed[:, 3])
