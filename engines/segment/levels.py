"""Tell vertebrae apart along a spine, and number them by what a network says.

A network that sees slices may call the middle of a lumbar vertebra thoracic, or L2
what it called L3 a slice before. Here the bodies are followed from foot to head and
cut where bone is thin or endplates are bright, as about discs, into vertebrae that
come in order: each as long as that level is in people, none left out, and named as
most of the network's opinion goes. Arches and processes then belong to the body that
they grow out of, by a watershed of the depth in bone. A second network may have its
say about which vertebra is which (``Opinion``), where the first tells regions alone.

The cuts are those of the best path through a semi-Markov chain (Ostendorf et al., IEEE
Trans. Speech Audio Process. 4:360, 1996). How long each level is beside the others was
measured on three label maps of training scans, from middle to middle of the bodies. A
sixth lumbar or thirteenth thoracic vertebra is not thought of.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from engines import labels

STEP_MM = 2.0
"""Length of the pieces that the spine is taken in."""

CORE_MM = 4.0
"""Bone this deep is in a body, or in the sacrum."""

VERTEBRA_MM = 30.0
"""So much of the spine is one opinion, since within it all voxels err alike."""

THIN = 2.0
"""What a cut costs in bone that is thick beside a gap; in the thinnest it is free."""

DARK = 2.0
"""What a cut costs where marrow is darkest; between the brightest plates it is free."""

PLATES_MM = 4.0
"""How far the light of endplates is spread, over the disc between them."""

LEAST_GLOW = 80.0
"""HU by which plates have to outshine marrow to count in full."""

AROUND_MM = 36.0
"""Length within which bone is thick or thin."""

SHARP = 4
"""Power of the probability by which voxels count as bone, so that discs show that the
network half marks."""

STRANGE = 40.0
"""What a vertebra of any strange length costs at most."""

VARIES = 0.12
"""How far the length of a vertebra varies within a person, relative (one sigma)."""

SCALES = (0.8, 0.86, 0.93, 1.0, 1.08, 1.16)
"""Sizes of people, those whose lengths are in ``LADDER`` being 1."""

DOUBT = 0.05
"""No voxel is taken to be surer than this that it is not of a level."""

MARGIN = 4
"""Voxels about the spine that are settled, too: finer grids look into them."""

NAMED_MM = 2 * VERTEBRA_MM
"""What a second network's opinion of a whole spine counts: as one of so much of it,
since where it is wrong it is wrong by one or two vertebrae from end to end."""

NAMED_DOUBT = 0.25
"""Share of a second network's opinion that is spread evenly over all vertebrae."""

FAINT = 1e-3
"""Voxels with less of the spine than this take no part in any vertebra."""

SURE, LEAST = 0.5, 1e-3
Places = NDArray[np.float64]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Level:
    """A vertebra as it comes from foot to head: VerSe id, and usual length in mm."""

    id: int
    length_mm: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a second network says, on a grid of its own, of which vertebra is where.

    Attributes:
        probability: (classes - 1, R, A, S), that of ``labels.VERTEBRA_CLASSES``.
        to_own: (4, 4), voxel indices on the spine's grid -> those on this one, whose
            axes are the same.
    """

    probability: NDArray[np.float32]
    to_own: NDArray[np.float64]

    def within(self, box: tuple[slice, ...]) -> "Opinion":
        """Return it for the part of the spine's grid that ``box`` picks."""
        shift = np.eye(4)
        shift[:3, 3] = [side.start for side in box]
        return Opinion(self.probability, self.to_own @ shift)

    def told(self, voxels: NDArray[np.int64]) -> Places:
        """Return the logarithm of what each level of ``LADDER`` has of each voxel.

        Args:
            voxels: (N, 3), indices on the spine's grid.

        Returns:
            (levels, N).
        """
        own = voxels @ self.to_own[:3, :3].T + self.to_own[:3, 3]
        among = [labels.class_of(v.id, labels.VERTEBRA_CLASSES) - 1 for v in LADDER]
        share = np.stack(
            [
                ndimage.map_coordinates(
                    self.probability[channel], own.T, np.float64, 1, mode="nearest"
                )
                for channel in among
            ]
        )
        share = (share + LEAST / len(LADDER)) / (share.sum(axis=0) + LEAST)
        even = NAMED_DOUBT / len(LADDER)
        logarithm: Places = np.log((1 - NAMED_DOUBT) * share + even)
        return logarithm


def _ladder() -> tuple[Level, ...]:
    sizes = {"sacrum": 110.0, "C1": 15.0, "C2": 24.0, "T1": 21.0, "T12": 30.0}
    sizes |= dict(
        zip(("L5", "L4", "L3", "L2", "L1"), (31, 33, 35, 36, 33), strict=True)
    )
    sizes |= {f"T{n}": 23.5 + 0.3 * (n - 2) for n in range(2, 11)} | {"T11": 28.0}
    sizes |= {f"C{n}": 17.0 + 0.4 * (n - 3) for n in range(3, 8)}
    found = [Level(labels.BY_NAME[name].id, mm) for name, mm in sizes.items()]
    return tuple(sorted(found, key=lambda level: -level.id))


