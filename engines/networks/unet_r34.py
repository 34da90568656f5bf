"""U-Net with a ResNet34 encoder.

Source: "Leveraging DeepLabv3+ and U-Net Models for Accurate Spine Segmentation in
CT Scans", IJMEMS 2025; the network itself is the one of segmentation-models-pytorch.
Two departures from the paper: the weights start at random, since the encoder's
ImageNet weights would have to be downloaded, and one set of weights serves all
three planes.
"""

from typing import cast

import segmentation_models_pytorch as smp
from torch import nn


def build(*, in_channels: int, classes: int) -> nn.Module:
    """Return the network.

    Shape:
        input: (N, in_channels, H, W); H and W are multiples of 32.
        output: (N, classes, H, W), logits.
    """
    network = smp.Unet(
        "resnet34", encoder_weights=None, in_channels=in_channels, classes=classes
    )
    return cast("nn.Module", network)
