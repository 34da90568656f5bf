"""One probability per voxel and class from the slices of several views."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.runtimes.runtime import Runtime
from engines.segment import slices, views
from engines.segment.slices import Frame


def probabilities(
    prepared: NDArray[np.float32],
    runtime: Runtime,
    planes: Sequence[str],
    *,
    classes: int,
    frame: Frame,
    told: Callable[[str], None] = lambda _: None,
) -> Tensor:
    """Return the mean over ``planes`` of the foreground probabilities.

    Args:
        prepared: (R, A, S), on the recipe's grid.
        told: is called with each view before it is computed.

    Returns:
        (classes - 1, R, A, S), float32; the background's share is what is missing
        to 1.
    """
    total = torch.zeros((classes - 1, *prepared.shape))
    for view in planes:
        told(view)
        stacked = views.stack(prepared, view)
        target = torch.movedim(total, 1 + views.NORMALS[view], 1)
        for index, batch in slices.batches(stacked, frame):
            found = frame.take(runtime.predict(batch), stacked.shape[1:])
            target[:, index] += found[:, 1:].movedim(1, 0)
    total /= len(planes)
    return total
