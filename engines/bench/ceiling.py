"""How fast this machine multiplies matrices: the most that a network could reach.

A network is convolutions, these are matrix products, and large square ones are what a
processor does best. The share of this that a network reaches says how much is left to
be won by a better backend, whatever the machine.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import torch

from engines.runtimes.devices import Device

SIZE: Mapping[str, int] = MappingProxyType({"cpu": 2048, "cuda": 8192})
"""Kind of device -> rows and columns of the matrices."""

DTYPES: Mapping[str, Mapping[str, torch.dtype]] = MappingProxyType(
    {
        "cpu": {"float32": torch.float32, "bfloat16": torch.bfloat16},
        "cuda": {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        },
    }
)
"""Kind of device -> precisions that are measured."""

STANDS_FOR: Mapping[str, str] = MappingProxyType({"int8": "bfloat16"})
"""Precision without a ceiling of its own -> the one that it is held against."""

ROUNDS = 7

LEAST, MOST_SECONDS = 256, 1.0
"""The smallest matrices, and seconds that a product of larger ones may take."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a matrix product reaches.

    Attributes:
        gflops: 10^9 operations per second; a multiplication and an addition are two.
        size: rows and columns of the matrices.
        tf32: float32 is rounded to 10 bits before it is multiplied, as convolutions
            on this GPU do unless torch is told otherwise.
    """

    precision: str
    gflops: float
    size: int
    tf32: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the record."""
        return {**asdict(self), "gflops": round(self.gflops, 1)}


def measure(device: Device) -> dict[str, Ceiling]:
    """Return the ceilings of ``device`` by precision, medians after a warm-up."""
    size = SIZE[device.type]
    return {
        name: _ceiling(name, dtype, size, device)
        for name, dtype in DTYPES[device.type].items()
    }


def held_against(precision: str, ceilings: Mapping[str, Ceiling]) -> Ceiling | None:
    """Return the ceiling that ``precision`` is held against, None without one."""
    return ceilings.get(STANDS_FOR.get(precision, precision))


def wait_for(device: Device) -> None:
    """Wait until ``device`` has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(str(device))


@torch.inference_mode()
def _ceiling(name: str, dtype: torch.dtype, size: int, device: Device) -> Ceiling:
    tf32 = (
        name == "float32" and device.type == "cuda" and torch.backends.cudnn.allow_tf32
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        size = _fitting(size, dtype, device)
        left, right = _pair(size, dtype, device)
        seconds = [_seconds(left, right, device) for _ in range(ROUNDS + 1)]
    finally:
        torch.set_float32_matmul_precision(before)
    median = statistics.median(seconds[1:])  # the first one warms up
    return Ceiling(name, 2 * size**3 / median / 1e9, size, tf32)


def _fitting(size: int, dtype: torch.dtype, device: Device) -> int:
    """Return a size whose product does not take long.

    Processors that only emulate bfloat16 take minutes for matrices of 2048.
    """
    if size <= LEAST:
        return size
    left, right = _pair(LEAST, dtype, device)
    _seconds(left, right, device)
    took = _seconds(left, right, device)
    while size > LEAST and took * (size / LEAST) ** 3 > MOST_SECONDS:
        size //= 2
    return size


def _pair(
    size: int, dtype: torch.dtype, device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two random square matrices."""
    shape = (2, size, size)
    left, right = torch.rand(shape, device=str(device)).to(dtype).unbind()
    return left, right


def _seconds(left: torch.Tensor, right: torch.Tensor, device: Device) -> float:
    wait_for(device)
    started = time.perf_counter()
    left @ right
    wait_for(device)
    return time.perf_counter() - started
