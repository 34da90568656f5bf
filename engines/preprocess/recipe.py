"""Recipes: how a scan is prepared, as rows of one table.

A recipe travels inside each model file, so that a network always sees what it was
trained on. Importing this module imports nothing heavy.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from engines.errors import SettingsError

NORMALISATION_NAMES = ("none", "zero-mean", "zero-one", "minus-one-one", "maximum")
MODALITIES = ("ct", "mr")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a scan becomes what a network sees.

    Attributes:
        name: what the user types.
        modality: ``ct`` (Hounsfield units) or ``mr``.
        orientation: axis codes that the scan is turned to.
        spacing_mm: voxel size to resample to, the same along all axes; None keeps.
        size: rows and columns that each axial (ct) or sagittal (mr) slice is
            resized to; None keeps.
        clamp: limits for the values, HU for ct; None keeps.
        smoothing_mm: standard deviation of a Gaussian; 0 for none.
        normalisation: one of ``NORMALISATION_NAMES``.
        source: the paper that prepares its scans so.
    """

    name: str
    modality: str = "ct"
    orientation: str = "RAS"
    spacing_mm: float | None = None
    size: int | None = None
    clamp: tuple[float, float] | None = None
    smoothing_mm: float = 0.0
    normalisation: str = "none"
    source: str = ""

    def __post_init__(self) -> None:
        pairs = {frozenset("LR"), frozenset("AP"), frozenset("IS")}
        sides = {pair for pair in pairs for code in self.orientation if code in pair}
        checks = (
            (len(self.orientation) == 3 and sides == pairs, "orientation"),
            (self.normalisation in NORMALISATION_NAMES, "normalisation"),
            (self.modality in MODALITIES, "modality"),
            (self.spacing_mm is None or 0.1 <= self.spacing_mm <= 20, "spacing_mm"),
            (self.size is None or 16 <= self.size <= 2048, "size"),
            (self.spacing_mm is None or self.size is None, "size with spacing_mm"),
            (self.clamp is None or self.clamp[0] < self.clamp[1], "clamp"),
            (0 <= self.smoothing_mm <= 20, "smoothing_mm"),
        )
        for good, what in checks:
            if not good:
                value = getattr(self, what, "one of the two only")
                msg = f"recipe {self.name!r}: {what} cannot be {value!r}"
                raise SettingsError(msg, hint="See 'spine preprocess --help'.")

    def as_json(self) -> dict[str, Any]:
        """Return the recipe for a manifest or a record."""
        record = asdict(self)
        record["clamp"] = list(self.clamp) if self.clamp else None
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Recipe":
        """Rebuild a recipe from ``as_json``.

        Raises:
            SettingsError: an unknown key or a value that makes no sense.
        """
        unknown = sorted(set(record) - {f.name for f in fields(cls)})
        if unknown:
            msg = f"a recipe has no setting called {unknown[0]!r}"
            raise SettingsError(msg)
        values = dict(record)
        if values.get("clamp") is not None:
            low, high = values["clamp"]
            values["clamp"] = (float(low), float(high))
        return cls(**values)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                "spine-ct",
                spacing_mm=1.5,
                clamp=(-200.0, 800.0),
                normalisation="zero-one",
                source="this project: what the shipped CT models see",
            ),
            Recipe(
                "deeplab-unet-2025",
                size=256,
                normalisation="maximum",
                source="CT family 1: DeepLabv3+ and U-Net, IJMEMS 2025",
            ),
            Recipe(
                "linknet-2025",
                size=256,
                clamp=(-1000.0, 800.0),
                smoothing_mm=0.75,
                normalisation="zero-one",
                source="CT family 2: Attention LinkNet-152, Sci Rep 2025",
            ),
            Recipe(
                "attention-linknet-cubes",
                spacing_mm=2.0,
                clamp=(-1000.0, 800.0),
                smoothing_mm=0.75,
                normalisation="zero-one",
                source="this project: as linknet-2025, for cubes",
            ),
            Recipe(
                "chasppra-2023",
                size=256,
                clamp=(-1000.0, 800.0),
                normalisation="minus-one-one",
                source="CT family 3: CHASPPRAU-Net and 3D MRU-Net, Diagnostics 2023",
            ),
            Recipe(
                "mru-net-cubes",
                spacing_mm=2.0,
                clamp=(-1000.0, 800.0),
                normalisation="minus-one-one",
                source="this project: as chasppra-2023, for cubes",
            ),
            Recipe(
                "lumbar-mr-2025",
                modality="mr",
                size=128,
                normalisation="zero-one",
                source="lumbar MR family: Inception dual-output U-Net, Sci Rep 2025",
            ),
        )
    }
)


def adjusted(
    name: str | None,
    modality: str | None = None,
    orientation: str | None = None,
    spacing_mm: float | None = None,
    size: int | None = None,
    smoothing_mm: float | None = None,
    clamp: tuple[float, float] | None = None,
    normalisation: str | None = None,
) -> Recipe:
    """Return the recipe called ``name`` with the settings that are not None changed.

    Without a name it is a recipe that does nothing but what is set. A spacing or a
    size takes the place of the other, and 0 takes either out.

    Raises:
        SettingsError: no such recipe, or a value that makes no sense.
    """
    base = find(name) if name else Recipe("custom")
    changes: dict[str, Any] = {
        "modality": modality,
        "orientation": orientation,
        "smoothing_mm": smoothing_mm,
        "clamp": clamp,
        "normalisation": normalisation,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if spacing_mm is not None or size is not None:
        kept_mm = base.spacing_mm if not size and spacing_mm is None else None
        kept_size = base.size if not spacing_mm and size is None else None
        changes |= {"spacing_mm": spacing_mm or kept_mm, "size": size or kept_size}
    if name and changes:
        changes |= {"name": f"{name}, changed"}
    return replace(base, **changes)


def find(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        SettingsError: there is none; the hint lists those there are.
    """
    try:
        return RECIPES[name]
    except KeyError:
        msg = f"no recipe is called {name!r}"
        raise SettingsError(msg, hint=f"Choose one of: {', '.join(RECIPES)}.") from None
