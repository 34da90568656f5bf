"""The table of alterations: what is done to a scan, and after what it is modelled.

Each row is light to list; adding one is adding a row.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product

import numpy as np
from numpy.random import Generator

from engines.errors import SettingsError
from engines.robustness import grids, implants, looks
from engines.robustness.subject import Subject

Change = Callable[[Subject, Generator], Subject]


@dataclass(frozen=True, slots=True)
class Alteration:
    """One row.

    Attributes:
        name: what it is called in tables.
        kind: what ``--only`` asks for; a name is asked for as well.
        told: what is done, in a few words.
        source: after what it is modelled, or how it is defined.
        change: does it; its draws come from a generator of its own.
        by_default: whether it is done unless asked for.
    """

    name: str
    kind: str
    told: str
    source: str
    change: Change
    by_default: bool = True

    def of(self, subject: Subject, seed: int) -> Subject:
        """Return the altered scan; the same seed and name give the same draws.

        Raises:
            InapplicableError: it makes no sense for this scan.
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return self.change(subject, rng)


SPACINGS_MM = (0.5, 0.7, 1.0, 2.0, 3.0, 4.0)

ORIENTATIONS = tuple(
    "".join(codes)
    for pairs in permutations(("LR", "PA", "IS"))
    for codes in product(*pairs)
)
"""The 48 ways in which three axes can run."""

SAMPLE = ("LPS", "PIR", "SPL", "ARS", "RIA", "ILA")
"""One of each order of the axes, with different flips."""


def _turned(axes: str, subject: Subject, rng: Generator) -> Subject:
    del rng
    return grids.turned(subject, axes)


def _spaced(size_mm: float, subject: Subject, rng: Generator) -> Subject:
    del rng
    return grids.spaced(subject, size_mm)


_FIELD = "spine protocols reconstruct a narrow field about the spine, as VerSe's"
_STREAKS = "rays hardened and weakened by metal, reconstructed: engines.train.metal"

ALTERATIONS: tuple[Alteration, ...] = (
    Alteration("field-box", "field", "cut to 90 mm about the spine", _FIELD, grids.box),
    Alteration(
        "field-circle",
        "field",
        "air outside a circle of 90 mm about the spine",
        _FIELD,
        grids.circle,
    ),
    Alteration(
        "slices-5mm",
        "slices",
        "axial slices of 5 mm, means of thinner ones",
        "the thickness that most archives hold",
        grids.thick,
    ),
    Alteration(
        "kernel-sharp",
        "kernel",
        "edges enhanced as by a bone kernel",
        "unsharp masks of 0.7 and 2 mm, 1.5 and 0.5 times",
        looks.sharp,
    ),
    Alteration(
        "kernel-soft",
        "kernel",
        "blurred as by a soft kernel",
        "a Gaussian of 1 mm in the slice",
        looks.soft,
    ),
    Alteration(
        "noise-60hu",
        "noise",
        "noise of a low dose, 60 HU inside the body",
        "ramp filter times a cosine kernel, the spectrum of filtered back projection",
        looks.noisy,
    ),
    Alteration(
        "starved",
        "streaks",
        "streaks between the shoulders or hips, up to 180 HU",
        "noise that grows with the path through the body: engines.train.scanner",
        looks.starved,
    ),
    Alteration(
        "metal-screws",
        "metal",
        "four screws and two rods, with streaks",
        _STREAKS,
        implants.screws,
    ),
    Alteration(
        "metal-cage", "metal", "a cage between two bodies", _STREAKS, implants.cage
    ),
    Alteration(
        "contrast",
        "contrast",
        "aorta 350 HU with plaques, vena cava, kidneys",
        "an arterial to portal venous phase, drawn over soft tissue alone",
        looks.agent_given,
    ),
    *(
        Alteration(
            f"orientation-{axes}",
            "orientation",
            f"voxels stored along {axes}",
            "the same scan: the mask has to be the same",
            partial(_turned, axes),
            by_default=axes in SAMPLE,
        )
        for axes in ORIENTATIONS
    ),
    *(
        Alteration(
            f"spacing-{size_mm:g}mm",
            "spacing",
            f"resampled to voxels of {size_mm:g} mm",
            "cubic to finer voxels, means over the voxel to coarser ones",
            partial(_spaced, size_mm),
        )
        for size_mm in SPACINGS_MM
    ),
)

EVERY = "-all"
"""After a kind: also the rows of it that are not done by default."""


def kinds() -> tuple[str, ...]:
    """Return what can be asked for, in the order of the table."""
    found = list(dict.fromkeys(one.kind for one in ALTERATIONS))
    more = {one.kind for one in ALTERATIONS if not one.by_default}
    return tuple(
        word
        for kind in found
        for word in ([kind, kind + EVERY] if kind in more else [kind])
    )


def chosen(only: Sequence[str] = ()) -> tuple[Alteration, ...]:
    """Return the rows that are asked for, all that are done by default without any.

    Raises:
        SettingsError: nothing is called so.
    """
    known = {*kinds(), *(one.name for one in ALTERATIONS)}
    strange = [word for word in only if word not in known]
    if strange:
        msg = f"no alteration is called {strange[0]!r}"
        hint = f"Choose among: {', '.join(kinds())}; or one by its name in the table."
        raise SettingsError(msg, hint=hint)
    return tuple(one for one in ALTERATIONS if _wanted(one, only))


def _wanted(one: Alteration, only: Sequence[str]) -> bool:
    if not only:
        return one.by_default
    by_kind = one.kind in only and one.by_default
    return by_kind or one.name in only or one.kind + EVERY in only
