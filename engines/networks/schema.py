"""What a model file's manifest may hold: checked here, before anything is built of it.

A model file comes from anywhere. Whatever is wrong with one is a ``ValueError`` here
that names the key and the value, and a ``ModelFileError`` for whoever reads it.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engines.errors import SpineError
from engines.networks import catalog
from engines.preprocess.recipe import MODALITIES, Recipe

MOST_HEADER_BYTES = 8 << 20
"""Of a model file: names and shapes of its tensors, and its manifest."""

MOST_CLASSES = 254
"""Label maps are bytes, and 254 and 255 have a meaning of their own."""

MOST_PATCH = 4096
MOST_DEEP = 40
"""Levels of what a manifest says of its training."""

VIEWS = ("axial", "sagittal", "coronal")

_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def header_bytes(path: Path) -> int:
    """Return the length of a model file's header.

    Raises:
        ValueError: it is no model file, or its header is larger than any.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        msg = "it is no file"  # a pipe would be waited for without end
        raise ValueError(msg)
    with path.open("rb") as file:
        first = file.read(8)
    if len(first) < 8:
        msg = "it has no header"
        raise ValueError(msg)
    (length,) = struct.unpack("<Q", first)
    if length > path.stat().st_size - 8:
        msg = "it ends within its header"
        raise ValueError(msg)
    if length > MOST_HEADER_BYTES:
        msg = f"its header has {length / 2**20:.0f} MiB"
        raise ValueError(msg)
    return int(length)


def parsed(text: str) -> dict[str, Any]:
    """Return a manifest's text as a checked record.

    Raises:
        ValueError: it is not JSON, or says what no manifest does.
    """
    try:
        record = json.loads(text)
        _require_shallow(record)
    except RecursionError:
        msg = "its manifest is nested without end"
        raise ValueError(msg) from None
    if not isinstance(record, dict):
        msg = "its manifest is no table"
        raise ValueError(msg)
    require(record)
    return record


def require(record: Mapping[str, Any]) -> None:
    """Refuse a manifest that no model can have.

    Raises:
        ValueError: which key, and what it holds.
    """
    for key, (is_good, wanted) in CHECKS.items():
        if key not in record:
            if key in NEEDED:
                msg = f"its manifest has no {key}"
                raise ValueError(msg)
            continue
        if not is_good(record[key]):
            shown = repr(record[key])
            msg = f"{key} is {shown[:60]}{'...' * (len(shown) > 60)}, not {wanted}"
            raise ValueError(msg)
    try:
        spec = catalog.find(record["architecture"])
        recipe = Recipe.from_json(record["recipe"])
        spec.require_options(record.get("options", {}))
    except SpineError as error:
        raise ValueError(str(error)) from error
    except TypeError as error:
        msg = f"recipe or options hold what they cannot ({error})"
        raise ValueError(msg) from error
    if recipe.modality != record["modality"]:
        msg = f"its recipe is for {recipe.modality}, it for {record['modality']}"
        raise ValueError(msg)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def _is_whole(value: object, low: int, high: int) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return low <= value <= high


def _are_classes(value: object) -> bool:
    if not isinstance(value, dict) or not 2 <= len(value) <= MOST_CLASSES:
        return False
    numbers = list(value.values())
    whole = all(_is_whole(number, 0, MOST_CLASSES) for number in numbers)
    return whole and sorted(numbers) == [*range(len(value))] and _are_names(value)


def _are_names(value: Mapping[object, object]) -> bool:
    return all(_is_name(name) for name in value)


def _are_views(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(view in VIEWS for view in value)
        and len(set(value)) == len(value)
    )


def _is_recipe(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    numbers = [value.get("spacing_mm"), value.get("smoothing_mm")]
    limits = value.get("clamp")
    if limits is not None and not (isinstance(limits, list) and len(limits) == 2):
        return False
    numbers += limits or []
    real = all(number is None or _is_real(number) for number in numbers)
    size = value.get("size")
    words = (value.get(key, "") for key in ("name", "orientation", "source"))
    return (
        real
        and (size is None or _is_whole(size, 1, MOST_PATCH))
        and all(isinstance(word, str) for word in words)
    )


def _is_real(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value)


def _are_channels(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(_is_whole(number, 1, 1 << 20) for number in pair)
        for name, pair in value.items()
    )


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _are_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and all(_is_table(row) for row in value)


def _is_parent(value: object) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and _is_text(value.get("name"))
        and _is_text(value.get("sha256"))
    )


Check = tuple[Callable[[Any], bool], str]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "name": (_is_name, "a name without slashes"),
        "architecture": (_is_name, "the name of a network"),
        "classes": (_are_classes, "names with the numbers from 0 on"),
        "modality": (lambda value: value in MODALITIES, "ct or mr"),
        "views": (_are_views, f"some of {', '.join(VIEWS)}"),
        "recipe": (_is_recipe, "a recipe"),
        "patch": (
            lambda value: _is_whole(value, 0, MOST_PATCH),
            f"a whole number from 0 to {MOST_PATCH}",
        ),
        "channels": (_are_channels, "layers with two numbers of channels each"),
        "licence": (_is_text, "a text"),
        "training": (_is_table, "a table"),
        "metrics": (_are_tables, "a list of tables"),
        "parent": (_is_parent, "a name and a hash"),
        "tensors_sha256": (_is_sha256, "a SHA-256"),
        "probes_sha256": (
            lambda value: value == "" or _is_sha256(value),
            "a SHA-256, or empty",
        ),
        "options": (_is_table, "a table"),
        "guide": (lambda value: value == "" or _is_name(value), "the name of a model"),
    }
)
"""Key of a manifest -> whether a value makes sense, and what does, in words."""

NEEDED = (
    "name",
    "architecture",
    "classes",
    "modality",
    "views",
    "recipe",
    "channels",
    "tensors_sha256",
)


def _require_shallow(value: object, level: int = 0) -> None:
    if level > MOST_DEEP:
        msg = f"its manifest is nested deeper than {MOST_DEEP} levels"
        raise ValueError(msg)
    inner = [*value.values()] if isinstance(value, dict) else value
    if isinstance(inner, list):
        for one in inner:
            _require_shallow(one, level + 1)
