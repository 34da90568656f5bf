"""The networks of segmentation-models-pytorch: built offline, nothing left unused."""

import socket
from typing import NoReturn

import pytest
import torch

from engines.networks import catalog
from engines.networks.complexity import parameter_counts

TRAINABLE = {
    "deeplabv3plus": 28_089_282,
    "linknet-34": 21_765_698,
    "linknet-mobilenet-v2": 4_319_316,
    "linknet-resnet50": 31_171_538,
    "linknet-efficientnet-b7": 62_777_850,
    "fpn": 23_149_250,
    "pspnet": 1_499_554,
}


@pytest.mark.parametrize("name", TRAINABLE)
def test_is_built_without_a_connection(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        msg = "a network asked for a connection"
        raise AssertionError(msg)

    monkeypatch.setattr(socket, "socket", refuse)
    network = catalog.find(name).build(in_channels=1, classes=2)
    assert parameter_counts(network)["trainable"] == TRAINABLE[name]


@pytest.mark.parametrize("name", ["deeplabv3plus", "pspnet"])
def test_pooled_branches_train_on_a_batch_of_one(name: str) -> None:
    network = catalog.find(name).build(in_channels=1, classes=2).train()
    assert network(torch.randn(1, 1, 64, 64)).shape == (1, 2, 64, 64)


def test_deeplab_dilates_instead_of_going_below_a_sixteenth() -> None:
    network = catalog.find("deeplabv3plus").build(in_channels=1, classes=2).eval()
    with torch.inference_mode():
        features = network.encoder(torch.zeros(1, 1, 64, 64))
    assert features[-1].shape == (1, 2048, 4, 4)
