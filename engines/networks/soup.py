"""Average the weights of trainings that began with one another.

States of one network that lie in one basin are, averaged, at least as good on scans
that none of them saw as the best of them, at the cost of one.

Source: Wortsman et al., "Model soups", ICML 2022, arXiv:2203.05482.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engines.errors import ModelFileError
from engines.networks.manifest import Model


def averaged(models: Sequence[Model]) -> nn.Module:
    """Return an evaluating network with the mean of the models' weights.

    Running statistics are averaged as weights are; counts are those of the last model.

    Raises:
        ModelFileError: there is none, or they are not of one shape and one set of
            classes.
    """
    if not models:
        msg = "there is no model to average"
        raise ModelFileError(msg)
    *others, last = models
    held = [model.network.state_dict() for model in models]
    for model, state in zip(others, held, strict=False):
        if _shape(model, state) != _shape(last, held[-1]):
            msg = f"{model.path} and {last.path} are not of one shape"
            hint = "Average models that were trained from one another."
            raise ModelFileError(msg, hint=hint)
    mean = {
        name: torch.stack([state[name].float() for state in held]).mean(dim=0)
        for name, value in held[-1].items()
        if value.is_floating_point()
    }
    made = copy.deepcopy(last.network)
    made.load_state_dict(held[-1] | mean)
    return made.eval()


def _shape(model: Model, state: dict[str, Tensor]) -> object:
    shapes = {name: value.shape for name, value in state.items()}
    return model.manifest.architecture, dict(model.manifest.classes), shapes
