"""Networks that see a cube from three sides: what goes where, and comes back."""

import pytest
import torch
from torch import nn

from engines.networks import catalog, three_views
from engines.networks.complexity import parameter_counts

PUBLISHED = 1_245_155


@pytest.mark.parametrize("view", range(3))
def test_planes_are_those_across_the_axis(view: int) -> None:
    cube = torch.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    planes = three_views.planes(cube, view)
    depth = cube.shape[2 + view]
    assert len(planes) == 2 * depth
    for number in range(2):
        for place in range(depth):
            expected = cube[number].select(1 + view, place)
            assert torch.equal(planes[number * depth + place], expected)


@pytest.mark.parametrize("view", range(3))
def test_stacking_undoes_it(view: int) -> None:
    cube = torch.randn(2, 3, 4, 5, 6)
    planes = three_views.planes(cube, view)
    assert torch.equal(three_views.stacked(planes, view, 2), cube)


def strength_at(
    network: nn.Module, channels: slice, place: tuple[int, int, int]
) -> torch.Tensor:
    """Return how much the outputs at a voxel depend on each voxel of a cube."""
    cube = torch.randn(1, 1, 32, 32, 48, requires_grad=True)
    network(cube)[(0, channels, *place)].sum().backward()
    assert cube.grad is not None
    return cube.grad[0, 0].abs()


def peak(strength: torch.Tensor, axis: int) -> int:
    others = [a for a in range(3) if a != axis]
    return int(strength.amax(dim=others).argmax())


PLACE = (6, 25, 40)


def test_views_meet_in_mru_net_at_the_voxel_that_is_labelled() -> None:
    """What a voxel's label depends on lies about that voxel, on every axis."""
    torch.manual_seed(0)
    network = catalog.find("mru-net-3d").build(in_channels=1, classes=2).eval()
    strength = strength_at(network, slice(1, 2), PLACE)
    for axis, wanted in enumerate(PLACE):
        assert abs(peak(strength, axis) - wanted) <= 2


@pytest.mark.parametrize("view", range(3))
def test_views_meet_in_attention_linknet_at_the_same_voxel(view: int) -> None:
    """What the first block of a view tells LinkNet of a voxel comes from its plane."""
    torch.manual_seed(0)
    spec = catalog.find("attention-linknet-152")
    network = spec.build(in_channels=1, classes=2, options={"attention": "none"}).eval()
    network.register_module("linknet", nn.Identity())
    first = 1 + view * 16
    strength = strength_at(network, slice(first, first + 4), PLACE)
    across = strength.sum(dim=[a for a in range(3) if a != view])
    assert torch.nonzero(across).ravel().tolist() == [PLACE[view]]
    for axis, wanted in enumerate(PLACE):
        assert abs(peak(strength, axis) - wanted) <= 2


@pytest.mark.parametrize("view", range(3))
def test_every_view_has_its_part_in_the_label(view: int) -> None:
    torch.manual_seed(0)
    network = catalog.find("mru-net-3d").build(in_channels=1, classes=2).eval()
    cube = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        before = network(cube)
        for weight in network.get_submodule(f"encoders.{view}").parameters():
            weight.mul_(1.5)
        assert (network(cube) - before).abs().max() > 1e-4


def test_mru_net_is_about_as_large_as_published() -> None:
    network = catalog.find("mru-net-3d").build(in_channels=1, classes=2)
    trainable = parameter_counts(network)["trainable"]
    assert trainable == 1_245_730
    assert abs(trainable - PUBLISHED) < PUBLISHED / 1000


def test_dropout_is_an_option_of_mru_net() -> None:
    network = catalog.find("mru-net-3d").build(
        in_channels=1, classes=2, options={"dropout": 0.1}
    )
    found = [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout3d)]
    assert found == [0.1]
