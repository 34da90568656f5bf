"""U-Net, the baseline of the lumbar MR family.

Source: "Automated lumbar spine segmentation in MRI using an enhanced U-Net with
inception module and dual-output mechanism", Sci Rep 2025; the network is
that of Ronneberger et al., "U-Net", MICCAI 2015, arXiv:1505.04597.
Three departures from the latter: convolutions are padded, so the mask covers the
whole slice; batch norm follows every convolution but the second of the bottleneck,
which the published count of 4,864 normalised channels leaves out; dropout of 0.5
follows the 512-channel level of the encoder (skip and pooled alike) and the
bottleneck, where the former says no more than "deep levels".
"""

from torch import nn

from engines.networks.blocks import (
    DEEPEST,
    WIDTHS,
    Decoder,
    UShape,
    conv_norm,
    conv_pair,
    encoder_of,
)

DROPOUT = 0.5


class UNet(UShape):
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
        bottleneck = nn.Sequential(
            conv_norm(WIDTHS[-1], DEEPEST),
            nn.Conv2d(DEEPEST, DEEPEST, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        encoder = encoder_of(conv_pair, in_channels, dropout)
        super().__init__(encoder, bottleneck, Decoder(weighed=attention), classes)
