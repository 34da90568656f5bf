"""Model files from anywhere: used, or refused with what is wrong with them."""

import contextlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from engines.errors import ModelFileError
from engines.networks import probes, shelf, tensors
from engines.networks.manifest import load_model, read_manifest
from spinecli.app import app

SHIPPED = shelf.locate("inception-dual-unet")
WRONG: tuple[Any, ...] = (
    None, -1, 0, 1.5, True, "", "x", "x" * 300, [], {}, [None], [[]], {"a": []},
    {"": -1}, [-1, "x"], 1e300, float("nan"), "../x", "a\nb", {"background": 0},
)  # fmt: skip
KEYS = (
    "name", "architecture", "classes", "modality", "views", "recipe", "patch",
    "channels", "licence", "training", "metrics", "parent", "tensors_sha256",
    "options", "guide", "probes_sha256",
)  # fmt: skip


def parts(path: Path = SHIPPED) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return the header, the manifest and the tensors of a model file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["spine"]), content[8 + length :]


def written(path: Path, manifest: Any) -> Path:
    """Write a model file with the tensors of the shipped one and any manifest."""
    header, _, rest = parts()
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    header["__metadata__"]["spine"] = text
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + rest)
    return path


def edited(path: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    _, manifest, _ = parts()
    edit(manifest)
    return written(path, manifest)


def test_no_value_of_any_key_ends_in_a_traceback(tmp_path: Path) -> None:
    """What is accepted all the same is what a manifest may say there."""
    accepted = set()
    for key in KEYS:
        for value in WRONG:
            _, manifest, _ = parts()
            path = written(tmp_path / "m.safetensors", {**manifest, key: value})
            with contextlib.suppress(ModelFileError):
                load_model(path)
                accepted.add((key, repr(value)[:20]))
    texts = {("licence", repr(v)[:20]) for v in WRONG if isinstance(v, str)}
    tables = {
        (key, repr(value)[:20])
        for key in ("training",)
        for value in WRONG
        if isinstance(value, dict)
    }
    names = {("guide", "''"), ("guide", "'x'"), ("name", "'x'")}
    rest = {
        ("metrics", "[]"), ("options", "{}"), ("parent", "None"), ("patch", "0"),
    }  # fmt: skip
    assert accepted == texts | tables | names | rest


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m.update(classes={"background": 0, "spine": -1}), "classes is"),
        (lambda m: m.update(classes={"background": 1, "spine": 2}), "classes is"),
        (lambda m: m.update(classes={"background": 0, "a": 1, "b": 1}), "classes is"),
        (lambda m: m.update(views=[]), "views is"),
        (lambda m: m.update(views=["sagittal", "sagittal"]), "views is"),
        (lambda m: m.update(patch=-1), "patch is -1"),
        (lambda m: m.update(architecture="other"), "no model is called 'other'"),
        (lambda m: m.update(modality="ct"), "its recipe is for mr, it for ct"),
        (lambda m: m["recipe"].update(clamp=[float("-inf"), 3]), "recipe is"),
        (lambda m: m["recipe"].update(spacing_mm="x"), "recipe is"),
        (lambda m: m["recipe"].update(orientation=7), "recipe is"),
        (lambda m: m["recipe"].update(other=7), "no setting called 'other'"),
        (lambda m: m.update(options={"dropout": 7}), "dropout cannot be 7"),
        (lambda m: m.pop("views"), "has no views"),
        (lambda m: m.pop("tensors_sha256"), "has no tensors_sha256"),
        (lambda m: m["channels"].clear(), "its channels are not those"),
    ],
)
def test_what_is_wrong_is_said(
    edit: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match=words):
        load_model(edited(tmp_path / "m.safetensors", edit))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not an intact model file"),
        ("[]", "its manifest is no table"),
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"training": ' * 60 + "0" + "}" * 60, "nested deeper than 40"),
        ('{"name": "' + "x" * (9 << 20) + '"}', "its header has 9 MiB"),
    ],
    ids=["empty", "list", "endless", "deep", "large"],
)
def test_a_manifest_that_is_none_is_refused(
    text: str, words: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "m.safetensors", text)
    with pytest.raises(ModelFileError, match=words):
        read_manifest(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, b"\xff" * 40, b"\x10" + b"\0" * 7 + b"{}" + b" " * 14]
)
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not an intact model file"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "1 of the weights of .* are not finite"),
        (float("inf"), "1 of the weights of .* are not finite"),
        (None, "holds int8, which no weights are"),
    ],
    ids=["nan", "infinite", "int8"],
)
def test_weights_that_are_no_numbers_are_refused(
    value: float | None, words: str, tmp_path: Path
) -> None:
    """A mask made with them is empty, and the case was called done."""
    state = safetensors.torch.load_file(SHIPPED)
    state.pop(probes.TENSOR, None)
    name = next(n for n, v in state.items() if v.dim() == 4)
    if value is None:
        state[name] = state[name].to(torch.int8)
    else:
        state[name].view(-1)[3] = value
    _, record, _ = parts()
    held = tensors.parsed(safetensors.torch.save(state))
    record |= {"tensors_sha256": tensors.sha256(held), "probes_sha256": ""}
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file(state, path, {"spine": json.dumps(record)})
    with pytest.raises(ModelFileError, match=words):
        load_model(path)


def test_one_bad_file_does_not_end_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, record, _ = parts()
    names = {
        "none": lambda path: path.write_bytes(b"x"),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
        "classes": lambda path: written(path, {**record, "classes": {"a": -1}}),
        "layers": lambda path: written(path, {**record, "architecture": "resunet"}),
        "good": lambda path: written(path, {**record, "name": "good"}),
    }
    for name, make in names.items():
        make(tmp_path / f"{name}.safetensors")
    monkeypatch.setenv("SPINE_MODELS", str(tmp_path))
    done = CliRunner().invoke(app, ["models", "--json"])
    assert done.exit_code == 0, done.exception
    found = {row["name"]: row["problem"] for row in json.loads(done.stdout)["models"]}
    assert found["good"] is None
    for name in ("none", "folder", "pipe", "classes"):
        assert found[name], name
    assert "unet-r34" in found
    assert CliRunner().invoke(app, ["models"]).exit_code == 0
