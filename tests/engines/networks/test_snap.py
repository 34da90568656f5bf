"""Snapped weights are those that bfloat16 holds, and the network is the same."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engines.labels import SPINE_CLASSES
from engines.networks import catalog
from engines.networks.manifest import Manifest, load_model, save_model
from engines.networks.snap import snapped
from engines.preprocess.recipe import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def a_network(name: str = "unet-r34") -> nn.Module:
    """With running statistics that are not those of a norm that has seen nothing."""
    torch.manual_seed(0)
    network = catalog.find(name).build(in_channels=1, classes=3)
    network.train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(2, 1, 64, 64) * 2 + 0.5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return network.eval()


@pytest.mark.parametrize("name", ["unet-r34", "inception-dual-unet"])
def test_the_network_stays_what_it_was(name: str) -> None:
    network = a_network(name)
    with torch.inference_mode():
        before, after = network(IMAGE), snapped(network, IMAGE)(IMAGE)
    near = (after - before).abs().max() / before.abs().max()
    assert 0 < near < 0.05


def test_weights_joined_with_their_norm_are_bfloat16(tmp_path: Path) -> None:
    """After a way through the file, which holds half precision."""
    recipe = RECIPES["spine-ct"]
    classes = {**SPINE_CLASSES, "other": 2}
    manifest = Manifest("m", "unet-r34", classes, "ct", ("axial",), recipe)
    path = tmp_path / "m.safetensors"
    save_model(path, snapped(a_network(), IMAGE), manifest)
    network = load_model(path).network
    checked = 0
    for block in network.modules():
        conv, norm = getattr(block, "conv1", None), getattr(block, "bn1", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            joined = conv.weight * scale[:, None, None, None]
            exact = (
                conv.weight
                * torch.exp2(scale.abs().log2().round())[:, None, None, None]
                * scale.sign()[:, None, None, None]
            )
            assert torch.equal(conv.weight, conv.weight.bfloat16().float())
            assert torch.equal(joined.bfloat16().float(), exact)
            checked += 1
    assert checked > 10


def test_nothing_is_left_to_round(tmp_path: Path) -> None:
    once = snapped(a_network(), IMAGE)
    twice = snapped(once, IMAGE)
    for name, value in once.state_dict().items():
        torch.testing.assert_close(twice.state_dict()[name], value, msg=name)


def test_a_filter_that_a_norm_silences_stays_silent() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    norm = network[1]
    with torch.no_grad():
        norm.weight[0] = 0  # type: ignore[index]
        made = snapped(network, IMAGE)(IMAGE)
    assert torch.isfinite(made).all()
    assert (made[:, 0] == made[0, 0, 0, 0]).all()
