"""3D MRU-Net: three MobileNetV2 encoders and a 3D residual U-Net decoder.

Source: "An Automated Deep Learning Approach for Spine Segmentation and Vertebrae
Recognition Using Computed Tomography Images", Diagnostics 2023. MobileNetV2: Sandler et
al., arXiv:1801.04381, as segmentation-models-pytorch has it.

The input is a cube of the scan, along right, anterior and superior, with equal
spacing. Which slices feed which encoder is told in ``three_views``: every sagittal,
coronal and axial plane of the cube goes through the MobileNetV2 of its view. At
strides 2, 4, 8 and 16 each view's maps, fine along its normal, are averaged along it
to the same stride, so that the three lie on one grid, and are concatenated to one 3D
map. The deepest of these passes a residual block and dropout of 0.3; going up, each
level is doubled, joined with the 3D map of that stride and passed through a residual
block, and the last with the cube itself. A whole volume is covered by overlapping
cubes whose probabilities are averaged, those of a cube's middle counting more than
those of its sides (``engines.segment.cubes``).

In the paper it recognises the vertebrae of the spine that CHASPPRAU-Net segmented. The
model that is shipped does so for the spine that ``unet-r34`` finds (``guide`` of its
manifest), on a grid of its own that is much coarser than that of the mask.

The paper publishes 1,245,155 trainable parameters and no widths. For one channel and
two classes this network has 1,245,730, which is 575 more: MobileNetV2 ends with its
64-channel blocks at stride 16 here, since the whole of it, three times, would have six
million, and the widths of the 3D part are chosen to come near the published count. Its
residual blocks are MobileNetV2's own inverted residuals and those of the decoder.
"""

from itertools import pairwise

import torch
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.nn import functional

from engines.networks import three_views
from engines.networks.three_views import VIEWS

DROPOUT = 0.3
STAGES = ((0, 2), (2, 4), (4, 7), (7, 11))
"""Layers of MobileNetV2 that end at strides 2, 4, 8 and 16."""

STAGE_WIDTHS = (16, 24, 32, 64)
WIDTHS = (16, 32, 40, 64)
"""Channels of the 3D maps at those strides."""

FINEST = 12
"""Channels of the decoder on the cube's own grid."""


class MruNet3d(nn.Module):
    """Label every voxel of a cube.

    Args:
        in_channels: image channels.
        classes: labels, background included.
        dropout: share of features dropped in the deepest 3D map.

    Shape:
        input: (N, in_channels, R, A, S), multiples of 16.
        output: (N, classes, R, A, S), logits.
    """

    def __init__(
        self, in_channels: int = 1, classes: int = 2, *, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(_encoder(in_channels) for _ in VIEWS)
        self.join = nn.ModuleList(
            _conv_norm(len(VIEWS) * given, width, kernel=1)
            for given, width in zip(STAGE_WIDTHS, WIDTHS, strict=True)
        )
        self.deepest = nn.Sequential(
            _Residual3d(WIDTHS[-1], WIDTHS[-1]), nn.Dropout3d(dropout)
        )
        levels = list(pairwise((FINEST, *WIDTHS)))[::-1]
        skips = (*WIDTHS[-2::-1], in_channels)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, kernel_size=2, stride=2)
            for fine, coarse in levels
        )
        self.merge = nn.ModuleList(
            _Residual3d(fine + skip, fine)
            for (fine, _), skip in zip(levels, skips, strict=True)
        )
        self.head = nn.Conv3d(FINEST, classes, kernel_size=1)

    def forward(self, cube: Tensor) -> Tensor:
        """Return logits for ``cube``."""
        *skips, x = self._maps(cube)
        x = self.deepest(x)
        steps = zip(self.up, self.merge, [*skips[::-1], cube], strict=True)
        for up, merge, skip in steps:
            x = merge(torch.cat([up(x), skip], dim=1))
        logits: Tensor = self.head(x)
        return logits

    def _maps(self, cube: Tensor) -> list[Tensor]:
        """Return the 3D maps at strides 2, 4, 8 and 16."""
        found: list[list[Tensor]] = [[] for _ in STAGES]
        for view, encoder in enumerate(self.encoders):
            x = three_views.planes(cube, view)
            layers = list(encoder.get_submodule("features").children())
            for level, (first, last) in enumerate(STAGES):
                for layer in layers[first:last]:
                    x = layer(x)
                solid = three_views.stacked(x, view, cube.shape[0])
                stride = [1, 1, 1]
                stride[view] = 2 ** (level + 1)
                found[level].append(functional.avg_pool3d(solid, stride))
        return [
            join(torch.cat(maps, dim=1))
            for join, maps in zip(self.join, found, strict=True)
        ]


class _Residual3d(nn.Module):
    """Two normalised 3x3x3 convolutions, and a 1x1x1 one around them."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv_norm(width_in, width_out),
            nn.Conv3d(width_out, width_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm3d(width_out),
        )
        self.shortcut = nn.Conv3d(width_in, width_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways, rectified."""
        return functional.relu(self.body(x) + self.shortcut(x))


def _conv_norm(width_in: int, width_out: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(width_in, width_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm3d(width_out),
        nn.ReLU(),
    )


def _encoder(in_channels: int) -> nn.Module:
    """Return MobileNetV2 up to its 64-channel blocks."""
    encoder: nn.Module = get_encoder(
        "mobilenet_v2", in_channels=in_channels, depth=4, weights=None
    )
    features = list(encoder.get_submodule("features").children())
    encoder.register_module("features", nn.Sequential(*features[: STAGES[-1][1]]))
    return encoder
