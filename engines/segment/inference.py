"""One scan through one network: prepared, looked at, labelled on its own grid.

canonical orientation -> resample -> slices of each view -> runtime -> fuse -> clean ->
back to the native grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines import labels
from engines.arrays import on_device, to_numpy
from engines.geometry import Grid, cropped
from engines.networks.manifest import Manifest, Model
from engines.preprocess import orient, resample
from engines.preprocess import prepare as steps
from engines.preprocess.recipe import Recipe
from engines.preprocess.restore import remaining
from engines.results import Note
from engines.runtimes.runtime import Runtime
from engines.segment import (
    clean,
    cubes,
    fuse,
    levels,
    locate,
    models,
    native,
    slices,
    views,
)
from engines.volume import Volume

PROBE_SLICES = 2
"""Slices of each view that the parity gate looks at."""

AROUND_THE_MIDDLE = {"sagittal": (0.4, 0.6), "coronal": (0.4, 0.6), "axial": (0, 1)}
"""View -> between which shares of the bone the gate's slices lie: the spine is in the
middle from side to side and from front to back, and goes through from end to end."""

AROUND_MM = 75.0
"""What a guided network sees on each side of the spine that its guide found."""

BONE_HU = 200.0

MOST_WIDENED = 3
"""Times that the box about the spine is widened, where the spine reaches its side."""


@dataclass(frozen=True, slots=True)
class Segmented:
    """A finished label map, still in memory.

    Attributes:
        labels: (I, J, K) of the scan's own grid, uint8.
        hu: (R, A, S), the scan on the recipe's grid.
        shown: (R, A, S), ``labels`` on the recipe's grid, for pictures.
        cleaned: what was taken out.
        notes: what went otherwise than it should.
    """

    labels: NDArray[np.uint8]
    hu: NDArray[np.float32]
    shown: NDArray[np.uint8]
    cleaned: clean.Cleaned
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scan as the network sees it, with the way back.

    Attributes:
        scan: as it was read, without its voxels' weight in memory.
        canonical: grid of the scan along RAS axes.
        grid: grid of the recipe.
        hu: (R, A, S) on ``grid``.
        values: ``hu``, normalised.
        empty: the normalised value of air.
    """

    scan: Volume
    canonical: Grid
    grid: Grid
    hu: NDArray[np.float32]
    values: NDArray[np.float32]
    empty: float

    def cropped(self, box: locate.Box) -> "Prepared":
        """Return the part of the scan on the recipe's grid that ``box`` picks."""
        grid = cropped(self.grid, box)
        return replace(self, grid=grid, hu=self.hu[box], values=self.values[box])


def prepare(scan: Volume, recipe: Recipe) -> Prepared:
    """Bring a scan to the recipe's grid and intensities."""
    turned, grid, hu = steps.on_recipe_grid(scan, remaining(recipe, scan))
    values, _ = steps.normalised(hu, recipe)
    light = scan.with_voxels(np.empty(0, scan.voxels.dtype))
    return Prepared(light, turned, grid, hu, values, float(values.min()))


def frame_for(model: Model, prepared: Prepared) -> slices.Frame:
    """Return how slices of a scan are framed for a model."""
    return slices.Frame(model.stride, model.manifest.patch, prepared.empty)


def probe(
    prepared: Prepared,
    model: Model,
    planes: Sequence[str],
    count: int = PROBE_SLICES,
) -> list[NDArray[np.float32]]:
    """Return for the gate what the network is tried on.

    It is a batch (N, 1, H, W) per view of slices through the middle of the bone, where
    the spine is, or one cube.
    """
    if model.dimensions == 3:
        edge = cube_edge(model)
        return [cubes.middle(prepared.values, edge, prepared.empty)]
    frame = frame_for(model, prepared)
    of_ct = model.manifest.modality == "ct"
    weight = prepared.hu > BONE_HU if of_ct else prepared.values - prepared.empty
    chosen = []
    for view in planes:
        stacked = views.stack(prepared.values, view)
        across = tuple(axis for axis in range(3) if axis != views.NORMALS[view])
        below = np.cumsum(weight.sum(axis=across, dtype=np.float64))
        low, high = AROUND_THE_MIDDLE[view]
        shares = low + (high - low) * (np.arange(count) + 0.5) / count
        places = np.searchsorted(below, shares * below[-1])
        kept = np.unique(np.minimum(places, len(stacked) - 1))
        chosen.append(frame.put(stacked[kept]))
    return chosen


