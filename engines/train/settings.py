"""Everything that decides what a training does, as one frozen record.

Filled from a TOML file, then from options; an unknown key is refused. It is
written into the run folder and into the model's manifest.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engines import labels
from engines.errors import SettingsError
from engines.networks import catalog
from engines.preprocess import recipe as recipes
from engines.preprocess import split

LOSSES = (
    "cross-entropy",
    "bce",
    "dice",
    "focal",
    "bce-dice",
    "cross-entropy-dice",
    "nested",
)
OPTIMIZERS = ("adam", "adamw", "rmsprop", "adamax")
SCHEDULES = ("constant", "cosine", "plateau")
SAMPLINGS = ("oblique", "slices", "central")
REGULARISERS = ("none", "l1", "l2")
KEEPS = ("last", "best")
PRECISIONS = ("auto", "float32", "bfloat16")
UNLABELLED = "unlabelled"
KINDS = ("scan", "bone", "labels", UNLABELLED)
SPLITS = (*split.FRACTIONS, "all")
VIEWS = ("axial", "sagittal", "coronal")
PARTS = ("auto", "train", "val", "test")
PATCHES = (128, 160, 192, 224, 256)
CUBES = (64,)
"""Sizes of training slices and cubes where neither the settings nor a recipe say."""

BATCH, CUBE_BATCH = 16, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One folder of training data.

    Attributes:
        path: folder below the data folder, searched with its subfolders.
        kind: ``scan`` (images and masks), ``bone`` (images of bone alone, soft
            tissue is synthesised), ``labels`` (masks alone, images are), or
            ``unlabelled`` (images alone, labelled by the model of the round before).
        labelled_by: model, by name or path, that labels unlabelled images in place of
            that; single vertebrae if that is what is learnt, counted by its regions.
        masks: folder of the masks, when they are not beside the images.
        scheme: ids in the masks, one of ``labels.SCHEMES``.
        part: ``train``, ``val`` or ``test`` for all of it, or ``auto`` for the seeded
            split.
        modality: ``ct`` for CT that a training for MR sees as MR would show it, its
            vertebrae as bodies alone (see ``magnet``); empty for the recipe's own.
        weight: how often it is drawn from, relative to the other sources.
        unlabelled_ends: whether vertebrae beyond the first and last labelled one
            may be in view; the background nearest to those two is then ignored.
        origin: where the data comes from, for the manifest.
        licence: its licence, for the manifest.
    """

    path: str
    kind: str = "scan"
    labelled_by: str = ""
    masks: str = ""
    scheme: str = "verse"
    part: str = "auto"
    modality: str = ""
    weight: float = 1.0
    unlabelled_ends: bool = False
    origin: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """How far slices are varied; each ``p_`` is a probability.

    Attributes:
        rotation_deg: standard deviation of the rotation about each axis.
        scale: largest zoom factor, and one over the smallest.
        stretch: largest relative change of one in-plane axis against the other.
        warp_mm: standard deviation of the smooth displacement.
        p_turn: a quarter, half or three-quarter turn of the slice.
        p_mirror: left and right change places.
        p_flip: the slice is turned over along its rows: front and back change places
            in a sagittal one, left and right in the others.
        p_crop: a narrow field of view; what lies outside is not scored.
        p_thick: a thick slice, the mean of parallel planes.
        p_coarse: thick slices across the plane, by blurring one in-plane axis.
        p_low: large voxels, by doing so along both axes.
        p_density: other bone density.
        p_vessels: contrast-filled and calcified vessels added.
        p_blur: other reconstruction kernel, softer or sharper.
        p_sharp: a bone kernel, whose edges overshoot.
        p_noise: correlated noise.
        p_grain: noise with the spectrum of a filtered back projection.
        p_starved: streaks from side to side, as across shoulders and hips.
        noise_hu: largest standard deviation of the noise.
        p_floor: everything below a value between -200 and 0 HU set to it.
        p_bias: a smooth change of brightness, in MR alone.
        p_contrast: another contrast between tissues, in MR alone.
        p_agent: contrast agent in great vessels, kidneys and bowel.
        p_metal: implants and their streaks.
        p_table: shells of the table in the air beside the body.
        p_crush: a crushed body, in sagittal and coronal slices.
    """

    rotation_deg: float = 7.0
    scale: float = 1.3
    stretch: float = 0.1
    warp_mm: float = 3.0
    p_turn: float = 0.04
    p_mirror: float = 0.5
    p_flip: float = 0.0
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
    p_bias: float = 0.4
    p_contrast: float = 0.4
    p_agent: float = 0.2
    p_metal: float = 0.08
    p_table: float = 0.25
    p_sharp: float = 0.15
    p_grain: float = 0.3
    p_starved: float = 0.1
    p_crush: float = 0.1

    def only(self, names: Sequence[str]) -> "Augment":
        """Return the same with every kind of change off that is not among ``names``.

        Raises:
            SettingsError: a name that ``AUGMENTATIONS`` has not.
        """
        _require_known("augmentation", names, tuple(AUGMENTATIONS))
        off = {
            key: 1.0 if key == "scale" else 0.0
            for name, keys in AUGMENTATIONS.items()
            if name not in names
            for key in keys
        }
        return replace(self, **off)

    def without(self, keys: Sequence[str]) -> "Augment":
        """Return the same with some probabilities at 0."""
        return replace(self, **dict.fromkeys(keys, 0.0))


