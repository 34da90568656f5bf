"""Bring a scan that this program prepared back to the units it was measured in."""

from dataclasses import replace
from typing import Any

from engines.errors import UnreadableError
from engines.preprocess.intensity import Line
from engines.preprocess.recipe import Recipe
from engines.volume import Volume

PREPROCESSED = "preprocessed"
"""``kind`` in the provenance of a prepared scan."""


def to_hounsfield(volume: Volume) -> Volume:
    """Return ``volume`` in Hounsfield units, or in its own units if it is MR.

    Any volume that was not prepared comes back as it is. The normalisation of a
    prepared one is undone in float32, once; what a clamp cut off stays cut off.

    Raises:
        UnreadableError: the record in the header is damaged.
    """
    record = volume.provenance
    if record.get("kind") != PREPROCESSED or "intensity" not in record:
        return volume
    line = _line(record["intensity"])
    kept = {key: value for key, value in record.items() if key != "intensity"}
    kept["clamp"] = record["intensity"].get("clamp")
    voxels = volume.voxels if line == Line() else line.undo(volume.voxels)
    return Volume(voxels, volume.grid, volume.header, kept)


def remaining(recipe: Recipe, volume: Volume) -> Recipe:
    """Return what of ``recipe`` is left to do to a restored volume.

    A scan that was smoothed when it was prepared needs only the rest: the squares
    of standard deviations add up. All other steps do nothing the second time.
    """
    left_mm = max(0.0, recipe.smoothing_mm**2 - smoothed_mm(volume) ** 2) ** 0.5
    return replace(recipe, smoothing_mm=left_mm)


def smoothed_mm(volume: Volume) -> float:
    """Return the standard deviation that a volume was smoothed with, 0 if not."""
    done = volume.provenance.get("recipe")
    if volume.provenance.get("kind") != PREPROCESSED or not isinstance(done, dict):
        return 0.0
    return float(done.get("smoothing_mm") or 0)


def _line(record: Any) -> Line:  # noqa: ANN401
    try:
        line = Line(float(record["shift"]), float(record["scale"]))
    except (KeyError, TypeError, ValueError):
        line = Line(0.0, 0.0)
    if not line.scale > 0:
        msg = "the header's record of how the scan was prepared is damaged"
        raise UnreadableError(msg, hint="Run 'spine preprocess' on the original again.")
    return line
