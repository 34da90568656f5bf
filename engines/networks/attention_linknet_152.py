"""Attention LinkNet-152: three encoders with attention, fused into one LinkNet.

Source: "Attention LinkNet-152: a novel encoder-decoder based deep learning network for
automated spine segmentation", Sci Rep 2025. EfficientNet-B7: Tan and Le,
arXiv:1905.11946, as timm has it; LinkNet with ResNet-152: Chaurasia and Culurciello,
arXiv:1707.03718, as segmentation-models-pytorch has it.

The input is a cube of the scan, along right, anterior and superior, with equal
spacing. Which slices feed which encoder, and how they meet in 3D, is told in
``three_views``: every sagittal, coronal and axial plane of the cube goes through the
EfficientNet-B7 of its view. Behind each of its first four blocks stands an attention
module, whose result feeds the next block and, through a 1x1 convolution and bilinear
upsampling, becomes part of the view's map. The three views' maps, with the cube itself,
are one map, whose axial planes LinkNet labels one by one. A whole volume is covered by
overlapping cubes whose probabilities are averaged, those of a cube's middle counting
more than those of its sides (``engines.segment.cubes``).

The paper shows the parts and not their sizes. This project's choices: cubes, so that
the three views show the same place (the paper's three slices of 256 x 256 have no
pixel in common but one); CBAM as attention module; four channels from each block. What
EfficientNet-B7 has behind its fourth block is left out, since nothing reads it.
Weights start at random unless they are given.
"""

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.networks import attention as blocks
from engines.networks import three_views
from engines.networks.three_views import VIEWS

ENCODER = "tf_efficientnet_b7"
BLOCKS = 4
MAP_WIDTH = 4
"""Channels that each block of each view adds to the map that LinkNet sees."""


class AttentionLinkNet152(nn.Module):
    """Label every voxel of a cube.

    Args:
        in_channels: image channels.
        classes: labels, background included.
        attention: row of ``attention.BLOCKS`` behind each block.

    Shape:
        input: (N, in_channels, R, A, S), multiples of 32.
        output: (N, classes, R, A, S), logits.
    """

    def __init__(
        self, in_channels: int = 1, classes: int = 2, *, attention: str = "cbam"
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(_encoder(in_channels) for _ in VIEWS)
        first = self.encoders[0].get_submodule("blocks")
        widths = [_width(block) for block in first.children()]
        self.attention = nn.ModuleList(
            nn.ModuleList(blocks.BLOCKS[attention](width) for width in widths)
            for _ in VIEWS
        )
        self.narrow = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(w, MAP_WIDTH, kernel_size=1) for w in widths)
            for _ in VIEWS
        )
        fused = in_channels + len(VIEWS) * len(widths) * MAP_WIDTH
        self.linknet = smp.Linknet(
            "resnet152", encoder_weights=None, in_channels=fused, classes=classes
        )

    def forward(self, cube: Tensor) -> Tensor:
        """Return logits for ``cube``."""
        count = cube.shape[0]
        maps = [cube]
        for view in range(len(VIEWS)):
            seen = self._seen(three_views.planes(cube, view), view)
            maps.append(three_views.stacked(seen, view, count))
        axial = VIEWS.index("axial")
        fused = three_views.planes(torch.cat(maps, dim=1), axial)
        return three_views.stacked(self.linknet(fused), axial, count)

    def _seen(self, slices: Tensor, view: int) -> Tensor:
        """Return a view's map of its planes, (N * D, 16, H, W)."""
        encoder = self.encoders[view]
        x = encoder.get_submodule("bn1")(encoder.get_submodule("conv_stem")(slices))
        found = []
        parts = zip(
            encoder.get_submodule("blocks").children(),
            self.attention[view].children(),
            self.narrow[view].children(),
            strict=True,
        )
        for block, attend, narrow in parts:
            x = attend(block(x))
            found.append(
                functional.interpolate(
                    narrow(x), slices.shape[2:], mode="bilinear", align_corners=False
                )
            )
        return torch.cat(found, dim=1)


def _encoder(in_channels: int) -> nn.Module:
    """Return EfficientNet-B7 without what follows its fourth block."""
    network: nn.Module = timm.create_model(
        ENCODER, pretrained=False, in_chans=in_channels
    )
    kept = list(network.get_submodule("blocks").children())[:BLOCKS]
    network.register_module("blocks", nn.Sequential(*kept))
    for name in ("conv_head", "bn2", "global_pool", "classifier"):
        delattr(network, name)
    return network


def _width(block: nn.Module) -> int:
    """Return the channels that a block of EfficientNet gives."""
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    return convolutions[-1].out_channels
