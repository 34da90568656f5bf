"""``spine models``: what is there, in a table and in JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines.labels import REGION_CLASSES
from engines.networks import catalog
from spinecli.app import app

KEYS = {
    "name", "architecture", "path", "sha256", "classes", "modality", "views",
    "parameters", "gflop_per_slice", "size_bytes", "licence", "accuracy", "parent",
    "probes",
}  # fmt: skip


def test_json_keeps_the_contract() -> None:
    done = CliRunner().invoke(app, ["models", "--json"])
    assert done.exit_code == 0
    models = {model["name"]: model for model in json.loads(done.stdout)["models"]}
    shipped = models["unet-r34"]
    assert set(shipped) >= KEYS
    assert shipped["classes"] == dict(REGION_CLASSES)
    assert shipped["licence"] == "CC-BY-SA-4.0"
    assert shipped["parameters"]["trainable"] < 0.2 * 24_430_242
    assert shipped["gflop_per_slice"] < 0.25 * 15.44
    assert shipped["size_bytes"] < 15_000_000
    assert shipped["parent"]["name"] == "unet-r34"
    assert shipped["probes"] == {"inputs": 12, "scans": 3}
    assert models["resunet"]["probes"] is None
    assert all({"metric", "value", "data"} <= set(row) for row in shipped["accuracy"])
    assert all(source["licence"] for source in shipped["training"]["sources"])


def test_table_names_the_shipped_model() -> None:
    done = CliRunner().invoke(app, ["models"])
    assert done.exit_code == 0
    assert "unet-r34" in done.stdout


@pytest.mark.parametrize(
    ("name", "probes"),
    [
        ("unet-r34", "12 slices of 3 scans"),
        ("mru-net-3d", "3 cubes of 3 scans"),
        ("inception-dual-unet", "12 slices of 3 scans"),
    ],
)
def test_one_model_is_told_in_words(name: str, probes: str) -> None:
    """What it does, figures, training, licence and limits; no raw record."""
    done = CliRunner().invoke(app, ["models", name])
    assert done.exit_code == 0
    for word in (
        "which marks", "Accuracy", "Dice", "Trained by: spine train", "Training data",
        "Licence of the weights: CC-BY-SA-4.0", "Where it fails", "SHA-256",
    ):  # fmt: skip
        assert word in done.stdout
    assert f"Golden probes: {probes}" in done.stdout
    assert "{" not in done.stdout
    assert "labelled:" not in done.stdout
    assert len(done.stdout.splitlines()) < 150


def test_an_unknown_name_lists_the_known() -> None:
    done = CliRunner().invoke(app, ["models", "nothing"])
    assert done.exit_code == 2
    assert "unet-r34" in done.stderr


def test_a_damaged_file_is_named_and_the_others_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.safetensors").write_text("no")
    monkeypatch.setenv("SPINE_MODELS", str(tmp_path))
    done = CliRunner().invoke(app, ["models", "--json"])
    record = json.loads(done.stdout)
    assert done.exit_code == 0
    assert "broken" in record["warnings"][0]["message"]
    names = {model["name"] for model in record["models"]}
    assert names == {"broken", *catalog.NETWORKS}


def test_a_network_without_weights_has_no_path() -> None:
    done = CliRunner().invoke(app, ["models", "transunet", "--json"])
    (network,) = json.loads(done.stdout)["models"]
    assert network["path"] is None
    assert network["modality"] == "mr"
    assert network["parameters"]["total"] == 23_979_010


def test_the_page_of_a_model(tmp_path: Path) -> None:
    page = tmp_path / "new" / "model.html"
    done = CliRunner().invoke(app, ["models", "unet-r34", "--page", str(page)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "Where it fails" in page.read_text()


def test_the_page_of_a_network_without_weights(tmp_path: Path) -> None:
    page = tmp_path / "model.html"
    done = CliRunner().invoke(app, ["models", "unet", "--page", str(page), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["models"][0]["path"] is None
    assert "comes without weights" in page.read_text()


def test_a_page_needs_a_name(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["models", "--page", str(tmp_path / "model.html")])
    assert done.exit_code == 2
    assert "needs the name of a model" in done.stderr
