"""Everything that decides what a training does, as one frozen record.

Filled from a TOML file, then from options; an unknown key is refused. It is
written into the run folder and into the model's manifest.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engines import labels
from engines.errors import SettingsError
from engines.preprocess import recipe, split

LOSSES = (
    "cross-entropy",
    "bce",
    "dice",
    "focal",
    "bce-dice",
    "cross-entropy-dice",
)
OPTIMIZERS = ("adam", "adamw", "rmsprop", "adamax")
SCHEDULES = ("constant", "cosine")
KINDS = ("scan", "bone", "labels")
SPLITS = (*split.FRACTIONS, "all")
VIEWS = ("axial", "sagittal", "coronal")
PARTS = ("auto", "train", "val")


@dataclass(frozen=True, slots=True)
class Source:
    """One folder of training data.

    Attributes:
        path: folder below the data folder, searched with its subfolders.
        kind: ``scan`` (images and masks), ``bone`` (images of bone alone, soft
            tissue is synthesised), ``labels`` (masks alone, images are).
        masks: folder of the masks, when they are not beside the images.
        scheme: ids in the masks: ``verse``, ``totalsegmentator`` or ``binary``.
        part: ``train`` or ``val`` for all of it, or ``auto`` for the seeded split.
        weight: how often it is drawn from, relative to the other sources.
        unlabelled_ends: whether vertebrae beyond the first and last labelled one
            may be in view; the background nearest to those two is then ignored.
        origin: where the data comes from, for the manifest.
        licence: its licence, for the manifest.
    """

    path: str
    kind: str = "scan"
    masks: str = ""
    scheme: str = "verse"
    part: str = "auto"
    weight: float = 1.0
    unlabelled_ends: bool = False
    origin: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Augment:
    """How far slices are varied; each ``p_`` is a probability.

    Attributes:
        rotation_deg: standard deviation of the rotation about each axis.
        scale: largest zoom factor, and one over the smallest.
        stretch: largest relative change of one in-plane axis against the other.
        warp_mm: standard deviation of the smooth displacement.
        p_turn: a quarter, half or three-quarter turn of the slice.
        p_mirror: left and right change places.
        p_crop: a narrow field of view; what lies outside is not scored.
        p_thick: a thick slice, the mean of parallel planes.
        p_coarse: thick slices across the plane, by blurring one in-plane axis.
        p_low: large voxels, by doing so along both axes.
        p_density: other bone density.
        p_vessels: contrast-filled and calcified vessels added.
        p_blur: other reconstruction kernel, softer or sharper.
        p_noise: correlated noise.
        noise_hu: largest standard deviation of the noise.
        p_floor: everything below a value between -200 and 0 HU set to it.
    """

    rotation_deg: float = 7.0
    scale: float = 1.3
    stretch: float = 0.1
    warp_mm: float = 3.0
    p_turn: float = 0.04
    p_mirror: float = 0.5
    p_crop: float = 0.5
    p_thick: float = 0.25
    p_coarse: float = 0.3
    p_low: float = 0.15
    p_density: float = 0.4
    p_vessels: float = 0.35
    p_blur: float = 0.4
    p_noise: float = 0.6
    noise_hu: float = 80.0
    p_floor: float = 0.12


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training.

    Attributes:
        name: of the model that comes out.
        network: row of the catalogue.
        classes: class set: ``spine`` or ``regions``.
        recipe: how scans are prepared.
        views: planes that slices are taken from.
        steps: optimizer steps.
        batch: slices per step, of the middle size; more of smaller ones.
        patches: rows and columns of training slices; each step draws one size.
        loss: one of ``LOSSES``; ``focal_alpha`` and ``focal_gamma`` for focal,
            ``loss_weights`` for the two parts of a sum.
        second_output_weight: what the loss of the coarser output counts, in networks
            that have two; the first counts 1.
        schedule: of the learning rate, after ``warmup_steps`` of linear rise.
        average: decay of the running mean of the weights, which is what is saved;
            0 saves the weights as they are.
        keep: whether the model is that of the last step or of the best validation.
        split: of the ``auto`` sources, by subject.
        parent: model to start from, by name or path.
        precision: ``auto``, ``float32`` or ``bfloat16``.
    """

    name: str = "unet-r34"
    network: str = "unet-r34"
    classes: str = "spine"
    recipe: str = "spine-ct"
    views: tuple[str, ...] = ("axial", "sagittal", "coronal")
    sources: tuple[Source, ...] = ()
    split: str = "80/20"
    steps: int = 2000
    batch: int = 16
    patches: tuple[int, ...] = (128, 160, 192, 224, 256)
    loss: str = "cross-entropy-dice"
    loss_weights: tuple[float, float] = (1.0, 1.0)
    focal_alpha: float = 0.5
    focal_gamma: float = 2.0
    second_output_weight: float = 0.5
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    warmup_steps: int = 100
    average: float = 0.99
    keep: str = "last"
    validate_every: int = 200
    checkpoint_every: int = 100
    seed: int = 0
    parent: str = ""
    device: str = "auto"
    precision: str = "auto"
    licence: str = ""
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        choices = (
            ("loss", self.loss, LOSSES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("split", self.split, SPLITS),
            ("keep", self.keep, ("last", "best")),
            ("precision", self.precision, ("auto", "float32", "bfloat16")),
            ("classes", self.classes, tuple(labels.CLASS_SETS)),
            ("recipe", self.recipe, tuple(recipe.RECIPES)),
            *(("view", view, VIEWS) for view in self.views),
            *(("scheme", s.scheme, tuple(labels.SCHEMES)) for s in self.sources),
            *(("kind", s.kind, KINDS) for s in self.sources),
            *(("part", s.part, PARTS) for s in self.sources),
        )
        for what, value, known in choices:
            if value not in known:
                msg = f"{what} cannot be {value!r}"
                raise SettingsError(msg, hint=f"Choose one of: {', '.join(known)}.")
        if not self.patches or min(self.patches) < 1:
            msg = f"patches must be sizes above 0, not {self.patches}"
            raise SettingsError(msg)
        positive = ("steps", "batch", "validate_every", "checkpoint_every")
        for what in positive:
            if getattr(self, what) < 1:
                msg = f"{what} must be at least 1, not {getattr(self, what)}"
                raise SettingsError(msg)
        if not self.learning_rate > 0:
            msg = f"learning_rate must be above 0, not {self.learning_rate}"
            raise SettingsError(msg)
        if not self.second_output_weight >= 0:
            msg = (
                "second_output_weight must be at least 0, "
                f"not {self.second_output_weight}"
            )
            raise SettingsError(msg)
        if not 0 <= self.average < 1:
            msg = f"average must be at least 0 and below 1, not {self.average}"
            raise SettingsError(msg)

    @property
    def middle_patch(self) -> int:
        """The size that validation uses and that ``batch`` counts."""
        return sorted(self.patches)[len(self.patches) // 2]

    def as_json(self) -> dict[str, Any]:
        """Return the settings for records and manifests."""
        return asdict(self)


def read_settings(path: Path) -> TrainSettings:
    """Read a TOML settings file.

    Raises:
        SettingsError: not TOML, an unknown key, or a value that makes no sense.
    """
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise SettingsError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not TOML: {error}"
        raise SettingsError(msg) from error
    return from_record(record)


def from_record(record: Mapping[str, Any]) -> TrainSettings:
    """Build settings from nested tables; ``source`` is the list of sources.

    Raises:
        SettingsError: an unknown key, or a value that makes no sense.
    """
    values = dict(record)
    sources = values.pop("source", values.pop("sources", ()))
    values["sources"] = tuple(Source(**_known(Source, s, "source")) for s in sources)
    values["augment"] = Augment(**_known(Augment, values.get("augment", {}), "augment"))
    for pair in ("views", "loss_weights", "patches"):
        if pair in values:
            values[pair] = tuple(values[pair])
    return TrainSettings(**_known(TrainSettings, values, "settings"))


def prepared(path: Path | None, scheme: str, **options: Any) -> TrainSettings:  # noqa: ANN401
    """Return the settings of ``path`` with every option that is not None put in.

    Without a file, all of the data folder is one source with masks in ``scheme``.
    """
    base = read_settings(path) if path else TrainSettings()
    if not base.sources:
        base = replace(base, sources=(Source(path=".", scheme=scheme),))
    given = {k: v for k, v in options.items() if v is not None}
    if "network" in given:
        given.setdefault("name", given["network"])
    return replace(base, **given)


def _known(kind: type, record: Mapping[str, Any], where: str) -> dict[str, Any]:
    names = {f.name: f.default for f in fields(kind)}
    for key, value in record.items():
        if key not in names:
            msg = f"{where}: there is no setting called {key!r}"
            raise SettingsError(msg, hint=f"Known are: {', '.join(names)}.")
        default = names[key]
        if isinstance(default, (str, int, float)) and not _fits(value, default):
            msg = f"{where}: {key} cannot be {value!r}"
            raise SettingsError(msg, hint=f"Give a {type(default).__name__}.")
    return dict(record)


def _fits(value: Any, default: str | float) -> bool:  # noqa: ANN401
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)
