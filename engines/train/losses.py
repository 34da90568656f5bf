"""Losses over logits, as rows of one table. Voxels marked ``IGNORED`` do not count.

Voxels marked ``UNDIVIDED`` are foreground of a class that their mask does not tell.
They are held against the network's own opinion of which, renormalised without the
background and taken as given, so that what is learnt is the sum of the foreground: for
the cross-entropy that has the very gradient of minus the logarithm of this sum.

Focal: Lin et al., arXiv:1708.02002. Dice: Milletari et al., arXiv:1606.04797, over
the whole batch, the background left out.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from engines.train.settings import TrainSettings

IGNORED = 255
"""Target value of voxels that are not scored."""

UNDIVIDED = 254
"""Target value of voxels that are of the foreground, nobody knows of which class."""

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax cross-entropy; logits (N, C, H, W), target (N, H, W), or cubes.

    Where nothing is scored it is 0: the mean of torch would be 0/0 there.
    """
    if not (target == UNDIVIDED).any():
        if not (target != IGNORED).any():
            return _nothing(logits)
        return functional.cross_entropy(logits, target, ignore_index=IGNORED)
    valid, truth = _one_hot(logits, target)
    each = -(truth * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)
    return (each * valid).sum() / valid.sum().clamp(min=1)


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Sigmoid cross-entropy of each class against the rest, averaged."""
    valid, truth = _one_hot(logits, target)
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return _mean(each, valid)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the mean soft Dice of the foreground classes."""
    valid, truth = _one_hot(logits, target)
    probability = logits.softmax(dim=1) * valid
    pixels = [axis for axis in range(logits.ndim) if axis != 1]
    both = (probability * truth).sum(dim=pixels)
    total = (probability + truth).sum(dim=pixels)
    scores = (2 * both + 1) / (total + 1)
    return 1 - scores[1:].mean()


def focal(alpha: float, gamma: float) -> Loss:
    """Return the focal loss: alpha weighs the foreground, gamma the hard voxels."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        valid, truth = _one_hot(logits, target)
        log_probability = logits.log_softmax(dim=1)
        chosen = (log_probability * truth).sum(dim=1, keepdim=True)
        weight = torch.where(truth[:, :1] > 0, 1 - alpha, alpha)
        each = -weight * (1 - chosen.exp()) ** gamma * chosen
        return _mean(each, valid)

    return loss


def nested(weights: tuple[float, float]) -> Loss:
    """Return a loss that first parts foreground from background, then its classes.

    In cubes the spine is a fiftieth of the voxels, and averaged over all of them what
    it costs to confuse two vertebrae is nothing beside what it costs to miss one, so
    that a network learns how often each comes and no more. Here the foreground as one,
    by the sum of its probabilities, gives a cross-entropy and a Dice; and which class
    its voxels have, given that they are foreground, gives another cross-entropy, over
    those alone, in which every class that is there counts alike.

    Args:
        weights: of the foreground, and of its classes.
    """

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        either = torch.stack([logits[:, 0], logits[:, 1:].logsumexp(dim=1)], dim=1)
        marked = (target > 0) & (target != IGNORED)
        spine = torch.where(target == IGNORED, IGNORED, marked.to(target.dtype))
        whole = cross_entropy(either, spine) + dice(either, spine)
        return weights[0] * whole + weights[1] * _among_classes(logits, target)

    return loss


def _among_classes(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of the classes on their voxels, a mean over classes."""
    known = (target > 0) & (target < UNDIVIDED)
    of, truth = logits[:, 1:].movedim(1, -1)[known], target[known] - 1
    each = functional.cross_entropy(of, truth, reduction="none")
    counts = torch.bincount(truth, minlength=of.shape[1])
    total: Tensor = (each / counts[truth]).sum()
    return total / (counts > 0).sum().clamp(min=1)


def _sum(first: Loss, second: Loss, weights: tuple[float, float]) -> Loss:
    a, b = weights
    return lambda logits, target: a * first(logits, target) + b * second(logits, target)


TABLE: Mapping[str, Callable[[TrainSettings], Loss]] = MappingProxyType(
    {
        "cross-entropy": lambda s: cross_entropy,
        "bce": lambda s: binary_cross_entropy,
        "dice": lambda s: dice,
        "focal": lambda s: focal(s.focal_alpha, s.focal_gamma),
        "bce-dice": lambda s: _sum(binary_cross_entropy, dice, s.loss_weights),
        "cross-entropy-dice": lambda s: _sum(cross_entropy, dice, s.loss_weights),
        "nested": lambda s: nested(s.loss_weights),
    }
)


PENALTIES: Mapping[str, Callable[[Sequence[Tensor]], Tensor]] = MappingProxyType(
    {
        "l1": lambda weights: torch.stack([w.abs().sum() for w in weights]).sum(),
        "l2": lambda weights: (
            torch.stack([w.square().sum() for w in weights]).sum() / 2
        ),
    }
)
"""Name of a regulariser -> what it makes of the weights."""


def make(settings: TrainSettings) -> Loss:
    """Return the loss that the settings name."""
    return TABLE[settings.loss](settings)


def of_outputs(
    loss: Loss, outputs: Tensor | Sequence[Tensor], target: Tensor, weight: float
) -> Tensor:
    """Return the loss of a network's outputs against ``target`` (N, H, W).

    Args:
        outputs: logits on the target's grid, or those and logits on a coarser grid,
            which are held against the target reduced to it.
        weight: what the loss of the coarser output counts.
    """
    if isinstance(outputs, Tensor):
        return loss(outputs.float(), target)
    fine, coarse = (logits.float() for logits in outputs)
    _, classes, rows, columns = coarse.shape
    reduced = majority(target, classes, rows, columns)
    return loss(fine, target) + weight * loss(coarse, reduced)


def majority(target: Tensor, classes: int, rows: int, columns: int) -> Tensor:
    """Return ``target`` (N, H, W) as (N, rows, columns).

    Each pixel gets the class that most of the scored pixels under it have, of equally
    many the lowest, and ``IGNORED`` when none of them is scored. ``UNDIVIDED`` votes as
    a class of its own.
    """
    scored = target != IGNORED
    known = torch.where(target == UNDIVIDED, classes, torch.where(scored, target, 0))
    votes = functional.one_hot(known, classes + 1)
    votes = (votes * scored.unsqueeze(-1)).movedim(-1, 1)
    share = functional.adaptive_avg_pool2d(votes.float(), (rows, columns))
    chosen = share.argmax(dim=1)
    chosen = torch.where(chosen == classes, UNDIVIDED, chosen)
    return torch.where(share.amax(dim=1) > 0, chosen, IGNORED)


def _one_hot(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    valid = (target != IGNORED).unsqueeze(1)
    undivided = (target == UNDIVIDED).unsqueeze(1)
    known = torch.where(target >= UNDIVIDED, 0, target)
    truth = functional.one_hot(known, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    if undivided.any():
        opinion = logits.detach()[:, 1:].softmax(dim=1)
        nothing = torch.zeros_like(opinion[:, :1])
        truth = torch.where(undivided, torch.cat([nothing, opinion], dim=1), truth)
    return valid.to(logits.dtype), truth * valid


def _nothing(logits: Tensor) -> Tensor:
    """Return 0, whose gradient is 0 too."""
    return (logits * 0).sum()


def _mean(each: Tensor, valid: Tensor) -> Tensor:
    return (each * valid).sum() / (valid.sum() * each.shape[1]).clamp(min=1)
