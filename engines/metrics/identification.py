"""Whether vertebrae carry the right name, and how far off their centres lie.

Source: VerSe benchmark (Sekuboyina et al. 2021, doi:10.1016/j.media.2021.102166): a
vertebra of the truth is identified when the centre predicted for it lies within 20 mm
and no other true centre lies closer. Departure: all true centres compete, also those
of vertebrae that the prediction lacks. A vertebra that was not predicted counts as
not identified. Sacrum and coccyx are not counted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import (
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray
from scipy import ndimage

from engines.errors import MaskError
from engines.geometry import Affine, Grid
from engines.labels import VERTEBRAE

HIT_MM = 20.0
"""How far a centre may lie from the true one."""

_AXES = {code: axis for axis, pair in enumerate(("LR", "PA", "IS")) for code in pair}

IDENTIFIED = frozenset(v.id for v in VERTEBRAE.values() if v.region != "sacral")
"""What is identified: vertebrae, but neither sacrum nor coccyx."""

Centres = Mapping[int, NDArray[np.float64]]
"""VerSe id -> (3,) in RAS mm."""


@dataclass(frozen=True, slots=True)
class Identified:
    """How vertebrae of one case were identified.

    Attributes:
        error_mm: VerSe id -> distance of the predicted centre, of those that both have.
        hits: VerSe ids that were identified.
        truth: how many vertebrae there are.
    """

    error_mm: Mapping[int, float]
    hits: tuple[int, ...]
    truth: int

    @property
    def rate(self) -> float:
        """Share of the true vertebrae that were identified."""
        return len(self.hits) / self.truth if self.truth else 0.0

    @property
    def mean_error_mm(self) -> float | None:
        """Mean distance of centres of vertebrae that both have; None without any."""
        return float(np.mean([*self.error_mm.values()])) if self.error_mm else None

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        return {
            "rate": self.rate,
            "mean_error_mm": self.mean_error_mm,
            "identified": len(self.hits),
            "vertebrae": self.truth,
            "errors_mm": {VERTEBRAE[k].name: mm for k, mm in self.error_mm.items()},
        }


def identify(prediction: Centres, truth: Centres) -> Identified:
    """Compare predicted centres with true ones."""
    errors, hits = {}, []
    for label, centre in sorted(prediction.items()):
        if label not in truth:
            continue
        apart = {
            other: float(np.linalg.norm(centre - there))
            for other, there in truth.items()
        }
        errors[label] = apart[label]
        if apart[label] <= HIT_MM and apart[label] == min(apart.values()):
            hits.append(label)
    return Identified(errors, tuple(hits), len(truth))


def centres_of(labels: NDArray[Any], affine: Affine) -> dict[int, NDArray[np.float64]]:
    """Return the centre of mass of every vertebra in a label map with VerSe ids."""
    boxes = ndimage.find_objects(labels)
    centres = {}
    for label, box in enumerate(boxes, start=1):
        if box is None or label not in IDENTIFIED:
            continue
        index = np.argwhere(labels[box] == label).mean(axis=0)
        start = np.array([along.start for along in box])
        centres[label] = affine[:3, :3] @ (index + start) + affine[:3, 3]
    return centres


def read_centres(path: Path, grid: Grid) -> dict[int, NDArray[np.float64]]:
    """Read centres from a VerSe ``_ctd.json`` file.

    Args:
        path: the file; its coordinates are voxels along the axes that it names.
        grid: of the scan that they were found in.

    Raises:
        MaskError: it is not such a file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        codes = "".join(record[0]["direction"])
        points = {
            int(row["label"]): np.array([row["X"], row["Y"], row["Z"]], float)
            for row in record[1:]
        }
        affine = _turned(grid, codes)
        sane = all(np.isfinite(point).all() for point in points.values())
        if not sane or len({_AXES[code] for code in codes}) != len(_AXES) // 2:
            msg = "coordinates or directions that make no sense"
            raise ValueError(msg)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        msg = f"{path.name}: not a centroid file ({type(error).__name__})"
        raise MaskError(msg, hint="Give _ctd.json files as VerSe has them.") from None
    return {
        label: affine[:3, :3] @ point + affine[:3, 3]
        for label, point in points.items()
        if label in IDENTIFIED
    }


def _turned(grid: Grid, codes: str) -> Affine:
    """Return the affine of ``grid`` once its axes run along ``codes``."""
    turn = ornt_transform(io_orientation(grid.affine), axcodes2ornt(tuple(codes)))
    turned: Affine = grid.affine @ inv_ornt_aff(turn, grid.shape)
    return turned