LADDER = _ladder()


def settle(
    probability: NDArray[np.float32],
    classes: Mapping[str, int],
    spacing: Spacing,
    hu: NDArray[np.float32] | None = None,
    *,
    into: Mapping[str, int] | None = None,
    second: Opinion | None = None,
) -> NDArray[np.float32]:
    """Give each voxel of the spine the class of its vertebra alone.

    Args:
        probability: (classes - 1, R, A, S); what a voxel has in all does not change.
        classes: regions or vertebrae, with their indices.
        spacing: voxel size in mm along (R, A, S).
        hu: (R, A, S), the scan, whose endplates show where discs are that the network
            marked.
        into: the classes to give; None for ``classes``, and it is done in place.
        second: of another network, that counts beside ``probability``.

    Returns:
        (number of ``into`` - 1, R, A, S).
    """
    whole = probability.sum(axis=0)
    spine = whole > SURE
    given = classes if into is None else into
    settled = probability
    if into is not None:
        settled = np.zeros((max(into.values()), *whole.shape), np.float32)
    if not spine.any():
        return settled
    box = tuple(
        slice(max(0, side.start - MARGIN), side.stop + MARGIN)
        for side in ndimage.find_objects(spine.astype(np.uint8))[0]
    )
    seen = None if hu is None else hu[box]
    opinion = probability[(slice(None), *box)]
    other = None if second is None else second.within(box)
    share = whole[box]
    found = vertebrae(
        spine[box], opinion, classes, spacing, seen, other, rim=share > FAINT
    )
    part = settled[(slice(None), *box)]
    part[:] = 0
    for number in np.unique(found[found > 0]).tolist():
        held = found == number
        channel = labels.class_of(number, given) - 1
        part[channel][held] = share[held]
    return settled


def vertebrae(
    spine: Mask,
    opinion: NDArray[np.float32],
    classes: Mapping[str, int],
    spacing: Spacing,
    hu: NDArray[np.float32] | None = None,
    second: Opinion | None = None,
    *,
    rim: Mask | None = None,
) -> NDArray[np.uint8]:
    """Return the VerSe id of each voxel of ``spine`` (R, A, S), 0 elsewhere.

    Args:
        spine: not empty.
        opinion: (classes - 1, R, A, S), how the network divides each voxel.
        classes: regions or vertebrae, with their indices.
        spacing: voxel size in mm.
        hu: (R, A, S), the scan.
        second: of another network, that counts beside ``opinion``.
        rim: (R, A, S), what holds the spine and gets the ids next to it; None for no
            more than the spine.
    """
    depth = ndimage.distance_transform_edt(np.pad(spine, 1), sampling=spacing)
    depth = depth[1:-1, 1:-1, 1:-1]
    core = depth >= min(CORE_MM, 0.6 * float(depth.max()))
    voxels = np.argwhere(core)
    place = _along(core, voxels, spacing)
    share = opinion[:, *voxels.T]
    whole = share.sum(axis=0)
    share = share / np.maximum(whole, LEAST)
    channels = [labels.class_of(level.id, classes) - 1 for level in LADDER]
    low = float(place.min())
    piece = ((place - low) / STEP_MM).astype(int)
    bone = np.bincount(piece, (whole / whole.max()) ** SHARP).astype(float)
    cost = THIN * _dips(bone)
    if hu is not None:
        cost += DARK * _dark(piece, hu[tuple(voxels.T)])
    told = np.log(np.clip(share, DOUBT, 1))[channels]
    if second is not None:
        length = max(float(place.max()) - low, NAMED_MM)
        told = told + NAMED_MM / length * second.told(voxels)
    cuts, steps = _best(piece, told, cost)
    seeds = np.zeros(spine.shape, np.uint8)
    ids = np.array([LADDER[step].id for step in steps], np.uint8)
    away = np.abs((place - low)[:, None] / STEP_MM - cuts[None]).min(axis=1, initial=9)
    sure = voxels[away >= 1]
    seeds[tuple(sure.T)] = ids[np.searchsorted(cuts, piece[away >= 1], side="right")]
    return _grown(seeds, spine, spine if rim is None else rim | spine, depth)


def _along(core: Mask, voxels: NDArray[np.int64], spacing: Spacing) -> Places:
    """Return how far along the spine the voxels (N, 3) of its bodies lie, in mm."""
    mm = np.asarray(spacing)
    held = np.flatnonzero(core.any(axis=(0, 1)))
    middles = [np.argwhere(core[:, :, k]).mean(axis=0) * mm[:2] for k in held]
    every = np.arange(core.shape[2])
    curve = [np.interp(every, held, aside) for aside in np.array(middles).T]
    smooth = ndimage.gaussian_filter1d(curve, 12.0 / mm[2], axis=1, mode="nearest")
    points = np.column_stack([*smooth, every * mm[2]])
    if len(points) == 1:
        return np.zeros(len(voxels))
    way = np.gradient(points, axis=0)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    at = voxels[:, 2]
    ahead: Places = length[at] + ((voxels * mm - points[at]) * way[at]).sum(axis=1)
    return ahead


