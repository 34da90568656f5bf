"""What every row of the catalogue keeps: grid, learning, files, ONNX, engines."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from engines.labels import SPINE_CLASSES
from engines.networks import catalog
from engines.networks.catalog import NetworkSpec
from engines.networks.manifest import Manifest, Model, load_model, save_model
from engines.preprocess.recipe import RECIPES
from engines.runtimes import export, tensorrt_build
from engines.runtimes.devices import CPU
from engines.runtimes.export import Profile
from engines.runtimes.tensorrt_library import RTX, Library
from engines.runtimes.torch_runtime import TorchRuntime
from engines.segment.slices import Frame
from engines.train import losses

MOST_STEPS = 60
LEARNING_PIXELS = 32
ONNX_TOLERANCE = 1e-4
"""Relative to the largest logit, since untrained networks may give large ones."""

Row = tuple[NetworkSpec, nn.Module]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=list(catalog.NETWORKS))
def row(request: pytest.FixtureRequest) -> Row:
    torch.manual_seed(0)
    spec = catalog.find(request.param)
    return spec, spec.build(in_channels=1, classes=2).eval()


@pytest.fixture(scope="module")
def saved(row: Row, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    spec, network = row
    recipe = RECIPES[spec.recipe]
    manifest = Manifest(
        "m", spec.name, SPINE_CLASSES, recipe.modality, spec.views, recipe
    )
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    save_model(path, network, manifest, half=False)
    yield path
    path.unlink()


@pytest.mark.parametrize(
    ("batch", "rows", "columns"), [(1, 1, 3), (2, 3, 1), (1, 5, 2), (2, 1, 1)]
)
def test_keeps_the_grid(row: Row, batch: int, rows: int, columns: int) -> None:
    spec, network = row
    size = grid(spec, rows, columns)
    with torch.inference_mode():
        logits = network(torch.randn(batch, 1, *size))
    assert logits.shape == (batch, 2, *size)
    assert torch.isfinite(logits).all()


def test_takes_other_channels_and_classes(row: Row) -> None:
    spec, _ = row
    network = spec.build(in_channels=3, classes=5).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, *grid(spec, 1, 1)))
    assert logits.shape == (1, 5, *grid(spec, 1, 1))


def test_gradients_reach_every_weight(row: Row) -> None:
    """Evaluating, since norms cancel the biases before them while training."""
    spec, network = row
    torch.manual_seed(1)
    several = 4 - spec.dimensions
    image = torch.randn(several, 1, *grid(spec, 2, 2))
    total(network(image)).backward()
    reached = {n for n, p in network.named_parameters() if holds(p.grad)}
    network.zero_grad()
    network.train()
    total(network(image)).backward()
    reached |= {n for n, p in network.named_parameters() if holds(p.grad)}
    network.zero_grad()
    network.eval()
    assert {n for n, p in network.named_parameters() if p.requires_grad} == reached


@pytest.mark.parametrize("name", list(catalog.NETWORKS))
def test_learns_one_batch_by_heart(name: str) -> None:
    """Right-hand and lower halves, from noisy pictures of them."""
    torch.manual_seed(0)
    spec = catalog.find(name)
    network = spec.build(in_channels=1, classes=2).train()
    size = (LEARNING_PIXELS,) * spec.dimensions
    target = torch.zeros(2, *size, dtype=torch.long)
    target[0, LEARNING_PIXELS // 2 :] = 1
    target[1, :, LEARNING_PIXELS // 2 :] = 1
    target = target[: 4 - spec.dimensions]
    image = 0.3 * torch.randn(len(target), 1, *size) + target[:, None]
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    wanted, found = math.inf, []
    while len(found) < MOST_STEPS and (not found or found[-1] > wanted):
        outputs = network(image)
        loss = losses.of_outputs(losses.cross_entropy, outputs, target, 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
        wanted = found[0] / 10
    assert found[-1] <= wanted


def test_comes_back_from_its_file(row: Row, saved: Path) -> None:
    spec, network = row
    image = torch.randn(1, 1, *grid(spec, 1, 3))
    with torch.inference_mode():
        given, again = network(image), load_model(saved).network(image)
    torch.testing.assert_close(again, given, atol=0, rtol=0)


def test_runtime_takes_slices_of_any_size(row: Row, saved: Path) -> None:
    spec, network = row
    if spec.dimensions == 3:
        pytest.skip("it takes cubes; see the test of those")
    slices = np.random.default_rng(0).random((2, 37, 53), np.float32)
    framed = Frame(spec.stride, least=0, empty=0.0).put(slices)
    with torch.inference_mode():
        expected = network(torch.from_numpy(framed)).softmax(dim=1).numpy()
    runtime = TorchRuntime(load_model(saved), CPU, "float32")
    found = runtime.predict(framed)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    shown = Frame(spec.stride, least=0, empty=0.0).take(found, (37, 53))
    assert shown.shape == (2, 2, 37, 53)


@pytest.fixture(scope="module")
def exported(row: Row, saved: Path) -> tuple[Model, Profile, bytes]:
    """Return the network with its ONNX and the batches that an engine would take."""
    spec, _ = row
    model = load_model(saved)
    profile = export.profile_for(model, grid(spec, 2, 2))
    return model, profile, export.onnx_bytes(model, "float32", profile.usual)


def test_onnx_export_agrees(row: Row, exported: tuple[Model, Profile, bytes]) -> None:
    spec, network = row
    model, profile, onnx = exported
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    fixed = export.is_fixed(model)
    sizes = [profile.usual] if fixed else [grid(spec, 1, 1), grid(spec, 3, 2)]
    for batch, size in enumerate(sizes, start=1):
        image = torch.randn(batch, 1, *size)
        (found,) = session.run([export.OUTPUT], {export.INPUT: image.numpy()})
        with torch.inference_mode():
            expected = network(image).numpy()
        largest = max(1.0, float(np.abs(expected).max()))
        tolerance = ONNX_TOLERANCE * largest
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def test_an_engine_for_rtx_cards_is_built(
    exported: tuple[Model, Profile, bytes],
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    model, profile, onnx = exported

    blob, facts = tensorrt_build.build(Library(RTX), onnx, profile, ["sm86"])

    assert len(blob) > 1000
    assert [t["name"] for t in facts["tensors"]] == [export.INPUT, export.OUTPUT]
    assert {t["precision"] for t in facts["tensors"]} == {"float32"}
    assert facts["tensors"][1]["shape"][:2] == [-1, model.classes]
    assert facts["memory"]["weights_bytes"] > 1000
    computing = {layer["precision"] for layer in facts["layers"]}
    assert "float32" in computing
    assert not computing & {"float16", "bfloat16", "int8"}


def grid(spec: NetworkSpec, rows: int, columns: int) -> tuple[int, ...]:
    """Return a size in multiples of the stride; a cube is one stride deep."""
    size = (rows * spec.stride, columns * spec.stride)
    return size if spec.dimensions == 2 else (*size, spec.stride)


def total(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return a number that every output has its part in."""
    found = (outputs,) if isinstance(outputs, Tensor) else outputs
    return torch.stack([one.sin().sum() for one in found]).sum()


def holds(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())
