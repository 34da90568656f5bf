"""Several processes that share each batch, started by torch's own launcher.

    torchrun --standalone --nproc-per-node 4 -m spinecli train --data DATA -o RUN ...

Each process draws its share of every batch and torch averages the gradients, so the
result is that of one process up to rounding, and up to batch norm's statistics and
the losses that pool a batch, which see one share at a time. The process of rank 0
validates, writes and reports.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from engines.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those that train together."""

    rank: int = 0
    ranks: int = 1
    local: int = 0
    on_gpu: bool = False

    @property
    def leads(self) -> bool:
        """Say whether this process validates, writes and reports."""
        return self.rank == 0

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return ``network`` so that its gradients are averaged over the group."""
        if self.ranks == 1:
            return network
        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(network, ids)

    def agreed(self, score: float | None) -> float | None:
        """Return the score that the process of rank 0 has."""
        if self.ranks == 1:
            return score
        told = [score]
        where = torch.device("cuda", self.local) if self.on_gpu else None
        distributed.broadcast_object_list(told, src=0, device=where)
        return told[0]


def here() -> Group:
    """Return the group that the launcher's environment tells of, else one process."""
    values = (
        os.environ.get(name, "0") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    rank, ranks, local = (int(value) for value in values)
    return Group(rank, max(1, ranks), local)


@contextmanager
def joined(batch: int, device: str) -> Iterator[tuple[Group, str]]:
    """Join the group, and leave it at the end.

    Yields:
        the group, and the device of this process.

    Raises:
        SettingsError: a batch that cannot be shared evenly.
    """
    group = here()
    if group.ranks == 1:
        yield group, device
        return
    if batch % group.ranks:
        msg = f"a batch of {batch} cannot be shared by {group.ranks} processes"
        raise SettingsError(msg, hint="Choose a batch that they divide.")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    group = replace(group, on_gpu=on_gpu)
    if on_gpu:
        # NCCL sends objects by way of the current device, which is 0 in every process.
        torch.cuda.set_device(group.local)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield group, f"cuda:{group.local}" if on_gpu else "cpu"
        distributed.barrier()  # who leaves while others still listen, aborts them
    finally:
        distributed.destroy_process_group()
