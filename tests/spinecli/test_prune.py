"""``spine prune`` from the shell: a smaller model, its report, and refusals."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from engines import labels
from engines.networks import catalog
from engines.networks.manifest import Manifest, load_model, save_model
from engines.networks.probes import summary
from engines.preprocess.recipe import RECIPES
from engines.prune.graph import groups
from spinecli.app import app

DATA = Path(__file__).parents[1] / "data"
TUNING = (
    "batch = 2\npatches = [64]\nviews = ['sagittal']\nsteps = 2\nvalidate_every = 2\n"
)
NETWORK = "linknet-mobilenet-v2"


def spine(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for part in ("one", "two"):
        folder.mkdir(exist_ok=True)
        for ending in ("ct", "seg-vert_msk"):
            shutil.copy(
                DATA / f"tptbox_{ending}.nii.gz", folder / f"{part}_{ending}.nii.gz"
            )
    return folder


@pytest.fixture
def tuning(tmp_path: Path) -> Path:
    path = tmp_path / "tuning.toml"
    path.write_text(TUNING + f"recipe = 'spine-ct'\nnetwork = '{NETWORK}'\n")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "whole.safetensors", "spine")


def write_model(path: Path, classes: str) -> Path:
    torch.manual_seed(0)
    held = labels.CLASS_SETS.get(classes, {"background": 0, "tooth": 1})
    network = catalog.find(NETWORK).build(in_channels=1, classes=len(held))
    manifest = Manifest(
        "whole", NETWORK, held, "ct", ("sagittal",), RECIPES["spine-ct"], patch=64,
        licence="CC0-1.0",
    )  # fmt: skip
    save_model(path, network, manifest)
    return path


def options(model: Path, crop: Path, tuning: Path, out: Path) -> tuple[object, ...]:
    return (
        "prune", model, "--data", crop, "-o", out, "--settings", tuning,
        "--batches", 2,
    )  # fmt: skip


def test_a_pruned_model_is_smaller_and_segments(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "small.safetensors"
    done = spine(
        *options(model, crop, tuning, out), "--flops", "40%", "--steps", 2,
        "--compare", "random", "--split", "80/20",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "gradient 0, round 2" in done.stdout
    small, whole = load_model(out), load_model(model)
    weights = [sum(p.numel() for p in m.network.parameters()) for m in (small, whole)]
    assert weights[0] < 0.6 * weights[1]
    assert out.stat().st_size < 0.6 * model.stat().st_size
    assert whole.probes == ()
    assert summary(small.probes) == {"inputs": 12, "scans": 3}
    held = small.manifest
    assert held.name == "small"
    assert held.parent == {"name": "whole", "sha256": whole.sha256}
    assert held.training["pruning"]["criterion"] == "gradient"
    assert held.metrics[0]["metric"] == "slice Dice"
    folder = out.with_name("small-pruning")
    rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    assert [(r["criterion"], r["seed"], r["round"]) for r in rows] == [
        ("", "0", "0"),
        *((c, s, k) for c in ("gradient", "random") for s in "0" for k in "12"),
    ]
    gflop = [float(r["gflop"]) for r in rows]
    for first, second in zip(rows[1::2], rows[2::2], strict=True):
        assert 0.55 < float(first["gflop"]) / gflop[0] <= 0.4**0.5
        assert 0.3 < float(second["gflop"]) / gflop[0] <= 0.4
    assert "one seed" in (folder / "report.html").read_text()
    for picture in ("report.png", "layers.png"):
        assert (folder / picture).stat().st_size > 10_000
    segmented = tmp_path / "masks"
    assert spine("segment", crop, "-o", segmented, "--model", out).exit_code == 0
    shown = json.loads(spine("models", out, "--json").stdout)["models"][0]
    assert shown["parent"]["name"] == "whole"
    assert shown["gflop_per_slice"] == pytest.approx(float(rows[2]["gflop"]), abs=0.01)


def test_an_interrupted_pruning_goes_on(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small.safetensors"
    how = (*options(model, crop, tuning, out), "--ratio", 0.5, "--steps", 2, "--json")
    first = spine(*how)
    assert first.exit_code == 0, first.stderr
    before = out.read_bytes()
    folder = out.with_name("small-pruning")
    kept = folder / "gradient-0" / "round-1" / "small.safetensors"
    stamp = kept.stat().st_mtime_ns
    last = folder / "gradient-0" / "round-2"
    for name in ("point.json", "checkpoint.pt", "small.safetensors"):
        (last / name).unlink()
    out.unlink()
    assert spine(*how).exit_code == 0
    assert out.read_bytes() == before
    assert kept.stat().st_mtime_ns == stamp
    refused = spine(*how, "--criterion", "random")
    assert refused.exit_code == 2
    assert "other settings" in json.loads(refused.stdout)["error"]["message"]
    assert spine(*how, "--criterion", "random", "--restart").exit_code == 0
    assert out.read_bytes() != before
    scan = nib.load(crop / "one_ct.nii.gz")
    brighter = nib.Nifti1Image(np.asarray(scan.dataobj) + 1, scan.affine)
    nib.save(brighter, crop / "one_ct.nii.gz")
    refused = spine(*how, "--criterion", "random")
    assert refused.exit_code == 2
    assert "other settings or scans" in json.loads(refused.stdout)["error"]["message"]


def test_a_plan_is_written_changed_and_applied(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small.safetensors"
    how = options(model, crop, tuning, out)
    looked = spine(*how, "--ratio", "50%", "--dry-run", "--json")
    assert looked.exit_code == 0, looked.stderr
    path = Path(json.loads(looked.stdout)["plan"])
    assert path.name == "small-plan.json"
    assert not out.exists()
    assert not out.with_name("small-pruning").exists()
    record = json.loads(path.read_text())
    for group in record["groups"][1:]:
        group["remove"] = []
    group = record["groups"][0]
    path.write_text(json.dumps(record))
    done = spine(*how, "--plan", path, "--finetune", 0)
    assert done.exit_code == 0, done.stderr
    assert "plan 0, round 1" in done.stdout
    assert load_model(out).manifest.training["pruning"]["criterion"] == "plan"
    network = load_model(out).network
    left = network.get_submodule(group["name"]).get_parameter("weight").shape[0]
    assert left == group["channels"] - len(group["remove"])
    record["groups"][0]["remove"] = [*range(group["channels"])]
    path.write_text(json.dumps(record))
    refused = spine(*how, "--plan", path, "--restart")
    assert refused.exit_code == 1
    assert "vanish" in refused.stderr
    record["sha256"] = "0" * 64
    record["groups"][0]["remove"] = [0]
    path.write_text(json.dumps(record))
    refused = spine(*how, "--plan", path, "--restart")
    assert refused.exit_code == 2
    assert "another model" in refused.stderr


def test_mask_only_silences_and_holds(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    out = tmp_path / "quiet.safetensors"
    done = spine(
        *options(model, crop, tuning, out), "--ratio", 0.5, "--mask-only", "--json"
    )
    assert done.exit_code == 0, done.stderr
    point = json.loads(done.stdout)["points"][-1]
    assert point["left"] == pytest.approx(0.5, abs=0.1)
    network = load_model(out).network
    whole = load_model(model).network
    assert {n: p.shape for n, p in network.named_parameters()} == {
        n: p.shape for n, p in whole.named_parameters()
    }
    chosen = groups(whole, torch.rand(1, 1, 64, 64))
    silent = total = 0
    for group in chosen:
        weight = network.get_submodule(group.name).get_parameter("weight")
        silent += int((~weight.flatten(1).any(dim=1)).sum())
        total += group.size
    assert 0.4 < silent / total < 0.6


def test_latency_is_reached(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fast.safetensors"
    how = options(model, crop, tuning, out)
    refused = spine(*how, "--latency", "0.001ms", "--criterion", "magnitude")
    assert refused.exit_code == 1
    assert "ms is the least" in refused.stderr
    done = spine(
        *how, "--latency", "1000 ms", "--criterion", "magnitude", "--finetune", 0,
        "--restart",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ((), 2, "one target"),
        (("--ratio", "0.5", "--flops", "50%"), 2, "one target"),
        (("--ratio", "0"), 2, "between 0 and 1"),
        (("--ratio", "1"), 2, "between 0 and 1"),
        (("--ratio", "150%"), 2, "between 0 and 1"),
        (("--ratio", "much"), 2, "'much'"),
        (("--latency", "soon"), 2, "'soon'"),
        (("--ratio", "0.999"), 1, "vanish"),
        (("--flops", "0.1%"), 1, "vanish"),
        (("--ratio", "0.5", "--criterion", "luck"), 2, "'luck'"),
        (("--ratio", "0.5", "--compare", "luck"), 2, "'luck'"),
        (("--ratio", "0.5", "--scope", "wide"), 2, "'wide'"),
        (("--ratio", "0.5", "--regulariser", "l3"), 2, "'l3'"),
        (("--flops", "0.5", "--mask-only"), 2, "save nothing"),
        (("--ratio", "0.5", "--mask-only", "--steps", "2"), 2, "one round"),
    ],
)
def test_refusals(
    more: tuple[str, ...],
    status: int,
    said: str,
    model: Path,
    crop: Path,
    tuning: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "small.safetensors"
    quick = () if "--criterion" in more else ("--criterion", "magnitude")
    refused = spine(*options(model, crop, tuning, out), *more, *quick)
    assert refused.exit_code == status, refused.stderr
    assert said in refused.stderr
    assert "hint:" in refused.stderr
    assert not out.exists()


def test_data_that_do_not_fit_are_refused_before_anything_is_done(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small.safetensors"
    ratio = ("--ratio", "0.5")
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(DATA / "tptbox_ct.nii.gz", empty)
    refused = spine(*options(model, empty, tuning, out), *ratio)
    assert (refused.exit_code, "no image with a mask" in refused.stderr) == (1, True)
    odd = write_model(tmp_path / "odd.safetensors", "teeth")
    refused = spine(*options(odd, crop, tuning, out), *ratio)
    assert (refused.exit_code, "tooth" in refused.stderr) == (2, True)
    regions = write_model(tmp_path / "regions.safetensors", "regions")
    tuning.write_text(tuning.read_text() + "[[source]]\npath='.'\nscheme='binary'\n")
    refused = spine(*options(regions, crop, tuning, out), *ratio)
    assert (refused.exit_code, "binary masks" in refused.stderr) == (2, True)
    other = tmp_path / "other.toml"
    other.write_text("network = 'unet'\nrecipe = 'spine-ct'\n")
    refused = spine(*options(model, crop, other, out), *ratio)
    assert (refused.exit_code, "network" in refused.stderr) == (2, True)
    other.write_text(f"network = '{NETWORK}'\nrecipe = 'chasppra-2023'\n")
    refused = spine(*options(model, crop, other, out), *ratio)
    assert (refused.exit_code, "otherwise" in refused.stderr) == (2, True)
    assert not out.with_name("small-pruning").exists()


def test_the_output_is_another_model_file(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    for out, said in ((model, "should be pruned"), (tmp_path / "small", "no name")):
        refused = spine(*options(model, crop, tuning, out), "--ratio", 0.5)
        assert refused.exit_code == 2
        assert said in refused.stderr


def test_labels_outside_the_classes_are_refused(
    model: Path, crop: Path, tuning: Path, tmp_path: Path
) -> None:
    path = crop / "one_seg-vert_msk.nii.gz"
    read = nib.nifti1.load(path)
    voxels = np.asarray(read.dataobj).astype(np.uint8)
    voxels[voxels > 0] = 77
    nib.nifti1.save(nib.nifti1.Nifti1Image(voxels, read.affine), path)
    refused = spine(
        *options(model, crop, tuning, tmp_path / "small.safetensors"), "--ratio", 0.5,
        "--split", "all",
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "77" in refused.stderr