def _dips(bone: Places) -> Places:
    """Return how much bone each piece has above the thinnest around it, 0 to 1."""
    most, least = _around(bone)
    dips: Places = (bone - least) / np.maximum(most, 1e-9)
    return dips


def _dark(piece: NDArray[np.int64], hu: NDArray[np.float32]) -> Places:
    """Return how far each piece is from the brightest endplates around it, 0 to 1.

    Args:
        piece: (N,), in which each voxel is.
        hu: (N,), what it shows.
    """
    light = np.bincount(piece, np.clip(hu, -100, 700)).astype(float)
    spread = [
        ndimage.gaussian_filter1d(values, PLATES_MM / STEP_MM, mode="nearest")
        for values in (light, np.bincount(piece).astype(float))
    ]
    glow = spread[0] / np.maximum(spread[1], 1e-9)
    most, least = _around(glow)
    dark: Places = (most - glow) / np.maximum(most - least, LEAST_GLOW)
    return dark


def _around(values: Places) -> tuple[Places, Places]:
    """Return the highest and the lowest value within ``AROUND_MM`` of each piece."""
    size = 1 + 2 * round(AROUND_MM / STEP_MM / 2)
    highest = ndimage.maximum_filter1d(values, size, mode="nearest")
    lowest = ndimage.minimum_filter1d(values, size, mode="nearest")
    return highest, lowest


def _best(
    piece: NDArray[np.int64], told: Places, cost: Places
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pieces at which cuts lie, and the steps of the ladder between them.

    Args:
        piece: (N,), in which each voxel is, from 0.
        told: (levels, N), logarithm of the share that each level has of each voxel.
        cost: (pieces,), of a cut at each.
    """
    count = np.bincount(piece).astype(float)
    upto = np.zeros((len(LADDER), len(count) + 1))
    for row, voxels in zip(upto, told, strict=True):
        mean = np.bincount(piece, voxels) / np.maximum(count, 1)
        row[1:] = np.cumsum(mean) * (STEP_MM / VERTEBRA_MM)
    thick = np.zeros(len(count) + 1)
    thick[1:-1] = np.minimum(cost[1:], cost[:-1])
    paths = [_path(upto, thick, scale) for scale in SCALES]
    return max(paths, key=lambda path: path[0])[1:]


def _path(
    upto: Places, thick: Places, scale: float
) -> tuple[float, NDArray[np.int64], NDArray[np.int64]]:
    """Return the best score, its cuts and its steps, for people of one size."""
    levels, ends = upto.shape
    length = np.subtract.outer(-np.arange(ends), -np.arange(ends)) * STEP_MM
    begun = np.full(ends, -np.inf)
    scores, before = np.full((levels, ends), -np.inf), np.zeros((levels, ends), int)
    for step in range(levels):
        start = begun - thick - upto[step]
        start[0] = 0.0
        total = start[:, None] + upto[step][None] + _likely(step, length, scale)
        before[step] = total.argmax(axis=0)
        scores[step] = begun = total.max(axis=0)
    step = int(scores[:, -1].argmax())
    best, end = float(scores[step, -1]), ends - 1
    cuts, steps = [], [step]
    while (start_at := int(before[step, end])) > 0:
        cuts.append(start_at)
        step, end = step - 1, start_at
        steps.append(step)
    return best, np.array(cuts[::-1], int), np.array(steps[::-1], int)


def _likely(step: int, length: Places, scale: float) -> Places:
    """Return how likely lengths are, from each cut (rows) to each above it.

    A vertebra that is in view in part may be any shorter.
    """
    usual = LADDER[step].length_mm * scale
    off = (length - usual) / (VARIES * usual)
    off[0] = np.maximum(off[0], 0)
    off[:, -1] = np.maximum(off[:, -1], 0)
    return np.where(length > 0, -np.minimum(off**2 / 2, STRANGE), -np.inf)


def _grown(
    seeds: NDArray[np.uint8], spine: Mask, within: Mask, depth: Places
) -> NDArray[np.uint8]:
    """Return ``seeds`` grown over ``within`` and so over ``spine``, deep bone first."""
    height = (-depth).astype(np.float32)
    grown: NDArray[np.uint8] = watershed(
        height, seeds, connectivity=3, mask=within
    ).astype(np.uint8)
    apart = spine & (grown == 0)
    if apart.any():  # pieces without a body take the name of what is next to them
        nearest = ndimage.distance_transform_edt(
            grown == 0, return_distances=False, return_indices=True
        )
        grown[apart] = grown[tuple(axis[apart] for axis in nearest)]
    return grown
