"""PyTorch on the CPU or a CUDA device."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engines.networks.manifest import Model

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

GRAPHS = 8
"""Shapes of batches whose CUDA graphs are held; each keeps its activations."""

WARM_UP = 3
"""Passes before a graph is captured, in which libraries choose their kernels."""

Run = Callable[[Tensor], Tensor]


class TorchRuntime:
    """A model run by PyTorch, channels last but for cubes.

    In float32 it is the reference that every other runtime is held against. In halves
    the weights and activations are; logits become probabilities in float32.
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
        return self._run(given)

    def _run(self, given: Tensor) -> Tensor:
        logits: Tensor = self._network(given)
        return logits.float().softmax(dim=1)


class GraphedRuntime(TorchRuntime):
    """A model on a CUDA device whose kernels are launched as one graph per shape.

    A pruned network is done with a slice sooner than Python launches its kernels.
    """

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        super().__init__(model, device, precision)
        self._graphs: OrderedDict[tuple[int, ...], _Graph] = OrderedDict()

    def _run(self, given: Tensor) -> Tensor:
        shape = tuple(given.shape)
        if shape not in self._graphs:
            if len(self._graphs) >= GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[shape] = _Graph(super()._run, given)
        self._graphs.move_to_end(shape)
        return self._graphs[shape].replay(given)


class _Graph:
    """One captured pass over a batch of one shape."""

    def __init__(self, run: Run, example: Tensor) -> None:
        self._given = example.clone(memory_format=torch.preserve_format)
        aside = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                run(self._given)
        torch.cuda.current_stream(example.device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._found = run(self._given)

    def replay(self, given: Tensor) -> Tensor:
        """Return a copy of what the graph gives, which the next replay overwrites."""
        self._given.copy_(given)
        self._graph.replay()
        return self._found.clone()


def load(
    model: Model, device: torch.device, precision: str, probe: Sequence[Tensor]
) -> TorchRuntime:
    """Return the runtime; ``probe`` changes nothing.

    The reference, float32, is run as PyTorch does by itself, without graphs.
    """
    del probe
    graphed = device.type == "cuda" and precision != "float32"
    return (GraphedRuntime if graphed else TorchRuntime)(model, device, precision)
