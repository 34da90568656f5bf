"""What a reader of an image format returns before it is checked as a volume."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import UnreadableError, UnsupportedError
from engines.results import Note

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

LARGEST_AXIS = 1 << 31

FRAMES_HINT = "Split the series and give one frame."


@dataclass(frozen=True, slots=True)
class Raster:
    """Voxels with what their header says of them.

    Attributes:
        voxels: in the order of the file, the first axis running fastest.
        affine: (4, 4), voxel index to RAS, in ``unit``.
        unit: of lengths, as the header calls it; empty where it does not.
        notes: what the header leaves out, or what else the user should know.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    unit: str = ""
    notes: tuple[Note, ...] = ()


def assumed(*told: str) -> tuple[Note, ...]:
    """Return a note of what a header leaves out, with what was taken instead."""
    if not told:
        return ()
    msg = f"the header does not tell all; assumed: {'; '.join(told)}"
    return (Note("assumed", msg),)


def counted(path: Path, what: str, words: Sequence[str], axes: int) -> tuple[int, ...]:
    """Return the numbers of voxels along each of ``axes``.

    Raises:
        UnreadableError: they are not as many, or no sizes.
    """
    sizes = [int(word) for word in words if re.fullmatch(r"\+?\d{1,10}", word)]
    fits = len(words) == len(sizes) == axes
    if not fits or not all(0 < size < LARGEST_AXIS for size in sizes):
        told = " ".join(words)[:40]
        msg = f"{path.name}: cannot be read ({what} is {told!r} for {axes} axes)"
        raise UnreadableError(msg)
    return tuple(sizes)


def whole(
    content: bytearray, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return the voxels that ``content`` holds, in the machine's byte order."""
    stored = np.frombuffer(content, dtype).reshape(shape, order="F")
    return stored.astype(dtype.newbyteorder("="), copy=False)


def three_axes(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape without trailing axes of one element.

    Raises:
        UnsupportedError: more axes than three, or fewer.
    """
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        msg = f"{name}: {len(shape)}-D with {shape[3]} frames; one is needed"
        raise UnsupportedError(msg, hint=FRAMES_HINT)
    if len(shape) < 3 or min(shape) < 1:
        msg = f"{name}: {' x '.join(map(str, shape)) or 'no'} voxels; 3-D is needed"
        raise UnsupportedError(msg, hint="Give the whole scan, not a single slice.")
    return int(shape[0]), int(shape[1]), int(shape[2])
