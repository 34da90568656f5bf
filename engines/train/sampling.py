"""Cut a slice of a subject at a random pose: draw the pose, then apply it.

World axes are right, anterior, superior. A slice's rows run along the first of its
view's two axes and its columns along the second, as in ``engines.segment.views``.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch.nn import functional

from engines.train import lie as lies
from engines.train.data import WHOLE, Subject
from engines.train.lie import Lie
from engines.train.settings import Augment

VIEW_AXES = {"axial": (0, 1, 2), "sagittal": (1, 2, 0), "coronal": (0, 2, 1)}
"""View -> RAS axes of its rows, its columns and its normal."""

P_ON_BONE = 0.8
"""Share of slices that are centred near spine bone; the others lie anywhere."""

P_SPREAD = 0.7
P_SPREAD_MM = 25.0
"""Share of those that are moved off the bone, and by how much (one sigma)."""

CRUSH_NEAR_MM, CRUSH_AROUND_MM = 3.0, 12.0
"""Bone this near to the plane may be crushed; bone within this counts as around."""

CRUSHED_MM = (12.0, 28.0)
"""Height of a body before: from the neck to the loins."""

Plane = NDArray[np.float64]
Image = NDArray[np.float32]
Target = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Crush:
    """A body that lost height: what lies beyond it moves in.

    Attributes:
        axis: of the slice, nearest to the body's: 0 or 1.
        place_mm: of its middle, along rows and columns from the slice's centre.
        half_mm: half its height, after.
        share: of its height that is lost.
        reach_mm: how far across the axis it goes (one sigma).
    """

    axis: int
    place_mm: tuple[float, float]
    half_mm: float
    share: float
    reach_mm: float

    def shift_mm(self, along: Plane, across: Plane) -> Plane:
        """Return how far along ``axis`` what is shown at a place was, before.

        Args:
            along: places along ``axis``, mm.
            across: places along the other axis.
        """
        middle, other = self.place_mm[self.axis], self.place_mm[1 - self.axis]
        inside = np.clip(along - middle, -self.half_mm, self.half_mm)
        near = np.exp(-(((across - other) / self.reach_mm) ** 2) / 2)
        lost: Plane = inside * self.share / (1 - self.share) * near
        return lost


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a slice lies.

    Attributes:
        centre_mm: (3,), from the subject's first voxel, along RAS.
        axes: (3, 3), unit vectors of rows, columns and normal, as columns.
        step_mm: (2,), distance between pixels along rows and columns.
        warp_mm: (2, 6, 6), coarse in-plane displacements.
        thickness_mm: of the slab that is averaged; 0 for a plane.
        turns: quarter turns of the finished slice.
        crush: a body that lost height, if any.
    """

    centre_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    step_mm: tuple[float, float]
    warp_mm: NDArray[np.float64]
    thickness_mm: float = 0.0
    turns: int = 0
    crush: Crush | None = None

    @property
    def lie(self) -> Lie:
        """Where front, head and right side are in the finished slice."""
        return lies.of(self.axes, self.turns)


def draw(
    subject: Subject, view: str, how: Augment, rng: Generator, place: int | None = None
) -> Pose:
    """Draw a pose for a training slice.

    Args:
        place: voxel along the view's normal that the slice is turned about, which
            then shows the whole plane; None for a slice about any place of the spine.
    """
    angles = np.clip(rng.normal(0, how.rotation_deg, 3), -25, 25)
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes = axes[:, VIEW_AXES[view]]
    if rng.random() < how.p_mirror:
        axes[0] *= -1  # right and left change places in every view
    if rng.random() < how.p_flip:
        axes[:, 0] *= -1
    zoom = how.scale ** rng.uniform(-1, 1)
    rows_mm, columns_mm = _step_mm(subject, view)
    stretch = 1 + how.stretch * rng.uniform(-1, 1)
    thickness = rng.uniform(2, 6) if rng.random() < how.p_thick else 0.0
    if place is None:
        centre = _centre(subject, rng)
    else:
        centre = whole(subject, view, place).centre_mm
    pose = Pose(
        centre,
        axes,
        (rows_mm * zoom * stretch, columns_mm * zoom / stretch),
        rng.normal(0, how.warp_mm, (2, 6, 6)),
        thickness,
        int(rng.integers(1, 4)) if rng.random() < how.p_turn else 0,
    )
    if view != "axial" and how.p_crush and rng.random() < how.p_crush:
        return replace(pose, crush=_crush(subject, pose, rng))
    return pose


