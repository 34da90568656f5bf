"""What a machine is, so that its figures can be told from those of another."""

import platform
from typing import Any

import torch

from engines import __version__
from engines.runtimes.backends import BACKENDS
from engines.runtimes.devices import (
    Device,
    cores,
    cpu_has_bfloat16,
    memory_gib,
    processor,
)


def facts(device: Device) -> dict[str, Any]:
    """Return processor, memory, GPU, threads and versions, for the record.

    Args:
        device: that is measured; the GPU told of is this one.
    """
    memory = memory_gib()
    about: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": processor(),
        "cores": len(cores()),
        "threads": torch.get_num_threads(),
        "bfloat16": cpu_has_bfloat16(),
        "memory_gib": None if memory is None else round(memory, 1),
        "gpu": None,
        "gpu_memory_gib": None,
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(str(device))
        about |= {
            "gpu": gpu.name,
            "gpu_memory_gib": round(gpu.total_memory / 2**30, 1),
        }
    return about | {"versions": _versions()}


def _versions() -> dict[str, str]:
    """Return what is installed, by backend."""
    found = {name: backend.version() for name, backend in BACKENDS.items()}
    told = {name: number for name, number in found.items() if number}
    return {"spine": __version__, "python": platform.python_version(), **told}
