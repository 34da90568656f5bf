"""DeepMind's ``surface_distance``: a second opinion on distances between surfaces.

It calls SciPy by deprecated names; the warnings are silenced here and nowhere else.
NumPy 2 lacks a name that it needs for an empty mask, so it is asked about masks that
have voxels.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextmanager
def _package() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import surface_distance

        yield surface_distance


def measured(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    tolerances: Sequence[float] = (1.0,),
) -> dict[str, float]:
    """Return what the package says: distances, and the surface Dice at tolerances."""
    with _package() as package:
        found = package.compute_surface_distances(truth, prediction, spacing)
        means = package.compute_average_surface_distance(found)
        return {
            "hd": package.compute_robust_hausdorff(found, 100),
            "hd95": package.compute_robust_hausdorff(found, 95),
            "msd_truth": means[0],
            "msd_prediction": means[1],
            **{
                f"nsd {mm}": package.compute_surface_dice_at_tolerance(found, mm)
                for mm in tolerances
            },
        }


def areas_mm2(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return its table of areas of the 256 patterns of eight voxels."""
    with _package() as package:
        made = package.metrics.lookup_tables
        return np.asarray(made.create_table_neighbour_code_to_surface_area(spacing_mm))


def lengths_mm(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return its table of lengths of the 16 patterns of four pixels."""
    with _package() as package:
        made = package.metrics.lookup_tables
        return np.asarray(
            made.create_table_neighbour_code_to_contour_length(spacing_mm)
        )


def corners() -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return its bits of the corners of a cube, and of a square."""
    with _package() as package:
        made = package.metrics.lookup_tables
        return made.ENCODE_NEIGHBOURHOOD_3D_KERNEL, made.ENCODE_NEIGHBOURHOOD_2D_KERNEL
