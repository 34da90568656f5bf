"""Inception dual-output U-Net, the network that the lumbar MR paper proposes.

Source: "Automated lumbar spine segmentation in MRI using an enhanced U-Net with
inception module and dual-output mechanism", Sci Rep 2025; the
Inception module is that of Szegedy et al., "Going Deeper with Convolutions",
arXiv:1409.4842, with batch norm behind each of its convolutions.
U-Net of that paper but for its first block, an Inception module whose 256 channels
are the finest skip, and for a second output on the bottleneck, which is trained
against the mask reduced to the bottleneck's grid (8 x 8 for slices of 128 x 128).
Dropout of 0.5 follows the 512-channel level of the encoder and the bottleneck; the
second output sees the bottleneck after it.
One departure: when not training there is the first output alone, so that every
runtime and export sees a network with one output.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.networks.blocks import (
    DEEPEST,
    WIDTHS,
    Decoder,
    Encoder,
    conv_norm,
    conv_pair,
    head,
)

DROPOUT = 0.5
INCEPTION_WIDTH = 256


class DualOutput(NamedTuple):
    """Logits on the slice's grid and on the bottleneck's, 16 times coarser."""

    mask: Tensor
    bottleneck: Tensor


class InceptionDualUNet(nn.Module):
    """Label every pixel of a slice, and in training those of the bottleneck.

    Without ``inception`` and ``second_output`` it is U-Net with batch norm behind
    every convolution: the paper's ablations.

    Args:
        in_channels: image channels.
        classes: labels, background included.
        dropout: share of features dropped in the deep levels.
        attention: row of ``attention.BLOCKS`` that weighs the skips.
        inception: whether the first block is the Inception module.
        second_output: whether the bottleneck has an output.

    Shape:
        input: (N, in_channels, H, W); H and W are multiples of 16.
        output: (N, classes, H, W), logits; in training a DualOutput of those
            and (N, classes, H / 16, W / 16).
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        *,
        dropout: float = DROPOUT,
        attention: str = "none",
        inception: bool = True,
        second_output: bool = True,
    ) -> None:
        super().__init__()
        first = _Inception(in_channels) if inception else None
        skips = (INCEPTION_WIDTH if inception else WIDTHS[0], *WIDTHS[1:])
        deeper = (conv_pair(*widths) for widths in pairwise(skips))
        self.encoder = Encoder(
            (first or conv_pair(in_channels, WIDTHS[0]), *deeper), dropout
        )
        self.bottleneck = nn.Sequential(
            conv_pair(WIDTHS[-1], DEEPEST), nn.Dropout(dropout)
        )
        self.decoder = Decoder(skips=skips, weighed=attention)
        self.head = head(classes)
        self.second_head = (
            nn.Conv2d(DEEPEST, classes, kernel_size=1) if second_output else None
        )

    def forward(self, image: Tensor) -> Tensor | DualOutput:
        """Return logits for ``image``; see the class for shapes."""
        *skips, deep = self.encoder(image)
        deep = self.bottleneck(deep)
        mask: Tensor = self.head(self.decoder(deep, skips))
        if not self.training or self.second_head is None:
            return mask
        return DualOutput(mask, self.second_head(deep))


class _Inception(nn.Module):
    """Four branches side by side; (N, width_in, H, W) to (N, 256, H, W)."""

    def __init__(self, width_in: int) -> None:
        super().__init__()
        self.point = conv_norm(width_in, 64, kernel=1)
        self.small = nn.Sequential(
            conv_norm(width_in, 96, kernel=1), conv_norm(96, 128, kernel=3)
        )
        self.large = nn.Sequential(
            conv_norm(width_in, 16, kernel=1), conv_norm(16, 32, kernel=5)
        )
        self.pooled = conv_norm(width_in, 32, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        branches = [self.point(x), self.small(x), self.large(x), self.pooled(pooled)]
        return torch.cat(branches, dim=1)
