"""Training slices and cubes: what is drawn, how often, and how it is varied."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from engines import labels
from engines.errors import MaskError, TrainingError
from engines.train import data, feeder, sampling
from engines.train.data import Subject
from engines.train.losses import IGNORED
from engines.train.settings import AUGMENTATIONS, Augment, Source, TrainSettings

DATA = Path(__file__).parents[2] / "data"
PLAIN = TrainSettings(
    sources=(Source(path=".", part="train"),),
    views=("sagittal", "coronal"),
    sampling="central",
    augmentations=(),
    batch=3,
    patches=(64,),
    epochs=4,
    validate_every=1,
)


def loaded(settings: TrainSettings, folder: Path = DATA) -> list[Subject]:
    return [data.load(pair, settings) for pair in data.find_pairs(folder, settings)]


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return loaded(PLAIN)


def test_an_epoch_holds_the_central_slice_of_each_scan(
    subjects: list[Subject],
) -> None:
    items = feeder.items_of(subjects, PLAIN)
    assert [(i.subject, i.view) for i in items] == [
        (0, "sagittal"),
        (0, "coronal"),
        (1, "sagittal"),
        (1, "coronal"),
    ]
    for item in items:
        along = subjects[item.subject].bone[:, sampling.VIEW_AXES[item.view][2]]
        assert item.place == int(np.median(along))


def test_an_epoch_holds_every_slice_through_the_spine(subjects: list[Subject]) -> None:
    settings = replace(PLAIN, sampling="slices", views=("axial",))
    items = feeder.items_of(subjects[:1], settings)
    along = subjects[0].bone[:, 2]
    assert [i.place for i in items] == list(range(along.min(), along.max() + 1))


def test_every_epoch_goes_once_through_all_slices(
    subjects: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(PLAIN, sampling="slices", steps=1000)
    drawn: list[feeder.Item | None] = []

    def note(*given: object) -> feeder.Example:
        drawn.append(given[4])  # type: ignore[arg-type]
        return np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8)

    monkeypatch.setattr(feeder, "example", note)
    source = feeder.Feeder(subjects, settings, 0)
    count = len(source.items)
    for step in range(-(-3 * count // settings.batch)):
        source._batch(step)
    source.pool.shutdown()
    for epoch in range(3):
        part = drawn[epoch * count : (epoch + 1) * count]
        assert Counter(part) == Counter(source.items)
    assert drawn[:count] != drawn[count : 2 * count]


def test_unaltered_whole_slices_show_the_scan(subjects: list[Subject]) -> None:
    settings = replace(PLAIN, recipe="spine-ct", sampling="central")
    (item, *_) = feeder.items_of(subjects, settings)
    rng = np.random.default_rng(0)
    image, target = feeder.example(subjects[0], settings, 64, rng, item)
    again, _ = feeder.example(subjects[0], settings, 64, np.random.default_rng(9), item)
    assert np.array_equal(image, again)
    pose = sampling.whole(subjects[0], item.view, item.place)
    hu, expected = sampling.cut(subjects[0], pose, 64)
    assert hu is not None
    np.testing.assert_allclose(image, np.clip((hu + 200) / 1000, 0, 1), atol=1e-5)
    assert np.array_equal(target, expected)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_each_augmentation_alone_changes_slices(
    name: str, subjects: list[Subject]
) -> None:
    often = {key: 0.5 for key in AUGMENTATIONS[name] if key.startswith("p_")}
    settings = replace(
        PLAIN,
        augmentations=(name,),
        augment=replace(PLAIN.augment, **often),
        views=("coronal",),
    )
    (item, *_) = feeder.items_of(subjects, settings)
    drawn = [
        feeder.example(subjects[0], settings, 64, np.random.default_rng(seed), item)[0]
        for seed in range(30)
    ]
    assert any(not np.array_equal(image, drawn[0]) for image in drawn[1:])


def test_a_flip_is_a_flip(subjects: list[Subject]) -> None:
    settings = replace(PLAIN, augmentations=("flip",), views=("coronal",))
    (item, *_) = feeder.items_of(subjects[:1], settings)
    found = {
        feeder.example(subjects[0], settings, 63, np.random.default_rng(seed), item)[
            0
        ].tobytes()
        for seed in range(20)
    }
    plain, _ = feeder.example(subjects[0], PLAIN, 63, np.random.default_rng(0), item)
    assert len(found) == 2
    assert plain.tobytes() in found
    (other,) = found - {plain.tobytes()}
    flipped = np.frombuffer(other, np.float32).reshape(63, 63)
    np.testing.assert_allclose(flipped, plain[::-1], atol=1e-4)


def test_a_sagittal_flip_turns_front_and_back(subjects: list[Subject]) -> None:
    settings = replace(
        PLAIN, augmentations=("flip",), augment=Augment(p_mirror=0, p_flip=1)
    )
    (item, *_) = feeder.items_of(subjects[:1], settings)
    assert item.view == "sagittal"
    rng = np.random.default_rng(0)
    flipped, _ = feeder.example(subjects[0], settings, 63, rng, item)
    plain, _ = feeder.example(subjects[0], PLAIN, 63, rng, item)
    np.testing.assert_allclose(flipped, plain[::-1], atol=1e-4)


def test_a_rank_draws_its_share(subjects: list[Subject]) -> None:
    settings = replace(PLAIN, batch=4, steps=2)
    whole = feeder.Feeder(subjects, settings, 0)
    parts = [feeder.Feeder(subjects, settings, 0, rank, 2) for rank in range(2)]
    images = whole._batch(1)[0]
    for rank, part in enumerate(parts):
        assert np.array_equal(part._batch(1)[0], images[rank::2])
    for one in (whole, *parts):
        one.pool.shutdown()


def test_threads_keep_the_order(
    subjects: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(PLAIN, steps=6)
    told = []
    for cores in (1, 8):
        monkeypatch.setattr(feeder.os, "cpu_count", lambda cores=cores: cores)
        with feeder.Feeder(subjects, settings, 0) as source:
            told.append([source.get()[0] for _ in range(6)])
    for first, second in zip(*told, strict=True):
        assert np.array_equal(first, second)


def test_cubes_along_the_axes_show_the_scan(subjects: list[Subject]) -> None:
    subject = subjects[0]
    assert subject.image is not None
    pose = sampling.Pose(
        (np.array(subject.shape) - 1) / 2 * np.array(subject.spacing_mm),
        np.eye(3),
        (subject.spacing_mm[0], subject.spacing_mm[1]),
        np.zeros((2, 6, 6)),
    )
    size = 15
    cube, target = sampling.cut_cube(subject, pose, size)
    assert cube is not None
    middle = (np.array(subject.shape) - 1) / 2
    start = middle - (size - 1) / 2
    whole = all(float(one).is_integer() for one in start)
    assert cube.shape == target.shape == (size,) * 3
    if whole:
        box = tuple(slice(int(one), int(one) + size) for one in start)
        expected = subject.image.numpy()[box] + data.AIR_HU
        np.testing.assert_allclose(cube, expected, atol=0.05)
    centre = subject.image.numpy()[tuple(np.rint(middle).astype(int))] + data.AIR_HU
    assert abs(float(cube[7, 7, 7]) - centre) < 200


@pytest.fixture
def mr(tmp_path: Path) -> Path:
    """A folder with an MR whose masks tell vertebrae, discs and canal apart."""
    rng = np.random.default_rng(0)
    image = (rng.random((20, 40, 40)) * 900).astype(np.float32)
    mask = np.zeros(image.shape, np.uint8)
    mask[5:15, 10:20, 4:12], mask[5:15, 10:20, 12:16], mask[5:15, 22:26] = 1, 2, 3
    for name, voxels in (("a_mr", image), ("a_seg-mr_msk", mask)):
        nib.save(
            nib.Nifti1Image(voxels, np.diag([3, 1, 1, 1])), tmp_path / f"{name}.nii.gz"
        )
    return tmp_path


MR = TrainSettings(
    network="unet",
    classes="mr",
    sources=(Source(path=".", part="train"),),
    augmentations=(),
)


def test_discs_and_canal_are_classes(mr: Path) -> None:
    (subject,) = loaded(MR, mr)
    assert subject.values == (1, 2, 3)
    assert subject.outside == 0
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        image, target = feeder.example(subject, MR, 64, rng)
        seen |= set(np.unique(target))
        assert image.min() >= -0.05
    assert {0, 1, 2, 3} <= seen <= {0, 1, 2, 3, IGNORED}


def test_a_label_outside_the_class_set_is_refused(mr: Path) -> None:
    path = mr / "a_seg-mr_msk.nii.gz"
    held = np.asarray(nib.load(path).dataobj).copy()
    held[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(held, np.diag([3, 1, 1, 1])), path)
    with pytest.raises(MaskError, match="no 7 in the classes"):
        loaded(MR, mr)


def test_classes_need_masks_that_tell_them(mr: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no image with a mask") as told:
        loaded(replace(MR, classes="spine"), mr)
    assert "seg-vert" in told.value.hint
    other = tmp_path / "spine"
    other.mkdir()
    shutil.copy(DATA / "tptbox_ct.nii.gz", other)
    shutil.copy(
        DATA / "tptbox_seg-vert_msk.nii.gz", other / "tptbox_seg-spine_msk.nii.gz"
    )
    with pytest.raises(TrainingError, match="no image with a mask"):
        loaded(replace(PLAIN, classes="regions"), other)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [("spine", {1}), ("regions", {3}), ("vertebrae", {21, 22, 23})],
)
def test_class_sets_of_a_vertebra_map(classes: str, expected: set[int]) -> None:
    settings = replace(PLAIN, classes=classes)
    (subject,) = (s for s in loaded(settings) if s.name == "tptbox")
    assert set(subject.values) == expected
    known = labels.CLASS_SETS[classes]
    assert expected <= set(known.values())


def test_brightness_of_an_mr_does_not_matter(mr: Path) -> None:
    first = feeder.example(loaded(MR, mr)[0], MR, 64, np.random.default_rng(3))[0]
    path = mr / "a_mr.nii.gz"
    held = nib.load(path)
    nib.save(nib.Nifti1Image(held.get_fdata() * 7, held.affine), path)
    second = feeder.example(loaded(MR, mr)[0], MR, 64, np.random.default_rng(3))[0]
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_unknown_names_of_augmentation_are_refused() -> None:
    with pytest.raises(Exception, match="augmentation cannot be 'wobble'"):
        Augment().only(["wobble"])
