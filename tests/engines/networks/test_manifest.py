"""A model file is whole, rebuilds its network, and is refused when damaged."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from engines.errors import ModelFileError, UnknownModelError
from engines.labels import SPINE_CLASSES
from engines.networks import catalog, shelf
from engines.networks.manifest import (
    Manifest,
    load_model,
    read_manifest,
    record_metrics,
    save_model,
)
from engines.preprocess.recipe import RECIPES


def a_manifest(**changes: object) -> Manifest:
    values = {
        "name": "small",
        "architecture": "unet-r34",
        "classes": SPINE_CLASSES,
        "modality": "ct",
        "views": ("axial",),
        "recipe": RECIPES["spine-ct"],
        "licence": "CC0-1.0",
    }
    return Manifest(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return catalog.find("unet-r34").build(in_channels=1, classes=2).eval()


@pytest.fixture(scope="module")
def saved(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_model(path, network, a_manifest())
    return path


def test_network_comes_back(network: torch.nn.Module, saved: Path) -> None:
    model = load_model(saved)
    kept = model.network.state_dict()
    for name, value in network.state_dict().items():
        stored = value if "running_" in name else value.half().to(value.dtype)
        torch.testing.assert_close(kept[name], stored, atol=0, rtol=0)
    assert model.manifest.recipe == RECIPES["spine-ct"]
    assert model.manifest.channels["encoder.conv1"] == (1, 64)


def test_half_precision_keeps_running_statistics(saved: Path) -> None:
    with safe_open(saved, "pt") as file:
        assert file.get_tensor("encoder.conv1.weight").dtype == torch.float16
        assert file.get_tensor("encoder.bn1.running_var").dtype == torch.float32
    assert saved.stat().st_size < 50e6


def test_same_model_same_bytes(
    network: torch.nn.Module, saved: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.safetensors"
    save_model(again, network, a_manifest())
    assert again.read_bytes() == saved.read_bytes()


def test_metrics_are_recorded_without_touching_the_weights(
    saved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved.read_bytes())
    row = {"metric": "Dice", "value": 0.9, "data": "one scan"}
    record_metrics(path, [row])
    model = load_model(path)
    assert model.manifest.metrics == (row,)
    assert model.manifest.tensors_sha256 == read_manifest(saved).tensors_sha256


def test_a_flipped_bit_is_noticed(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1000] ^= 1
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    with pytest.raises(ModelFileError, match="hash of its weights"):
        load_model(bad)


def test_a_truncated_file_is_noticed(saved: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(saved.read_bytes()[:100_000])
    with pytest.raises(ModelFileError, match="not an intact model file"):
        read_manifest(bad)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    bad = tmp_path / "bad.safetensors"
    save_file({"a": torch.zeros(3)}, bad)
    with pytest.raises(ModelFileError, match="not an intact model file"):
        load_model(bad)


def test_another_channel_plan_is_refused(
    network: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, network, a_manifest(classes={"background": 0, "a": 1, "b": 2}))
    with pytest.raises(ModelFileError, match="channels are not those"):
        load_model(path)


def test_names_are_looked_up_in_the_folder_of_the_user_first(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(shelf.VARIABLE, str(saved.parent))
    assert shelf.locate("small") == saved
    assert shelf.models()[0].name == "small"
    with pytest.raises(UnknownModelError) as caught:
        shelf.locate("smal")
    assert "small" in caught.value.hint


def test_a_damaged_file_is_listed_with_its_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    monkeypatch.setenv(shelf.VARIABLE, str(tmp_path))
    (broken, *_) = shelf.models()
    assert broken.manifest is None
    assert "not an intact model file" in broken.problem
