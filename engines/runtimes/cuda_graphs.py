"""A network's pass over batches of one shape, captured as one CUDA graph.

A graph is captured on the device of its tensors, one at a time in this process, and in
the mode in which other threads may go on using the GPU meanwhile. It is then held
against the network on another batch: a capture that went wrong replays the result of
the batch that it was captured with, without any error.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3
"""Passes before a graph is captured, in which libraries choose their kernels."""

TOLERANCE = 1e-2
"""How far a probability of the graph may be from that of the network, in halves."""

Run = Callable[[Tensor], Tensor]

_one_at_a_time = threading.Lock()


class GraphError(Exception):
    """A graph cannot be captured, or does not do what the network does."""


class Graph:
    """One captured pass over a batch of one shape."""

    def __init__(self, run: Run, example: Tensor, cuda: Any = torch.cuda) -> None:  # noqa: ANN401
        """Capture ``run`` for batches like ``example``; see ``captured``."""
        self._cuda = cuda
        self._device = example.device
        self._given = example.clone(memory_format=torch.preserve_format)
        with _one_at_a_time, cuda.device(self._device):
            aside = cuda.Stream(self._device)
            aside.wait_stream(cuda.current_stream(self._device))
            with cuda.stream(aside):
                for _ in range(WARM_UP):
                    run(self._given)
            cuda.current_stream(self._device).wait_stream(aside)
            self._graph = cuda.CUDAGraph()
            with cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._found = run(self._given)

    def replay(self, given: Tensor) -> Tensor:
        """Return a copy of what the graph gives, which the next replay overwrites."""
        with self._cuda.device(self._device):
            self._given.copy_(given)
            self._graph.replay()
            return self._found.clone()


def captured(run: Run, example: Tensor, cuda: Any = torch.cuda) -> Graph:  # noqa: ANN401
    """Return the graph of ``run``, which was seen to do what ``run`` does.

    Args:
        run: the pass; from a batch on a CUDA device to probabilities.
        example: (N, 1, ...), a batch of the shape.
        cuda: the module ``torch.cuda``, or what stands for it.

    Raises:
        GraphError: it cannot be captured, or its replay of another batch is not what
            ``run`` gives.
    """
    try:
        graph = Graph(run, example, cuda)
        noise = torch.Generator(example.device).manual_seed(0)
        other = torch.empty_like(example).uniform_(generator=noise)
        found, expected = graph.replay(other), run(other)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"a graph could not be captured ({reason})"
        raise GraphError(msg) from error
    apart = float((found - expected).abs().max())
    if not apart <= TOLERANCE:
        msg = f"what a graph replays differs by {apart:.3g} from what the network gives"
        raise GraphError(msg)
    return graph
