"""CHASPPRAU-Net: residual U-Net with cascaded hierarchical ASPP and gated skips.

Source: "An Automated Deep Learning Approach for Spine Segmentation and Vertebrae
Recognition Using Computed Tomography Images", Diagnostics 2023.
Where no number is published the choice is this project's: the widths are U-Net's,
64 to 1024; the root atrous convolution has rate 2 and its three branches 4, 8 and
12, joined by a 1x1 convolution; dropout of 0.3 follows the deepest level of the
encoder and the bottleneck. The gates are those of ``blocks.AttentionGate``.
"""

import torch
from torch import Tensor, nn

from engines.networks.blocks import (
    DEEPEST,
    WIDTHS,
    Decoder,
    Encoder,
    Residual,
    UShape,
    conv_norm,
)

DROPOUT = 0.3
ROOT_RATE = 2
BRANCH_RATES = (4, 8, 12)


class ChasppraUNet(UShape):
    """Label every pixel of a slice.

    Args:
        in_channels: image channels.
        classes: labels, background included.
        dropout: share of features dropped in the deep levels.
        attention: row of ``attention.BLOCKS`` that weighs the skips.

    Shape:
        input: (N, in_channels, H, W); H and W are multiples of 16.
        output: (N, classes, H, W), logits.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        *,
        dropout: float = DROPOUT,
        attention: str = "none",
    ) -> None:
        coarser = (
            nn.Sequential(_CascadedAspp(width), Residual(width, 2 * width))
            for width in WIDTHS[:-1]
        )
        bottleneck = nn.Sequential(Residual(WIDTHS[-1], DEEPEST), nn.Dropout(dropout))
        super().__init__(
            Encoder((Residual(in_channels, WIDTHS[0]), *coarser), dropout),
            bottleneck,
            Decoder(Residual, gated=True, weighed=attention),
            classes,
        )


class _CascadedAspp(nn.Module):
    """A root atrous convolution that feeds three; (N, width, H, W) in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.root = _atrous(width, ROOT_RATE)
        self.branches = nn.ModuleList(_atrous(width, rate) for rate in BRANCH_RATES)
        self.join = conv_norm(len(BRANCH_RATES) * width, width, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        root = self.root(x)
        joined: Tensor = self.join(torch.cat([b(root) for b in self.branches], dim=1))
        return joined


def _atrous(width: int, rate: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel_size=3, padding=rate, dilation=rate),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
