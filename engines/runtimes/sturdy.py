"""A runtime that takes smaller batches when the GPU's memory runs out, and counts."""

import sys
import time

from engines.arrays import Array, namespace
from engines.errors import LostDeviceError
from engines.results import Note
from engines.runtimes.runtime import Noting, Runtime

LEAST = 1
"""Slices in the smallest batch that is tried."""

LOST = "CUDA error"
"""What the message of an error says whose device answers no more."""


class SturdyRuntime:
    """Halves batches that do not fit.

    Attributes:
        seconds: spent in the network since ``take``.
        slices: that it was given since then.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.backend, self.precision = runtime.backend, runtime.precision
        self.device = runtime.device
        self._runtime = runtime
        self._most: int | None = None
        self._notes: list[Note] = []
        self.seconds = 0.0
        self.slices = 0

    def predict(self, slices: Array) -> Array:
        """Return class probabilities; see the protocol for shapes.

        Raises:
            LostDeviceError: the device answers no more.
            torch.OutOfMemoryError: not even one slice fits.
        """
        started = time.perf_counter()
        try:
            return self._in_parts(slices)
        except RuntimeError as error:
            if out_of_memory(error) or LOST not in str(error):
                raise
            msg = f"{self.device} was lost: {str(error).splitlines()[0]}"
            raise LostDeviceError(msg) from error
        finally:
            self.seconds += time.perf_counter() - started
            self.slices += len(slices)

    def take(self) -> tuple[float, int, list[Note]]:
        """Return seconds, slices and what happened, and count from nought again."""
        if isinstance(self._runtime, Noting):
            self._notes += self._runtime.take_notes()
        taken = self.seconds, self.slices, self._notes
        self.seconds, self.slices, self._notes = 0.0, 0, []
        return taken

    def _in_parts(self, slices: Array) -> Array:
        count = min(self._most or len(slices), len(slices))
        parts: list[Array] = []
        start = 0
        while start < len(slices):
            try:
                parts.append(self._runtime.predict(slices[start : start + count]))
                start += count
            except RuntimeError as error:
                if count <= LEAST or not out_of_memory(error):
                    raise
                count = self._most = max(LEAST, count // 2)
                sys.modules["torch"].cuda.empty_cache()
                told = f"memory of {self.device} ran out: batches of {count} from there"
                self._notes.append(Note("smaller_batches", told))
        return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts)


def out_of_memory(error: BaseException) -> bool:
    """Say whether the memory of a GPU ran out; only torch, once imported, says so."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
