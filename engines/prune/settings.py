"""How a model is pruned."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from engines import labels
from engines.errors import SettingsError
from engines.networks.manifest import Manifest
from engines.preprocess.recipe import Recipe
from engines.prune.plan import SCOPES, Target
from engines.prune.sensitivity import CRITERIA
from engines.train.settings import REGULARISERS, TrainSettings, from_record, read_toml

DEFAULT_EPOCHS = 10
LOWER = 0.3
"""Of the learning rate that the model was trained with, while it is fine-tuned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings:
    """One pruning.

    Attributes:
        target: what is aimed at; None where ``plan`` says what leaves.
        plan: a plan to apply as it is, in one round.
        rounds: of scoring, removing and fine-tuning.
        criterion: by which filters are scored; see ``sensitivity.CRITERIA``.
        scope: ``layer`` or ``global``; see ``plan.Chooser``.
        multiple: of which the channels left are.
        mask_only: silence filters and leave the network its size, as the paper does.
        finetune: epochs after each round; 0 for none, None for the training's steps
            where ``has_steps`` says that these were meant, else ``DEFAULT_EPOCHS``.
            An epoch is as many slices as the scans have planes through the spine.
        learning_rate: of the fine-tuning; None for ``LOWER`` of the training's.
        regulariser: of the fine-tuning; see ``TrainSettings``.
        strength: of the regulariser.
        batches: of the pruning set that filters are scored on.
        compare: more criteria that go the same way, for the report.
        seeds: how many times each criterion goes it; the first one's model is kept.
        seed: the first one.
        device: where it runs.
        has_steps: whether the training's settings were written for this pruning.
    """

    target: Target | None = None
    plan: Path | None = None
    rounds: int = 1
    criterion: str = "gradient"
    scope: str = "layer"
    multiple: int = 8
    mask_only: bool = False
    finetune: int | None = None
    learning_rate: float | None = None
    regulariser: str = "none"
    strength: float = 1e-5
    batches: int = 24
    compare: tuple[str, ...] = ()
    seeds: int = 1
    seed: int = 0
    device: str = "auto"
    has_steps: bool = False

    def __post_init__(self) -> None:
        chosen = (
            ("criterion", (self.criterion, *self.compare), CRITERIA),
            ("scope", (self.scope,), SCOPES),
            ("regulariser", (self.regulariser,), REGULARISERS),
        )
        for what, values, known in chosen:
            for value in values:
                if value not in known:
                    msg = f"{what} cannot be {value!r}"
                    hint = f"Choose one of: {', '.join(known)}."
                    raise SettingsError(msg, hint=hint)
        least = {"rounds": 1, "multiple": 1, "batches": 1, "seeds": 1, "strength": 0}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                msg = f"{name} must be at least {low}, not {getattr(self, name)}"
                raise SettingsError(msg)
        self._require_sense()

    def _require_sense(self) -> None:
        if (self.target is None) == (self.plan is None):
            msg = "a pruning has one target"
            hint = "Give one of --ratio, --flops, --params, --latency and --plan."
            raise SettingsError(msg, hint=hint)
        if self.plan and (self.rounds > 1 or self.compare or self.seeds > 1):
            msg = "a plan is applied once, as it is"
            raise SettingsError(msg, hint="Leave out --steps, --compare and --seeds.")
        if self.mask_only and self.target and self.target.kind != "ratio":
            msg = f"silenced filters save nothing, so no {self.target.kind} is reached"
            raise SettingsError(msg, hint="Give --ratio with --mask-only.")
        if self.mask_only and self.rounds > 1:
            msg = "filters can only be silenced in one round"
            raise SettingsError(msg, hint="Leave out --steps with --mask-only.")

    def trials(self) -> list[tuple[str, int]]:
        """Return (criterion, seed) of every way that is gone; the first is kept."""
        if self.plan:
            return [("plan", self.seed)]
        criteria = dict.fromkeys((self.criterion, *self.compare))
        seeds = range(self.seed, self.seed + self.seeds)
        return [(criterion, seed) for criterion in criteria for seed in seeds]

    def as_json(self) -> dict[str, Any]:
        """Return the settings for records and manifests."""
        record = asdict(self)
        return record | {"plan": str(self.plan) if self.plan else None}


def training(
    manifest: Manifest,
    settings: PruneSettings,
    path: Path | None = None,
    scheme: str = "verse",
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainSettings:
    """Return how a model is fine-tuned.

    Args:
        manifest: of the model.
        settings: of the pruning.
        path: TOML file as for a training; else the model's own settings hold, with
            all of the data folder as one source.
        scheme: of that source's masks.
        split: of its subjects.
        options: more that is set.

    Raises:
        SettingsError: settings for another network, other classes or another
            preparation than the model's.
    """
    classes = _class_set(manifest)
    if path:
        record = read_toml(path)
    else:
        known = {f.name for f in fields(TrainSettings)}
        held = manifest.training.get("settings", {})
        record = {k: v for k, v in held.items() if k in known and k != "sources"}
        record |= {"epochs": 0, "parent": "", "pretrained": ""}
    if not record.get("source"):
        record["source"] = [{"path": ".", "scheme": scheme}]
    record |= {k: v for k, v in (options or {}).items() if v is not None}
    if split:
        record["split"] = split
    own = {
        "network": manifest.architecture,
        "network_options": dict(manifest.options),
        "classes": classes,
    }
    made = from_record({**own, **record})
    for name, wanted in own.items():
        if getattr(made, name) != wanted:
            other = getattr(made, name)
            msg = f"the model's {name} is {wanted!r}, the settings' {other!r}"
            raise SettingsError(msg, hint="Fine-tune it as what it is.")
    made = _labelling_as(made, manifest.recipe)
    rate = settings.learning_rate or made.learning_rate * LOWER
    return replace(
        made,
        learning_rate=rate,
        regulariser=settings.regulariser,
        regulariser_strength=settings.strength,
        hold_zeros=settings.mask_only,
        device=settings.device,
        licence=made.licence or manifest.licence,
    )


def _labelling_as(made: TrainSettings, recipe: Recipe) -> TrainSettings:
    """Return the settings so that their model labels scans as ``recipe`` has it.

    Voxels of another size than the model's are learnt from where the training varies
    scales that far: a model may have been trained on other ones than it labels in.

    Raises:
        SettingsError: they prepare scans otherwise; it says what differs.
    """
    mm, own_mm = recipe.spacing_mm, made.labels_by.spacing_mm
    if mm and own_mm and mm != own_mm:
        trained_mm = made.prepared_by.spacing_mm or own_mm
        if max(mm / trained_mm, trained_mm / mm) <= made.augment.scale:
            made = replace(made, segment_spacing_mm=mm)
    found, wanted = made.labels_by.as_json(), recipe.as_json()
    other = [
        f"{key} is {wanted[key]!r} in the model, {found[key]!r} here"
        for key in wanted
        if key not in ("name", "source") and wanted[key] != found[key]
    ]
    if other:
        msg = f"the settings prepare scans otherwise than the model: {'; '.join(other)}"
        hint = "Change that in --settings, or leave it out for the model's own."
        raise SettingsError(msg, hint=hint)
    return made


def _class_set(manifest: Manifest) -> str:
    for name, classes in labels.CLASS_SETS.items():
        if dict(classes) == dict(manifest.classes):
            return name
    msg = f"the classes of {manifest.name} are none that masks are read for"
    hint = f"They are: {', '.join(manifest.classes)}."
    raise SettingsError(msg, hint=hint)
