"""How large an image is by its header alone, and whether it can be read here."""

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

from engines.errors import MemoryLimitError, UnsupportedError

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

MAX_RATIO = 500
"""Bytes of voxels for each packed one; deflate's most is 1032, for a single value."""

RATIO_FROM_BYTES = 1 << 28
"""Smaller images may have any ratio."""

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Extent:
    """What a header says of the size of its image.

    Attributes:
        shape: voxels along each axis.
        itemsize: bytes of a voxel in memory.
        packed: bytes of the compressed voxels, None where they are not compressed.
        most: bytes of voxels that the file can hold; None for any number. A header
            that promises more is damaged, which the readers tell.
    """

    shape: tuple[int, ...]
    itemsize: int
    packed: int | None = None
    most: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all voxels in memory."""
        return math.prod(self.shape) * self.itemsize

    @property
    def is_possible(self) -> bool:
        """Whether the file can hold so many voxels."""
        return self.most is None or self.bytes <= self.most

    @property
    def told(self) -> str:
        """Shape and bytes for messages."""
        return f"{' x '.join(map(str, self.shape))} voxels, {size(self.bytes)}"

    def require_memory(self, name: str) -> None:
        """Refuse more voxels than this machine can hold.

        Raises:
            MemoryLimitError: there are.
        """
        there = machine_bytes()
        if there is not None and self.bytes > there and self.is_possible:
            msg = f"{name}: {self.told}; this machine has {size(there)}"
            raise MemoryLimitError(f"{msg} of memory")

    def require_scan(self, name: str) -> None:
        """Refuse what is packed as no scan can be: nearly all of one value.

        Raises:
            UnsupportedError: it is large, and its packed voxels are very few.
        """
        if self.packed is None or self.bytes < RATIO_FROM_BYTES:
            return
        ratio = self.bytes / max(1, self.packed)
        if ratio > MAX_RATIO and self.is_possible:
            msg = (
                f"{name}: {self.told} from {self.packed} packed bytes, {ratio:.0f} for "
                f"each; no scan has more than {MAX_RATIO}, nearly all is one value"
            )
            raise UnsupportedError(msg, hint="Give the scan itself.")


def size(count: float) -> str:
    """Return a number of bytes for messages."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"


def machine_bytes() -> float | None:
    """Return the memory of the machine or the limit of the container."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    with contextlib.suppress(OSError, ValueError):  # no limit, or the word "max"
        total = min(total, int(CGROUP_LIMIT.read_text()))
    return float(total)
