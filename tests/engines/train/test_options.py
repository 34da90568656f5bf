"""Options of a training, each tried on a real crop."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from engines import labels
from engines.errors import SettingsError, TrainingError
from engines.networks.manifest import load_model
from engines.train import data, loop, losses
from engines.train.settings import (
    PATCHES,
    VIEWS,
    Source,
    TrainSettings,
    from_record,
)

DATA = Path(__file__).parents[2] / "data"
TINY = TrainSettings(
    sources=(Source(path=".", part="train"),),
    network="linknet-mobilenet-v2",
    recipe="spine-ct",
    steps=2,
    batch=2,
    patches=(64,),
    warmup_steps=0,
    validate_every=2,
    checkpoint_every=1,
    precision="float32",
    seed=3,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for part in ("train", "val"):
        (folder / part).mkdir(parents=True)
        for ending in ("ct", "seg-vert_msk"):
            name = f"tptbox_{ending}.nii.gz"
            shutil.copy(DATA / name, folder / part / f"{part}{name}")
    return folder


BOTH = (Source(path="train", part="train"), Source(path="val", part="val"))


def weights(event: loop.Event) -> dict[str, torch.Tensor]:
    assert event.model is not None
    return load_model(event.model).network.state_dict()


def assert_same(first: loop.Event, second: loop.Event) -> None:
    resumed = weights(second)
    for name, value in weights(first).items():
        assert torch.equal(resumed[name], value), name


def test_epochs_are_told_in_steps(crop: Path, tmp_path: Path) -> None:
    settings = replace(
        TINY, sources=BOTH, sampling="central", epochs=4, steps=9, validate_every=0
    )
    events = list(loop.train(settings, crop, tmp_path / "run"))
    assert [(e.step, e.steps) for e in events] == [(2, 6), (4, 6), (6, 6)]
    assert all(e.val_dice is not None for e in events)


@pytest.mark.parametrize("killed_after", [1, 4])
def test_killed_at_any_step_it_ends_the_same(
    killed_after: int, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With plateau, running mean, epochs, augmentation and dropout."""
    settings = replace(
        TINY,
        sources=BOTH,
        network="mru-net-3d",
        network_options={"dropout": 0.5},
        patches=(32,),
        steps=6,
        validate_every=2,
        schedule="plateau",
        plateau_patience=1,
        keep="best",
    )
    (*_, whole) = loop.train(settings, crop, tmp_path / "whole")
    learn = loop._Trainer._learn
    count = 0

    def dies(self: loop._Trainer, batch: loop.Batch) -> float:
        nonlocal count
        count += 1
        if count > killed_after:
            raise KeyboardInterrupt
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "_learn", dies)
        with pytest.raises(KeyboardInterrupt):
            list(loop.train(settings, crop, tmp_path / "parts"))
    (*_, last) = loop.train(settings, crop, tmp_path / "parts")
    states = [
        torch.load(tmp_path / run / loop.CHECKPOINT, weights_only=True)
        for run in ("whole", "parts")
    ]
    for name, value in states[0]["network"].items():
        assert torch.equal(states[1]["network"][name], value), name
    assert states[0]["pace"] == states[1]["pace"]
    assert (last.step, last.loss, last.val_dice) == (6, whole.loss, whole.val_dice)
    first, second = (
        [row | {"seconds": 0, "waiting": 0} for row in state["rows"]]
        for state in states
    )
    assert first == second
    models = [tmp_path / run / "unet-r34.safetensors" for run in ("whole", "parts")]
    assert load_model(models[0]).manifest.tensors_sha256 == (
        load_model(models[1]).manifest.tensors_sha256
    )


