"""Two bodies with their arches, drawn as an axial and a sagittal slice would."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.train.lie import AXIAL, Lie

SAGITTAL = Lie((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
CORONAL = Lie((1.0, 0.0), (0.0, 0.0), (0.0, 1.0))
LIES = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL}


@pytest.fixture(params=list(LIES))
def lie(request: pytest.FixtureRequest) -> Lie:
    return LIES[request.param]


@pytest.fixture
def spine(lie: Lie) -> NDArray[np.bool_]:
    """A mask (96, 96) with a canal: bodies in front of it, processes behind."""
    mask = np.zeros((96, 96), bool)
    if lie is AXIAL:
        mask[36:60, 44:64] = True  # a body
        mask[38:58, 24:44] = True  # its arch
        mask[43:53, 30:44] = False  # the canal
        return mask
    for low in (18, 42):
        mask[44:66, low : low + 18] = True
        mask[22:36, low + 4 : low + 14] = True
    return mask


@pytest.fixture
def hu(spine: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Soft tissue in air, and bone."""
    image = np.full(spine.shape, np.float32(-1000))
    image[12:84, 10:88] = 40
    image[spine] = 350
    return image
