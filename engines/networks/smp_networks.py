"""The networks that are those of segmentation-models-pytorch, one row each.

Sources: "Leveraging DeepLabv3+ and U-Net Models for Accurate Spine Segmentation in
CT Scans", IJMEMS 2025 (DeepLabv3+); "Attention LinkNet-152: a novel encoder-decoder
based deep learning network for automated spine segmentation", Sci Rep 2025, which
compares the others with its own.
Departures from the papers: weights start at random, since the encoders' ImageNet
weights would have to be downloaded. DeepLabv3+ has timm's aligned Xception-41, since
the plain Xception of that library cannot be dilated; its pooled branch has no batch
norm, which would refuse a batch of one, as in PSPNet. FPN and PSPNet stand on a
ResNet34, this project's choice. What an encoder never uses is removed: the last
convolution of EfficientNet, and layers 3 and 4 of the ResNet under PSPNet, which sees
the grid at an eighth.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import cast

import segmentation_models_pytorch as smp
from torch import nn

from engines.errors import SettingsError

UNUSED: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        ("linknet", "efficientnet-b7"): ("_conv_head", "_bn1"),
        ("pspnet", "resnet34"): ("layer3", "layer4"),
    }
)
"""Architecture and encoder -> modules of the encoder that nothing reads."""


def build(
    architecture: str,
    usual: str,
    *,
    in_channels: int,
    classes: int,
    encoder: str | None = None,
) -> nn.Module:
    """Return the network, (N, in_channels, H, W) to logits (N, classes, H, W).

    Raises:
        SettingsError: no such encoder, or one that this network cannot stand on.
    """
    chosen = encoder or usual
    try:
        network = smp.create_model(
            architecture, chosen, None, in_channels=in_channels, classes=classes
        )
    except (KeyError, ValueError, RuntimeError) as error:
        msg = f"{architecture} cannot stand on the encoder {chosen!r}"
        raise SettingsError(
            msg, hint="Choose an encoder of segmentation-models-pytorch."
        ) from error
    for name in UNUSED.get((architecture, chosen), ()):
        delattr(network.encoder, name)
    return cast("nn.Module", network)


def deeplabv3plus(
    *, in_channels: int, classes: int, encoder: str | None = None
) -> nn.Module:
    """Return DeepLabv3+.

    Shape:
        input: (N, in_channels, H, W); H and W are multiples of 16.
        output: (N, classes, H, W), logits.
    """
    network = build(
        "deeplabv3plus",
        "tu-xception41",
        in_channels=in_channels,
        classes=classes,
        encoder=encoder,
    )
    pooled = network.get_submodule("decoder.aspp.0.convs.4")
    pooled.register_module("2", nn.Identity())
    return network


linknet_34 = partial(build, "linknet", "resnet34")
linknet_mobilenet_v2 = partial(build, "linknet", "mobilenet_v2")
linknet_resnet50 = partial(build, "linknet", "resnet50")
linknet_efficientnet_b7 = partial(build, "linknet", "efficientnet-b7")
fpn = partial(build, "fpn", "resnet34")
pspnet = partial(build, "pspnet", "resnet34")