def cube_edge(model: Model) -> int:
    """Return the edge in voxels of the cubes that a network in 3D is given."""
    stride = model.stride
    return -(-max(model.manifest.patch, stride) // stride) * stride


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a network says of a scan.

    Attributes:
        box: the part of the scan on the recipe's grid that was looked at.
        probability: (classes - 1, R, A, S) of that part, on the CPU.
        device: that computed it, and is to interpolate it.
        named: what a guided network says of the vertebrae, on a grid of its own.
    """

    box: locate.Box
    probability: NDArray[np.float32]
    device: str
    named: levels.Opinion | None = None


def infer(
    prepared: Prepared,
    model: Model,
    runtime: Runtime,
    planes: Sequence[str],
    told: Callable[[str], None] = lambda _: None,
) -> Inferred:
    """Run the network over one prepared scan."""
    box = locate.WHOLE
    if model.dimensions == 3:
        probability = cubes.probabilities(
            prepared.values,
            runtime,
            classes=model.classes,
            edge=cube_edge(model),
            empty=prepared.empty,
            told=told,
        )
    else:
        box, probability = _from_slices(prepared, model, runtime, planes, told)
    return Inferred(box, probability, runtime.device)


def around_spine(prepared: Prepared, found: Inferred, recipe: Recipe) -> Prepared:
    """Return what a guided network looks at: ``AROUND_MM`` about the spine.

    Args:
        prepared: the scan as its guide sees it.
        found: what the guide says of it; some of it is spine.
        recipe: of the guided network.
    """
    spine = np.zeros(prepared.grid.shape, bool)
    spine[found.box] = found.probability.sum(axis=0) > locate.SURE
    spacing_mm = prepared.grid.spacing_mm
    margins = [round(AROUND_MM / mm) for mm in spacing_mm]
    (sides,) = ndimage.find_objects(spine.astype(np.uint8))
    wide = [
        slice(max(0, side.start - margin), side.stop + margin)
        for side, margin in zip(sides, margins, strict=True)
    ]
    part = prepared.cropped((wide[0], wide[1], wide[2]))
    return prepare(Volume(part.hu, part.grid), recipe)


def opinion(
    prepared: Prepared, box: locate.Box, seen: Prepared, named: Inferred
) -> levels.Opinion:
    """Return what a guided network says, for ``box`` of the grid of its guide.

    Args:
        prepared: the scan as the guide sees it.
        box: the part of it in which the guide found the spine.
        seen: what the guided network was given.
        named: what it says of that.
    """
    here = cropped(prepared.grid, box).affine
    own = cropped(seen.grid, named.box).affine
    return levels.Opinion(named.probability, np.linalg.inv(own) @ here)


def label(
    prepared: Prepared,
    inferred: Inferred,
    manifest: Manifest,
    *,
    mark_uncertain: bool = False,
    vertebrae: bool = False,
) -> Segmented:
    """Clean what the network said, in place, and bring it to the scan's own grid.

    Args:
        manifest: of the model that found the spine.
        vertebrae: number the vertebrae of a model of regions, too: labels are then
            VerSe ids.
    """
    part = prepared.cropped(inferred.box)
    probability = inferred.probability
    cleaned = clean.clean(probability, part.grid.spacing_mm)
    if dict(manifest.classes) in models.IN_ORDER:
        probability = levels.settle(
            probability,
            manifest.classes,
            part.grid.spacing_mm,
            part.hu,
            into=labels.VERTEBRA_CLASSES if vertebrae else None,
            second=inferred.named if vertebrae else None,
        )
    turned, notes = _on_native_grid(
        part, probability, inferred.device, mark_uncertain=mark_uncertain
    )
    shown = resample.nearest(turned, prepared.canonical, prepared.grid)
    held = orient.undo(turned, prepared.scan.grid, manifest.recipe.orientation)
    return Segmented(held, prepared.hu, shown, cleaned, notes)


def _on_native_grid(
    part: Prepared,
    probability: NDArray[np.float32],
    device: str,
    *,
    mark_uncertain: bool,
) -> tuple[NDArray[np.uint8], tuple[Note, ...]]:
    """Return the labels on the scan's canonical grid, interpolated by ``device``.

    The CPU does it where the device answers no more, or has no memory left: what the
    network said of the scan lies on the CPU and is not lost with the device.
    """

    def on(place: str) -> NDArray[np.uint8]:
        return native.labels(
            on_device(probability, place),
            part.grid,
            part.canonical,
            mark_uncertain=mark_uncertain,
        )

    try:
        return on(device), ()
    except RuntimeError as error:
        if device == "cpu":
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        told = f"{device} could not interpolate the labels ({first}); the CPU did"
        return on("cpu"), (Note("labelled_on_cpu", told),)


def _from_slices(
    prepared: Prepared,
    model: Model,
    runtime: Runtime,
    planes: Sequence[str],
    told: Callable[[str], None],
) -> tuple[locate.Box, NDArray[np.float32]]:
    """Return a box about the spine and probabilities (classes - 1, R, A, S) in it."""
    frame = frame_for(model, prepared)
    spacing_mm = prepared.grid.spacing_mm
    told("locate")
    values = on_device(prepared.values, runtime.device)
    found = locate.spine(values, runtime, planes, spacing_mm, frame)
    box, seen = found.box, found.seen
    for left in reversed(range(1 + MOST_WIDENED)):
        computed = fuse.probabilities(
            values[box],
            runtime,
            planes,
            classes=model.classes,
            frame=frame,
            spacing_mm=spacing_mm,
            seen=seen,
            told=told,
        )
        probability = to_numpy(computed)
        spine = probability.sum(axis=0) > locate.SURE
        wider = locate.outgrown(spine, box, prepared.grid.shape, spacing_mm)
        if wider is None or not left:
            break
        box, seen = wider, locate.carried(spine, box, wider)
    return box, probability
