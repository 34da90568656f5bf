"""Golden probes travel in a model file, and are refused when they are damaged."""

import hashlib
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from engines.errors import ModelFileError
from engines.networks import inventory, manifest, probes, shelf
from engines.networks.manifest import (
    METADATA_KEY,
    load_model,
    open_model,
    read_manifest,
    record_metrics,
    record_probes,
    record_training,
    save_model,
)
from engines.networks.probes import Probe


def a_probe(shape: tuple[int, ...] = (2, 1, 16, 32), seed: int = 0) -> Probe:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=shape).astype(np.float16).astype(np.float32)
    inner = shape[:1] + shape[2:]
    labels = rng.integers(0, 2, inner, np.uint8)
    margins = rng.integers(0, 256, inner, np.uint8)
    names = tuple(f"scan-{number % 2}" for number in range(shape[0]))
    return Probe(images, labels, margins, names)


PAIR = (a_probe(), a_probe((1, 1, 48, 16), 1))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file without probes."""
    small = shelf.load("inception-dual-unet")
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_model(path, small.network, replace(small.manifest, training={}))
    return path


@pytest.fixture
def path(bare: Path, tmp_path: Path) -> Path:
    """A model file with probes."""
    copy = tmp_path / "small.safetensors"
    copy.write_bytes(bare.read_bytes())
    record_probes(copy, PAIR)
    return copy


def rewritten(path: Path, block: bytes, digest: str | None = None) -> Path:
    """Put any block into a model file, by default with the hash that it has."""
    held = read_manifest(path)
    state = safetensors.torch.load_file(path)
    state[probes.TENSOR] = torch.tensor([*block], dtype=torch.uint8)
    digest = hashlib.sha256(block).hexdigest() if digest is None else digest
    text = json.dumps(replace(held, probes_sha256=digest).as_json())
    safetensors.torch.save_file(state, path, {METADATA_KEY: text})
    return path


def packed(header: Any, rest: bytes = b"", magic: bytes = b"SPGP") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return zlib.compress(struct.pack("<4sI", magic, len(text)) + text + rest)


def assert_same(found: tuple[Probe, ...], wanted: tuple[Probe, ...]) -> None:
    for one, other in zip(found, wanted, strict=True):
        for name in ("images", "labels", "margins"):
            given, kept = getattr(one, name), getattr(other, name)
            assert given.dtype == kept.dtype
            np.testing.assert_array_equal(given, kept)
        assert one.samples == other.samples


def test_probes_come_back(path: Path) -> None:
    assert_same(load_model(path).probes, PAIR)
    assert_same(open_model(path).probes, PAIR)
    assert_same(manifest.read_probes(path), PAIR)
    assert probes.summary(load_model(path).probes) == {"inputs": 3, "scans": 2}


def test_cubes_come_back() -> None:
    cubes = (a_probe((3, 1, 8, 16, 24)),)
    assert_same(probes.decode(probes.encode(cubes)), cubes)


def test_same_probes_same_bytes() -> None:
    assert probes.encode(PAIR) == probes.encode((a_probe(), a_probe((1, 1, 48, 16), 1)))


def test_weights_stay_as_they_are(bare: Path, path: Path) -> None:
    assert read_manifest(path).tensors_sha256 == read_manifest(bare).tensors_sha256
    before, after = load_model(bare), load_model(path)
    for name, value in before.network.state_dict().items():
        torch.testing.assert_close(
            after.network.state_dict()[name], value, atol=0, rtol=0
        )
    held = safetensors.torch.load_file(path)
    held.pop(probes.TENSOR)
    for name, value in safetensors.torch.load_file(bare).items():
        assert held.pop(name).equal(value)
    assert not held


def test_a_file_without_has_none(bare: Path) -> None:
    assert read_manifest(bare).probes_sha256 == ""
    assert open_model(bare).probes == ()


def test_a_manifest_of_before_is_read(bare: Path, tmp_path: Path) -> None:
    record = read_manifest(bare).as_json()
    del record["probes_sha256"]
    state = safetensors.torch.load_file(bare)
    old = tmp_path / "old.safetensors"
    safetensors.torch.save_file(state, old, {METADATA_KEY: json.dumps(record)})
    assert load_model(old).probes == ()


def test_what_is_recorded_later_keeps_them(path: Path) -> None:
    row = {"metric": "Dice", "value": 0.9, "data": "one scan"}
    record_metrics(path, [row])
    record_training(path, {"cross_validation": {"mean": 0.8}})
    model = load_model(path)
    assert model.manifest.metrics == (row,)
    assert model.manifest.training == {"cross_validation": {"mean": 0.8}}
    assert_same(model.probes, PAIR)


def test_a_model_that_is_saved_again_has_none(path: Path) -> None:
    """Its weights may be others, so the labels may not be theirs."""
    model = load_model(path)
    save_model(path, model.network, model.manifest)
    assert load_model(path).probes == ()


def test_new_ones_take_the_place_of_those_there_are(path: Path) -> None:
    record_probes(path, PAIR[:1])
    assert_same(load_model(path).probes, PAIR[:1])


def test_the_inventory_counts_them(path: Path, bare: Path) -> None:
    (entry,) = inventory.inventory(str(path))
    assert entry.as_json()["probes"] == {"inputs": 3, "scans": 2}
    (entry,) = inventory.inventory(str(bare))
    assert entry.as_json()["probes"] is None


def test_the_inventory_says_what_is_wrong_with_them(path: Path) -> None:
    rewritten(path, b"no")
    (entry,) = inventory.inventory(str(path))
    assert "golden probes cannot be unpacked" in entry.as_json()["problem"]


SHAPE = {"shape": [1, 1, 16, 16], "samples": []}
GOOD = {"format": 1, "probes": [SHAPE]}


SMALL = bytes(1024)
"""What follows a header of one slice of 16x16."""


def of(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "probes": [{**SHAPE, **changes}]}


@pytest.mark.parametrize(
    ("block", "words"),
    [
        pytest.param(block, words, id=name)
        for name, block, words in (
            ("nothing", b"", "incomplete"),
            ("other", b"no zlib", "cannot be unpacked"),
            ("short", probes.encode(PAIR)[:-20], "incomplete"),
            ("long", probes.encode(PAIR) + b"more", "incomplete"),
            ("tiny", zlib.compress(b"x"), "no header"),
            ("magic", packed(GOOD, SMALL, magic=b"PK\3\4"), "no header"),
            ("bytes", packed(b"\xff"), "makes no sense"),
            ("deep", packed(b"[" * 60_000), "makes no sense"),
            ("list", packed([]), "makes no sense"),
            ("empty", packed({"format": 1}), "makes no sense"),
            ("format", packed({"format": 2, "probes": []}), "of format 2"),
            ("missing", packed(GOOD, SMALL[:-4]), "not of the size"),
            ("more", packed(GOOD, SMALL + b"x"), "not of the size"),
            ("huge", packed(of(shape=[10**30, 1, 16, 16])), "not of the size"),
            ("negative", packed(of(shape=[-1, 1, -16, 16]), SMALL), "makes no sense"),
            ("fraction", packed(of(shape=[1.0, 1, 16, 16]), SMALL), "makes no sense"),
            ("channels", packed(of(shape=[1, 2, 16, 8]), SMALL), "makes no sense"),
            ("flat", packed(of(shape=[1, 1, 256]), SMALL), "makes no sense"),
            ("names", packed(of(samples=[1]), SMALL), "makes no sense"),
            (
                "two names",
                packed(of(samples=["a", "b"]), SMALL),
                "2 names for 1 inputs",
            ),
            ("not finite", packed(GOOD, b"\xff" * 1024), "no numbers"),
            ("side", packed(of(shape=[1, 1, 8, 32]), SMALL), "no golden probe of 8x32"),
            ("cube", packed(of(shape=[1, 1, 16, 16, 16]), 16 * SMALL), "of 16x16x16"),
            ("label", packed(GOOD, SMALL[:512] + b"\2" * 512), "label 2, the model 2"),
        )
    ],
)
def test_a_block_that_is_none_is_refused(block: bytes, words: str, path: Path) -> None:
    model = open_model(rewritten(path, block))
    with pytest.raises(ModelFileError, match=words):
        model.probes  # noqa: B018


def test_a_block_with_a_good_header_is_taken(path: Path) -> None:
    """So what the others lack is what they are refused for."""
    (probe,) = open_model(rewritten(path, packed(GOOD, SMALL))).probes
    assert probe.images.shape == (1, 1, 16, 16)


def test_a_block_that_unpacks_without_end_is_refused(path: Path) -> None:
    bomb = zlib.compress(bytes(probes.MOST_BYTES + 1))
    assert len(bomb) < 1 << 20
    model = open_model(rewritten(path, bomb))
    with pytest.raises(ModelFileError, match="incomplete, or larger than any"):
        model.probes  # noqa: B018


def test_a_block_that_is_too_large_is_not_read(path: Path) -> None:
    model = open_model(rewritten(path, bytes(probes.MOST_BLOCK_BYTES + 1)))
    with pytest.raises(ModelFileError, match="is no block of at most"):
        model.probes  # noqa: B018


def test_a_block_that_is_no_block_is_refused(path: Path) -> None:
    state = safetensors.torch.load_file(path)
    state[probes.TENSOR] = state[probes.TENSOR].reshape(1, -1)
    text = json.dumps(read_manifest(path).as_json())
    safetensors.torch.save_file(state, path, {METADATA_KEY: text})
    with pytest.raises(ModelFileError, match="is no block"):
        manifest.read_probes(path)


def test_a_flipped_bit_is_noticed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(probes.encode(PAIR))
    content[place + 100] ^= 1
    model = open_model(path)
    path.write_bytes(content)
    for read in (open_model, load_model, manifest.read_probes):
        with pytest.raises(ModelFileError, match="hash of its golden probes"):
            read(path)
    with pytest.raises(ModelFileError, match="hash of its golden probes"):
        model.probes  # noqa: B018


def test_probes_that_were_taken_out_are_missed(path: Path) -> None:
    state = safetensors.torch.load_file(path)
    del state[probes.TENSOR]
    text = json.dumps(read_manifest(path).as_json())
    safetensors.torch.save_file(state, path, {METADATA_KEY: text})
    with pytest.raises(ModelFileError, match="file lacks the golden probes"):
        open_model(path)


def test_probes_that_the_manifest_does_not_name_are_refused(path: Path) -> None:
    rewritten(path, probes.encode(PAIR), digest="")
    with pytest.raises(ModelFileError, match="manifest lacks the golden probes"):
        load_model(path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "no probes"),
        ((a_probe((1, 1, 16, 20)),), "takes no golden probe of 16x20"),
        ((a_probe((1, 1, 16, 16, 16)),), "takes no golden probe of 16x16x16"),
        ((replace(PAIR[0], labels=PAIR[0].labels + 1),), "has label 2"),
        ((replace(PAIR[0], images=PAIR[0].images + 1e-6),), "float16 cannot hold"),
        ((replace(PAIR[0], images=PAIR[0].images * 1e6),), "float16 cannot hold"),
        ((a_probe((3, 1, 1024, 1024)),), "MB, packed"),
    ],
)
def test_what_is_no_probe_of_a_model_is_not_written(
    given: tuple[Probe, ...], words: str, path: Path
) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        record_probes(path, given)
    assert path.read_bytes() == before


def test_arrays_that_do_not_fit_make_no_probe() -> None:
    with pytest.raises(ValueError, match="do not fit each other"):
        replace(PAIR[0], labels=PAIR[0].labels[:1])
    with pytest.raises(ValueError, match="names for 2 inputs"):
        replace(PAIR[0], samples=("one",))


def test_opening_a_model_imports_no_torch() -> None:
    script = """
