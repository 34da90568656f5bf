"""Every model that comes with the program can be used with every command, small."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from engines.bench import ceiling
from engines.networks import catalog, shelf
from engines.networks.manifest import read_manifest
from engines.runtimes import backends
from engines.segment import views
from spinecli.app import app
from tests import data_sets
from tests.spinecli.test_documented_lines import an_mr

SHIPPED = sorted(path.stem for path in shelf.SHIPPED.glob("*.safetensors"))
MANIFESTS = {name: read_manifest(shelf.locate(name)) for name in SHIPPED}
CLASS_SET = {"unet-r34": "regions", "mru-net-3d": "vertebrae"}
WAYS = [
    (row.name, precision)
    for row in backends.BACKENDS.values()
    for precision in row.precisions.get("cpu", ())
]

pytestmark = pytest.mark.usefixtures("one_thread", "small_ceiling")
model = pytest.mark.parametrize("name", SHIPPED)


@pytest.fixture
def small_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply small matrices where a machine's speed is measured."""
    monkeypatch.setattr(ceiling, "SIZE", {"cpu": 256, "cuda": 512})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder of two scans with masks for each modality."""
    root = tmp_path_factory.mktemp("data")
    for name, (scan, mask) in {
        "a": data_sets.small(),
        "b": data_sets.other(),
    }.items():
        masks = {f"{name}_ct": scan, f"{name}_seg-vert_msk": mask}
        data_sets.write(root / "ct", **masks)
    for seed in (0, 1):
        an_mr(root / "mr", seed)
    return {"ct": root / "ct", "mr": root / "mr"}


def of(name: str, data: dict[str, Path]) -> Path:
    return data[MANIFESTS[name].modality]


def scan_of(name: str, data: dict[str, Path]) -> Path:
    kind = MANIFESTS[name].modality
    return sorted(data[kind].glob(f"*_{kind}.nii.gz"))[0]


def record_of(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    record = json.loads(done.stdout)
    assert done.exit_code == 0, record["error"] or record.get("cases")
    return dict(record)


@model
def test_a_plan_of_a_pruning(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    record = record_of(
        "prune", name, "--data", of(name, data), "-o", out,
        "--ratio", "30%", "--dry-run", "--batches", "1", "--split", "all",
    )  # fmt: skip
    assert Path(record["plan"]).is_file()


@model
def test_a_pruning_by_a_plan_labels_as_its_model_does(
    name: str, data: dict[str, Path], tmp_path: Path
) -> None:
    """The recipe of the small model is that of the large one, to the last number."""
    out = tmp_path / "small.safetensors"
    same = ("prune", name, "--data", of(name, data), "-o", out, "--split", "all")
    plan = record_of(*same, "--ratio", "30%", "--dry-run", "--batches", "1")["plan"]
    record_of(*same, "--plan", plan, "--finetune", "0")
    made, given = read_manifest(out), MANIFESTS[name]
    assert made.recipe.as_json() | {"name": ""} == given.recipe.as_json() | {"name": ""}
    assert (made.guide, made.views) == (given.guide, given.views)
    assert dict(made.classes) == dict(given.classes)
    again = record_of(
        "segment", scan_of(name, data), "-o", tmp_path / "out", "--model", out,
        "--force",
    )  # fmt: skip
    assert again["cases"][0]["status"] == "done"


@model
def test_a_fine_tuning(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    """A step of it, after the filters have left."""
    out = tmp_path / "small.safetensors"
    settings = tmp_path / "s.toml"
    held = MANIFESTS[name].training["settings"]
    keep = ("recipe", "spacing_mm", "size", "loss", "clamp", "normalisation")
    lines = [f"{k} = {json.dumps(held[k])}" for k in keep if held.get(k)]
    size = 32 if catalog.find(MANIFESTS[name].architecture).dimensions == 3 else 64
    lines += ["steps = 1", "batch = 2", f"patches = [{size}]"]
    lines = [line for line in lines if not line.startswith("size")]
    settings.write_text("\n".join(lines) + "\n")
    record_of(
        "prune", name, "--data", of(name, data), "-o", out, "--ratio", "20%",
        "--batches", "1", "--settings", settings, "--split", "all",
    )  # fmt: skip
    assert read_manifest(out).recipe.spacing_mm == MANIFESTS[name].recipe.spacing_mm


@model
def test_it_is_the_parent_of_a_training(
    name: str, data: dict[str, Path], tmp_path: Path
) -> None:
    spec = catalog.find(MANIFESTS[name].architecture)
    kind = MANIFESTS[name].modality
    settings = tmp_path / "s.toml"
    edge = 32 if spec.dimensions == 3 else 64
    settings.write_text(f"patches = [{edge}]\nsteps = 1\nbatch = 2\n")
    recipe = "lumbar-mr-2025" if kind == "mr" else "spine-ct"
    size = ("--size", edge) if kind == "mr" else ()
    record = record_of(
        "train", "--data", of(name, data), "-o", tmp_path / "run", "--parent", name,
        "--network", spec.name, "--classes", CLASS_SET.get(name, "spine"),
        "--settings", settings, "--recipe", recipe, "--split", "all", *size,
    )  # fmt: skip
    made = read_manifest(Path(record["last"]["model"]))
    assert made.parent is not None
    assert made.parent["name"] == name
    assert made.modality == kind


@model
@pytest.mark.parametrize("backend", ["openvino", "tensorrt-rtx"])
def test_engines_are_built_of_it(
    name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backends.find(backend).missing() is not None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))
    gpus = ("--for", "sm89") if backend == "tensorrt-rtx" else ()
    record = record_of("engine", "build", name, "--backend", backend, *gpus)
    assert record["engine"]["fresh"]
    (kept,) = record_of("engine", "inspect", name)["engines"]
    assert kept["model"]["path"] == str(shelf.locate(name))


@model
def test_it_is_timed(name: str, data: dict[str, Path]) -> None:
    record = record_of(
        "bench", scan_of(name, data), "--model", name, "--repeats", "1",
        "--backend", "torch", "--precision", "float32",
    )  # fmt: skip
    assert record["status"] == "ok"


@model
def test_its_robustness(name: str, data: dict[str, Path]) -> None:
    words = ("--robustness", "--model", name, "--only", "orientation-LPS")
    folder = str(of(name, data))
    if MANIFESTS[name].modality == "mr":  # alterations are those of CT
        done = CliRunner().invoke(app, ["evaluate", folder, folder, *words, "--json"])
        assert done.exit_code == 2
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "settings"
        assert error["hint"]
        return
    record = record_of("evaluate", data["ct"] / "a_ct.nii.gz", data["ct"], *words)
    (row,) = record["robustness"]
    assert row["alteration"] == "orientation-LPS"
    assert row["identical"] is True


@model
def test_its_page_and_what_the_terminal_says(name: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    record_of("models", name, "--page", page)
    assert name in page.read_text()


@model
@pytest.mark.parametrize("view", [*views.NORMALS, "all"])
def test_each_view(name: str, view: str, data: dict[str, Path], tmp_path: Path) -> None:
    """One that it knows is used; another is refused by its name."""
    words = ["segment", str(scan_of(name, data)), "-o", str(tmp_path), "--model", name]
    words += ["--force", "--backend", "torch", "--precision", "float32", "--json"]
    done = CliRunner().invoke(app, [*words, "--views", view])
    record = json.loads(done.stdout)
    known = MANIFESTS[name].views
    if view in known or (view == "all" and set(known) == set(views.NORMALS)):
        assert done.exit_code == 0, record
        assert record["cases"][0]["status"] == "done"
    else:
        assert done.exit_code == 2
        assert record["error"]["code"] == "settings"
        assert f"{name} was not trained on" in record["error"]["message"]


@model
@pytest.mark.parametrize(("backend", "precision"), WAYS)
def test_each_backend_in_each_precision(
    name: str,
    backend: str,
    precision: str,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It computes, gives way with its reason, or is refused with a typed error."""
    if backends.find(backend).missing() is not None:
        pytest.skip(f"{backend} is not installed")
    if (backend, precision) == ("torch", "bfloat16") and "3d" not in name:
        torch.set_num_threads(2)
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(
        app,
        ["segment", str(scan_of(name, data)), "-o", str(tmp_path / "out"), "--model",
         name, "--force", "--backend", backend, "--precision", precision, "--json"],
    )  # fmt: skip
    record = json.loads(done.stdout)
    (case,) = record["cases"]
    if case["status"] == "failed":
        assert case["error"]["code"] == "backend", case["error"]
        assert "cannot run this network" in case["error"]["message"]
        return
    used = {(one["backend"], one["precision"]) for one in case["computed"]}
    codes = {note["code"] for note in case["warnings"]}
    assert used == {(backend, precision)} or codes & {
        "backend_refused", "backend_failed",
    }  # fmt: skip
