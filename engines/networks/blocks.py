"""Blocks that several of the hand-written networks share, all of them 2D.

Convolutions have biases before batch norm, and upsampling is a transposed
convolution: the published parameter counts of the lumbar MR family hold only so.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.networks import attention

WIDTHS = (64, 128, 256, 512)
"""Channels of the encoder's levels, finest first."""

DEEPEST = 2 * WIDTHS[-1]
"""Channels of the bottleneck."""


def conv_norm(width_in: int, width_out: int, kernel: int = 3) -> nn.Sequential:
    """Return a convolution that keeps the grid, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )


def conv_pair(width_in: int, width_out: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with batch norm and ReLU."""
    return nn.Sequential(
        conv_norm(width_in, width_out), conv_norm(width_out, width_out)
    )


class Residual(nn.Module):
    """Two normalised 3x3 convolutions and a normalised 1x1 one around them.

    Shape:
        input: (N, width_in, H, W).
        output: (N, width_out, H, W).
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm(width_in, width_out),
            nn.Conv2d(width_out, width_out, kernel_size=3, padding=1),
            nn.BatchNorm2d(width_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(width_in, width_out, kernel_size=1), nn.BatchNorm2d(width_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways, rectified."""
        return functional.relu(self.body(x) + self.shortcut(x))


class AttentionGate(nn.Module):
    """Weigh each pixel of a skip by what the decoder has seen so far.

    Additive gate of Oktay et al., "Attention U-Net", arXiv:1804.03999, but on the
    grid of the skip, after the decoder's upsampling, and without norms.

    Shape:
        skip, coming: (N, width, H, W).
        output: (N, width, H, W), the skip times weights between 0 and 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(width, width, kernel_size=1)
        self.phi = nn.Conv2d(width, width, kernel_size=1)
        self.psi = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, skip: Tensor, coming: Tensor) -> Tensor:
        """Return ``skip``, weighed."""
        both = functional.relu(self.theta(skip) + self.phi(coming))
        weight: Tensor = self.psi(both).sigmoid()
        return skip * weight


class Encoder(nn.Module):
    """Blocks with 2x2 max pooling behind each, and dropout behind the last.

    Shape:
        input: (N, C, H, W).
        output: the output of each block, finest first, then the last one pooled.
    """

    def __init__(self, blocks: Iterable[nn.Module], dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.blocks[-1] = nn.Sequential(self.blocks[-1], nn.Dropout(dropout))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what the decoder needs; see the class."""
        found = []
        for block in self.blocks:
            found.append(block(x))
            x = functional.max_pool2d(found[-1], kernel_size=2)
        return [*found, x]


class Decoder(nn.Module):
    """Double the grid, join the skip, convolve; once per level.

    Args:
        merge: makes the block behind each joining from its channels in and out.
        skips: channels of the skips, finest first.
        gated: whether an ``AttentionGate`` weighs each skip.
        weighed: row of ``attention.BLOCKS`` that weighs each skip, after the gate.

    Shape:
        deep: (N, DEEPEST, H / 16, W / 16).
        skips: (N, skips[i], H / 2**i, W / 2**i).
        output: (N, WIDTHS[0], H, W).
    """

    def __init__(
        self,
        merge: Callable[[int, int], nn.Module] = conv_pair,
        skips: Sequence[int] = WIDTHS,
        *,
        gated: bool = False,
        weighed: str = "none",
    ) -> None:
        super().__init__()
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2)
            for coarse, fine in pairwise((DEEPEST, *reversed(WIDTHS)))
        )
        self.gates = nn.ModuleList(
            AttentionGate(width) if gated else _Open() for width in reversed(WIDTHS)
        )
        self.weigh = nn.ModuleList(
            attention.BLOCKS[weighed](skip) for skip in reversed(skips)
        )
        self.merge = nn.ModuleList(
            merge(width + skip, width)
            for width, skip in zip(reversed(WIDTHS), reversed(skips), strict=True)
        )

    def forward(self, deep: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Return the features of the finest level."""
        x = deep
        levels = zip(
            self.up,
            self.gates,
            self.weigh,
            self.merge,
            reversed(skips),
            strict=True,
        )
        for up, gate, weigh, merge, skip in levels:
            x = up(x)
            x = merge(torch.cat([weigh(gate(skip, x)), x], dim=1))
        return x


class _Open(nn.Module):
    """No gate: the skip as it is."""

    def forward(self, skip: Tensor, coming: Tensor) -> Tensor:
        return skip


def encoder_of(
    block: Callable[[int, int], nn.Module], in_channels: int, dropout: float
) -> Encoder:
    """Return the encoder that has one ``block`` per level."""
    levels = pairwise((in_channels, *WIDTHS))
    return Encoder((block(*widths) for widths in levels), dropout)


def head(classes: int) -> nn.Conv2d:
    """Return the 1x1 convolution from features of the finest level to logits."""
    return nn.Conv2d(WIDTHS[0], classes, kernel_size=1)


class UShape(nn.Module):
    """Encoder, bottleneck, decoder and head, one behind the other.

    Shape:
        input: (N, in_channels, H, W); H and W are multiples of 16.
        output: (N, classes, H, W), logits.
    """

    def __init__(
        self, encoder: Encoder, bottleneck: nn.Module, decoder: Decoder, classes: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.head = head(classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits for ``image``."""
        *skips, deep = self.encoder(image)
        return cast("Tensor", self.head(self.decoder(self.bottleneck(deep), skips)))
