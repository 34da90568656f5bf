"""TransUNet: U-Net with a transformer block in the bottleneck.

Source: "Automated lumbar spine segmentation in MRI using an enhanced U-Net with
inception module and dual-output mechanism", Sci Rep 2025; the name is
that of Chen et al., "TransUNet", arXiv:2102.04306.
Departures from the latter: one transformer block instead of twelve, no ResNet, an
MLP that narrows, and no positional embedding, for which the published count leaves
no weights, so the block takes a grid of any size (8 x 8 for slices of 128 x 128).
Norms come before attention and MLP and the MLP's activation is GELU, as there.
Dropout of 0.5 follows the 512-channel level of the encoder and the bottleneck.
"""

from torch import Tensor, nn
from torch.nn import functional

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
HEADS = 8
HEAD_WIDTH = 64
MLP_WIDTH = 128


class TransUNet(UShape):
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
            conv_norm(WIDTHS[-1], DEEPEST), _Transformer(DEEPEST), nn.Dropout(dropout)
        )
        encoder = encoder_of(conv_pair, in_channels, dropout)
        super().__init__(encoder, bottleneck, Decoder(weighed=attention), classes)


class _Transformer(nn.Module):
    """One transformer block whose tokens are the pixels of (N, width, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = _Attention(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_WIDTH), nn.GELU(), nn.Linear(MLP_WIDTH, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm_attention(tokens))
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)


class _Attention(nn.Module):
    """Self-attention over (N, tokens, width), narrower inside than outside."""

    FIXED_CHANNELS = ("query", "key", "value")
    """Pruning leaves them alone, since the heads have a size of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            part(tokens).unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        seen = functional.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return joined
