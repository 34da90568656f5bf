"""Attention blocks: what they weigh, and the networks that take them."""

from pathlib import Path

import pytest
import torch

from engines.errors import SettingsError
from engines.labels import SPINE_CLASSES
from engines.networks import attention, catalog
from engines.networks.complexity import parameter_counts
from engines.networks.manifest import Manifest, load_model, save_model
from engines.preprocess.recipe import RECIPES

WIDTH = 64


@pytest.fixture
def features() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, WIDTH, 8, 6)


def share(name: str, features: torch.Tensor) -> torch.Tensor:
    """Return what each feature was weighed with."""
    weighed: torch.Tensor = attention.BLOCKS[name](WIDTH)(features) / features
    return weighed


def test_the_table_is_what_settings_offer() -> None:
    assert tuple(attention.BLOCKS) == catalog.ATTENTIONS


def test_none_changes_nothing(features: torch.Tensor) -> None:
    assert torch.equal(attention.BLOCKS["none"](WIDTH)(features), features)


def test_squeeze_and_excitation_weighs_channels(features: torch.Tensor) -> None:
    found = share("se", features)
    torch.testing.assert_close(found, found[:, :, :1, :1].expand_as(found))
    assert found.min() > 0
    assert found.max() < 1
    assert found.std() > 0


def test_spatial_attention_weighs_pixels(features: torch.Tensor) -> None:
    found = share("sam", features)
    torch.testing.assert_close(found, found[:, :1].expand_as(found))
    assert found.min() > 0
    assert found.max() < 1
    assert found.std() > 0


def test_cbam_weighs_both_one_after_the_other(features: torch.Tensor) -> None:
    found = share("cbam", features)
    rows = found / found[:, :1]
    torch.testing.assert_close(rows, rows[:, :, :1, :1].expand_as(rows))
    assert found[:, :1].std() > 0
    assert rows.std() > 0


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("none", 0),
        ("sam", 2 * 49 + 1),
        ("se", 64 * 4 + 4 + 4 * 64 + 64),
        ("cbam", 64 * 4 + 4 * 64 + 2 * 49 + 1),
    ],
)
def test_sizes(name: str, weights: int) -> None:
    assert sum(p.numel() for p in attention.BLOCKS[name](WIDTH).parameters()) == weights


LUMBAR = ["unet", "resunet", "attention-unet", "transunet", "inception-dual-unet"]


@pytest.mark.parametrize("name", [*LUMBAR, "chasppra-unet"])
@pytest.mark.parametrize("block", ["sam", "cbam", "se"])
def test_networks_take_every_block(name: str, block: str) -> None:
    spec = catalog.find(name)
    plain, other = (
        parameter_counts(spec.build(in_channels=1, classes=2, options=options))
        for options in ({}, {"attention": block})
    )
    assert other["trainable"] > plain["trainable"]
    assert other["non_trainable"] == plain["non_trainable"]


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({"inception": True, "second_output": True}, 2),
        ({"inception": True, "second_output": False}, 1),
        ({"inception": False, "second_output": True}, 2),
        ({"inception": False, "second_output": False}, 1),
    ],
)
def test_parts_of_the_inception_network_can_be_left_out(
    options: dict[str, bool], outputs: int
) -> None:
    spec = catalog.find("inception-dual-unet")
    network = spec.build(in_channels=1, classes=2, options=options).train()
    found = network(torch.randn(2, 1, 32, 32))
    assert (1 if isinstance(found, torch.Tensor) else len(found)) == outputs
    first = network.get_parameter(next(n for n, _ in network.named_parameters()))
    assert first.shape[0] == 64
    held = any("small" in name for name, _ in network.named_parameters())
    assert held is options["inception"]


def test_without_its_parts_it_is_a_u_net_with_every_norm() -> None:
    spec = catalog.find("inception-dual-unet")
    options = {"inception": False, "second_output": False}
    bare = parameter_counts(spec.build(in_channels=1, classes=2, options=options))
    usual = parameter_counts(catalog.find("unet").build(in_channels=1, classes=2))
    assert bare["non_trainable"] - usual["non_trainable"] == 2 * 1024
    assert bare["trainable"] - usual["trainable"] == 2 * 1024


def test_a_model_file_rebuilds_what_it_was_built_with(tmp_path: Path) -> None:
    spec = catalog.find("inception-dual-unet")
    options = {"attention": "cbam", "dropout": 0.25, "inception": False}
    network = spec.build(in_channels=1, classes=2, options=options).eval()
    recipe = RECIPES[spec.recipe]
    manifest = Manifest(
        "m", spec.name, SPINE_CLASSES, "mr", spec.views, recipe, options=options
    )
    save_model(tmp_path / "m.safetensors", network, manifest, half=False)
    again = load_model(tmp_path / "m.safetensors")
    assert again.manifest.options == options
    image = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again.network(image), network(image))
    dropped = [m.p for m in again.network.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropped == [0.25, 0.25]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("unet-r34", {"attention": "se"}, "unet-r34 has no option called 'attention'"),
        ("unet", {"encoder": "resnet34"}, "unet has no option called 'encoder'"),
        ("unet", {"attention": "abc"}, "attention cannot be 'abc'"),
        ("unet", {"dropout": 1.0}, "dropout cannot be 1.0"),
        ("unet", {"dropout": True}, "dropout cannot be True"),
        ("inception-dual-unet", {"inception": 1}, "inception cannot be 1"),
        ("linknet-34", {"encoder": "resnet-7"}, "cannot stand on the encoder"),
        ("linknet-34", {"encoder": "mit_b0"}, "cannot stand on the encoder"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    name: str, options: dict[str, object], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        catalog.find(name).build(in_channels=1, classes=2, options=options)


def test_another_encoder() -> None:
    spec = catalog.find("fpn")
    network = spec.build(in_channels=1, classes=3, options={"encoder": "mobilenet_v2"})
    with torch.inference_mode():
        found = network.eval()(torch.randn(1, 1, 64, 32))
    assert found.shape == (1, 3, 64, 32)
    usual = spec.build(in_channels=1, classes=3)
    assert parameter_counts(network)["total"] < parameter_counts(usual)["total"] / 3
