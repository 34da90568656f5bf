"""Where a network can run on this machine, and in how much memory."""

import torch

from engines import extent
from engines.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda", "cuda:N")


def pick_all(name: str = "auto", *, gpu: bool = False) -> list[torch.device]:
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
        count = torch.cuda.device_count()
        return [torch.device("cuda", index) for index in range(count)]
    return [first]


def pick(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` is the first GPU, else the CPU.

    Raises:
        DeviceError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        msg = f"no device is called {name!r}"
        raise DeviceError(msg, hint=f"Choose one of: {', '.join(DEVICES)}.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        msg = f"{name} is not there: this machine has {count} usable CUDA devices"
        raise DeviceError(msg)
    return torch.device("cuda", int(number or 0))


def kind(device: torch.device) -> str:
    """Return what computes alike: a GPU's name, or whether the CPU has bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "cpu with bfloat16" if cpu_has_bfloat16() else device.type


def cpu_has_bfloat16() -> bool:
    """Say whether the CPU multiplies bfloat16 matrices in hardware."""
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def memory_gib() -> float | None:
    """Return the memory of the machine or the limit of the container, in GiB."""
    there = extent.machine_bytes()
    return None if there is None else there / 2**30
