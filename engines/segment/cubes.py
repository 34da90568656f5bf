"""One probability per voxel and class from overlapping cubes of a volume."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from engines.arrays import on_device, to_numpy
from engines.runtimes.runtime import Runtime

STEP = 0.75
"""Distance between cubes, as a share of their edge, at most."""

LEAST_WEIGHT = 0.05
"""What a voxel at the corner of a cube counts, that in its middle counting 1."""

Place = tuple[slice, slice, slice]


def probabilities(
    prepared: NDArray[np.float32],
    runtime: Runtime,
    *,
    classes: int,
    edge: int,
    empty: float,
    told: Callable[[str], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Return the weighted mean of the cubes' foreground probabilities.

    Cubes that hold nothing but ``empty`` are left out.

    Args:
        prepared: (R, A, S), on the recipe's grid.
        runtime: of a network in three dimensions.
        classes: of the network, background included.
        edge: voxels along each side of a cube.
        empty: what a volume smaller than a cube is filled up with.
        told: is called before each cube with what share is done.

    Returns:
        (classes - 1, R, A, S), float32; the background's share is what is missing
        to 1.
    """
    total = np.zeros((classes - 1, *prepared.shape), np.float32)
    weight = np.zeros(prepared.shape, np.float32)
    window = weights(edge)
    found = list(places(prepared.shape, edge))
    for number, place in enumerate(found):
        if not (prepared[place] != empty).any():
            continue
        told(f"cubes {number}/{len(found)}")
        cube = np.full((edge,) * 3, np.float32(empty))
        inside = tuple(slice(0, n) for n in prepared[place].shape)
        cube[inside] = prepared[place]
        given = runtime.predict(on_device(cube[None, None], runtime.device))
        seen = window[inside]
        share = to_numpy(given)[0, 1:][(slice(None), *inside)]
        total[(slice(None), *place)] += share * seen
        weight[place] += seen
    total /= np.maximum(weight, np.float32(1e-6))
    return total


def places(shape: tuple[int, ...], edge: int) -> Iterator[Place]:
    """Yield cubes that cover a volume of ``shape``, evenly spread along each axis."""
    yield from itertools.product(*(_along(size, edge) for size in shape))


def weights(edge: int) -> NDArray[np.float32]:
    """Return what each voxel of a cube counts, (edge, edge, edge)."""
    middle = (edge - 1) / 2
    apart = np.abs(np.arange(edge) - middle) / max(middle, 1)
    side = np.exp(np.log(LEAST_WEIGHT) / 3 * np.square(apart))
    shares: NDArray[np.float32] = (side[:, None, None] * side[:, None] * side).astype(
        np.float32
    )
    return shares


def middle(
    prepared: NDArray[np.float32], edge: int, empty: float
) -> NDArray[np.float32]:
    """Return for the gate the cube with most above ``empty``, as a batch of one."""
    best = max(
        places(prepared.shape, edge),
        key=lambda place: float((prepared[place] - empty).sum(dtype=np.float64)),
    )
    cube = np.full((edge,) * 3, np.float32(empty))
    cube[tuple(slice(0, n) for n in prepared[best].shape)] = prepared[best]
    return cube[None, None]


def _along(size: int, edge: int) -> list[slice]:
    if size <= edge:
        return [slice(0, size)]
    count = 1 + int(np.ceil((size - edge) / (edge * STEP)))
    starts = np.linspace(0, size - edge, count).round().astype(int)
    return [slice(int(start), int(start) + edge) for start in starts]
