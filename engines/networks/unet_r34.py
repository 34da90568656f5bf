"""U-Net with a ResNet34 encoder.

Source: "Leveraging DeepLabv3+ and U-Net Models for Accurate Spine Segmentation in
CT Scans", IJMEMS 2025; the network itself is the one of segmentation-models-pytorch.
Two departures from the paper: the weights start at random, since the encoder's
ImageNet weights would have to be downloaded, and one set of weights serves all
three planes.
"""

from torch import nn

from engines.networks import smp_networks


def build(*, in_channels: int, classes: int, encoder: str | None = None) -> nn.Module:
    """Return the network, with another encoder if one is named.

    Shape:
        input: (N, in_channels, H, W); H and W are multiples of 32.
        output: (N, classes, H, W), logits.
    """
    return smp_networks.build(
        "unet", "resnet34", in_channels=in_channels, classes=classes, encoder=encoder
    )
