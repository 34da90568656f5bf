"""PyTorch on the CPU or a CUDA device."""

import copy
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engines.arrays import Array
from engines.networks.manifest import Model
from engines.networks.probes import Probe
from engines.results import Note
from engines.runtimes.cuda_graphs import Graph, GraphError, captured
from engines.runtimes.devices import Device

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

GRAPHS = 8
"""Shapes of batches whose CUDA graphs are held; each keeps its activations."""


class TorchRuntime:
    """A model run by PyTorch, channels last but for cubes.

    In float32 it is the reference that every other runtime is held against. In halves
    the weights and activations are; logits become probabilities in float32.
    """

    backend = "torch"

    def __init__(self, model: Model, device: Device, precision: str) -> None:
        self.precision = precision
        self.device = str(device)
        self._dtype = DTYPES[precision]
        self._network = copy.deepcopy(model.network).to(self.device, self._dtype)
        self._flat = model.dimensions == 2
        if self._flat:
            self._network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def predict(self, slices: Array) -> Array:
        """Return class probabilities; see the protocol for shapes."""
        given = _as_tensor(slices).to(self.device, self._dtype)
        if self._flat:
            given = given.to(memory_format=torch.channels_last)
        found = self._run(given)
        return found.numpy() if found.device.type == "cpu" else found

    def _run(self, given: Tensor) -> Tensor:
        logits: Tensor = self._network(given)
        return logits.float().softmax(dim=1)


class GraphedRuntime(TorchRuntime):
    """A model on a CUDA device whose kernels are launched as one graph per shape.

    A pruned network is done with a slice sooner than Python launches its kernels. A
    graph that cannot be captured, or that gives something else than the network does,
    is not used: what is computed is the same then, only later.
    """

    def __init__(self, model: Model, device: Device, precision: str) -> None:
        super().__init__(model, device, precision)
        self._graphs: OrderedDict[tuple[int, ...], Graph] | None = OrderedDict()
        self._notes: list[Note] = []

    def take_notes(self) -> list[Note]:
        """Return what happened since this was last asked."""
        taken, self._notes = self._notes, []
        return taken

    def _run(self, given: Tensor) -> Tensor:
        if self._graphs is None:
            return super()._run(given)
        shape = tuple(given.shape)
        if shape not in self._graphs:
            if len(self._graphs) >= GRAPHS:
                self._graphs.popitem(last=False)
            try:
                self._graphs[shape] = captured(super()._run, given)
            except GraphError as error:
                self._graphs = None
                told = f"CUDA graphs are off on {self.device}: {error}"
                self._notes.append(Note("graphs_off", told))
                return super()._run(given)
        self._graphs.move_to_end(shape)
        return self._graphs[shape].replay(given)


def load(
    model: Model, device: Device, precision: str, probes: Sequence[Probe]
) -> TorchRuntime:
    """Return the runtime; ``probes`` change nothing.

    The reference, float32, is run as PyTorch does by itself, without graphs.
    """
    del probes
    graphed = device.type == "cuda" and precision != "float32"
    return (GraphedRuntime if graphed else TorchRuntime)(model, device, precision)


def _as_tensor(slices: Array) -> Tensor:
    """Return a tensor; torch warns of arrays that it must not write to."""
    if isinstance(slices, Tensor):
        return slices
    return torch.from_numpy(np.require(slices, requirements=("C", "W")))
