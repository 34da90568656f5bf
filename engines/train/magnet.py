"""CT shown as MR would show it, so that a network for MR can learn from it.

Each slice gets a contrast of its own: how bright fat, muscle, fluid, marrow and the
other tissues are in it. Where soft tissue is in the CT its Hounsfield units tell which
one it is; what the CT does not tell is known from the tissues of ``bodies``, or drawn.
Then follow the coil behind the back, the raster of k-space, thick slices and noise.
That a network which saw enough contrasts knows those it never saw: Billot et al.,
SynthSeg, arXiv:2107.09559. The contrasts are those of textbooks; none is fitted to
scans.

Lengths are in pixels of about 1.3 mm; values start at 0, which is air.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engines.train import lie as lies
from engines.train import receiver, shapes, synthesis
from engines.train.lie import AXIAL, Lie

Image = NDArray[np.float32]
Span = tuple[float, float]

ANY: Span = (0.05, 1.0)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Between which limits each tissue's brightness is drawn; 1 is the brightest."""

    fat: Span = ANY
    muscle: Span = ANY
    organ: Span = ANY
    fluid: Span = ANY
    marrow: Span = ANY
    nucleus: Span = ANY
    annulus: Span = ANY
    cord: Span = ANY
    blood: Span = (0.0, 1.0)
    cortex: Span = (0.0, 0.15)


CONTRASTS: Mapping[str, tuple[float, Contrast]] = MappingProxyType(
    {
        "t1": (
            0.18,
            Contrast(
                fat=(0.75, 1.0),
                muscle=(0.25, 0.45),
                organ=(0.25, 0.55),
                fluid=(0.05, 0.25),
                marrow=(0.4, 0.75),
                nucleus=(0.2, 0.42),
                annulus=(0.15, 0.4),
                cord=(0.25, 0.45),
                blood=(0.0, 0.3),
            ),
        ),
        "t2": (
            0.22,
            Contrast(
                fat=(0.5, 0.9),
                muscle=(0.08, 0.25),
                organ=(0.15, 0.5),
                fluid=(0.75, 1.0),
                marrow=(0.3, 0.6),
                nucleus=(0.1, 0.85),
                annulus=(0.03, 0.2),
                cord=(0.25, 0.55),
                blood=(0.0, 0.15),
            ),
        ),
        "water": (
            0.3,
            Contrast(
                fat=(0.02, 0.2),
                muscle=(0.3, 0.75),
                organ=(0.2, 0.8),
                fluid=(0.6, 1.0),
                marrow=(0.15, 0.5),
                nucleus=(0.35, 1.0),
                annulus=(0.2, 0.8),
                cord=(0.4, 0.8),
                blood=(0.0, 1.0),
            ),
        ),
        "fat": (
            0.12,
            Contrast(
                fat=(0.8, 1.0),
                muscle=(0.04, 0.2),
                organ=(0.03, 0.2),
                fluid=(0.0, 0.1),
                marrow=(0.3, 0.7),
                nucleus=(0.02, 0.15),
                annulus=(0.02, 0.15),
                cord=(0.02, 0.15),
                blood=(0.0, 0.15),
            ),
        ),
        "any": (0.18, Contrast()),
    }
)
"""Name -> how often it is drawn, and its limits."""

AIR = 0.02
"""What is not brighter than this holds no vessel."""

LEAST_STEP = 0.12
"""By this much discs differ from marrow at least, or nothing is to be learnt."""

Levels = Mapping[str, float]
"""Tissue -> its brightness in one slice."""


def scan_of(
    hu: Image | None,
    tissues: Image,
    kind: str,
    rng: Generator,
    lie: Lie = AXIAL,
) -> Image:
    """Show a slice of a CT, or of masks alone, as MR; (H, W), from 0 on.

    Args:
        hu: (H, W); None for masks alone.
        tissues: (5, H, W), shares of ``bodies.TISSUES``.
        kind: of its source, see ``settings.Source``.
        rng: of every draw.
        lie: how the slice lies in the body.
    """
    body, arch, disc, canal, unsure = tissues
    bone = np.clip(body + arch + unsure, 0, 1)
    spine = bone > 0.5
    if hu is None:
        hu, _ = synthesis.scan_of(spine, rng, lie)
    elif kind == "bone":
        hu = synthesis.around_bone(hu, spine, rng, lie)
    levels = drawn_levels(rng)
    image = soft_tissue(hu, levels, rng)
    vessels(image, np.clip(bone + disc + canal, 0, 1), levels, rng, lie)
    inside_canal(image, canal, levels, rng)
    image += np.clip(1.2 * disc, 0, 1) * (discs(disc, levels, rng, lie) - image)
    image += bone * (marrow(hu, bone, levels, rng, lie) - image)
    return receiver.received(image, bone, rng, lie)


