"""Scores of filters, against what the formulas say."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import TrainingError
from engines.prune import sensitivity
from engines.prune.graph import Group, groups
from engines.prune.sensitivity import CRITERIA


class Small(nn.Module):
    """Two convolutions, one of them transposed, and a class layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.first(image)))
        logits: Tensor = self.head(functional.relu(self.up(x)))
        return logits


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [
        (torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 16, 16))) for _ in range(3)
    ]


def test_gradient_is_the_mean_over_batches(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> None:
    found = sensitivity.of_layers(
        network,
        ["first", "up"],
        "gradient",
        batches=batches,
        loss=functional.cross_entropy,
    )
    first, up = np.zeros(6), np.zeros(4)
    for image, target in batches:
        network.zero_grad()
        functional.cross_entropy(network(image), target).backward()
        gradient = network.get_parameter("first.weight").grad
        assert gradient is not None
        first += [float(gradient[f].abs().mean()) for f in range(6)]
        gradient = network.get_parameter("up.weight").grad
        assert gradient is not None
        up += [float(gradient[:, f].abs().mean()) for f in range(4)]
    np.testing.assert_allclose(found["first"], first / 3, rtol=1e-5)
    np.testing.assert_allclose(found["up"], up / 3, rtol=1e-5)


def test_taylor_is_the_square_of_what_the_loss_would_change_by(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> None:
    found = sensitivity.of_layers(
        network,
        ["first"],
        "taylor",
        batches=batches[:1],
        loss=functional.cross_entropy,
    )
    image, target = batches[0]
    network.zero_grad()
    functional.cross_entropy(network(image), target).backward()
    weight = network.get_parameter("first.weight")
    assert weight.grad is not None
    expected = (weight * weight.grad).flatten(1).sum(dim=1) ** 2
    np.testing.assert_allclose(found["first"], expected.detach().numpy(), rtol=1e-4)


def test_magnitude_and_random_need_no_data(network: nn.Module) -> None:
    magnitude = sensitivity.of_layers(network, ["up"], "magnitude")["up"]
    weight = network.get_parameter("up.weight").detach()
    expected = [float(weight[:, f].abs().mean()) for f in range(4)]
    np.testing.assert_allclose(magnitude, expected, rtol=1e-6)
    drawn = [
        sensitivity.of_layers(network, ["up"], "random", seed=s) for s in (0, 0, 1)
    ]
    assert np.array_equal(drawn[0]["up"], drawn[1]["up"])
    assert not np.array_equal(drawn[0]["up"], drawn[2]["up"])


def test_nothing_of_the_network_changes(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> None:
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for criterion in CRITERIA:
        sensitivity.of_layers(
            network,
            ["first"],
            criterion,
            batches=batches,
            loss=functional.cross_entropy,
        )
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


def test_an_empty_pruning_set_is_refused(network: nn.Module) -> None:
    with pytest.raises(TrainingError, match="empty"):
        sensitivity.of_layers(
            network, ["first"], "gradient", loss=functional.cross_entropy
        )


def test_a_loss_that_is_no_number_is_refused_at_once(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> None:
    batches[1][0][:] = float("nan")
    with pytest.raises(TrainingError, match="batch 2"):
        sensitivity.of_layers(
            network,
            ["first"],
            "gradient",
            batches=batches,
            loss=functional.cross_entropy,
        )


def test_coupled_filters_share_the_mean_of_their_scores() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(1, 4, 1)
            self.two = nn.Conv2d(1, 4, 1)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.head(self.one(image) + self.two(image))
            return logits

    (group,) = groups(Sum().eval(), torch.rand(1, 1, 4, 4))
    assert sorted(group.filters) == ["one", "two"]
    found = sensitivity.of_groups(
        [group], {"one": np.arange(4.0), "two": np.array([4.0, 0.0, 0.0, 1.0])}
    )
    assert found[group.name].tolist() == [2.0, 0.5, 1.0, 2.0]


def test_blocks_of_a_group_norm_share_theirs() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 2, 1)
    ).eval()
    (group,) = groups(network, torch.rand(1, 1, 4, 4))
    assert isinstance(group, Group)
    assert group.block == 4
    found = sensitivity.of_groups([group], {"0": np.arange(8.0)})["0"]
    assert found.tolist() == [1.5] * 4 + [5.5] * 4