def test_a_batch_can_be_learnt_in_parts(
    crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, told = [], []
    given = loop._Trainer._loss

    def note(
        self: loop._Trainer, images: loop.Images, targets: loop.Targets
    ) -> torch.Tensor:
        loss = given(self, images, targets)
        sizes.append(len(images))
        told.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(loop._Trainer, "_loss", note)
    settings = replace(TINY, batch=6, accumulate=3, steps=1)
    (event,) = loop.train(settings, crop, tmp_path / "run")
    assert sizes == [2, 2, 2]
    assert event.loss == pytest.approx(np.mean(told))


def test_deterministic_trainings_are_equal(crop: Path, tmp_path: Path) -> None:
    settings = replace(TINY, deterministic=True)
    (first,) = loop.train(settings, crop, tmp_path / "a")
    assert not torch.are_deterministic_algorithms_enabled()
    (second,) = loop.train(settings, crop, tmp_path / "b")
    assert_same(first, second)


def test_early_stopping_ends_it(
    crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.6, 0.6, 0.4, 0.9])
    monkeypatch.setattr(loop.validate, "dice", lambda *_: next(scores))
    settings = replace(
        TINY, sources=BOTH, steps=50, validate_every=1, early_stopping=2, keep="best"
    )
    events = list(loop.train(settings, crop, tmp_path / "run"))
    assert [e.val_dice for e in events] == [0.5, 0.6, 0.6, 0.4]
    assert [e.model is not None for e in events] == [True, True, False, False]
    model = tmp_path / "run" / "unet-r34.safetensors"
    assert load_model(model).manifest.training["steps"] == 2
    assert list(loop.train(settings, crop, tmp_path / "run")) == []


def test_a_plateau_lowers_the_rate(
    crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.validate, "dice", lambda *_: 0.5)
    settings = replace(
        TINY,
        sources=BOTH,
        steps=5,
        validate_every=1,
        schedule="plateau",
        plateau_patience=2,
        learning_rate=0.01,
    )
    rates = [e.learning_rate for e in loop.train(settings, crop, tmp_path / "run")]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.001])


def test_single_vertebrae_are_learnt_from_cubes(crop: Path, tmp_path: Path) -> None:
    settings = replace(
        TINY, network="mru-net-3d", recipe="", patches=(32,), classes="vertebrae"
    )
    (event,) = loop.train(settings, crop, tmp_path / "run")
    assert event.model is not None
    manifest = load_model(event.model).manifest
    assert dict(manifest.classes) == dict(labels.VERTEBRA_CLASSES)
    assert (manifest.patch, manifest.recipe.name) == (32, "mru-net-cubes")


def test_options_of_the_network_and_the_recipe_travel_with_the_model(
    crop: Path, tmp_path: Path
) -> None:
    settings = replace(
        TINY,
        network="unet",
        recipe="chasppra-2023",
        network_options={"attention": "se"},
        normalisation="zero-mean",
        size=32,
        patches=(),
        steps=1,
    )
    (event,) = loop.train(settings, crop, tmp_path / "run")
    assert event.model is not None
    manifest = load_model(event.model).manifest
    assert manifest.options == {"attention": "se"}
    assert (manifest.recipe.size, manifest.recipe.normalisation) == (32, "zero-mean")
    assert manifest.patch == 32


def test_a_loss_that_is_no_number_ends_it(
    crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        losses, "cross_entropy", lambda logits, _: logits.sum() * float("nan")
    )
    settings = replace(TINY, loss="cross-entropy")
    with pytest.raises(TrainingError, match="the loss is nan at step 1") as told:
        list(loop.train(settings, crop, tmp_path / "run"))
    assert "learning_rate" in told.value.hint


def test_one_pixel_is_too_little_for_batch_norm(crop: Path, tmp_path: Path) -> None:
    settings = replace(TINY, patches=(32,), batch=1)
    with pytest.raises(TrainingError, match="batch norm cannot learn from 1 of 32"):
        list(loop.train(settings, crop, tmp_path / "run"))