CT_ALONE = (
    "p_vessels",
    "p_floor",
    "p_agent",
    "p_metal",
    "p_table",
    "p_sharp",
    "p_grain",
    "p_starved",
    "p_crush",
)
"""Changes that make no sense in MR."""

SLICES_ALONE = (
    "p_vessels",
    "p_bias",
    "p_agent",
    "p_metal",
    "p_table",
    "p_grain",
    "p_starved",
)
"""Changes that are drawn in slices and not in cubes."""

AUGMENTATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "rotation": ("rotation_deg",),
        "scaling": ("scale", "stretch"),
        "warping": ("warp_mm",),
        "reorienting": ("p_turn",),
        "flip": ("p_mirror", "p_flip"),
        "cropping": ("p_crop",),
        "thick-slices": ("p_thick", "p_coarse", "p_low"),
        "intensity": ("p_density", "p_vessels", "p_bias", "p_contrast"),
        "smoothing": ("p_blur",),
        "noise": ("p_noise",),
        "clamping": ("p_floor",),
        "contrast-agent": ("p_agent",),
        "metal": ("p_metal",),
        "table": ("p_table",),
        "sharpening": ("p_sharp",),
        "grain": ("p_grain",),
        "starvation": ("p_starved",),
        "crushing": ("p_crush",),
    }
)
"""Name of a kind of change -> the settings that govern it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One training.

    A recipe's settings that are given here (``orientation`` to ``normalisation``)
    change it; empty ones leave it as it is.

    Attributes:
        name: of the model that comes out.
        network: row of the catalogue.
        network_options: what the network can be built with, by name, as
            ``dropout``, ``attention`` or ``encoder``.
        classes: class set: ``spine``, ``regions``, ``vertebrae`` or ``mr``.
        recipe: how scans are prepared; empty for that of the network's row.
        segment_spacing_mm: voxel size at which the model then labels scans, where it
            is not that of the training; scales vary there, so finer ones are known.
        views: planes that slices are taken from; empty for those of the row.
        augmentations: names of ``AUGMENTATIONS``; those not named are off. The only
            name ``all`` leaves ``augment`` as it is, and none turns everything off.
        rounds: of self-training, each from the model of the one before; see
            ``self_training``.
        steps: optimizer steps, of each round.
        epochs: times that every slice is seen, in place of ``steps``; needs a
            ``sampling`` that has slices to count.
        batch: slices per step, of the middle size, and more of smaller ones, or
            cubes; 0 for ``BATCH`` or ``CUBE_BATCH``.
        accumulate: parts that a batch is learnt in, when memory is short.
        patches: rows and columns of training slices, or the edges of cubes for a
            network in three dimensions; each step draws one size.
        sampling: ``oblique`` planes anywhere about the spine, the scan's own
            ``slices`` through it, or the ``central`` one of each scan.
        pretrained: ImageNet weights of the encoder: a file, or ``cache`` for those
            that this machine already holds; empty for random ones.
        loss: one of ``LOSSES``; ``focal_alpha`` and ``focal_gamma`` for focal,
            ``loss_weights`` for the two parts of a sum.
        second_output_weight: what the loss of the coarser output counts, in networks
            that have two; the first counts 1.
        weight_decay: as the optimizer has it; None for 0.01 with adamw and 0 with
            the others.
        schedule: of the learning rate, after ``warmup_steps`` of linear rise:
            ``plateau`` multiplies it by ``plateau_factor`` after
            ``plateau_patience`` validations without gain.
        early_stopping: validations without gain that end the training; 0 for never.
        regulariser: what is added to the loss: ``l1``, the sum of the absolute weights
            of all convolutions and linear layers, ``l2``, half that of their squares,
            or ``none``; times ``regulariser_strength``.
        bfloat16_weights: round the weights of the model file so that bfloat16 holds
            them exactly; see ``engines.networks.snap``.
        hold_zeros: weights that are zero at the start stay so, as those that were
            pruned by silencing filters.
        average: decay of the running mean of the weights, which is what is saved;
            0 saves the weights as they are.
        keep: whether the model is that of the last step or of the best validation.
        validate_every: steps between validations; 0 for once an epoch.
        split: of the ``auto`` sources, by subject.
        deterministic: refuse operations whose result may differ from run to run.
        parent: model to start from, by name or path.
        guide: name of a model of regions that finds the spine when this one labels
            scans: this one then tells its vertebrae apart, which have to be its
            classes. Empty for a model that works alone.
        fresh: take the parent's shape alone, as of a pruned one, and draw its weights.
        precision: ``auto``, ``float32`` or ``bfloat16``.
    """

    name: str = "unet-r34"
    network: str = "unet-r34"
    network_options: Mapping[str, Any] = field(default_factory=dict)
    classes: str = "spine"
    recipe: str = ""
    orientation: str = ""
    spacing_mm: float = 0.0
    size: int = 0
    smoothing_mm: float | None = None
    clamp: tuple[float, ...] = ()
    normalisation: str = ""
    segment_spacing_mm: float = 0.0
    views: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    split: str = "80/20"
    augmentations: tuple[str, ...] = ("all",)
    rounds: int = 1
    steps: int = 2000
    epochs: int = 0
    batch: int = 0
    accumulate: int = 1
    patches: tuple[int, ...] = ()
    sampling: str = "oblique"
    pretrained: str = ""
    loss: str = "cross-entropy-dice"
    loss_weights: tuple[float, float] = (1.0, 1.0)
    focal_alpha: float = 0.5
    focal_gamma: float = 2.0
    second_output_weight: float = 0.5
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float | None = None
    schedule: str = "cosine"
    plateau_patience: int = 10
    plateau_factor: float = 0.1
    early_stopping: int = 0
    warmup_steps: int = 100
    regulariser: str = "none"
    regulariser_strength: float = 1e-5
    bfloat16_weights: bool = False
    hold_zeros: bool = False
    average: float = 0.99
    keep: str = "last"
    validate_every: int = 200
    checkpoint_every: int = 100
    seed: int = 0
    deterministic: bool = False
    parent: str = ""
    guide: str = ""
    fresh: bool = False
    device: str = "auto"
    precision: str = "auto"
    licence: str = ""
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        spec = catalog.find(self.network)
        batch = BATCH if spec.dimensions == 2 else CUBE_BATCH
        own = {"recipe": spec.recipe, "views": spec.views, "batch": batch}
        for key, value in own.items():
            if not getattr(self, key):
                object.__setattr__(self, key, value)
        self._require_choices()
        self._require_numbers()
        spec.require_options(self.network_options)
        how, _ = self.prepared_by, self.labels_by  # each refuses what makes no sense
        if not self.patches:
            usual = PATCHES if spec.dimensions == 2 else CUBES
            object.__setattr__(self, "patches", (how.size,) if how.size else usual)
        if min(self.patches) < 1:
            msg = f"patches must be sizes above 0, not {self.patches}"
            raise SettingsError(msg)
        self._require_possible(spec)

    def _require_choices(self) -> None:
        chosen: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
            ("loss", (self.loss,), LOSSES),
            ("optimizer", (self.optimizer,), OPTIMIZERS),
            ("schedule", (self.schedule,), SCHEDULES),
            ("sampling", (self.sampling,), SAMPLINGS),
            ("split", (self.split,), SPLITS),
            ("keep", (self.keep,), KEEPS),
            ("regulariser", (self.regulariser,), REGULARISERS),
            ("precision", (self.precision,), PRECISIONS),
            ("classes", (self.classes,), tuple(labels.CLASS_SETS)),
            ("recipe", (self.recipe,), tuple(recipes.RECIPES)),
            ("view", self.views, VIEWS),
            ("scheme", [s.scheme for s in self.sources], tuple(labels.SCHEMES)),
            ("kind", [s.kind for s in self.sources], KINDS),
            ("part", [s.part for s in self.sources], PARTS),
            ("modality", [s.modality for s in self.sources], ("", "ct")),
        )
        for what, values, known in chosen:
            _require_known(what, values, known)
        if "all" in self.augmentations and len(self.augmentations) > 1:
            msg = "augmentations: 'all' stands alone"
            raise SettingsError(msg, hint="Leave it out, or the others.")
        if self.augmentations != ("all",):
            self.augment.only(self.augmentations)

    def _require_numbers(self) -> None:
        least = {
            "rounds": 1,
            "steps": 1,
            "epochs": 0,
            "batch": 1,
            "accumulate": 1,
            "plateau_patience": 1,
            "early_stopping": 0,
            "warmup_steps": 0,
            "validate_every": 0,
            "checkpoint_every": 1,
            "second_output_weight": 0,
            "regulariser_strength": 0,
        }
        for what, low in least.items():
            if not getattr(self, what) >= low:
                msg = f"{what} must be at least {low}, not {getattr(self, what)}"
                raise SettingsError(msg)
        if self.weight_decay is not None and not self.weight_decay >= 0:
            msg = f"weight_decay must be at least 0, not {self.weight_decay}"
            raise SettingsError(msg)
        if not self.learning_rate > 0:
            msg = f"learning_rate must be above 0, not {self.learning_rate}"
            raise SettingsError(msg)
        if not 0 <= self.average < 1:
            msg = f"average must be at least 0 and below 1, not {self.average}"
            raise SettingsError(msg)
        if not 0 < self.plateau_factor < 1:
            msg = f"plateau_factor must lie between 0 and 1, not {self.plateau_factor}"
            raise SettingsError(msg)

    def _require_possible(self, spec: catalog.NetworkSpec) -> None:
        """Refuse combinations that cannot be trained."""
        uneven = [size for size in self.patches if size % spec.stride]
        solid = spec.dimensions == 3
        unseen = [s.path for s in self.sources if s.kind == UNLABELLED]
        alone = [
            s.path for s in self.sources if s.kind == UNLABELLED and not s.labelled_by
        ]
        masked = [s for s in self.sources if s.kind != UNLABELLED]
        taught = [s.path for s in masked if s.labelled_by]
        known = [s for s in masked if s.part in ("train", "auto")]
        blind = [s.path for s in known if s.scheme == "binary"]
        shown = [s for s in self.sources if self.shows_as_mr(s)]
        whole = [s.path for s in shown if s.scheme == "binary"]
        scored = [s.path for s in shown if s.part != "train"]
        divides = self.classes in ("spine", "mr") or len(blind) < len(known)
        combinations = (
            (
                uneven,
                f"{spec.name} takes sizes that are multiples of {spec.stride}, "
                f"not {uneven}",
                "Change patches or size.",
            ),
            (
                self.batch % self.accumulate,
                f"a batch of {self.batch} cannot be learnt in {self.accumulate} parts",
                "Choose an accumulate that divides the batch.",
            ),
            (
                self.epochs and self.sampling == "oblique",
                "oblique slices have no end, so epochs cannot be counted",
                "Give steps, or a sampling of slices or central.",
            ),
            (
                not self.epochs and not self.validate_every,
                "without epochs there is no validation once an epoch",
                "Give validate_every in steps.",
            ),
            (
                solid and self.sampling != "oblique",
                f"{spec.name} learns from cubes, not from {self.sampling} slices",
                "Leave sampling at oblique.",
            ),
            (
                blind and not divides,
                f"binary masks do not tell {self.classes} apart: {', '.join(blind)}",
                "Choose the classes spine, another scheme, or add masks that do.",
            ),
            (
                shown and (solid or self.classes == "mr"),
                f"CT is shown as MR in slices and for bodies alone: "
                f"{', '.join(s.path for s in shown)}",
                "Choose a network for slices, and other classes than mr.",
            ),
            (
                whole,
                f"bodies are found in single vertebrae, not in binary masks: "
                f"{', '.join(whole)}",
                "Choose another scheme.",
            ),
            (
                scored,
                f"CT shown as MR is trained on alone: {', '.join(scored)}",
                "Give these sources part = 'train'.",
            ),
            (
                alone and self.rounds == 1,
                f"one round learns nothing from unlabelled scans: {', '.join(alone)}",
                "Give rounds = 2, or labelled_by, or leave them out.",
            ),
            (
                taught,
                f"labelled_by is for unlabelled scans, not for {', '.join(taught)}",
                "Give kind = 'unlabelled', or leave it out.",
            ),
            (
                self.rounds > 1 and not (unseen and masked),
                "rounds need scans with labels and scans without",
                "Add a source of the kind unlabelled, or give rounds = 1.",
            ),
            (
                unseen and not masked,
                "unlabelled scans alone cannot be learnt from",
                "Add a source with masks.",
            ),
            (
                (self.rounds > 1 or unseen) and self.prepared_by.modality != "ct",
                "masks are judged by bone density, which MR does not show",
                "Give rounds = 1, without unlabelled scans.",
            ),
            (
                self.guide and self.classes != "vertebrae",
                f"a model of {self.classes} tells no vertebrae of its guide apart",
                "Choose the classes vertebrae, or leave guide out.",
            ),
            (
                self.classes == "mr" and self.prepared_by.modality != "mr",
                f"the recipe {self.recipe!r} is for CT, the classes are for MR",
                "Choose the recipe lumbar-mr-2025.",
            ),
        )
        for found, msg, hint in combinations:
            if found:
                raise SettingsError(msg, hint=hint)

    @property
    def prepared_by(self) -> recipes.Recipe:
        """The recipe with what these settings change in it.

        Raises:
            SettingsError: a value that makes no sense.
        """
        if len(self.clamp) not in (0, 2):
            msg = f"clamp takes two limits, not {len(self.clamp)}"
            raise SettingsError(msg, hint="Give the lower and the upper one.")
        limits = (self.clamp[0], self.clamp[1]) if self.clamp else None
        return recipes.adjusted(
            self.recipe,
            orientation=self.orientation or None,
            spacing_mm=self.spacing_mm or None,
            size=self.size or None,
            smoothing_mm=self.smoothing_mm,
            clamp=limits,
            normalisation=self.normalisation or None,
        )

    def shows_as_mr(self, source: Source) -> bool:
        """Say whether a source's CT is shown as MR would show it."""
        return source.modality == "ct" and self.prepared_by.modality == "mr"

    @property
    def labels_by(self) -> recipes.Recipe:
        """The recipe by which the model prepares what it labels."""
        how, mm = self.prepared_by, self.segment_spacing_mm
        if not mm:
            return how
        return replace(how, name=f"{self.recipe}, changed", spacing_mm=mm, size=None)

    @property
    def varied_by(self) -> Augment:
        """The augmentation that ``augment`` and ``augmentations`` come to.

        For MR it is without what only CT has.
        """
        how = self.augment
        if self.augmentations != ("all",):
            how = how.only(self.augmentations)
        ct = self.prepared_by.modality == "ct"
        return how if ct else how.without(CT_ALONE)

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
    return from_record(read_toml(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as nested tables.

    Raises:
        SettingsError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise SettingsError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not TOML: {error}"
        raise SettingsError(msg) from error


def from_record(record: Mapping[str, Any]) -> TrainSettings:
    """Build settings from nested tables; ``source`` is the list of sources.

    Raises:
        SettingsError: an unknown key, or a value that makes no sense.
    """
    values = dict(record)
    sources = values.pop("source", values.pop("sources", ()))
    values["sources"] = tuple(Source(**_known(Source, s, "source")) for s in sources)
    values["augment"] = Augment(**_known(Augment, values.get("augment", {}), "augment"))
    for several in ("views", "loss_weights", "patches", "clamp", "augmentations"):
        if several in values:
            values[several] = tuple(values[several])
    return TrainSettings(**_known(TrainSettings, values, "settings"))


def prepared(
    path: Path | None,
    scheme: str,
    options: Mapping[str, Any],
    network_options: Mapping[str, Any],
) -> TrainSettings:
    """Return the settings of ``path`` with every option that is not None put in.

    Without a file, all of the data folder is one source with masks in ``scheme``.

    Raises:
        SettingsError: an unknown key, or a value that makes no sense.
    """
    record = read_toml(path) if path else {}
    given = {k: v for k, v in options.items() if v is not None}
    if "network" in given:
        given.setdefault("name", given["network"])
    if "steps" in given:
        given.setdefault("epochs", 0)
    built = {k: v for k, v in network_options.items() if v is not None}
    record |= given
    record["network_options"] = {**record.get("network_options", {}), **built}
    if not record.get("source") and not record.get("sources"):
        record["source"] = [{"path": ".", "scheme": scheme}]
    return from_record(record)


def _require_known(what: str, values: Sequence[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            msg = f"{what} cannot be {value!r}"
            raise SettingsError(msg, hint=f"Choose one of: {', '.join(known)}.")


def _known(kind: type, record: Mapping[str, Any], where: str) -> dict[str, Any]:
    names = {f.name: f.default for f in fields(kind)}
    for key, value in record.items():
        if key not in names:
            msg = f"{where}: there is no setting called {key!r}"
            raise SettingsError(msg, hint=f"Known are: {', '.join(names)}.")
        default = names[key]
        if isinstance(default, bool) and not isinstance(value, bool):
            msg = f"{where}: {key} cannot be {value!r}"
            raise SettingsError(msg, hint="Give true or false.")
        if isinstance(default, (str, int, float)) and not _fits(value, default):
            msg = f"{where}: {key} cannot be {value!r}"
            raise SettingsError(msg, hint=f"Give a {type(default).__name__}.")
    return dict(record)


def _fits(value: Any, default: str | float) -> bool:  # noqa: ANN401
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)
