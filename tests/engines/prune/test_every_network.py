"""Pruning every row of the catalogue: nothing but the removed filters is missing.

The slow reference is the whole network in which whatever reads a removed channel has
weight zero for it, so that its contribution is absent; norms over channels and means
over channels are taken over those that are left.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from engines.errors import ModelFileError
from engines.geometry import Grid
from engines.labels import SPINE_CLASSES
from engines.networks import catalog, resize
from engines.networks.attention import SpatialAttention
from engines.networks.catalog import NetworkSpec
from engines.networks.inventory import inventory
from engines.networks.manifest import Manifest, Model, load_model, save_model
from engines.preprocess.recipe import RECIPES
from engines.prune import graph, shrink
from engines.prune.graph import Group
from engines.runtimes import trial
from engines.runtimes.devices import CPU
from engines.segment import inference
from engines.volume import Volume

DATA = Path(__file__).parents[2] / "data"
TOLERANCE = 1e-4
"""Relative to the largest logit."""


Hook = Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]


class Cut(NamedTuple):
    """A network, half of whose filters leave."""

    spec: NetworkSpec
    network: nn.Module
    groups: list[Group]
    removed: dict[str, list[int]]
    small: nn.Module


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=list(catalog.NETWORKS))
def cut(request: pytest.FixtureRequest) -> Cut:
    torch.manual_seed(0)
    spec = catalog.find(request.param)
    network = spec.build(in_channels=1, classes=2).eval()
    unsettle(network)
    groups = graph.groups(network, torch.rand(spec.shape(edge(spec))))
    rng = np.random.default_rng(0)
    removed = {g.name: half(g, rng) for g in groups}
    small = shrink.shrunken(network, groups, removed)
    return Cut(spec, network, groups, removed, small)


@pytest.fixture(scope="module")
def saved(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    recipe = RECIPES[cut.spec.recipe]
    manifest = Manifest(
        "small",
        cut.spec.name,
        SPINE_CLASSES,
        recipe.modality,
        cut.spec.views,
        recipe,
        patch=edge(cut.spec),
    )
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_model(path, cut.small, manifest, half=False)
    yield path
    path.unlink()


def test_nothing_but_the_removed_filters_is_missing(cut: Cut) -> None:
    image = torch.randn(cut.spec.shape(edge(cut.spec)))
    with torch.inference_mode():
        found = cut.small(image)
        expected = reference(cut)(image)
        whole = cut.network(image)
    largest = float(expected.abs().max())
    assert found.shape == whole.shape
    torch.testing.assert_close(found, expected, atol=TOLERANCE * largest, rtol=0)
    assert (found - whole).abs().max() > 10 * TOLERANCE * largest


def test_most_weights_are_gone(cut: Cut) -> None:
    counts = [sum(p.numel() for p in n.parameters()) for n in (cut.small, cut.network)]
    assert counts[0] < 0.35 * counts[1]
    shapes = shrink.shapes_without(cut.network, cut.groups, cut.removed)
    assert shapes == resize.shapes_of(cut.small)


def test_every_filter_but_those_of_the_classes_can_leave(cut: Cut) -> None:
    able = {name for group in cut.groups for name in group.filters}
    layers = {n for n, m in cut.network.named_modules() if graph.makes_channels(m)}
    left = sorted(layers - able)
    assert left == sorted(LEFT_ALONE.get(cut.spec.name, HEADS))


def test_what_is_pruned_still_learns(cut: Cut) -> None:
    image = torch.randn(2, *cut.spec.shape(edge(cut.spec))[1:])
    logits = cut.small(image)
    logits.sin().sum().backward()
    gradients = [p.grad for p in cut.small.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert len(gradients) > 0.9 * len([*cut.small.parameters()]) - 2
    cut.small.zero_grad(set_to_none=True)


def test_the_file_rebuilds_it(cut: Cut, saved: Path) -> None:
    image = torch.randn(cut.spec.shape(edge(cut.spec)))
    with torch.inference_mode():
        given, again = cut.small(image), load_model(saved).network(image)
    torch.testing.assert_close(again, given, atol=0, rtol=0)
    (entry,) = inventory(str(saved))
    told = entry.as_json()
    trainable = sum(p.numel() for p in cut.small.parameters())
    assert told["parameters"]["trainable"] == trainable


def test_a_file_whose_layers_do_not_fit_is_refused(cut: Cut, saved: Path) -> None:
    """One channel less in a single layer: nothing else was told of it."""
    manifest = load_model(saved).manifest
    group = max(cut.groups, key=lambda g: g.size)
    state = {k: v.shape for k, v in cut.small.state_dict().items()}
    name = f"{group.name}.weight"
    turned = isinstance(
        cut.small.get_submodule(group.name), nn.ConvTranspose2d | nn.ConvTranspose3d
    )
    shape = list(state[name])
    shape[1 if turned else 0] -= 1
    broken = copy.deepcopy(cut.small)
    resize.fit(broken, {**state, name: shape})
    with torch.no_grad():
        broken.get_submodule(group.name).get_parameter("weight").zero_()
    path = saved.with_name("broken.safetensors")
    save_model(path, broken, manifest, half=False)
    with pytest.raises(ModelFileError, match="channels are not those"):
        load_model(path)


def test_its_onnx_agrees(cut: Cut, tmp_path: Path) -> None:
    image = torch.randn(cut.spec.shape(edge(cut.spec)))
    path = tmp_path / "network.onnx"
    torch.onnx.export(cut.small, (image,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    (found,) = session.run(None, {given.name: image.numpy()})
    with torch.inference_mode():
        expected = cut.small(image).numpy()
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * largest, rtol=0)


def test_it_segments(saved: Path) -> None:
    model = load_model(saved)
    prepared = inference.prepare(scan(model), model.manifest.recipe)
    planes = model.manifest.views[-1:]
    runtime = trial.reference(model, CPU)
    found = inference.infer(prepared, model, runtime, planes)
    done = inference.label(prepared, found, model.manifest)
    assert done.labels.shape == prepared.scan.grid.shape
    assert done.labels.max() <= 1


HEADS = ("head",)
SMP = ("segmentation_head.0",)
NARROW = tuple(f"narrow.{view}.{block}" for view in range(3) for block in range(4))
ATTENTION = "bottleneck.1.attention"
LEFT_ALONE: Mapping[str, Sequence[str]] = {
    "unet-r34": SMP,
    "deeplabv3plus": SMP,
    "linknet-34": SMP,
    "linknet-mobilenet-v2": SMP,
    "linknet-resnet50": SMP,
    "linknet-efficientnet-b7": SMP,
    "fpn": SMP,
    "pspnet": SMP,
    "attention-linknet-152": (*NARROW, "linknet.segmentation_head.0"),
    "mru-net-3d": ("head", "up.3"),
    "transunet": ("head", *(f"{ATTENTION}.{n}" for n in ("key", "query", "value"))),
    "inception-dual-unet": ("head", "second_head"),
}
"""Class layers, and what ``graph.groups`` says it cannot follow."""


def edge(spec: NetworkSpec) -> int:
    """Return rows and columns of a small slice, or the edge of a small cube."""
    return 2 * spec.stride if spec.dimensions == 2 else spec.stride


def unsettle(network: nn.Module) -> None:
    """Give norms and biases values, so that nothing is right because it is zero."""
    with torch.no_grad():
        for module in network.modules():
            norm = getattr(module, "running_mean", None) is not None
            if norm or isinstance(module, nn.GroupNorm | nn.LayerNorm):
                module.get_parameter("weight").uniform_(0.5, 1.5)
                module.get_parameter("bias").uniform_(-0.3, 0.3)
            if norm:
                module.get_buffer("running_mean").uniform_(-0.2, 0.2)
                module.get_buffer("running_var").uniform_(0.5, 1.5)


def half(group: Group, rng: np.random.Generator) -> list[int]:
    blocks = rng.permutation(group.size // group.block)[
        : group.size // group.block // 2
    ]
    places = blocks[:, None] * group.block + np.arange(group.block)
    return sorted(places.ravel().tolist())


def reference(cut: Cut) -> nn.Module:
    """Return the whole network with nothing read from removed channels."""
    network = cut.spec.build(in_channels=1, classes=2).eval()
    network.load_state_dict(cut.network.state_dict())
    gone: dict[tuple[str, str], list[int]] = {}
    for group in cut.groups:
        for member in group.members:
            places = member.places[np.isin(member.channels, cut.removed[group.name])]
            gone.setdefault((member.layer, member.side), []).extend(places.tolist())
    for (name, side), places in gone.items():
        layer = network.get_submodule(name)
        if side == "in":
            weight = layer.get_parameter("weight").data
            turned = isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
            weight.index_fill_(0 if turned else 1, torch.tensor(places), 0)
        elif isinstance(layer, nn.LayerNorm):
            kept = torch.ones(layer.normalized_shape[0], dtype=torch.bool)
            kept[places] = False
            layer.register_forward_hook(_norm_over(kept))
    for name, module in network.named_modules():
        if isinstance(module, SpatialAttention):
            kept = _kept_before(cut, name, gone)
            module.register_forward_hook(_attend_over(kept))
    return network


def _norm_over(kept: Tensor) -> Hook:
    """Return what norms a layer's tokens over the channels that are left."""

    def norm(layer: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        assert isinstance(layer, nn.LayerNorm)
        (tokens,) = inputs
        spread, mean = torch.var_mean(
            tokens[..., kept], dim=-1, correction=0, keepdim=True
        )
        scaled = (tokens - mean) / (spread + layer.eps).sqrt()
        return scaled * layer.weight + layer.bias

    return norm


def _kept_before(
    cut: Cut, name: str, gone: Mapping[tuple[str, str], Sequence[int]]
) -> Tensor:
    """Return which channels reach the spatial attention called ``name``."""
    before = name.rsplit(".", 1)[0] + ".shared.0"
    layer = cut.network.get_submodule(before)
    kept = torch.ones(graph.inputs_of(layer), dtype=torch.bool)
    kept[list(gone.get((before, "in"), ()))] = False
    return kept


def _attend_over(kept: Tensor) -> Hook:
    """Return what weighs pixels by the channels that are left."""

    def attend(layer: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        assert isinstance(layer, SpatialAttention)
        (x,) = inputs
        held = x[:, kept]
        seen = [held.mean(dim=1, keepdim=True), held.amax(dim=1, keepdim=True)]
        weighed: Tensor = x * layer.weigh(torch.cat(seen, dim=1)).sigmoid()
        return weighed

    return attend


def scan(model: Model) -> Volume:
    """Return a small piece of a scan, of the model's kind."""
    read = Volume.read(DATA / "tptbox_ct.nii.gz")
    piece = read.voxels[20:44, 10:34, 30:38]
    if model.manifest.modality == "mr":
        piece = np.clip(piece, 0, 1000)
    return Volume(piece, Grid(piece.shape, read.grid.affine))