def test_missing_imagenet_weights_are_told_before_data_are_read(
    crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        pytest.fail("data were read")

    monkeypatch.setattr(data, "load", read)
    settings = replace(TINY, pretrained=str(tmp_path / "none.pth"))
    with pytest.raises(SettingsError, match="there is no file"):
        list(loop.train(settings, crop, tmp_path / "run"))


@pytest.mark.parametrize(
    ("optimizer", "given", "expected"),
    [("adam", None, 0), ("adamw", None, 0.01), ("rmsprop", 0.2, 0.2), ("adamax", 0, 0)],
)
def test_optimizers_and_their_decay(
    optimizer: str, given: float | None, expected: float
) -> None:
    settings = replace(TINY, optimizer=optimizer, weight_decay=given)
    made = loop._optimizer(settings, torch.nn.Linear(1, 1))
    assert type(made).__name__.lower() == optimizer
    assert made.defaults["weight_decay"] == expected


NETWORK_OWN = [
    ("unet-r34", "spine-ct", VIEWS, PATCHES, 16),
    ("inception-dual-unet", "lumbar-mr-2025", ("sagittal",), (128,), 16),
    ("linknet-34", "linknet-2025", VIEWS, (256,), 16),
    ("mru-net-3d", "mru-net-cubes", VIEWS, (64,), 2),
]


@pytest.mark.parametrize(
    ("network", "recipe", "views", "patches", "batch"), NETWORK_OWN
)
def test_what_is_not_given_is_the_network_s_own(
    network: str,
    recipe: str,
    views: tuple[str, ...],
    patches: tuple[int, ...],
    batch: int,
) -> None:
    made = TrainSettings(network=network)
    assert (made.recipe, made.views) == (recipe, views)
    assert (made.patches, made.batch) == (patches, batch)
    assert from_record(made.as_json()) == made


def test_scans_may_be_labelled_on_a_finer_grid_than_was_learnt() -> None:
    made = from_record({"segment_spacing_mm": 1.25})
    assert (made.prepared_by.spacing_mm, made.labels_by.spacing_mm) == (1.5, 1.25)
    assert from_record(made.as_json()) == made
    assert from_record({}).labels_by == from_record({}).prepared_by


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"patches": [100]}, r"multiples of 32, not \[100\]"),
        ({"batch": 3, "accumulate": 2}, "cannot be learnt in 2 parts"),
        ({"epochs": 3}, "epochs cannot be counted"),
        ({"validate_every": 0}, "no validation once an epoch"),
        ({"network": "mru-net-3d", "sampling": "slices", "epochs": 1}, "from cubes"),
        (
            {"classes": "regions", "source": [{"path": "x", "scheme": "binary"}]},
            "do not tell regions apart: x",
        ),
        ({"classes": "mr"}, "is for CT, the classes are for MR"),
        ({"clamp": [1.0]}, "two limits, not 1"),
        ({"clamp": [5.0, 1.0]}, "clamp cannot be"),
        ({"size": 8}, "size cannot be 8"),
        ({"segment_spacing_mm": -1.0}, "spacing_mm cannot be -1"),
        ({"normalisation": "x"}, "normalisation cannot be 'x'"),
        ({"augmentations": ["all", "flip"]}, "'all' stands alone"),
        ({"augmentations": ["wobble"]}, "augmentation cannot be 'wobble'"),
        ({"sampling": "some"}, "sampling cannot be 'some'"),
        ({"plateau_factor": 1.0}, "plateau_factor must lie between 0 and 1"),
        ({"deterministic": 1}, "deterministic cannot be 1"),
        ({"network_options": {"attention": "se"}}, "no option called 'attention'"),
        ({"views": ["oblique"]}, "view cannot be 'oblique'"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        from_record(given)


def test_masks_that_do_not_divide_the_spine_help_to_train_regions(
    crop: Path, tmp_path: Path
) -> None:
    path = crop / "train" / "traintptbox_seg-vert_msk.nii.gz"
    read = nib.nifti1.load(path)
    spine = (np.asarray(read.dataobj) > 0).astype(np.uint8)
    nib.nifti1.save(nib.nifti1.Nifti1Image(spine, read.affine), path)
    blind = Source(path="train", part="train", scheme="binary")
    divided = Source(path="val", part="train")
    with pytest.raises(SettingsError, match="binary masks do not tell regions apart"):
        replace(TINY, classes="regions", sources=(blind,))
    settings = replace(TINY, classes="regions", sources=(blind, divided))
    pairs = data.find_pairs(crop, settings)
    held = {p.source.path: data.load(p, settings).values for p in pairs}
    assert held == {"train": (losses.UNDIVIDED,), "val": (3,)}
    events = list(loop.train(settings, crop, tmp_path / "run"))
    model = load_model(tmp_path / "run" / "unet-r34.safetensors")
    assert model.classes == 5
    assert np.isfinite(events[-1].loss)
