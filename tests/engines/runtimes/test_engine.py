"""Engines ahead of their use: built from a model file, listed, inspected, cleared."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engines.errors import (
    MissingBackendError,
    ModelFileError,
    OutputError,
    SettingsError,
    UnknownModelError,
)
from engines.labels import SPINE_CLASSES
from engines.networks import catalog, shelf
from engines.networks.manifest import Manifest, Model
from engines.preprocess.recipe import RECIPES
from engines.runtimes import backends, engine, export, pins, verdicts
from engines.runtimes.cache import Cache, Key
from engines.runtimes.devices import CPU
from engines.runtimes.engine import Cleared
from engines.runtimes.plan import Wanted
from engines.runtimes.verdicts import Verdict

EXPORTED: dict[str, bytes] = {}
"""Precision -> the small network, exported once for all tests."""

FOR_TWO = Wanted("float16", 2, ("sm86", "sm89"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small_model(name: str) -> Model:
    """Return a model of one convolution, whose file has ``name`` for its hash."""
    torch.manual_seed(0)
    spec = catalog.find("unet-r34")
    recipe = RECIPES[spec.recipe]
    manifest = Manifest("small", spec.name, SPINE_CLASSES, "ct", spec.views, recipe)
    network = nn.Conv2d(1, 2, 3, padding=1).eval()
    return Model(manifest, network, name.rjust(64, "0"), Path(name))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a small network in the place of every model."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

    def exported(model: Model, precision: str, *_: object) -> bytes:
        if precision not in EXPORTED:
            EXPORTED[precision] = onnx_bytes(model, precision, (64, 64))
        return EXPORTED[precision]

    onnx_bytes = export.onnx_bytes
    monkeypatch.setattr(export, "onnx_bytes", exported)
    monkeypatch.setattr(shelf, "open", small_model)


@pytest.mark.usefixtures("model")
def test_an_engine_is_built_once_and_told_of(folder: Path) -> None:
    built = engine.build("a", "tensorrt-rtx", FOR_TWO)
    again = engine.build("a", "tensorrt-rtx", FOR_TWO)

    assert (built.fresh, again.fresh) == (True, False)
    record = built.as_json()
    assert record["backend"] == "tensorrt-rtx"
    assert record["targets"] == ["sm86", "sm89"]
    assert record["model"] == {
        "name": "small",
        "sha256": "a".rjust(64, "0"),
        "path": None,
    }
    assert Path(record["path"]).stat().st_size == record["size_bytes"]
    (listed,) = engine.listing()
    assert {**listed.as_json(), "fresh": True, "seconds": record["seconds"]} == record


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    "other",
    [
        Wanted("float32", 2, ("sm86", "sm89")),
        Wanted("float16", 3, ("sm86", "sm89")),
        Wanted("float16", 2, ("sm86",)),
    ],
)
def test_other_wishes_are_another_engine(other: Wanted) -> None:
    names = {engine.build("a", "auto", each).entry.name for each in (FOR_TWO, other)}

    assert len(names) == 2


@pytest.mark.usefixtures("model")
def test_another_model_file_is_another_engine() -> None:
    assert (
        engine.build("a", wanted=FOR_TWO).entry.name
        != engine.build("b", wanted=FOR_TWO).entry.name
    )


@pytest.mark.usefixtures("model")
def test_an_engine_is_inspected_by_how_its_name_begins() -> None:
    name = engine.build("a", wanted=FOR_TWO).entry.name

    (kept,), notes = engine.inspect("small-")
    record = kept.as_json(whole=True)

    assert notes == []
    assert record["name"] == name
    assert record["settings"]["profile"]["batch"] == 2
    assert record["settings"]["targets"] == ["sm86", "sm89"]
    assert record["memory"]["activations_bytes"] > 0
    counted = [layer for layer in record["layers"] if layer["precision"]]
    assert sum(record["layer_precisions"].values()) == len(counted) > 0
    assert "float16" in record["layer_precisions"]


@pytest.mark.usefixtures("model")
def test_all_engines_whose_names_begin_so_are_inspected() -> None:
    built = [engine.build(name, wanted=FOR_TWO) for name in "ab"]

    found, notes = engine.inspect("small")

    assert {one.entry.name for one in found} == {one.entry.name for one in built}
    assert notes == []
    damaged = built[0].entry.path
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found, notes = engine.inspect("small")
    assert [one.entry.name for one in found] == [built[1].entry.name]
    assert [note.code for note in notes] == ["damaged"]
    with pytest.raises(SettingsError, match="no engine's name begins with 'x'") as one:
        engine.inspect("x")
    assert "spine engine list" in one.value.hint


@pytest.mark.usefixtures("model")
def test_a_damaged_engine_is_not_inspected() -> None:
    path = engine.build("a", wanted=FOR_TWO).entry.path
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(OutputError, match=r"\.engine is damaged"):
        engine.inspect("small")

    assert engine.build("a", wanted=FOR_TWO).fresh
    (kept,), _ = engine.inspect("small")
    assert kept.entry.path == path


@pytest.mark.usefixtures("model")
def test_clearing_some_and_all(folder: Path) -> None:
    one, two = [engine.build(name, wanted=FOR_TWO).entry.name for name in "ab"]
    (folder / ".spine-part-1-small-old.engine").write_bytes(b"torn")

    with pytest.raises(SettingsError, match="begins with 'x'"):
        engine.clear([one, "x"])
    assert engine.clear([one]) == Cleared([one], 0, 0, [])
    assert [kept.entry.name for kept in engine.listing()] == [two]
    assert engine.clear() == Cleared(sorted([two, "small-old"]), 0, 0, [])
    assert list(folder.iterdir()) == []
    assert engine.clear() == Cleared([], 0, 0, [])


def a_verdict(title: str, device: str) -> Verdict:
    key = Key("0" * 64, "openvino", "1", "float32", verdicts.ANY, device=device)
    return verdicts.new(title, key, problem="x")


def test_clearing_verdicts_and_pins_by_name(folder: Path) -> None:
    for title, device in (("a", "x"), ("a", "y"), ("b", "x")):
        verdicts.keep(a_verdict(title, device))
    model = small_model("0")
    pins.keep(model, CPU, pins.new(model, CPU, []))
    (folder / "verdicts" / "b-torn.json").write_bytes(b"")
    (folder / "verdicts" / "kept.txt").write_bytes(b"")

    assert engine.clear(["a-"]) == Cleared([], 2, 0, [])
    assert engine.clear(["small"]) == Cleared([], 0, 1, [])
    with pytest.raises(SettingsError, match="begins with 'a-'"):
        engine.clear(["a-"])
    assert engine.clear() == Cleared([], 2, 0, [])
    assert [path.name for path in folder.rglob("*.*")] == ["kept.txt"]


def test_a_folder_that_may_not_be_changed_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts.keep(a_verdict("a", "x"))

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", closed)
    with pytest.raises(OutputError, match="Permission denied") as caught:
        engine.clear()
    assert "SPINE_CACHE" in caught.value.hint


@pytest.mark.usefixtures("model")
def test_what_is_being_built_is_not_cleared() -> None:
    name = engine.build("a", wanted=FOR_TWO).entry.name

    with Cache()._locked(name):
        cleared = engine.clear()

    assert (cleared.engines, [note.code for note in cleared.notes]) == ([], ["busy"])
    assert len(engine.listing()) == 1


@pytest.mark.usefixtures("model")
def test_building_where_nothing_can_be_kept_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.raises(OutputError, match="was not kept") as caught:
        engine.build("a", wanted=FOR_TWO)
    assert "SPINE_CACHE" in caught.value.hint


def test_an_empty_cache_lists_nothing() -> None:
    assert engine.listing() == []


@pytest.mark.usefixtures("missing_nothing")
def test_unknown_and_damaged_models(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="nothing"):
        engine.build("nothing", "tensorrt-rtx", FOR_TWO)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"torn")
    with pytest.raises(ModelFileError, match="not an intact model file"):
        engine.build(str(torn), "tensorrt-rtx", FOR_TWO)


@pytest.fixture
def missing_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.Backend, "missing", lambda _: None)


def lacking(*names: str) -> Any:
    """Return a stand-in for ``Backend.missing`` on a machine that lacks libraries."""
    return lambda row: next((one for one in row.libraries if one in names), None)


def test_backends_without_engines_are_refused() -> None:
    with pytest.raises(SettingsError, match="torch is not a backend") as caught:
        engine.build("unet-r34", "torch")
    assert caught.value.hint == f"Choose one of: {', '.join(engine.BUILDERS)}."
    with pytest.raises(SettingsError, match="no backend is called 'cuda'"):
        engine.build("unet-r34", "cuda")


@pytest.mark.parametrize(
    ("backend", "library", "extra"),
    [
        ("tensorrt", "tensorrt", "tensorrt"),
        ("tensorrt-rtx", "tensorrt_rtx", "rtx"),
        ("tensorrt-rtx", "onnx", "rtx"),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, backend: str, library: str, extra: str
) -> None:
    monkeypatch.setattr(backends.Backend, "missing", lacking(library))

    with pytest.raises(MissingBackendError, match=f"the package {library},") as caught:
        engine.build("unet-r34", backend, FOR_TWO)
    assert caught.value.hint == f"Run: pip install 'spinecli[{extra}]'"


@pytest.mark.parametrize(
    ("lacks", "wanted", "expected"),
    [
        ((), Wanted(), "tensorrt"),
        ((), FOR_TWO, "tensorrt-rtx"),
        (("tensorrt",), Wanted(), "tensorrt-rtx"),
        (("tensorrt", "tensorrt_rtx"), Wanted(), "openvino"),
        (("tensorrt", "tensorrt_rtx", "openvino"), Wanted(), "tensorrt-rtx"),
    ],
)
def test_which_backend_auto_is(
    monkeypatch: pytest.MonkeyPatch,
    lacks: tuple[str, ...],
    wanted: Wanted,
    expected: str,
) -> None:
    monkeypatch.setattr(backends.Backend, "missing", lacking(*lacks))

    assert engine.chosen("auto", wanted) == expected
    assert engine.chosen("openvino", wanted) == "openvino"


@pytest.mark.parametrize("backend", engine.BUILDERS)
def test_every_builder_is_a_backend_and_can_be_imported(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.Backend, "missing", lambda _: None)

    assert callable(engine._planner(backend))


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ()), ("", ()), ("sm86", ("sm86",)), (" SM86, sm89,", ("sm86", "sm89"))],
)
def test_lists_of_cards(given: str | None, expected: tuple[str, ...]) -> None:
    assert engine.targets(given) == expected
