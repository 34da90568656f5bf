"""What is to be built, and how: the same words for every backend that builds."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engines.networks.probes import Probe
from engines.runtimes.cache import Key, Make

BATCH = 8
"""Slices that an engine takes at once, unless told otherwise."""


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
        probes: golden probes of the model, which int8 is calibrated on.
    """

    precision: str = "float16"
    batch: int = BATCH
    targets: tuple[str, ...] = ()
    device: str = "auto"
    size: tuple[int, ...] | None = None
    probes: tuple[Probe, ...] = field(default=(), compare=False)

    @property
    def calibration(self) -> str:
        """Return the SHA-256 of the probes where they matter, else nothing."""
        return calibration(self.precision, self.probes)


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


def calibration(precision: str, probes: Sequence[Probe]) -> str:
    """Return the SHA-256 of the images that int8 is calibrated on, else nothing."""
    if precision != "int8":
        return ""
    digest = hashlib.sha256()
    for probe in probes:
        digest.update(f"{probe.images.shape}|".encode())
        digest.update(probe.images.tobytes())
    return digest.hexdigest()
