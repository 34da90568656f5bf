"""Where a network can run on this machine."""

import torch

from engines.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda", "cuda:N")


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


def cpu_has_bfloat16() -> bool:
    """Say whether the CPU multiplies bfloat16 matrices in hardware."""
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
