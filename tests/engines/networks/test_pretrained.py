"""ImageNet weights: put into the encoder, from a file or a cache, or refused."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from segmentation_models_pytorch.encoders import encoders, get_encoder
from torch import nn

from engines.errors import SettingsError
from engines.networks import catalog, pretrained


@pytest.fixture
def colour(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A file of a ResNet34 for colour images, as ImageNet weights are."""
    torch.manual_seed(5)
    encoder = get_encoder("resnet34", in_channels=3, weights=None)
    path = tmp_path / "resnet34.safetensors"
    extra = {"fc.weight": torch.zeros(3, 3)}
    safetensors.torch.save_file({**encoder.state_dict(), **extra}, path)
    return path, encoder


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(
        pretrained, "try_to_load_from_cache", lambda *_, **__: None, raising=True
    )


def linknet() -> nn.Module:
    return catalog.find("linknet-34").build(in_channels=1, classes=2)


def test_weights_of_a_file(colour: tuple[Path, nn.Module]) -> None:
    path, encoder = colour
    network = linknet()
    assert pretrained.load(network, "resnet34", str(path)) == path
    for name, value in encoder.state_dict().items():
        found = network.get_submodule("encoder").state_dict()[name]
        expected = value.sum(1, keepdim=True) if name == "conv1.weight" else value
        assert torch.equal(found, expected), name


def test_a_grey_image_gives_what_the_colour_network_gives(
    colour: tuple[Path, nn.Module],
) -> None:
    path, encoder = colour
    network = linknet()
    pretrained.load(network, "resnet34", str(path))
    grey = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        ours = network.get_submodule("encoder").eval()(grey)
        theirs = encoder.eval()(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(ours[-1], theirs[-1], atol=1e-4, rtol=1e-4)


def test_weights_of_torch_s_cache(
    colour: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    _, encoder = colour
    folder = tmp_path / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(encoder.state_dict(), folder / "resnet34-b627a593.pth")
    found = pretrained.load(linknet(), "resnet34", "cache")
    assert found == folder / "resnet34-b627a593.pth"


def test_weights_of_the_hub_s_cache(
    colour: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = colour
    asked = []

    def cached(repository: str, name: str, *, revision: str) -> str:
        asked.append((repository, name, revision))
        return str(path)

    monkeypatch.setattr(pretrained, "try_to_load_from_cache", cached)
    assert pretrained.load(linknet(), "resnet34", "cache") == path
    known = encoders["resnet34"]["pretrained_settings"]["imagenet"]
    assert asked == [(known["repo_id"], "model.safetensors", known["revision"])]


def test_every_encoder_of_three_views(tmp_path: Path) -> None:
    network = catalog.find("mru-net-3d").build(in_channels=1, classes=2)
    other = get_encoder("mobilenet_v2", in_channels=3, depth=5, weights=None)
    path = tmp_path / "mobilenet.safetensors"
    safetensors.torch.save_file(other.state_dict(), path)
    pretrained.load(network, "mobilenet_v2", str(path))
    wanted = other.state_dict()["features.3.conv.0.0.weight"]
    for view in range(3):
        held = network.get_submodule(f"encoders.{view}").state_dict()
        assert torch.equal(held["features.3.conv.0.0.weight"], wanted)


@pytest.mark.parametrize("name", [s for s, r in catalog.NETWORKS.items() if r.encoder])
def test_rows_with_an_encoder_have_one_to_fill(name: str) -> None:
    with torch.device("meta"):
        network = catalog.find(name).build(in_channels=1, classes=2)
    with pytest.raises(SettingsError, match="holds no ImageNet weights of"):
        pretrained.load(network, catalog.find(name).encoder, "cache")


def test_without_weights_here_it_says_so() -> None:
    with pytest.raises(SettingsError, match="holds no ImageNet weights") as told:
        pretrained.load(linknet(), "resnet34", "cache")
    assert "--pretrained FILE" in told.value.hint


def test_bad_files(colour: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, _ = colour
    network = catalog.find("linknet-resnet50").build(in_channels=1, classes=2)
    with pytest.raises(SettingsError, match="does not hold the weights of 'resnet50'"):
        pretrained.load(network, "resnet50", str(path))
    with pytest.raises(SettingsError, match="there is no file"):
        pretrained.load(network, "resnet50", str(tmp_path / "none.pth"))
    (tmp_path / "junk.pth").write_bytes(b"junk")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    for name in ("junk.pth", "junk.safetensors"):
        with pytest.raises(SettingsError, match="no weights that can be read"):
            pretrained.load(network, "resnet50", str(tmp_path / name))
    unet = catalog.find("unet").build(in_channels=1, classes=2)
    with pytest.raises(SettingsError, match="has no encoder"):
        pretrained.load(unet, "", str(path))
