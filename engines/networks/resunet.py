"""ResUNet: U-Net whose blocks are residual.

Source: "Automated lumbar spine segmentation in MRI using an enhanced U-Net with
inception module and dual-output mechanism", Sci Rep 2025; residual
U-Nets go back to Zhang et al., "Road Extraction by Deep Residual U-Net",
arXiv:1711.10684.
Departures from the latter: norms follow the convolutions, each of the nine blocks
has a 1x1 shortcut with its own batch norm, and pooling instead of stride goes down;
the published count holds only so. Dropout of 0.5 follows the 512-channel level of
the encoder and the bottleneck.
"""

from torch import nn

from engines.networks.blocks import (
    DEEPEST,
    WIDTHS,
    Decoder,
    Residual,
    UShape,
    encoder_of,
)

DROPOUT = 0.5


class ResUNet(UShape):
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
        bottleneck = nn.Sequential(Residual(WIDTHS[-1], DEEPEST), nn.Dropout(dropout))
        encoder = encoder_of(Residual, in_channels, dropout)
        super().__init__(
            encoder, bottleneck, Decoder(Residual, weighed=attention), classes
        )
