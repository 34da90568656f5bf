"""A faster runtime is used only if it labels the golden probes as the reference did."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.labels import SPINE_CLASSES
from engines.networks.manifest import Manifest, Model
from engines.networks.probes import Probe
from engines.preprocess.recipe import RECIPES
from engines.runtimes import gate
from engines.runtimes.devices import CPU
from engines.runtimes.gate import Gate
from engines.runtimes.torch_runtime import TorchRuntime

Floats = NDArray[np.float32]


class Fixed:
    """A runtime that always gives the same foreground probability map."""

    backend, precision, device = "test", "some", "cpu"

    def __init__(self, spine: Floats) -> None:
        self.spine = spine
        self.batches: list[int] = []

    def predict(self, slices: Floats) -> Floats:
        self.batches.append(len(slices))
        spine = np.broadcast_to(self.spine, slices.shape)
        return np.concatenate([1 - spine, spine], axis=1)


def with_flips(count: int) -> Floats:
    spine = np.zeros((1, 1, 40, 50), np.float32)
    spine[..., :20, :] = 0.6
    spine.reshape(-1)[:count] = 0.4
    return spine


EMPTY = np.zeros((1, 1, 40, 50), np.float32)


def a_probe(margin: float = 0.2, count: int = 1, first: float | None = None) -> Probe:
    """Return a probe whose upper half is foreground, with one margin everywhere.

    Args:
        margin: of all pixels.
        count: slices.
        first: margin of the first pixel, if it has another.
    """
    labels = np.zeros((count, 40, 50), np.uint8)
    labels[:, :20] = 1
    images = np.zeros((count, 1, 40, 50), np.float32)
    margins = np.full_like(labels, round(margin * 255))
    if first is not None:
        margins[:, 0, 0] = round(first * 255)
    return Probe(images, labels, margins)


@pytest.mark.parametrize(("flips", "passed"), [(0, True), (1, True), (3, False)])
def test_pixels_and_dice_are_counted(flips: int, passed: bool) -> None:
    candidate, reference = Fixed(with_flips(flips)), Fixed(with_flips(0))
    for figures in (
        gate.judge(candidate, [a_probe()]),
        gate.compare(reference, candidate, [EMPTY]),
    ):
        assert figures.agreement == pytest.approx(1 - flips / 2000)
        assert figures.dice == pytest.approx(2 * (1000 - flips) / (2000 - flips))
        assert figures.passed is passed
        assert (figures.backend, figures.precision, figures.slices) == (
            "test", "some", 1,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("margin", "ties", "errors", "passed"),
    [
        (0.0, 1, 0, True),
        (0.045, 1, 0, True),
        (0.055, 0, 1, True),
        (0.49, 0, 1, True),
        (0.51, 0, 1, False),
        (1.0, 0, 1, False),
    ],
)
def test_where_the_reference_was_sure_nothing_may_differ(
    margin: float, ties: int, errors: int, passed: bool
) -> None:
    figures = gate.judge(Fixed(with_flips(1)), [a_probe(first=margin)])
    assert (figures.ties, figures.errors) == (ties, errors)
    assert figures.surest == pytest.approx(margin, abs=1 / 255)
    assert figures.passed is passed
    assert ("another label at a margin of" in figures.figures) is not passed


def test_ties_count_neither_for_nor_against() -> None:
    """A thousand pixels of the upper half are ties in the reference itself."""
    probe = a_probe()
    probe.margins[0, :20] = 0
    for flips in (0, 500, 1000):
        figures = gate.judge(Fixed(with_flips(flips)), [probe])
        assert (figures.agreement, figures.dice, figures.ties) == (1, 1, flips)
    probe.margins[:] = 0
    assert not gate.judge(Fixed(with_flips(0)), [probe]).passed


def test_margins_of_scans_at_hand_are_those_of_the_reference() -> None:
    figures = gate.compare(Fixed(with_flips(0)), Fixed(with_flips(1)), [EMPTY])
    assert (figures.ties, figures.errors) == (0, 1)
    assert figures.surest == pytest.approx(0.2, abs=1 / 255)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_refused(value: float) -> None:
    spoiled = with_flips(0)
    spoiled[0, 0, 39, 49] = value
    for figures in (
        gate.judge(Fixed(spoiled), [a_probe()]),
        gate.compare(Fixed(with_flips(0)), Fixed(spoiled), [EMPTY]),
    ):
        assert (figures.agreement, figures.dice) == (0, 0)
        assert not figures.passed


def test_two_empty_maps_agree_and_no_probe_is_no_agreement() -> None:
    empty = Fixed(EMPTY)
    assert gate.compare(empty, empty, [EMPTY]).dice == 1
    assert not gate.judge(empty, []).passed


def test_labels_of_another_shape_are_an_error() -> None:
    class Half(Fixed):
        def predict(self, slices: Floats) -> Floats:
            return super().predict(slices)[..., ::2]

    with pytest.raises(ValueError, match=r"where .* was expected"):
        gate.judge(Half(with_flips(0)), [a_probe()])


def test_probes_are_computed_in_batches() -> None:
    runtime = Fixed(with_flips(0))
    assert gate.judge(runtime, [a_probe(count=19)]).slices == 19
    assert runtime.batches == [8, 8, 3]
    cubes = np.zeros((2, 1, 8, 8, 8), np.float32)
    labels = np.zeros((2, 8, 8, 8), np.uint8)
    solid = Fixed(np.zeros((1, 1, 8, 8, 8), np.float32))
    assert gate.judge(solid, [Probe(cubes, labels, labels)]).slices == 2
    assert solid.batches == [1, 1]


@pytest.mark.parametrize("agreement", [0.9989999, 0.999, 0.99900001, 1.0, 0.5])
@pytest.mark.parametrize("surest", [0.0, 0.4999999, 0.5])
def test_figures_keep_their_verdict_in_records(agreement: float, surest: float) -> None:
    figures = Gate("b", "p", agreement, 1.0, 3, 0, 1, surest)
    record = figures.as_json()
    again = Gate.from_json(record)
    assert again.passed is record["passed"] is figures.passed
    assert again.agreement == pytest.approx(agreement, abs=1e-6)


def test_records_of_earlier_versions_are_read() -> None:
    record = {
        "backend": "b", "precision": "p", "agreement": 1, "dice": 1, "slices": 2,
    }  # fmt: skip
    assert Gate.from_json(record) == Gate("b", "p", 1.0, 1.0, 2)


def a_model(scale: float) -> Model:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    with torch.no_grad():
        network.weight *= scale
    manifest = Manifest(
        "m", "unet-r34", SPINE_CLASSES, "ct", ("axial",), RECIPES["spine-ct"]
    )
    return Model(manifest, network.eval(), "0" * 64, None)  # type: ignore[arg-type]


NOISE = np.random.default_rng(1).standard_normal((2, 1, 32, 32), np.float32)


def probes_of(model: Model, images: Floats = NOISE) -> list[Probe]:
    """Return what the reference says of ``images``."""
    half = images.astype(np.float16).astype(np.float32)
    found = TorchRuntime(model, CPU, "float32").predict(half)
    least, most = np.sort(found, axis=1)[:, -2:].swapaxes(0, 1)
    margins = np.rint((most - least) * 255).astype(np.uint8)
    return [Probe(half, found.argmax(axis=1).astype(np.uint8), margins)]


def test_runtime_of_torch_gives_probabilities() -> None:
    locked = NOISE.copy()
    locked.setflags(write=False)
    found: Any = TorchRuntime(a_model(1), CPU, "bfloat16").predict(locked)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_the_reference_passes_its_own_gate() -> None:
    model = a_model(1)
    figures = gate.judge(TorchRuntime(model, CPU, "float32"), probes_of(model))
    assert (figures.agreement, figures.dice) == (1, 1)
    assert (figures.ties, figures.errors, figures.surest) == (0, 0, 0)
