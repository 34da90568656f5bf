"""A faster runtime is used only after it agreed with the reference."""

import math

import pytest
import torch

from engines.errors import DeviceError
from engines.labels import SPINE_CLASSES
from engines.networks.manifest import Manifest, Model
from engines.preprocess.recipe import RECIPES
from engines.runtimes import devices, gate
from engines.runtimes.torch_runtime import TorchRuntime


class Fixed:
    """A runtime that always gives the same foreground probability map."""

    backend, precision, device = "test", "some", "cpu"

    def __init__(self, spine: torch.Tensor) -> None:
        self.spine = spine

    def predict(self, slices: torch.Tensor) -> torch.Tensor:
        spine = self.spine.expand_as(slices)
        return torch.cat([1 - spine, spine], dim=1)


PROBE = [torch.zeros(1, 1, 40, 50)]


def with_flips(count: int) -> torch.Tensor:
    spine = torch.zeros(1, 1, 40, 50)
    spine[..., :20, :] = 0.8
    spine.view(-1)[:count] = 0.2
    return spine


@pytest.mark.parametrize(("flips", "passed"), [(0, True), (1, True), (3, False)])
def test_gate_counts_pixels_and_dice(flips: int, passed: bool) -> None:
    figures = gate.compare(Fixed(with_flips(0)), Fixed(with_flips(flips)), PROBE)
    assert figures.agreement == pytest.approx(1 - flips / 2000)
    assert figures.dice == pytest.approx(2 * (1000 - flips) / (2000 - flips))
    assert figures.passed is passed


def test_gate_refuses_what_is_not_a_number() -> None:
    spoiled = with_flips(0)
    spoiled[0, 0, 39, 49] = math.nan
    figures = gate.compare(Fixed(with_flips(0)), Fixed(spoiled), PROBE)
    assert not figures.passed


def test_two_empty_maps_agree() -> None:
    empty = Fixed(torch.zeros(1, 1, 40, 50))
    assert gate.compare(empty, empty, PROBE).dice == 1


def a_model(scale: float) -> Model:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    with torch.no_grad():
        network.weight *= scale
    manifest = Manifest(
        "m", "unet-r34", SPINE_CLASSES, "ct", ("axial",), RECIPES["spine-ct"]
    )
    return Model(manifest, network.eval(), "0" * 64, None)  # type: ignore[arg-type]


CPU = torch.device("cpu")
NOISE = [torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))]


def test_reference_is_asked_once_for_each_batch() -> None:
    class Counted(Fixed):
        asked = 0

        def predict(self, slices: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            return super().predict(slices)

    counted = Counted(with_flips(0))
    remembered = gate.Remembered(counted)
    for flips in (0, 3):
        assert gate.compare(remembered, Fixed(with_flips(flips)), PROBE).slices == 1
    assert counted.asked == 1


def test_runtime_gives_probabilities() -> None:
    runtime = TorchRuntime(a_model(1), CPU, "bfloat16")
    found = runtime.predict(NOISE[0])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 32, 32))


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:99"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=name):
        devices.pick(name)