def drawn_levels(rng: Generator) -> Levels:
    """Draw how bright each tissue is."""
    chances = np.array([chance for chance, _ in CONTRASTS.values()])
    chosen = int(rng.choice(len(CONTRASTS), p=chances / chances.sum()))
    _, contrast = list(CONTRASTS.values())[chosen]
    levels = {
        f.name: float(rng.uniform(*getattr(contrast, f.name))) for f in fields(contrast)
    }
    for part in ("nucleus", "annulus"):
        step = levels[part] - levels["marrow"]
        if abs(step) < LEAST_STEP:
            moved = levels["marrow"] + np.copysign(LEAST_STEP, step)
            levels[part] = max(0.0, float(moved))
    return levels


def soft_tissue(hu: Image, levels: Levels, rng: Generator) -> Image:
    """Return the brightness of each pixel (H, W) by what its Hounsfield units tell."""
    smooth = ndimage.gaussian_filter(hu, rng.uniform(0.5, 1.1))
    muscle, organ = levels["muscle"], levels["organ"]
    ends = sorted((muscle, rng.uniform(0.5, 1.3) * muscle))
    knots = (
        (-1000, 0.0),
        (-700, 0.04),
        (-250, 0.3 * levels["fat"]),
        (-110, levels["fat"]),
        (-80, levels["fat"]),
        (15, ends[0]),
        (60, ends[1]),
        (110, organ),
        (190, organ),
        (320, levels["marrow"]),
        (900, levels["cortex"]),
    )
    places, values = zip(*knots, strict=True)
    image: Image = np.interp(smooth, places, values).astype(np.float32)
    water = (smooth > -20) & (smooth < 200)
    for cells in rng.uniform(3, 12, int(rng.integers(0, 4))):
        there = synthesis.field(rng, hu.shape, cells) > rng.uniform(0.5, 1.5)
        level = levels[str(rng.choice(["organ", "fluid", "blood", "muscle"]))]
        part = ndimage.gaussian_filter((water & there).astype(np.float32), 0.7)
        image += part * (np.float32(level * rng.uniform(0.7, 1.2)) - image)
    grain = synthesis.field(rng, hu.shape, rng.uniform(25, 90))
    image *= 1 + rng.uniform(0, 0.18) * grain
    image *= 1 + rng.uniform(0, 0.2) * synthesis.field(rng, hu.shape, 9)
    return np.maximum(image, 0)