import sys
from engines.networks import inventory, shelf
for entry in inventory.inventory():
    entry.cells()
model = shelf.open(shelf.DEFAULT_MODEL)
assert len(model.probes) == 3
assert model.classes == 5
assert "torch" not in sys.modules
assert model.network is model.network
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_command_that_lists_models_imports_no_torch() -> None:
    script = """
import sys
from typer.testing import CliRunner
from spinecli.app import app
assert CliRunner().invoke(app, ["models"]).exit_code == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def edited(path: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    record = read_manifest(path).as_json()
    edit(record)
    state = safetensors.torch.load_file(path)
    safetensors.torch.save_file(state, path, {METADATA_KEY: json.dumps(record)})
    return path


def test_weights_that_do_not_fit_are_noticed_when_they_are_needed(path: Path) -> None:
    model = open_model(edited(path, lambda record: record.update(architecture="unet")))
    with pytest.raises(ModelFileError, match="channels are not those of 'unet'"):
        model.network  # noqa: B018


def test_a_file_that_was_changed_meanwhile_gives_no_network(path: Path) -> None:
    model = open_model(path)
    record_metrics(path, read_manifest(path).metrics)
    assert model.network is not None  # the same bytes
    model = open_model(path)
    record_metrics(path, [{"metric": "Dice", "value": 1.0, "data": "x"}])
    with pytest.raises(ModelFileError, match="was changed since it was opened"):
        model.network  # noqa: B018


def test_a_network_that_is_built_late_is_that_of_the_file(path: Path) -> None:
    late, early = open_model(path), load_model(path)
    assert late.sha256 == early.sha256
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(late.network(image), early.network(image))
