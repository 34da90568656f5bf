"""Score only where the truth is sure to be complete: between its end vertebrae.

Scans show more vertebrae than were labelled. What a prediction marks beyond the first
and the last labelled one may be right, so it cannot count as wrong. Definition: a voxel
is scored when the labelled vertebra nearest to it, in mm, is neither the uppermost nor
the lowest labelled one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.errors import MaskError
from engines.labels import BY_NAME

FEWEST = 3
"""Labels that the truth needs for one to lie between the others."""

_PLACES = {BY_NAME["T13"].id: BY_NAME["T12"].id + 0.5}
"""Ids that do not grow from head to feet -> where they lie among the others."""


def inner(truth: NDArray[Any], spacing_mm: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return which voxels are scored.

    Args:
        truth: (I, J, K), an id for each vertebra as VerSe numbers them, 0 elsewhere.
        spacing_mm: of its voxels.

    Raises:
        MaskError: fewer than three labels.
    """
    ids = sorted(np.unique(truth[truth > 0]).tolist(), key=_place)
    if len(ids) < FEWEST:
        msg = f"the truth has {len(ids)} label(s), so none lies between two others"
        hint = "Leave out --inner, or give a truth with a label for each vertebra."
        raise MaskError(msg, hint=hint)
    nearest = ndimage.distance_transform_edt(
        truth == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    kept: NDArray[np.bool_] = np.isin(truth[tuple(nearest)], ids[1:-1])
    return kept


def _place(label: int) -> float:
    return _PLACES.get(label, float(label))