def vessels(
    image: Image, spine: Image, levels: Levels, rng: Generator, lie: Lie
) -> None:
    """Draw great vessels along the spine, with signal or without, in place.

    Args:
        image: (H, W).
        spine: how much of each pixel is spine.
    """
    if not spine.any():
        return
    front = shapes.way(lie.anterior, rng) * lies.shows(lie.anterior)
    middle = np.array(ndimage.center_of_mass(spine))
    for _ in range(int(rng.integers(0, 4)) // 2):
        radius = rng.uniform(3, 9)
        centre = middle + front * rng.uniform(14, 34) + rng.normal(0, 7, 2)
        if lie.upright is None:
            vessel = shapes.ellipse(
                image.shape, centre, (radius, radius * rng.uniform(0.7, 1.3)), 0.0
            )
        else:
            up = shapes.way(lie.superior, rng) * rng.uniform(40, 90)
            bend = centre + rng.normal(0, 6, 2)
            course = (centre - up, bend, centre + up)
            vessel = shapes.tube(image.shape, course, radius * 0.8)
        level = levels["blood"] if rng.random() < 0.7 else rng.random()
        share = shapes.inside(vessel) * (1 - np.clip(2 * spine, 0, 1)) * (image > AIR)
        image += share * (np.float32(level) - image)


def inside_canal(image: Image, canal: Image, levels: Levels, rng: Generator) -> None:
    """Draw fluid with cord or roots in it, and fat around it, in place."""
    if not canal.any():
        return
    wide = np.clip(ndimage.gaussian_filter(canal, 1.2) * rng.uniform(1.1, 2.0), 0, 1)
    wide = np.maximum(canal, wide)
    fat = np.float32(levels["fat"])
    if rng.random() < 0.6:
        image += wide * (fat - image)
    deep = ndimage.gaussian_filter(canal, rng.uniform(1.0, 2.2))
    fluid = np.float32(levels["fluid"])
    image += np.clip(canal * (0.4 + deep), 0, 1) * (fluid - image)
    inner = np.clip((deep - rng.uniform(0.45, 0.75)) * 6, 0, 1)
    strands = synthesis.field(rng, canal.shape, rng.uniform(15, 70)) > 0
    if rng.random() < 0.5:
        inner = inner * ndimage.gaussian_filter(strands.astype(np.float32), 0.6)
    inner = inner * (synthesis.field(rng, canal.shape, 3) > rng.uniform(-1, 1))
    image += inner * (np.float32(levels["cord"]) - image)


def discs(disc: Image, levels: Levels, rng: Generator, lie: Lie) -> Image:
    """Return what discs look like, (H, W): a nucleus, a ring, each of its own age."""
    parts, count = ndimage.label(disc > 0.3)
    aged = np.clip(1 - np.abs(rng.normal(0, 0.35, count + 1)), 0.1, 1)
    age = ndimage.maximum_filter(np.where(parts > 0, aged[parts], 0), 3)
    sigma = rng.uniform(2, 4)
    if lie.upright is None:
        core = ndimage.gaussian_filter(disc, sigma)
    else:
        wide = ndimage.gaussian_filter1d(disc, sigma, axis=1 - lie.upright)
        high = ndimage.gaussian_filter1d(wide, 1.0, axis=lie.upright)
        core = (wide / np.maximum(high, 0.3)).astype(np.float32)
    core = np.clip((core - 0.5) * rng.uniform(1.5, 4), 0, 1)
    nucleus = levels["annulus"] + age * (levels["nucleus"] - levels["annulus"])
    looks = levels["annulus"] + core * (nucleus - levels["annulus"])
    grain = 1 + 0.06 * synthesis.field(rng, (disc.shape[0], disc.shape[1]), 40)
    image: Image = (looks * grain).astype(np.float32)
    return image


def marrow(hu: Image, bone: Image, levels: Levels, rng: Generator, lie: Lie) -> Image:
    """Return what bone looks like, (H, W): marrow within a dark rim.

    Args:
        hu: of the slice; dense bone is darker and veins stand out, more or less.
        bone: how much of each pixel is bone.
    """
    level = levels["marrow"]
    image = np.full(bone.shape, np.float32(level))
    image *= 1 + rng.uniform(0, 0.12) * synthesis.field(rng, bone.shape, 60)
    image *= 1 + rng.uniform(0, 0.15) * synthesis.field(rng, bone.shape, 12)
    solid = bone > 0.5
    if solid.any():
        usual = float(np.median(hu[solid]))
        dense = np.clip((hu - usual) / 400, -1, 1)
        image -= np.float32(rng.uniform(-0.05, 0.45) * level) * dense
        _cleft(image, solid, levels, rng, lie)
        if rng.random() < 0.2:
            spots = synthesis.field(rng, bone.shape, rng.uniform(8, 20)) > 1.4
            soft = ndimage.gaussian_filter(spots.astype(np.float32), 0.8)
            image += soft * (np.float32(rng.uniform(0, 1)) - image)
    blurred = ndimage.gaussian_filter(bone, rng.uniform(0.6, 1.5))
    rim = np.clip((1 - blurred) * rng.uniform(0.2, 2.4), 0, 1)
    image += rim * (np.float32(levels["cortex"]) - image)
    return np.maximum(image, 0)


def _cleft(
    image: Image, solid: NDArray[np.bool_], levels: Levels, rng: Generator, lie: Lie
) -> None:
    """Draw the veins that leave each body at the middle of its back, in place."""
    if not lies.shows(lie.anterior) or rng.random() < 0.4:
        return
    deep = ndimage.distance_transform_edt(solid)
    parts, count = ndimage.label(deep > max(5.0, 0.75 * float(deep.max())))
    back = -shapes.way(lie.anterior, rng)
    value = np.float32(levels[str(rng.choice(["fluid", "fat", "cortex"]))])
    wide = rng.uniform(0.5, 1.5)
    for centre in ndimage.center_of_mass(solid, parts, range(1, min(count, 8) + 1)):
        start = np.array(centre) + back * rng.uniform(0, 5)
        end = start + back * rng.uniform(6, 12)
        vein = shapes.capsule(image.shape, start, end, wide)
        image += 0.7 * shapes.inside(vein) * (value - image)
