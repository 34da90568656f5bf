"""Graphs of a network's pass; where there is no GPU, on something that stands for it.

The stand-in does what CUDA does with a capture: it records on the device that is
current, and a replay computes from what lies in the captured batch then.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.runtimes import cuda_graphs, torch_runtime
from engines.runtimes.cuda_graphs import GraphError, captured
from engines.runtimes.devices import CPU, Device
from engines.runtimes.sturdy import SturdyRuntime
from engines.runtimes.torch_runtime import GraphedRuntime
from tests.engines.runtimes.test_gate import NOISE, a_model


class Pass:
    """A network's pass that remembers what it was last run on."""

    def __init__(self) -> None:
        self.given = self.found = torch.empty(0)
        self.runs = 0

    def __call__(self, given: Tensor) -> Tensor:
        self.runs += 1
        self.given, self.found = given, self.computed(given)
        return self.found

    @staticmethod
    def computed(given: Tensor) -> Tensor:
        return torch.cat([given, 1 - given], dim=1)


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


class FakeCuda:
    """Stands for ``torch.cuda``, with device 0 current as in every new thread."""

    def __init__(self, network: Pass, *, fails: str = "", guarded: bool = True) -> None:
        self.network, self.fails, self.guarded = network, fails, guarded
        self.current: Any = "cuda:0"
        self.modes: list[str] = []
        self.inside = self.most_inside = 0

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        before, self.current = self.current, device if self.guarded else self.current
        yield
        self.current = before

    def Stream(self, device: Any) -> Stream:  # noqa: N802
        return Stream()

    def current_stream(self, device: Any) -> Stream:
        return Stream()

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        yield

    def CUDAGraph(self) -> "FakeGraph":  # noqa: N802
        return FakeGraph(self)

    @contextmanager
    def graph(self, graph: "FakeGraph", capture_error_mode: str) -> Iterator[None]:
        self.modes.append(capture_error_mode)
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        if self.fails:
            self.inside -= 1
            raise RuntimeError(self.fails)
        yield
        graph.given, graph.found = self.network.given, self.network.found
        graph.device = self.current
        self.inside -= 1


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.device: Any = None
        self.given = self.found = torch.empty(0)

    def replay(self) -> None:
        if self.device == self.given.device:
            self.found.copy_(Pass.computed(self.given))


def test_a_replay_is_that_of_the_batch_at_hand() -> None:
    network = Pass()
    cuda = FakeCuda(network)
    first, second = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    graph = captured(network, first, cuda)
    for batch in (first, second):
        torch.testing.assert_close(graph.replay(batch), Pass.computed(batch))
    assert cuda.modes == ["thread_local"]
    assert cuda.current == "cuda:0"


def test_a_capture_on_another_device_is_not_used() -> None:
    """It is empty there: every replay gives the result of the first batch."""
    network = Pass()
    with pytest.raises(GraphError, match="what a graph replays differs by"):
        captured(network, torch.rand(2, 1, 8, 8), FakeCuda(network, guarded=False))


def test_a_capture_that_fails_is_no_lost_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = a_model(1)
    runtime = GraphedRuntime(model, CPU, "float32")
    said = "CUDA error: operation not permitted when stream is capturing\nmore"

    def fails(run: Any, example: Tensor) -> Any:
        return cuda_graphs.captured(run, example, FakeCuda(Pass(), fails=said))

    monkeypatch.setattr(torch_runtime, "captured", fails)
    sturdy = SturdyRuntime(runtime)
    expected = torch_runtime.TorchRuntime(model, CPU, "float32")
    for batch in (NOISE, NOISE[:1]):
        np.testing.assert_array_equal(sturdy.predict(batch), expected.predict(batch))
    _, _, (note,) = sturdy.take()
    assert note.code == "graphs_off"
    assert "not permitted when stream is capturing)" in note.message
    assert sturdy.take()[2] == []


def test_graphs_are_captured_one_at_a_time() -> None:
    network = Pass()
    cuda = FakeCuda(network)
    waiting = threading.Barrier(4)
    failed: list[BaseException] = []

    def capture() -> None:
        waiting.wait()
        try:
            cuda_graphs.Graph(network, torch.rand(1, 1, 8, 8), cuda)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=capture) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert cuda.most_inside == 1


@pytest.mark.gpu
@pytest.mark.parametrize(
    "device", [f"cuda:{i}" for i in range(max(1, torch.cuda.device_count()))]
)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_graph_gives_what_the_network_gives_on_every_gpu(
    device: str, precision: str
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    model, where = a_model(1), Device("cuda", int(device.rpartition(":")[2]))
    graphed = GraphedRuntime(model, where, precision)
    eager = torch_runtime.TorchRuntime(model, where, precision)
    for seed in range(3):
        noise = torch.Generator().manual_seed(seed)
        batch = torch.rand((4, 1, 64, 64), generator=noise).to(device)
        found, expected = graphed.predict(batch), eager.predict(batch)
        assert found.device == torch.device(device)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert graphed.take_notes() == []
