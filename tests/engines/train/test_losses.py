"""Losses against formulas worked out by hand, and ignored voxels ignored."""

import math

import pytest
import torch

from engines.train import losses
from engines.train.losses import IGNORED, UNDIVIDED
from engines.train.settings import LOSSES, TrainSettings


def logits_for(probability: float, size: int = 2) -> torch.Tensor:
    """Return logits whose foreground probability is the same everywhere."""
    foreground = math.log(probability / (1 - probability))
    plane = torch.zeros(1, 2, size, size)
    plane[:, 1] = foreground
    return plane


def test_table_has_a_row_for_every_name() -> None:
    assert set(losses.TABLE) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_better_predictions_cost_less_and_gradients_flow(name: str) -> None:
    loss = losses.make(TrainSettings(loss=name))
    target = torch.ones(1, 2, 2, dtype=torch.long)
    target[0, 0, 0] = 0
    good = torch.zeros(1, 2, 2, 2)
    good[:, 1] = torch.where(target == 1, 4.0, -4.0)
    good.requires_grad_()
    value = loss(good, target)
    assert value < loss(-good, target)
    value.backward()
    assert torch.isfinite(good.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_voxels_change_nothing(name: str) -> None:
    loss = losses.make(TrainSettings(loss=name))
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 3, 3)
    target = torch.randint(0, 2, (1, 3, 3))
    target[0, 2] = IGNORED
    changed = logits.clone()
    changed[:, :, 2] = 50 * torch.randn(1, 2, 3)
    torch.testing.assert_close(loss(logits, target), loss(changed, target))


def test_majority_counts_scored_pixels_alone() -> None:
    target = torch.tensor(
        [
            [1, 1, 0, 0],
            [1, 0, 1, 1],
            [IGNORED, IGNORED, IGNORED, IGNORED],
            [IGNORED, 2, IGNORED, IGNORED],
        ]
    )
    found = losses.majority(target[None], classes=3, rows=2, columns=2)
    assert found.tolist() == [[[1, 0], [2, IGNORED]]]


def test_one_output_is_scored_as_before() -> None:
    logits, target = torch.randn(1, 2, 4, 4), torch.randint(0, 2, (1, 4, 4))
    found = losses.of_outputs(losses.dice, logits, target, weight=3.0)
    assert found == losses.dice(logits, target)


def test_a_second_output_counts_its_weight() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[:, :2, :2] = 1
    target[:, 3, 3] = 1  # the minority of its quarter
    fine, coarse = logits_for(0.5, size=4), logits_for(0.25)
    found = losses.of_outputs(losses.cross_entropy, (fine, coarse), target, weight=0.5)
    quarters = (math.log(4) + 3 * math.log(4 / 3)) / 4
    assert found.item() == pytest.approx(math.log(2) + 0.5 * quarters)


def test_cross_entropy_of_a_quarter() -> None:
    target = torch.ones(1, 2, 2, dtype=torch.long)
    assert losses.cross_entropy(logits_for(0.25), target).item() == pytest.approx(
        math.log(4), rel=1e-6
    )


def test_dice_of_one_half_everywhere() -> None:
    target = torch.tensor([[[1, 1], [0, 0]]])
    # both = 2 * 0.5, total = 4 * 0.5 + 2, smoothed by 1
    assert losses.dice(logits_for(0.5), target).item() == pytest.approx(1 - 3 / 5)


def test_focal_with_gamma_zero_is_half_the_cross_entropy() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(1, 2, 4, 4), torch.randint(0, 2, (1, 4, 4))
    focal = losses.focal(alpha=0.5, gamma=0.0)(logits, target)
    whole = losses.cross_entropy(logits, target)
    assert focal.item() == pytest.approx(whole.item() / 2, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_undivided_foreground_teaches_the_sum_of_its_classes(name: str) -> None:
    """It pushes spine of an unknown class away from the background alone."""
    loss = losses.make(TrainSettings(loss=name))
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 4, 4, requires_grad=True)
    target = torch.full((2, 4, 4), UNDIVIDED)
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[:, 0] > 0).all()
    surer = logits.detach().clone()
    surer[:, 0] -= 4
    assert loss(surer, target) < value


def test_its_cross_entropy_is_that_of_the_union() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    target = torch.randint(0, 4, (2, 3, 3))
    target[0] = UNDIVIDED
    target[1, 0, 0] = IGNORED
    (found,) = torch.autograd.grad(losses.cross_entropy(logits, target), logits)
    chance = logits.log_softmax(dim=1)
    union = -chance[0, 1:].logsumexp(dim=0).sum()
    rest = torch.nn.functional.cross_entropy(
        logits[1:], target[1:], ignore_index=IGNORED, reduction="sum"
    )
    (expected,) = torch.autograd.grad((union + rest) / 17, logits)
    torch.testing.assert_close(found, expected)


def test_one_foreground_class_is_never_undivided() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 4, 4)
    target = torch.randint(0, 2, (1, 4, 4))
    unknown = torch.where(target == 1, UNDIVIDED, target)
    for name in LOSSES:
        loss = losses.make(TrainSettings(loss=name))
        torch.testing.assert_close(loss(logits, unknown), loss(logits, target))


def test_the_coarse_output_gets_it_too() -> None:
    target = torch.full((1, 4, 4), UNDIVIDED)
    target[0, 0, 0] = 2
    target[0, 2:, 2:] = IGNORED
    assert losses.majority(target, 3, 2, 2).tolist() == [
        [[UNDIVIDED, UNDIVIDED], [UNDIVIDED, IGNORED]]
    ]


def test_nested_is_the_spine_s_loss_where_the_spine_is_one_class() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 4, 4)
    target = torch.randint(0, 2, (2, 4, 4))
    found = losses.nested((1.0, 1.0))(logits, target)
    expected = losses.cross_entropy(logits, target) + losses.dice(logits, target)
    torch.testing.assert_close(found, expected)


def test_nested_confusions_cost_alike_however_small_the_spine() -> None:
    """One voxel in 16 and one in 1024, both called the wrong class of two."""
    costs = []
    for size in (4, 32):
        logits = torch.zeros(1, 3, size, size)
        logits[:, 0] = 20.0
        logits[0, :, 0, 0] = torch.tensor([0.0, 20.0, 21.0])
        target = torch.zeros(1, size, size, dtype=torch.long)
        target[0, 0, 0] = 1
        costs.append(losses.nested((0.0, 1.0))(logits, target))
    torch.testing.assert_close(costs[0], costs[1])
    assert costs[0] == pytest.approx(math.log(1 + math.e))


def test_nested_counts_every_class_alike() -> None:
    logits = torch.zeros(1, 3, 1, 10)
    logits[0, 2] = 2.0
    target = torch.tensor([[[2] * 9 + [1]]])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    found = losses.nested((0.0, 1.0))(logits, target)
    assert found == pytest.approx((right + wrong) / 2)


def test_nested_takes_undivided_foreground_for_spine_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 3, 3)
    target = torch.full((1, 3, 3), UNDIVIDED)
    target[0, 0] = 0
    assert losses.nested((0.0, 1.0))(logits, target) == 0
    named = torch.where(target == UNDIVIDED, 2, target)
    spine = losses.nested((1.0, 0.0))
    torch.testing.assert_close(spine(logits, target), spine(logits, named))
