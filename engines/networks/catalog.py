"""The networks that can be trained and loaded, one row each.

To add a network: write its file beside this one, add a row, run the tests.
Importing this table does not import torch, so ``spine --help`` stays instant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from engines.errors import UnknownModelError

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
    """

    name: str
    factory: str
    stride: int
    recipe: str
    views: tuple[str, ...]
    source: str

    def build(self, *, in_channels: int, classes: int) -> "nn.Module":
        """Return the network with random weights, on the current default device."""
        module, _, attribute = self.factory.partition(":")
        make = getattr(import_module(module), attribute)
        return cast("nn.Module", make(in_channels=in_channels, classes=classes))


def _by_name(rows: Iterable[NetworkSpec]) -> Mapping[str, NetworkSpec]:
    table: dict[str, NetworkSpec] = {}
    for row in rows:
        if row.name in table:
            msg = f"two rows are called {row.name!r}"
            raise ValueError(msg)
        table[row.name] = row
    return MappingProxyType(table)


NETWORKS = _by_name(
    [
        NetworkSpec(
            name="unet-r34",
            factory="engines.networks.unet_r34:build",
            stride=32,
            recipe="spine-ct",
            views=("axial", "sagittal", "coronal"),
            source="Leveraging DeepLabv3+ and U-Net Models for Accurate Spine "
            "Segmentation in CT Scans, IJMEMS 2025",
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
