"""What is to be built, and how: the same words for every backend that builds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from engines.runtimes.cache import Key, Make
from engines.runtimes.export import BATCH


@dataclass(frozen=True, slots=True)
class Wanted:
    """An engine that is asked for.

    Attributes:
        precision: as in ``float16``; empty for the backend's usual one.
        batch: slices or cubes that it takes at once.
        targets: compute capabilities to build for, as in ``sm89``; empty for that of
            the device.
        device: as ``engines.runtimes.devices.pick`` takes it.
        size: slices or cubes that it must take, (H, W) or (R, A, S); None for the
            usual ones.
        probe: batches (N, 1, ...) of prepared slices that int8 is calibrated on.
    """

    precision: str = "float16"
    batch: int = BATCH
    targets: tuple[str, ...] = ()
    device: str = "auto"
    size: tuple[int, ...] | None = None
    probe: tuple[Tensor, ...] = field(default=(), compare=False)

    @property
    def calibration(self) -> str:
        """Return the SHA-256 of the probe where it matters, else nothing."""
        if self.precision != "int8":
            return ""
        digest = hashlib.sha256()
        for batch in self.probe:
            digest.update(f"{tuple(batch.shape)}|".encode())
            digest.update(batch.float().cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """An engine that can be made.

    Attributes:
        title: what its files' names begin with.
        key: what it depends on.
        settings: what it is built with, for its facts.
        make: makes it.
    """

    title: str
    key: Key
    settings: Mapping[str, object]
    make: Make
