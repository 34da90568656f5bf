"""``spine bench`` from the shell: tables, record, files, and refusals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from engines.bench import ceiling, network, whole
from engines.bench.whole import Once
from engines.errors import BenchError
from engines.runtimes import backends
from engines.runtimes.backends import Backend
from spinecli.app import app

DATA = Path(__file__).parents[1] / "data"
CROP = DATA / "tptbox_ct.nii.gz"
ENVELOPE = ("command", "version", "status", "exit_status", "warnings", "error")

pytestmark = pytest.mark.usefixtures("one_thread")


def spine(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def spine_json(*arguments: object) -> tuple[int, dict[str, Any]]:
    done = spine(*arguments, "--json")
    return done.exit_code, json.loads(done.stdout)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "SIZE", {"cpu": 128, "cuda": 512})
    monkeypatch.setattr(network, "BATCH", {"cpu": 2, "cuda": 2})


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a 36 x 47 x 36 piece of the real crop."""
    path = tmp_path_factory.mktemp("scan") / "piece.nii.gz"
    nib.save(nib.load(CROP).slicer[20:56, :, 20:56], path)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for ``spine segment``."""

    def segment(scans: Sequence[Path], *_: object, **__: object) -> Once:
        stages = tuple({"read": 0.5, "network": 1.0} for _ in scans)
        masks = tuple(Path("nowhere") for _ in scans)
        return Once(2.0, stages, 2**30, masks, {"backend": "torch", "precision": "x"})

    monkeypatch.setattr(whole, "segment", segment)


def test_a_real_run_times_everything(piece: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, record = spine_json(
        piece, "--backend", "torch", "--precision", "float32", "--repeats", 1,
        "--plain", "-o", out,
    )  # fmt: skip

    assert (status, record["status"]) == (0, "ok")
    net, ours, theirs = record["measurements"]
    assert [row["kind"] for row in record["measurements"]] == [
        "network", "segment", "plain",
    ]  # fmt: skip
    assert net["ms_per_slice"] > 0
    assert net["gflops"] == pytest.approx(
        net["gflop_per_slice"] / net["ms_per_slice"] * 1e3, rel=0.02
    )
    assert net["rounds"] == network.TURNS
    assert {"read", "write"} <= set(ours["stages"])
    assert ours["wall_seconds"] > ours["stage_seconds"] > 0
    assert ours["peak_memory_bytes"] > 100 * 2**20
    assert ours["backend"] == theirs["backend"] == "torch"
    assert "network" in theirs["stages"]
    ratio = theirs["wall_seconds"] / ours["wall_seconds"]
    assert theirs["times_as_long"] == pytest.approx(ratio, rel=0.01)
    (alike,) = theirs["agreement"]
    assert 0.9 < alike["dice"] <= 1
    assert alike["dice_labels"] > 0.8
    kept = json.loads((out / "bench.json").read_text())
    assert kept["measurements"] == record["measurements"]
    with Image.open(out / "bench.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 1200
        assert np.asarray(picture.convert("L")).std() > 10
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "bench.png"]


@pytest.mark.usefixtures("quick")
def test_json_keeps_the_contract(piece: Path) -> None:
    status, record = spine_json(piece, "--backend", "torch", "--repeats", 1)

    assert status == 0
    assert set(record) == {
        *ENVELOPE, "measurements", "machine", "device", "model", "against",
        "settings", "synthetic", "scans", "ceilings",
    }  # fmt: skip
    assert set(record["machine"]) == {
        "system", "cpu", "cores", "threads", "bfloat16", "memory_gib", "gpu",
        "gpu_memory_gib", "versions",
    }  # fmt: skip
    assert {"spine", "python", "torch"} <= set(record["machine"]["versions"])
    assert record["scans"][0]["shape"] == [36, 47, 36]
    assert record["synthetic"] is False
    assert [one["precision"] for one in record["ceilings"]] == ["float32", "bfloat16"]
    for row in record["measurements"]:
        assert {"name", "kind", "status", "seconds", "error"} <= set(row)
    first, second, _ = record["measurements"]
    assert {first["precision"], second["precision"]} == {"float32", "bfloat16"}
    assert {
        "model", "backend", "backend_version", "precision", "ms_per_slice", "ms_range",
        "slices_per_second", "slices", "batches", "gflop_per_slice", "gflops",
        "ceiling_gflops", "ceiling_precision", "ceiling_stands_in", "share_of_ceiling",
        "times_as_fast", "times_first", "gate", "load_seconds", "rounds",
        "gpu_memory_bytes",
    } <= set(first)  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_tables_are_on_stdout_and_words_on_stderr(piece: Path) -> None:
    done = spine(piece, "--backend", "torch", "--repeats", 1)

    assert done.exit_code == 0
    for told in ("torch float32", "torch bfloat16", "of ceiling", "network", "50%"):
        assert told in done.stdout
    for told in ("machine: ", "scan: piece, 36 x 47 x 36", "1024 MiB at most"):
        assert told in done.stderr
    assert "int8" not in done.stderr


@pytest.mark.usefixtures("quick")
def test_several_scans_tell_how_much_is_hidden(piece: Path) -> None:
    done = spine(piece, CROP, "--backend", "torch", "--repeats", 1)

    assert done.exit_code == 0
    assert "2.0 s for 2 scans" in done.stderr
    assert "the network ran 100% of the time" in done.stderr


@pytest.mark.usefixtures("quick")
def test_one_that_is_not_installed_is_a_row_and_one_that_fails_ends_with_3(
    piece: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {
        "torch": backends.BACKENDS["torch"],
        "absent": Backend(
            "absent", "engines.nowhere:load", ("no_such_library",), "torch",
            "absent-extra", {"cpu": ("int8",)},
        ),
    }  # fmt: skip
    for module in (backends, network):
        monkeypatch.setattr(module, "BACKENDS", held)

    done = spine(piece, "--repeats", 1)

    assert done.exit_code == 0
    assert "not installed" in done.stdout
    assert "pip install 'spinecli[absent-extra]'" in done.stderr

    def load(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(backends.Backend, "missing", lambda row: None)
    monkeypatch.setattr("engines.runtimes.torch_runtime.load", load)
    status, record = spine_json(piece, "--repeats", 1)
    assert (status, record["status"]) == (3, "partial")
    failed = [row for row in record["measurements"] if row["status"] == "failed"]
    assert "no such instruction" in failed[0]["error"]["message"]


def test_a_run_in_which_nothing_works_ends_with_1(
    piece: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BenchError("it broke")

    monkeypatch.setattr(whole, "segment", broken)
    monkeypatch.setattr("engines.runtimes.torch_runtime.load", broken)

    status, record = spine_json(piece, "--backend", "torch", "--repeats", 1)

    assert (status, record["status"]) == (1, "failed")
    assert {row["status"] for row in record["measurements"]} == {"failed"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--backend", "nope"], 2, "no backend is called 'nope'"),
        (["--precision", "nope"], 2, "no precision is called 'nope'"),
        (["--backend", "tensorrt", "--device", "cpu"], 2, "does not run on cpu"),
        (["--model", "nope"], 2, "no model is called 'nope'"),
        (["--against", "nope"], 2, "no model is called 'nope'"),
        (["--repeats", "0"], 2, "--repeats"),
        (["--device", "nope"], 1, "no device is called 'nope'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_timed(
    arguments: list[str], status: int, said: str, piece: Path
) -> None:
    found, record = spine_json(piece, *arguments)

    assert found == status == record["exit_status"]
    assert said in record["error"]["message"]
    assert record.get("measurements", []) == []


def test_a_folder_without_scans_is_an_error(tmp_path: Path) -> None:
    status, record = spine_json(tmp_path)

    assert (status, record["error"]["code"]) == (1, "not_found")


def test_ctrl_c_keeps_what_was_measured(
    piece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Once:
        raise KeyboardInterrupt

    monkeypatch.setattr(whole, "segment", interrupted)

    status, record = spine_json(
        piece, "--backend", "torch", "--repeats", 1, "-o", tmp_path / "out"
    )

    assert (status, record["status"]) == (130, "partial")
    assert record["error"]["code"] == "interrupted"
    assert {row["kind"] for row in record["measurements"]} == {"network"}
    assert list((tmp_path / "out").iterdir()) == []