def straight(subject: Subject, view: str, share: float) -> Pose:
    """Return the pose of an unaltered slice, ``share`` of the way through the bone."""
    rows, columns, normal = VIEW_AXES[view]
    low, high = subject.bone.min(axis=0), subject.bone.max(axis=0)
    index = (low + high) / 2
    index[normal] = np.round(low[normal] + share * (high[normal] - low[normal]))
    axes = np.eye(3)[:, [rows, columns, normal]]
    centre = index * np.array(subject.spacing_mm)
    return Pose(centre, axes, _step_mm(subject, view), np.zeros((2, 6, 6)))


def whole(subject: Subject, view: str, place: int) -> Pose:
    """Return the pose of the unaltered plane ``place`` voxels along the normal."""
    rows, columns, normal = VIEW_AXES[view]
    index = (np.array(subject.shape) - 1) / 2
    index[normal] = place
    axes = np.eye(3)[:, [rows, columns, normal]]
    centre = index * np.array(subject.spacing_mm)
    return Pose(centre, axes, _step_mm(subject, view), np.zeros((2, 6, 6)))


def places(subject: Subject, view: str, *, central: bool) -> list[int]:
    """Return the planes through the spine along a view's normal, or the central one.

    The central one lies in the middle of what is marked.
    """
    along = subject.bone[:, VIEW_AXES[view][2]]
    if central:
        return [int(np.median(along))]
    return list(range(int(along.min()), int(along.max()) + 1))


def cut(subject: Subject, pose: Pose, size: int) -> tuple[Image | None, Target]:
    """Return the slice (size, size) in HU, None without an image, and its target."""
    planes = 1 if not pose.thickness_mm else 3
    spread = np.linspace(-0.5, 0.5, planes) if planes > 1 else np.zeros(1)
    points = _points(pose, size)
    normal = pose.axes[:, 2]
    image = None
    if subject.image is not None:
        layers = [
            _sample(subject.image, subject, points + normal * s * pose.thickness_mm)
            for s in spread
        ]
        image = np.mean(layers, axis=0) + np.float32(subject.outside)
    target = _sample_target(subject, points)
    if pose.turns:
        target = np.rot90(target, pose.turns).copy()
        image = None if image is None else np.rot90(image, pose.turns).copy()
    return image, target


def cut_tissues(subject: Subject, pose: Pose, size: int) -> Image:
    """Return the shares (5, size, size) of ``bodies.TISSUES`` in a slice.

    A thick slice is the mean of as many planes as its image.
    """
    if subject.tissues is None:
        msg = "tissues are known of CT that is shown as MR"
        raise ValueError(msg)
    planes = np.linspace(-0.5, 0.5, 3) if pose.thickness_mm else np.zeros(1)
    points = _points(pose, size)
    layers = [points + pose.axes[:, 2] * s * pose.thickness_mm for s in planes]
    grid = _grid(subject, np.stack(layers))
    taken = functional.grid_sample(
        subject.tissues[None], grid, "bilinear", align_corners=True
    )
    shares = taken[0, :, 0, 0].numpy().reshape(-1, len(planes), size, size)
    turned: Image = np.rot90(shares.mean(axis=1), pose.turns, axes=(1, 2)).copy()
    return turned


def cut_cube(subject: Subject, pose: Pose, size: int) -> tuple[Image | None, Target]:
    """Return a cube (size, size, size), None without an image, and its target.

    The pose is one of an axial slice, so the axes are right, anterior, superior
    before they are turned.
    """
    along = np.arange(size) - (size - 1) / 2
    apart = (along * pose.step_mm[0])[:, None] * pose.axes[:, 2]
    points = _points(pose, size)[:, :, None] + apart
    image = None
    if subject.image is not None:
        image = _sample(subject.image, subject, points) + np.float32(subject.outside)
    return image, _sample_target(subject, points)


def _step_mm(subject: Subject, view: str) -> tuple[float, float]:
    rows, columns, _ = VIEW_AXES[view]
    return subject.seen_mm[rows], subject.seen_mm[columns]


