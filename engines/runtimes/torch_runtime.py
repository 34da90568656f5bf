"""PyTorch on the CPU or a CUDA device."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from engines.networks.manifest import Model

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class TorchRuntime:
    """A model run by PyTorch, channels last but for cubes.

    In float32 it is the reference that every other runtime is held against. In
    bfloat16 the weights and activations are; logits become probabilities in float32.
    """

    backend = "torch"

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        self.precision = precision
        self.device = str(device)
        self._dtype = DTYPES[precision]
        self._network = copy.deepcopy(model.network).to(device, self._dtype)
        self._flat = model.dimensions == 2
        if self._flat:
            self._network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def predict(self, slices: Tensor) -> Tensor:
        """Return class probabilities; see the protocol for shapes."""
        given = slices.to(self.device, self._dtype)
        if self._flat:
            given = given.to(memory_format=torch.channels_last)
        logits: Tensor = self._network(given)
        return logits.float().softmax(dim=1)


def load(
    model: Model, device: torch.device, precision: str, probe: Sequence[Tensor]
) -> TorchRuntime:
    """Return the runtime; ``probe`` changes nothing."""
    del probe
    return TorchRuntime(model, device, precision)
