"""The networks that can be trained and loaded, one row each.

To add a network: write its file beside this one, add a row, run the tests.
Importing this table does not import torch, so ``spine --help`` stays instant.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from engines.errors import SettingsError, UnknownModelError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One row of the table.

    Attributes:
        name: what the user types.
        factory: ``module:function``, imported only when the network is built.
        stride: rows and columns of its input must be multiples of this.
        recipe: how scans are prepared for it unless a model says otherwise.
        views: planes whose slices it is trained on unless a model says otherwise.
        source: paper that the architecture comes from.
        options: what it can be built with, by name; see ``OPTIONS``.
        dimensions: 2 for slices, 3 for cubes, which ``stride`` is then an edge of.
        encoder: what ImageNet weights are for, as segmentation-models-pytorch calls
            it; empty where there are none.
    """

    name: str
    factory: str
    stride: int
    recipe: str
    views: tuple[str, ...]
    source: str
    options: tuple[str, ...] = ()
    dimensions: int = 2
    encoder: str = ""

    def build(
        self,
        *,
        in_channels: int,
        classes: int,
        options: Mapping[str, Any] | None = None,
    ) -> "nn.Module":
        """Return the network with random weights, on the current default device.

        Raises:
            SettingsError: an option that it has not, or a value that makes no sense.
        """
        given = dict(options or {})
        self.require_options(given)
        module, _, attribute = self.factory.partition(":")
        make = getattr(import_module(module), attribute)
        network = make(in_channels=in_channels, classes=classes, **given)
        return cast("nn.Module", network)

    def shape(self, size: int) -> tuple[int, ...]:
        """Return the shape of one slice or cube of one channel as a batch."""
        return (1, 1, *(size,) * self.dimensions)

    def require_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that this network does not have.

        Raises:
            SettingsError: an option that it has not, or a value that makes no sense.
        """
        for key, value in options.items():
            if key not in self.options:
                msg = f"{self.name} has no option called {key!r}"
                known = ", ".join(self.options) or "none"
                raise SettingsError(msg, hint=f"It has: {known}.")
            good, told = OPTIONS[key]
            if not good(value):
                msg = f"{key} cannot be {value!r}"
                raise SettingsError(msg, hint=f"Give {told}.")


def _is_share(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= cast("float", value) < 1


ATTENTIONS = ("none", "sam", "cbam", "se")

OPTIONS: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "dropout": (_is_share, "a share from 0 to below 1"),
        "attention": (
            lambda value: value in ATTENTIONS,
            f"one of: {', '.join(ATTENTIONS)}",
        ),
        "encoder": (
            lambda value: isinstance(value, str) and bool(value),
            "the name of an encoder, as resnet34",
        ),
        "inception": (lambda value: isinstance(value, bool), "true or false"),
        "second_output": (lambda value: isinstance(value, bool), "true or false"),
    }
)
"""Option -> what its value must be, and that in words."""


def _by_name(rows: Iterable[NetworkSpec]) -> Mapping[str, NetworkSpec]:
    table: dict[str, NetworkSpec] = {}
    for row in rows:
        if row.name in table:
            msg = f"two rows are called {row.name!r}"
            raise ValueError(msg)
        table[row.name] = row
    return MappingProxyType(table)


_CT_VIEWS = ("axial", "sagittal", "coronal")
_DEEPLAB_PAPER = (
    "Leveraging DeepLabv3+ and U-Net Models for Accurate Spine Segmentation in CT "
    "Scans, IJMEMS 2025"
)
_LINKNET_PAPER = (
    "Attention LinkNet-152: a novel encoder-decoder based deep learning network for "
    "automated spine segmentation, Sci Rep 2025"
)
_CHASPPRA_PAPER = (
    "An Automated Deep Learning Approach for Spine Segmentation and Vertebrae "
    "Recognition Using Computed Tomography Images, Diagnostics 2023"
)
_LUMBAR_PAPER = (
    "Automated lumbar spine segmentation in MRI using an enhanced U-Net with "
    "inception module and dual-output mechanism, Sci Rep 2025"
)


def _lumbar(name: str, factory: str, *more: str) -> NetworkSpec:
    made = f"engines.networks.{factory}"
    options = ("dropout", "attention", *more)
    return NetworkSpec(
        name, made, 16, "lumbar-mr-2025", ("sagittal",), _LUMBAR_PAPER, options
    )


def _linknet(name: str, function: str, encoder: str, stride: int = 32) -> NetworkSpec:
    made = f"engines.networks.smp_networks:{function}"
    return NetworkSpec(
        name,
        made,
        stride,
        "linknet-2025",
        _CT_VIEWS,
        _LINKNET_PAPER,
        ("encoder",),
        encoder=encoder,
    )


NETWORKS = _by_name(
    [
        NetworkSpec(
            name="unet-r34",
            factory="engines.networks.unet_r34:build",
            stride=32,
            recipe="spine-ct",
            views=_CT_VIEWS,
            source=_DEEPLAB_PAPER,
            options=("encoder",),
            encoder="resnet34",
        ),
        NetworkSpec(
            name="deeplabv3plus",
            factory="engines.networks.smp_networks:deeplabv3plus",
            stride=16,
            recipe="deeplab-unet-2025",
            views=_CT_VIEWS,
            source=_DEEPLAB_PAPER,
            options=("encoder",),
            encoder="tu-xception41",
        ),
        _linknet("linknet-34", "linknet_34", "resnet34"),
        _linknet("linknet-mobilenet-v2", "linknet_mobilenet_v2", "mobilenet_v2"),
        _linknet("linknet-resnet50", "linknet_resnet50", "resnet50"),
        _linknet(
            "linknet-efficientnet-b7", "linknet_efficientnet_b7", "efficientnet-b7"
        ),
        _linknet("fpn", "fpn", "resnet34"),
        _linknet("pspnet", "pspnet", "resnet34", stride=8),
        NetworkSpec(
            name="attention-linknet-152",
            factory="engines.networks.attention_linknet_152:AttentionLinkNet152",
            stride=32,
            recipe="attention-linknet-cubes",
            views=_CT_VIEWS,
            source=_LINKNET_PAPER,
            options=("attention",),
            dimensions=3,
            encoder="tu-tf_efficientnet_b7",
        ),
        NetworkSpec(
            name="chasppra-unet",
            factory="engines.networks.chasppra_unet:ChasppraUNet",
            stride=16,
            recipe="chasppra-2023",
            views=_CT_VIEWS,
            source=_CHASPPRA_PAPER,
            options=("dropout", "attention"),
        ),
        NetworkSpec(
            name="mru-net-3d",
            factory="engines.networks.mru_net_3d:MruNet3d",
            stride=16,
            recipe="mru-net-cubes",
            views=_CT_VIEWS,
            source=_CHASPPRA_PAPER,
            options=("dropout",),
            dimensions=3,
            encoder="mobilenet_v2",
        ),
        _lumbar("unet", "unet:UNet"),
        _lumbar("resunet", "resunet:ResUNet"),
        _lumbar("attention-unet", "attention_unet:AttentionUNet"),
        _lumbar("transunet", "transunet:TransUNet"),
        _lumbar(
            "inception-dual-unet",
            "inception_dual_unet:InceptionDualUNet",
            "inception",
            "second_output",
        ),
    ]
)


def find(name: str) -> NetworkSpec:
    """Return the row called ``name``.

    Raises:
        UnknownModelError: there is none; its hint lists those there are.
    """
    try:
        return NETWORKS[name]
    except KeyError:
        raise UnknownModelError(name, tuple(NETWORKS)) from None