def _centre(subject: Subject, rng: Generator) -> NDArray[np.float64]:
    spacing = np.array(subject.spacing_mm)
    if rng.random() < P_ON_BONE:
        index = subject.bone[rng.integers(len(subject.bone))]
        spread = rng.normal(0, P_SPREAD_MM, 3) * (rng.random() < P_SPREAD)
    else:
        index = rng.random(3) * (np.array(subject.shape) - 1)
        spread = np.zeros(3)
    centre: NDArray[np.float64] = index * spacing + spread
    return centre


def _crush(subject: Subject, pose: Pose, rng: Generator) -> Crush | None:
    """Draw a crushed body in the plane, None where the plane shows no spine.

    Of some bone voxels near the plane the one with most bone around it is crushed,
    which is likely to be in a body and not in a process.
    """
    bone = (subject.bone * np.array(subject.spacing_mm) - pose.centre_mm) @ pose.axes
    shown = bone[np.abs(bone[:, 2]) < CRUSH_NEAR_MM, :2]
    if not len(shown):
        return None
    tried = shown[rng.integers(len(shown), size=6)]
    apart = ((shown[:, None] - tried) ** 2).sum(axis=2)
    row, column = tried[int((apart < CRUSH_AROUND_MM**2).sum(axis=0).argmax())]
    share = rng.uniform(0.2, 0.6)
    half = rng.uniform(*CRUSHED_MM) / 2 * (1 - share)
    axis = int(np.argmax(np.abs(pose.axes[2, :2])))
    place = float(row), float(column)
    return Crush(axis, place, half, share, rng.uniform(14, 35))


def _points(pose: Pose, size: int) -> NDArray[np.float64]:
    """Return the pixels' places, (size, size, 3), in mm from the first voxel."""
    along = np.arange(size) - (size - 1) / 2
    warp = functional.interpolate(
        torch.from_numpy(pose.warp_mm)[None],
        (size, size),
        mode="bicubic",
        align_corners=True,
    )[0].numpy()
    rows = along[:, None] * pose.step_mm[0] + warp[0]
    columns = along[None, :] * pose.step_mm[1] + warp[1]
    if pose.crush and pose.crush.axis == 0:
        rows = rows + pose.crush.shift_mm(rows, columns)
    elif pose.crush:
        columns = columns + pose.crush.shift_mm(columns, rows)
    plane = rows[..., None] * pose.axes[:, 0] + columns[..., None] * pose.axes[:, 1]
    points: NDArray[np.float64] = plane + pose.centre_mm
    return points


def _grid(subject: Subject, points: NDArray[np.float64]) -> torch.Tensor:
    """Return ``points`` (..., 3) as one row of places for ``grid_sample``."""
    extent = np.array(subject.spacing_mm) * (np.array(subject.shape) - 1)
    unit = 2 * points / np.maximum(extent, 1e-6) - 1
    row = unit.reshape(1, 1, 1, -1, 3)[..., ::-1]
    return torch.from_numpy(row.astype(np.float32))


def _sample(
    voxels: torch.Tensor, subject: Subject, points: NDArray[np.float64]
) -> Image:
    taken = functional.grid_sample(
        voxels[None, None], _grid(subject, points), "bilinear", align_corners=True
    )
    values: Image = taken[0, 0, 0, 0].numpy().reshape(points.shape[:-1])
    return values


def _sample_target(subject: Subject, points: NDArray[np.float64]) -> Target:
    """Return at each point the value that holds more than half of it, else 0.

    Shares are interpolated between the eight voxels around a point; beyond the scan
    they are 0.
    """
    place = points.reshape(-1, 3) / np.array(subject.spacing_mm)
    low = np.floor(place).astype(np.int64)
    beyond = (place - low).astype(np.float32)
    shape, count = np.array(subject.shape), len(place)
    row = np.zeros(256, np.int64)
    row[list(subject.values)] = np.arange(1, 1 + len(subject.values))
    total = np.zeros((1 + len(subject.values), count), np.float32)
    every = np.arange(count)
    for corner in np.ndindex(2, 2, 2):
        index = low + corner
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        i, j, k = np.where(inside[:, None], index, 0).T
        weight = np.where(corner, beyond, 1 - beyond).prod(axis=1) * inside
        total[row[subject.held[i, j, k]], every] += weight * subject.share[i, j, k]
    total[0] = WHOLE / 2
    best = np.array((0, *subject.values), np.uint8)[total.argmax(axis=0)]
    found: Target = best.reshape(points.shape[:-1])
    return found
