"""Attention blocks that weigh the skips of a U-Net, rows of one table.

Sources: SE, Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507; CBAM, Woo
et al., "CBAM: Convolutional Block Attention Module", arXiv:1807.06521; SAM is the
spatial half of the latter alone. The lumbar MR paper compares the three in the skips
of its network without a word on their sizes: channels are squeezed to a sixteenth
and the spatial filter is 7 x 7, as the sources have it.
One departure: CBAM's shared layers have no biases.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

SQUEEZE = 16
SPATIAL_KERNEL = 7


class SqueezeExcitation(nn.Module):
    """Weigh channels by their means; (N, width, H, W) in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, width // SQUEEZE)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, narrow, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(narrow, width, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times one weight per channel."""
        weighed: Tensor = x * self.weigh(x)
        return weighed


class SpatialAttention(nn.Module):
    """Weigh pixels by the mean and the maximum over channels; (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times one weight per pixel."""
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], 1)
        weighed: Tensor = x * self.weigh(seen).sigmoid()
        return weighed


class ChannelSpatial(nn.Module):
    """CBAM: weigh channels by their means and maxima, then pixels; (N, width, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, width // SQUEEZE)
        self.shared = nn.Sequential(
            nn.Conv2d(width, narrow, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(narrow, width, kernel_size=1, bias=False),
        )
        self.spatial = SpatialAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, weighed twice."""
        mean = self.shared(x.mean(dim=(2, 3), keepdim=True))
        most = self.shared(x.amax(dim=(2, 3), keepdim=True))
        weighed: Tensor = self.spatial(x * (mean + most).sigmoid())
        return weighed


def _none(width: int) -> nn.Module:
    return nn.Identity()


BLOCKS: Mapping[str, Callable[[int], nn.Module]] = MappingProxyType(
    {
        "none": _none,
        "sam": SpatialAttention,
        "cbam": ChannelSpatial,
        "se": SqueezeExcitation,
    }
)
"""Name, as in ``catalog.ATTENTIONS`` -> what makes the block for so many channels."""
