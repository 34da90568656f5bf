"""How long a slice takes, of several networks in turns so that the ratios hold."""

import copy
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

BATCH = 4
ROUNDS = 7


def ms_per_slice(
    networks: Sequence[nn.Module],
    size: int,
    device: torch.device,
    *,
    solid: bool = False,
) -> list[float]:
    """Return the median time of a slice in float32 in ms, of each network.

    Args:
        networks: evaluating; copies of them are timed in turns.
        size: rows and columns of the slice, or the edge of the cube whose slices count.
        device: where they run.
        solid: whether they take cubes.
    """
    times: list[list[float]] = [[] for _ in networks]
    layout = torch.contiguous_format if solid else torch.channels_last
    ready = [
        copy.deepcopy(network).to(device).to(memory_format=layout)
        for network in networks
    ]
    for number in range(ROUNDS + 1):
        for network, found in zip(ready, times, strict=True):
            seconds, slices = _one(network, size, device, solid=solid)
            if number:  # the first one warms up
                found.append(1e3 * seconds / slices)
    return [statistics.median(found) for found in times]


@torch.inference_mode()
def _one(
    network: nn.Module, size: int, device: torch.device, *, solid: bool
) -> tuple[float, int]:
    """Return the seconds of one batch, and the slices in it."""
    if solid:
        image, slices = torch.rand(1, 1, size, size, size, device=device), size
    else:
        image, slices = torch.rand(BATCH, 1, size, size, device=device), BATCH
        image = image.to(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    network(image)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, slices
