"""Where a network can run on this machine, with how many threads and how much memory.

Nothing here imports torch unless the driver of NVIDIA says that there is a GPU.
"""

import contextlib
import ctypes
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engines import extent
from engines.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda", "cuda:N")

CPUINFO = Path("/proc/cpuinfo")
DRIVER = Path("/proc/driver/nvidia/version")
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
"""File with the logical cores that share one physical core."""

THREADS = "OMP_NUM_THREADS"
"""Environment variable: number of threads of a network on the CPU."""

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of processors that multiply bfloat16 matrices, on x86 and on Arm."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a network runs on.

    Attributes:
        type: ``cpu`` or ``cuda``.
        index: of the GPU; None for the CPU.
    """

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


CPU = Device("cpu")


def pick_all(name: str = "auto", *, gpu: bool = False) -> list[Device]:
    """Return the devices that share a batch: for ``auto`` or ``cuda`` every GPU.

    Args:
        name: one of ``DEVICES``.
        gpu: refuse the CPU.

    Raises:
        DeviceError: no such device here, or no GPU.
    """
    first = pick(name)
    if gpu and first.type != "cuda":
        msg = "no GPU can be used here, and the CPU was ruled out"
        raise DeviceError(msg)
    if first.type == "cuda" and name in ("auto", "cuda"):
        return [Device("cuda", index) for index in range(gpus())]
    return [first]


def pick(name: str = "auto") -> Device:
    """Return the device called ``name``; ``auto`` is the first GPU, else the CPU.

    Raises:
        DeviceError: no such device here.
    """
    if name == "cpu":
        return CPU
    if name == "auto":
        return Device("cuda", 0) if gpus() else CPU
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        msg = f"no device is called {name!r}"
        raise DeviceError(msg, hint=f"Choose one of: {', '.join(DEVICES)}.")
    count = gpus()
    if int(number or 0) >= count:
        msg = f"{name} is not there: this machine has {count} usable CUDA devices"
        raise DeviceError(msg)
    return Device("cuda", int(number or 0))


def gpus() -> int:
    """Return how many CUDA devices torch can use; imports torch if there is a GPU."""
    if not driver_gpus():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def driver_gpus() -> int:
    """Return how many GPUs the CUDA driver shows this process; 0 without a driver."""
    return _ask_driver("cuDeviceGetCount")


def _ask_driver(call: str) -> int:
    """Return the number that a call of the CUDA driver gives; 0 where it fails."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    number = ctypes.c_int(0)
    try:
        library = ctypes.CDLL(name)
        if library.cuInit(0) or getattr(library, call)(ctypes.byref(number)):
            return 0
    except (OSError, AttributeError):
        return 0
    return number.value


def kind(device: Device) -> str:
    """Return what computes alike: the name of a GPU, or that of the CPU.

    A CPU with bfloat16 in hardware says so, since the same name may stand for both in
    virtual machines.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(torch.device(str(device)))
    return f"{processor()} with bfloat16" if cpu_has_bfloat16() else processor()


def driver() -> str:
    """Return the version of the NVIDIA driver; empty where there is none.

    Where the system lists none, as Windows, it is that of the newest CUDA that the
    driver knows.
    """
    try:
        found = re.search(r"\s(\d+\.\d[\d.]*)\s", DRIVER.read_text())
    except OSError:
        found = None
    if found:
        return found.group(1)
    newest = _ask_driver("cuDriverGetVersion")
    return f"CUDA {newest}" if newest else ""


def processor() -> str:
    """Return the name of the CPU, as its maker or the platform calls it."""
    named = _cpuinfo("model name")
    return named or platform.processor() or platform.machine() or "cpu"


def cpu_has_bfloat16() -> bool:
    """Say whether the CPU multiplies bfloat16 matrices in hardware."""
    return _has_bfloat16(CPUINFO)


@cache
def _has_bfloat16(cpuinfo: Path) -> bool:
    """Ask Linux for the flags of its processor, elsewhere the libraries that use it."""
    if cpuinfo.is_file():
        flags = _cpuinfo("flags", "Features").split()
        return not BFLOAT16_FLAGS.isdisjoint(flags)
    with contextlib.suppress(Exception):  # a broken library may raise anything
        from engines.runtimes.openvino_library import library

        capable = library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "BF16" in capable
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _cpuinfo(*keys: str) -> str:
    """Return the first value under one of ``keys``; empty where Linux tells none."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return " ".join(value.split())
    return ""


def threads() -> int:
    """Return how many threads a network on the CPU uses.

    It is what ``OMP_NUM_THREADS`` says, else the physical cores that this process may
    use: a second thread on a core makes matrix products no faster.
    """
    given = os.environ.get(THREADS, "").partition(",")[0].strip()
    if given.isdecimal() and int(given) >= 1:
        return int(given)
    logical = cores()
    shared = {_siblings(core) for core in logical}
    return max(1, len(shared))


def cores() -> Sequence[int]:
    """Return the numbers of the logical cores that this process may use."""
    if sys.platform != "win32" and hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _siblings(core: int) -> str:
    """Return what all logical cores of one physical core have in common."""
    try:
        return Path(SIBLINGS.format(core)).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return str(core)


def memory_gib() -> float | None:
    """Return the memory of the machine or the limit of the container, in GiB."""
    there = extent.machine_bytes()
    return None if there is None else there / 2**30
