"""What a model file holds, as bytes: read, hashed and checked without torch."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from engines.errors import ModelFileError
from engines.networks.probes import TENSOR

DTYPE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool",
        "U8": "uint8",
        "I8": "int8",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
        "I16": "int16",
        "U16": "uint16",
        "F16": "float16",
        "BF16": "bfloat16",
        "I32": "int32",
        "U32": "uint32",
        "F32": "float32",
        "I64": "int64",
        "U64": "uint64",
        "F64": "float64",
        "C64": "complex64",
    }
)
"""Name of a type in safetensors -> in torch, which the hash of the weights has."""

WEIGHT_DTYPES = ("F16", "BF16", "F32", "F64", "I64")
"""What the weights of a model file may hold."""

Deserialize = Callable[[bytes], list[tuple[str, dict[str, Any]]]]

_BFLOAT16_EXPONENT = np.uint16(0x7F80)
_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as a file holds it.

    Attributes:
        dtype: as safetensors calls it; see ``DTYPE_NAMES``.
        shape: of the tensor.
        data: its values in C order, little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytearray | memoryview


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts in a file's header.

    Raises:
        safetensors.SafetensorError: it is no intact file.
        OSError: it cannot be read.
    """
    with safetensors.safe_open(path, framework="np") as file:
        return file.metadata() or {}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model file's weights without loading them.

    Raises:
        ModelFileError: damaged.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = set(file.keys()) - {TENSOR}
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise damaged(path, error) from error


def read_bytes(path: Path, name: str, most: int) -> bytes:
    """Return a tensor of bytes with one axis.

    Args:
        path: of a file in safetensors' format.
        name: of the tensor.
        most: bytes that it has at most.

    Raises:
        ValueError: it is another tensor than that.
        safetensors.SafetensorError: there is none, or no intact file.
        OSError: the file cannot be read.
    """
    with safetensors.safe_open(path, framework="np") as file:
        held = file.get_slice(name)
        shape = held.get_shape()
        if held.get_dtype() != "U8" or len(shape) != 1 or shape[0] > most:
            msg = f"{name} is no block of at most {most} bytes"
            raise ValueError(msg)
        content: bytes = file.get_tensor(name).tobytes()
    return content


def damaged(path: Path, error: Exception) -> ModelFileError:
    """Return what to raise for a file that ``error`` was found in."""
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return ModelFileError(f"{path} is not an intact model file ({reason})")


def parsed(content: bytes) -> dict[str, Stored]:
    """Return the tensors of a file's content by name.

    Raises:
        safetensors.SafetensorError: the content is no intact file.
    """
    deserialize: Deserialize = safetensors.deserialize
    found = deserialize(content)
    return {
        name: Stored(held["dtype"], tuple(held["shape"]), held["data"])
        for name, held in found
    }


def sha256(tensors: Mapping[str, Stored]) -> str:
    """Return the hash of names, types, shapes and values, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        held = tensors[name]
        dtype = DTYPE_NAMES.get(held.dtype, held.dtype)
        digest.update(f"{name}|torch.{dtype}|{held.shape}|".encode())
        digest.update(held.data)
    return digest.hexdigest()


def require_weights(tensors: Mapping[str, Stored]) -> None:
    """Refuse weights that are no numbers: every mask would be empty, and look done.

    Raises:
        ValueError: the name of the tensor, and what it holds.
    """
    for name, held in tensors.items():
        if held.dtype not in WEIGHT_DTYPES:
            dtype = DTYPE_NAMES.get(held.dtype, held.dtype)
            msg = f"{name} holds {dtype}, which no weights are"
            raise ValueError(msg)
        bad = np.count_nonzero(~_is_finite(held))
        if bad:
            msg = f"{bad} of the weights of {name} are not finite numbers"
            raise ValueError(msg)


def _is_finite(held: Stored) -> NDArray[np.bool_]:
    if held.dtype == "I64":
        return np.ones(0, bool)
    finite: NDArray[np.bool_]
    if held.dtype == "BF16":
        bits = np.frombuffer(held.data, "<u2") & _BFLOAT16_EXPONENT
        finite = bits != _BFLOAT16_EXPONENT
        return finite
    values = np.frombuffer(held.data, _NUMPY[held.dtype])
    finite = np.isfinite(values)
    return finite
