"""Siemens mosaics: the slices of one MR volume as tiles of one large image.

The header places the large image as if it were one slice; the tiles lie in its
middle. Source: the layout is explained in nibabel's DICOM documentation
(nipy.org/nibabel/dicom/dicom_mosaic.html), whose reader of the private CSA header is
used here.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from engines.convert.frames import MAX_NUMBER, Frame
from engines.convert.marks import text

MAX_TILES = 10_000


def is_mosaic(header: Dataset) -> bool:
    """Say whether the image is a Siemens mosaic."""
    return "MOSAIC" in text(header.get("ImageType")).upper().split("\\")


def tiles(base: Frame, header: Dataset) -> list[Frame]:
    """Return the slices of a mosaic, in the order of its tiles.

    Raises:
        ValueError: the private header does not say how many slices there are or how
            far apart.
    """
    from nibabel.nicom import csareader  # warns when imported: callers are quiet

    csa = csareader.get_csa_header(header, "image")
    count = csareader.get_n_mosaic(csa) if csa else None
    step_mm = header.get("SpacingBetweenSlices") or base.thickness_mm
    if csa is not None:
        step_mm = csareader.get_scalar(csa, "SpacingBetweenSlices") or step_mm
    count, step_mm = int(count or 0), float(step_mm or 0)
    sane = 0 < count <= MAX_TILES and 0 < abs(step_mm) < MAX_NUMBER
    if not sane or base.missing or min(base.shape) < count**0.5:
        msg = "a mosaic whose private header does not tell its slices"
        raise ValueError(msg)
    side = math.ceil(math.sqrt(count))
    rows, columns = base.shape[0] // side, base.shape[1] // side
    across, down = np.array(base.directions).reshape(2, 3)
    between_rows_mm, between_columns_mm = base.spacing_mm or (0.0, 0.0)
    corner = (
        np.array(base.position_mm)
        + across * between_columns_mm * (base.shape[1] - columns) / 2
        + down * between_rows_mm * (base.shape[0] - rows) / 2
    )
    normal = np.cross(across, down)
    stored = csareader.get_slice_normal(csa)
    if stored is not None and np.dot(stored, normal) < 0:
        normal = -normal
    return [
        replace(
            base,
            index=tile,
            tiles=side,
            shape=(rows, columns),
            decimals=(),
            position_mm=_tuple(corner + tile * step_mm * normal),
        )
        for tile in range(count)
    ]


def _tuple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
