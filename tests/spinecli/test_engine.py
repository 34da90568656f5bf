"""``spine engine``: the shipped model for cards that are not here, and refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engines.runtimes import backends, pins, verdicts
from engines.runtimes.cache import Cache
from spinecli.app import app

ENVELOPE = {"command", "version", "status", "exit_status", "warnings", "error"}
ENGINE = {
    "name", "path", "model", "backend", "backend_version", "precision", "targets",
    "gpu", "driver", "profile", "size_bytes", "sha256", "made",
}  # fmt: skip
BUILT = {"fresh", "seconds"}
CLEARED = {"removed", "removed_verdicts", "removed_pins"}
ORDERED = ("backend", "precision", "ms_per_slice")
WHOLE = {"settings", "memory", "tensors", "layer_precisions", "layers"}


def spine(*words: str) -> Any:
    return CliRunner().invoke(app, ["engine", *words], env={"COLUMNS": "200"})


def record_of(done: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == record["exit_status"]
    return record


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the shipped model for two cards; return the folder of the cache."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_CACHE", str(folder))
        done = spine("build", "unet-r34", "--for", "sm86,sm120", "--json")
    record = record_of(done)
    assert (record["command"], record["status"]) == ("engine build", "ok")
    assert set(record) == ENVELOPE | {"engine"}
    assert set(record["engine"]) == ENGINE | BUILT
    assert record["engine"]["fresh"]
    assert record["engine"]["targets"] == ["sm86", "sm120"]
    return folder


@pytest.fixture
def cache(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINE_CACHE", str(built))
    return built


@pytest.mark.usefixtures("cache")
def test_an_engine_that_is_there_is_not_built_again() -> None:
    done = spine("build", "unet-r34", "--for", "sm120,sm86")

    assert done.exit_code == 0
    assert "unet-r34-tensorrt-rtx-float16-" in done.stdout
    assert "it was there already" in done.stderr


def test_listing(cache: Path) -> None:
    record = record_of(spine("list", "--json"))

    assert set(record) == ENVELOPE | {"folder", "engines"}
    assert record["folder"] == str(cache)
    assert [set(one) for one in record["engines"]] == [ENGINE]
    done = spine("list")
    assert record["engines"][0]["name"] in done.stdout
    assert "sm86, sm120" in done.stdout
    assert f"folder: {cache}" in done.stderr


@pytest.mark.usefixtures("cache")
def test_inspecting() -> None:
    record = record_of(spine("inspect", "unet-r34", "--json"))

    (engine,) = record["engines"]
    assert set(engine) == ENGINE | WHOLE
    assert engine["model"]["path"].endswith("unet-r34.safetensors")
    assert engine["settings"]["precision"] == "float16"
    assert engine["memory"]["weights_bytes"] > 5_000_000
    assert engine["layer_precisions"]["float16"] > 40
    assert engine["tensors"][1] == {
        "name": "logits",
        "precision": "float32",
        "shape": [-1, 5, -1, -1],
    }
    done = spine("inspect", "unet-r34")
    assert engine["layers"][-1]["name"] in done.stdout
    assert "memory: " in done.stdout
    assert f"model file: {engine['model']['path']}" in done.stdout
    assert "{" not in done.stdout
    assert "any x 5 x any x any" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "code", "message"),
    [
        (["build", "nothing", "--for", "sm86"], 2, "unknown_model", "'nothing'"),
        (["build", "unet-r34", "--for", "sm90"], 2, "settings", "'sm90'"),
        (
            ["build", "unet-r34", "--backend", "openvino", "--precision", "float16"],
            2,
            "settings",
            "does not compute in float16",
        ),
        (["tune", "nothing"], 2, "unknown_model", "'nothing'"),
        (["tune", "unet-r34", "--device", "tpu"], 1, "device", "'tpu'"),
        (["tune", "unet-r34", "--repeats", "0"], 2, "usage", "--repeats"),
        (["build", "unet-r34", "--batch", "0"], 2, "usage", "--batch"),
        (["build", "unet-r34", "--batch", "x"], 2, "usage", "--batch"),
        (["build", "unet-r34", "--backend", "torch"], 2, "settings", "torch is not"),
        (["build", "unet-r34", "--device", "cpu"], 1, "device", "no GPU here"),
        (["build"], 2, "usage", "MODEL"),
        (["inspect", "nothing"], 2, "settings", "'nothing'"),
        (["clear", "nothing"], 2, "settings", "'nothing'"),
        (["nothing"], 2, "usage", "nothing"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_refusals(words: list[str], status: int, code: str, message: str) -> None:
    record = record_of(spine(*words, "--json"))

    assert record["exit_status"] == status
    assert record["error"]["code"] == code
    assert message in record["error"]["message"]


def test_a_missing_library_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends.Backend, "missing", lambda row: row.libraries[0])

    done = spine("build", "unet-r34", "--backend", "tensorrt", "--json")

    record = record_of(done)
    assert (record["exit_status"], record["error"]["code"]) == (1, "missing_backend")
    assert record["error"]["hint"] == "Run: pip install 'spinecli[tensorrt]'"


def test_clearing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))
    (tmp_path / "old.engine").write_bytes(b"torn")

    record = record_of(spine("clear", "--json"))

    assert set(record) == ENVELOPE | CLEARED
    assert record["removed"] == ["old"]
    assert list(tmp_path.iterdir()) == []
    assert "removed: no engine" in spine("clear").stderr


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tune the shipped model on the CPU; return the folder of the cache."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_CACHE", str(folder))
        record = record_of(
            spine("tune", "unet-r34", "--device", "cpu", "--repeats", "1", "--json")
        )
    assert set(record) == ENVELOPE | {"candidates", "pin"}
    timed = [one for one in record["candidates"] if one["ms_per_slice"] is not None]
    speeds = [one["ms_per_slice"] for one in timed]
    assert speeds == sorted(speeds)
    assert ("torch", "float32") in {(one["backend"], one["precision"]) for one in timed}
    assert all(one["gate"] is None or one["gate"]["passed"] for one in timed)
    assert [{k: one[k] for k in ORDERED} for one in timed] == record["pin"]["order"]
    return folder


@pytest.fixture
def copied(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tuned, tmp_path / "cache")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_pinned_order_is_shown_and_forgotten(copied: Path) -> None:
    assert len(pins.files()) == 1
    shown = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["checks"]
    (order,) = [one for one in shown if one["name"] == "order unet-r34"]
    assert order["details"]["model"] == "unet-r34"

    forget = ("tune", "unet-r34", "--device", "cpu", "--forget")
    assert record_of(spine(*forget, "--json"))["forgotten"] is True
    assert pins.files() == []
    assert record_of(spine(*forget, "--json"))["forgotten"] is False
    assert "nothing was pinned" in spine(*forget).stderr


def test_doctor_shows_what_the_gate_said(copied: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    shown = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    kept, _ = verdicts.kept()
    assert {one.problem for one in kept} == {""}
    for one in kept:
        row = shown[f"gate unet-r34 {one.key.backend} {one.key.precision}"]
        assert row["details"] == one.as_json()
        assert row["value"].startswith("passed" if one.passed else "failed")
        assert one.judged[:10] in row["value"]
        assert row["status"] == "ok"
    people = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert f"gate unet-r34 {kept[0].key.backend}" in people.stdout

    damaged = verdicts.files()[0]
    damaged.write_bytes(b"{}")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    (row,) = [one for one in json.loads(done.stdout)["checks"] if one["name"] == "gate"]
    assert (row["status"], row["value"]) == ("warning", f"damaged: {damaged.name}")


def test_clearing_a_model_takes_its_verdicts_and_order_along(copied: Path) -> None:
    engines, judged = len(Cache().names()), len(verdicts.files())
    assert judged >= 1

    assert spine("clear", "unet-x").exit_code == 2
    record = record_of(spine("clear", "unet-r34", "--json"))

    assert set(record) == ENVELOPE | CLEARED
    assert len(record["removed"]) == engines
    assert (record["removed_verdicts"], record["removed_pins"]) == (judged, 1)
    assert verdicts.kept() == ([], [])
    assert pins.kept() == ([], [])
    assert record_of(spine("clear", "unet-r34", "--json"))["exit_status"] == 2


def test_int8_is_built_without_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))
    words = ("build", "unet-r34", "--backend", "openvino", "--precision", "int8")

    first, again = (record_of(spine(*words, "--json"))["engine"] for _ in range(2))

    assert (first["fresh"], first["precision"]) == (True, "int8")
    assert not again["fresh"]
    assert again["name"] == first["name"]


def test_without_a_command_there_is_help() -> None:
    done = spine()

    assert done.exit_code == 2
    for word in ("build", "list", "inspect", "tune", "clear"):
        assert word in done.output
