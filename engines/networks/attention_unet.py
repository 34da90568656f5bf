"""Attention U-Net: U-Net with a gate on each skip.

Source: "Automated lumbar spine segmentation in MRI using an enhanced U-Net with
inception module and dual-output mechanism", Sci Rep 2025; the gates
are those of Oktay et al., "Attention U-Net", arXiv:1804.03999.
Departures from the latter: a gate sees the decoder after its upsampling, on the
skip's own grid, and has neither norms nor a convolution behind it; the published
count holds only so. Dropout of 0.5 follows the 512-channel level of the encoder and
the bottleneck.
"""

from torch import nn

from engines.networks.blocks import (
    DEEPEST,
    WIDTHS,
    Decoder,
    UShape,
    conv_pair,
    encoder_of,
)

DROPOUT = 0.5


class AttentionUNet(UShape):
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
        bottleneck = nn.Sequential(conv_pair(WIDTHS[-1], DEEPEST), nn.Dropout(dropout))
        encoder = encoder_of(conv_pair, in_channels, dropout)
        decoder = Decoder(gated=True, weighed=attention)
        super().__init__(encoder, bottleneck, decoder, classes)
