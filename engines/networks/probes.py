"""Golden probes: inputs of a network with what it gave for them when it was made.

A model file carries about a dozen of them, so that any backend can be compared with
the maker's reference on any machine, without a scan. They are one block of bytes: a
header of JSON with the shapes, then all arrays, in zlib's format. The same probes give
the same block.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TENSOR = "golden.probes"
"""Name of the block in a model file; no weight is called so."""

FORMAT = 1
"""Version of the block."""

MOST_BLOCK_BYTES = 4 << 20
"""Of a block as it is stored. What this program writes has at most about 1 MB."""

MOST_BYTES = 64 << 20
"""Of a block's arrays when they are unpacked."""

MOST_HEADER_BYTES = 1 << 16
LEVEL = 9
_PREFIX = struct.Struct("<4sI")
_MAGIC = b"SPGP"


@dataclass(frozen=True, slots=True)
class Probe:
    """A batch of inputs of one shape, with the labels of the reference.

    Attributes:
        images: (N, 1, H, W) or (N, 1, R, A, S), as the network gets them; float32,
            every value exact in float16.
        labels: (N, H, W) or (N, R, A, S), uint8: the class of the largest probability
            in float32.
        margins: of the shape of ``labels``, uint8: how much larger that is than the
            second largest, times 255.
        samples: for each input, the name of the scan or phantom that it shows.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    margins: NDArray[np.uint8]
    samples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.images.shape
        good = len(shape) in (4, 5) and shape[1] == 1 and min(shape) > 0
        inner = shape[:1] + shape[2:]
        if not good or self.labels.shape != inner or self.margins.shape != inner:
            msg = f"the arrays of a probe do not fit each other: {shape}"
            raise ValueError(msg)
        if self.samples and len(self.samples) != shape[0]:
            msg = f"{len(self.samples)} names for {shape[0]} inputs of a probe"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def dimensions(self) -> int:
        """2 for slices, 3 for cubes."""
        return self.images.ndim - 2


def encode(probes: Sequence[Probe]) -> bytes:
    """Return ``probes`` as the block of a model file.

    Raises:
        ValueError: none, an image that float16 cannot hold, or more than a block takes.
    """
    if not probes:
        msg = "there are no probes"
        raise ValueError(msg)
    header = {
        "format": FORMAT,
        "probes": [
            {"shape": list(p.images.shape), "samples": list(p.samples)} for p in probes
        ],
    }
    text = json.dumps(header, sort_keys=True).encode()
    parts = [_PREFIX.pack(_MAGIC, len(text)), text]
    for probe in probes:
        with np.errstate(over="ignore"):
            half = probe.images.astype("<f2")
        if not np.array_equal(half.astype(np.float32), probe.images):
            msg = "an image of a probe has values that float16 cannot hold"
            raise ValueError(msg)
        # The two bytes of all numbers apart, which makes them smaller.
        parts.append(half.reshape(-1, 1).view(np.uint8).T.tobytes())
        parts += [probe.labels.tobytes(), probe.margins.tobytes()]
    unpacked = b"".join(parts)
    block = zlib.compress(unpacked, LEVEL)
    if len(unpacked) > MOST_BYTES or len(block) > MOST_BLOCK_BYTES:
        msg = f"the probes have {len(block) / 1e6:.1f} MB, packed"
        raise ValueError(msg)
    return block


def decode(block: bytes) -> tuple[Probe, ...]:
    """Return the probes of a block.

    Raises:
        ValueError: it is damaged, of another version, or larger than any.
    """
    content = _unpacked(block)
    if len(content) < _PREFIX.size:
        msg = "the golden probes have no header"
        raise ValueError(msg)
    magic, length = _PREFIX.unpack_from(content)
    if magic != _MAGIC or length > MOST_HEADER_BYTES:
        msg = "the golden probes have no header"
        raise ValueError(msg)
    start = _PREFIX.size + length
    shapes = _shapes(content[_PREFIX.size : start])
    counts = [_count(shape) for shape, _ in shapes]
    if start + sum(4 * count for count in counts) != len(content):
        msg = "the golden probes are not of the size that their header says"
        raise ValueError(msg)
    probes = []
    for (shape, samples), count in zip(shapes, counts, strict=True):
        probes.append(_probe(content[start : start + 4 * count], shape, samples))
        start += 4 * count
    return tuple(probes)


def require(
    probes: Sequence[Probe], *, classes: int, dimensions: int, stride: int
) -> None:
    """Refuse probes that are not of a model's network.

    Args:
        probes: what its file holds.
        classes: output channels, background included.
        dimensions: 2 for slices, 3 for cubes.
        stride: what each side of an input is a multiple of.

    Raises:
        ValueError: what does not fit.
    """
    for probe in probes:
        sides = probe.images.shape[2:]
        if probe.dimensions != dimensions or any(side % stride for side in sides):
            size = "x".join(map(str, sides))
            msg = f"the network takes no golden probe of {size}"
            raise ValueError(msg)
        if int(probe.labels.max()) >= classes:
            most = int(probe.labels.max())
            msg = f"a golden probe has label {most}, the model {classes} classes"
            raise ValueError(msg)


def summary(probes: Sequence[Probe]) -> dict[str, int]:
    """Return how many inputs there are, and of how many scans or phantoms."""
    return {
        "inputs": sum(len(probe) for probe in probes),
        "scans": len({name for probe in probes for name in probe.samples}),
    }


def _unpacked(block: bytes) -> bytes:
    if len(block) > MOST_BLOCK_BYTES:
        msg = f"the golden probes have {len(block) / 2**20:.0f} MiB"
        raise ValueError(msg)
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(block, MOST_BYTES)
    except zlib.error as error:
        msg = f"the golden probes cannot be unpacked ({error})"
        raise ValueError(msg) from error
    if not reader.eof or reader.unused_data:
        msg = "the golden probes are incomplete, or larger than any"
        raise ValueError(msg)
    return content


def _shapes(text: bytes) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """Return shape and names of each probe as the header says."""
    try:
        header = json.loads(text)
        if header["format"] != FORMAT:
            msg = f"the golden probes are of format {header['format']!r:.20}"
            raise ValueError(msg)
        return [_of_record(record) for record in header["probes"]]
    except (KeyError, TypeError, RecursionError, UnicodeDecodeError) as error:
        msg = "the header of the golden probes makes no sense"
        raise ValueError(msg) from error


def _of_record(record: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    shape, samples = tuple(record["shape"]), tuple(record["samples"])
    whole = all(type(size) is int and size > 0 for size in shape)
    known = whole and len(shape) in (4, 5) and shape[1] == 1
    if not known or not all(isinstance(name, str) for name in samples):
        msg = "the header of the golden probes makes no sense"
        raise ValueError(msg)
    return shape, samples


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:  # Python's whole numbers do not overflow
        count *= size
    return count


def _probe(content: bytes, shape: tuple[int, ...], samples: tuple[str, ...]) -> Probe:
    count = _count(shape)
    planes = np.frombuffer(content, np.uint8, 2 * count).reshape(2, count)
    half = np.ascontiguousarray(planes.T).view("<f2").reshape(shape)
    if not np.isfinite(half).all():
        msg = "an image of the golden probes has values that are no numbers"
        raise ValueError(msg)
    inner = shape[:1] + shape[2:]
    rest = np.frombuffer(content, np.uint8, 2 * count, 2 * count)
    labels, margins = rest.reshape(2, *inner)
    return Probe(half.astype(np.float32), labels, margins, samples)
