"""What every backend offers."""

from typing import Protocol, runtime_checkable

from engines.arrays import Array
from engines.results import Note


@runtime_checkable
class Noting(Protocol):
    """A runtime that has something to say of how it computes."""

    def take_notes(self) -> list[Note]:
        """Return what happened since this was last asked."""
        ...


class Runtime(Protocol):
    """A network ready to be run.

    Attributes:
        backend: a row of ``engines.runtimes.backends``.
        precision: as in ``float32``.
        device: as in ``cpu`` or ``cuda:0``.
    """

    backend: str
    precision: str
    device: str

    def predict(self, slices: Array) -> Array:
        """Return class probabilities.

        Shape:
            slices: (N, 1, H, W), float32, an array of the device, prepared by the
                recipe; H and W are multiples of the network's stride. For a network
                in three dimensions they are cubes, (N, 1, R, A, S), and so is what
                returns.
            returned: (N, classes, H, W), float32, summing to 1, an array of the
                device.
        """
        ...
