"""Data sets as downloaded become training folders, or are refused with a reason."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import labels
from engines.errors import (
    InputError,
    MaskError,
    NotFoundError,
    SettingsError,
    UnreadableError,
    UnsupportedError,
)
from engines.preprocess import recipe
from engines.preprocess.laid_out import named_after
from engines.preprocess.layout_nnunet import _verse_id
from engines.preprocess.layouts import LAYOUTS, scheme_of
from engines.preprocess.masks import UNSCORED
from engines.preprocess.split import subject_of
from engines.preprocess.tree import PrepareRun, PrepareSettings
from engines.results import CaseResult
from engines.train import data as training
from engines.train.losses import IGNORED
from engines.train.settings import Source, TrainSettings
from engines.volume import Volume, read_mask
from tests import data_sets, phantoms
from tests.data_sets import MAKERS, Made

SETTINGS = PrepareSettings(recipe=recipe.adjusted(None), threads=1)


def settings_for(layout: str, scheme: str | None = None) -> PrepareSettings:
    return replace(SETTINGS, layout=layout, scheme=scheme)


def run(
    source: Path, output: Path, settings: PrepareSettings, **kept: Any
) -> dict[str, CaseResult]:
    work = PrepareRun(source, output, settings, **kept)
    return {case.name: case for case in work.results()}


def codes(results: dict[str, CaseResult]) -> dict[str, str]:
    return {name: case.error.code for name, case in results.items() if case.error}


def message(case: CaseResult) -> str:
    assert case.error is not None
    assert case.error.hint
    return case.error.message


@pytest.fixture(params=list(MAKERS))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Made]:
    layout, make = MAKERS[request.param]
    return layout, make(tmp_path / "in")


def test_every_layout_has_a_miniature() -> None:
    assert {layout for layout, _ in MAKERS.values()} == set(LAYOUTS)


def test_what_every_layout_keeps(made: tuple[str, Made], tmp_path: Path) -> None:
    layout, it = made
    results = run(it.source, tmp_path / "out", settings_for(layout, it.scheme))

    done = {name: case for name, case in results.items() if case.status == "done"}
    assert codes(results) == {}
    assert set(done) == set(it.masks)
    written = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    scans = {f"{name}{it.ending}.nii.gz" for name in it.masks}
    assert written == scans | {
        f"{name}_seg-{kind}_msk.nii.gz"
        for name, held in it.masks.items()
        for kind in held
    }
    for name, held in it.masks.items():
        scan = Volume.read(tmp_path / "out" / f"{name}{it.ending}.nii.gz")
        assert scan.grid.axes == "RAS"
        for kind, expected in held.items():
            mask = read_mask(tmp_path / "out" / f"{name}_seg-{kind}_msk.nii.gz")
            assert mask.grid.matches(scan.grid)
            np.testing.assert_array_equal(mask.voxels, data_sets.along_ras(expected))
            assert mask.voxels.any()

    how = TrainSettings(sources=(Source(path="."),))
    if layout == "spider":
        how = replace(how, classes="mr", recipe="lumbar-mr-2025")
    pairs = training.find_pairs(tmp_path / "out", how)
    assert {pair.name for pair in pairs} == set(it.masks)
    record = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert record["settings"]["layout"] == layout


def test_second_run_skips_all(made: tuple[str, Made], tmp_path: Path) -> None:
    layout, it = made
    settings = settings_for(layout, it.scheme)
    first = run(it.source, tmp_path / "out", settings)
    again = run(it.source, tmp_path / "out", settings)

    assert {case.status for case in again.values()} == {"skipped"}
    assert {n: c.outputs for n, c in again.items()} == {
        n: c.outputs for n, c in first.items()
    }


def test_a_changed_structure_alone_redoes_its_case(tmp_path: Path) -> None:
    source = data_sets.totalsegmentator_mr(tmp_path / "in").source
    settings = settings_for("totalsegmentator")
    run(source, tmp_path / "out", settings)
    path = source / "s0004" / "segmentations" / "vertebrae_L4.nii.gz"
    part = read_mask(path)
    part.voxels[:] = 0
    phantoms.write_nifti(path, part)
    again = run(source, tmp_path / "out", settings)

    assert again["s0004"].status == "done"
    mask = read_mask(tmp_path / "out" / "s0004_seg-vert_msk.nii.gz")
    assert set(np.unique(mask.voxels)) == {0, 21, 22}


def test_changed_names_of_labels_redo_all(tmp_path: Path) -> None:
    source = data_sets.nnunet(tmp_path / "in").source
    run(source, tmp_path / "out", settings_for("nnunet"))
    path = source / "dataset.json"
    path.write_text(path.read_text().replace("Sacrum", "Coccyx"))
    again = run(source, tmp_path / "out", settings_for("nnunet"))

    assert {case.status for case in again.values()} == {"done"}
    mask = read_mask(tmp_path / "out" / "spine_001_seg-vert_msk.nii.gz")
    assert 27 in mask.voxels


def test_voxels_beside_a_header_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    source = tmp_path / "in"
    scan, mask = data_sets.small()
    phantoms.write_itk(source / "a.mhd", scan)
    phantoms.write_itk(source / "a_mask.mhd", mask)
    run(source, tmp_path / "out", settings_for("pairs"))
    voxels = source / "a_mask.raw"
    voxels.write_bytes(voxels.read_bytes().replace(b"\x15", b"\x14"))
    again = run(source, tmp_path / "out", settings_for("pairs"))

    assert again["a"].status == "done"
    made = read_mask(tmp_path / "out" / "a_seg-vert_msk.nii.gz")
    assert set(np.unique(made.voxels)) == {0, 20, 22, 23}


def test_the_layout_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    source = tmp_path / "in"
    scan, mask = data_sets.small()
    data_sets.write(source, **{"a_ct": scan, "a_seg-vert_msk": mask})
    run(source, tmp_path / "out", SETTINGS)
    results = run(source, tmp_path / "out", settings_for("verse"))

    assert results["a"].status == "done"


def test_split_keeps_the_scans_of_a_person_together(tmp_path: Path) -> None:
    source = data_sets.spider(tmp_path / "in").source
    settings = replace(settings_for("spider"), split="80/20")
    run(source, tmp_path / "out", settings)

    record = json.loads((tmp_path / "out" / "split.json").read_text())
    both = ["sub-1_t1", "sub-1_t2_SPACE"]
    assert sorted([record["train"], record["val"]]) == sorted([both, ["sub-10_t2"]])
    how = TrainSettings(sources=(Source(path="."),))
    found = training.find_pairs(tmp_path / "out", how)
    assert {pair.subject for pair in found} == {"sub-1", "sub-10"}


@pytest.mark.parametrize(
    ("name", "subject", "expected"),
    [
        ("scan", "7", "sub-7_scan"),
        ("scan", "P 7-b", "sub-P7b_scan"),
        ("scan", "scan", "scan"),
        ("sub-7_a", "7", "sub-7_a"),
        ("sub-7_a", "sub-7", "sub-7_a"),
        ("p7_ses-1", "p7", "p7_ses-1"),
    ],
)
def test_a_name_tells_its_subject(name: str, subject: str, expected: str) -> None:
    assert named_after(name, subject) == expected


def test_subjects_in_other_letters_stay_apart() -> None:
    one, two = (subject_of(named_after("scan", name)) for name in ("甲", "乙"))

    assert one != two


def test_modality_is_told_unless_the_user_tells(tmp_path: Path) -> None:
    source = data_sets.totalsegmentator_mr(tmp_path / "in").source
    settings = settings_for("totalsegmentator")
    run(source, tmp_path / "told", settings)
    run(source, tmp_path / "ct", replace(settings, modality_told=False))

    assert (tmp_path / "told" / "s0004_mr.nii.gz").is_file()
    assert (tmp_path / "ct" / "s0004_ct.nii.gz").is_file()
    record = json.loads((tmp_path / "told" / "preprocess.json").read_text())
    made_from = record["cases"][0]["made_from"]
    assert made_from["settings"]["recipe"]["modality"] == "mr"


@pytest.mark.parametrize(
    ("channel", "ending"), [("CT", "_ct"), ("T2", "_mr"), ("zscore", "_ct")]
)
def test_channel_names_tell_the_modality(
    channel: str, ending: str, tmp_path: Path
) -> None:
    source = data_sets.nnunet_1(tmp_path / "in").source
    edit_record(source, modality={"0": channel})
    run(source, tmp_path / "out", settings_for("nnunet"))

    assert (tmp_path / "out" / f"a{ending}.nii.gz").is_file()


def test_what_is_no_spine_is_left_out_in_one_line(tmp_path: Path) -> None:
    source = data_sets.totalsegmentator(tmp_path / "in").source
    shutil.copytree(source / "s0002", source / "s0003")
    for path in (source / "s0003" / "segmentations").glob("vert*"):
        path.unlink()
    (source / "s0003" / "segmentations" / "sacrum.nii.gz").unlink()
    settings = settings_for("totalsegmentator")
    begun: list[str] = []
    for again in (False, True):
        begun.clear()
        work = PrepareRun(
            source, tmp_path / "out", settings, told=lambda name, _: begun.append(name)
        )
        results = {case.name: case for case in work.results()}

        assert set(begun) == (set() if again else set(results))
        assert [note.message for note in work.notes] == [
            "2 of 3 cases show no spine and were left out: s0002, s0003"
        ]
        assert results["s0002"].status == results["s0003"].status == "skipped"
        assert not results["s0002"].outputs
        record = json.loads((tmp_path / "out" / "preprocess.json").read_text())
        assert [case.get("left_out") for case in record["cases"]] == [
            None,
            "no_spine",
            "no_spine",
        ]
        assert record["notes"][0]["code"] == "no_spine"


def test_left_out_case_is_read_again_when_it_changes(tmp_path: Path) -> None:
    source = data_sets.totalsegmentator(tmp_path / "in").source
    settings = settings_for("totalsegmentator")
    run(source, tmp_path / "out", settings)
    _, mask = data_sets.other()
    data_sets.structures(source / "s0002" / "segmentations", mask)
    again = run(source, tmp_path / "out", settings)

    assert {n: c.status for n, c in again.items()} == {
        "s0001": "skipped",
        "s0002": "done",
    }


def test_of_overlapping_structures_the_later_wins(tmp_path: Path) -> None:
    made = data_sets.totalsegmentator_mr(tmp_path / "in")
    folder = made.source / "s0004" / "segmentations"
    lower, upper = (read_mask(folder / f"vertebrae_L{n}.nii.gz") for n in (4, 2))
    shared = np.argwhere(lower.voxels)[:7]
    upper.voxels[tuple(shared.T)] = 1
    phantoms.write_nifti(folder / "vertebrae_L2.nii.gz", upper)
    (case,) = run(
        made.source, tmp_path / "out", settings_for("totalsegmentator")
    ).values()

    (note,) = case.warnings
    assert note.code == "overlap"
    assert note.message.startswith("7 voxels lie in several structures")
    mask = read_mask(tmp_path / "out" / "s0004_seg-vert_msk.nii.gz")
    expected = data_sets.along_ras(made.masks["s0004"]["vert"])
    np.testing.assert_array_equal(mask.voxels, expected)


def test_labels_that_are_no_vertebrae_are_named_once(tmp_path: Path) -> None:
    source = data_sets.nnunet(tmp_path / "in").source
    work = PrepareRun(source, tmp_path / "out", settings_for("nnunet"))

    assert [note.code for note in work.notes] == ["other_labels"]
    assert "background: rib_left_1, rib_left_2" in work.notes[0].message


def test_an_ending_in_a_name_is_not_doubled(tmp_path: Path) -> None:
    source = data_sets.nnunet_1(tmp_path / "in").source
    for path in [*source.glob("*Tr/a*")]:
        path.rename(path.with_name(path.name.replace("a", "a_ct", 1)))
    results = run(source, tmp_path / "out", settings_for("nnunet"))

    assert results["a"].status == "done"
    assert (tmp_path / "out" / "a_ct.nii.gz").is_file()
    assert (tmp_path / "out" / "a_seg-spine_msk.nii.gz").is_file()


def test_images_without_labels_are_counted(tmp_path: Path) -> None:
    source = data_sets.nnunet_1(tmp_path / "in").source
    work = PrepareRun(source, tmp_path / "out", settings_for("nnunet"))

    assert [note.message for note in work.notes] == [
        "1 images in imagesTs have no labels and were left out"
    ]


@pytest.mark.parametrize(
    ("classes", "values"),
    [("spine", {0, 1}), ("regions", {0, 3, 4}), ("binary", {0, 1})],
)
def test_what_is_not_scored_stays(
    classes: str, values: set[int], tmp_path: Path
) -> None:
    assert UNSCORED == IGNORED
    source = data_sets.nnunet(tmp_path / "in").source
    settings = replace(settings_for("nnunet"), classes=classes)
    run(source, tmp_path / "out", settings, include=["spine_001"])

    mask = read_mask(tmp_path / "out" / "spine_001_seg-vert_msk.nii.gz")
    assert set(np.unique(mask.voxels)) == values | {UNSCORED}
    assert (mask.voxels == UNSCORED).sum() == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("L1", "L1"),
        ("vertebrae_T12", "T12"),
        ("Vertebra C7", "C7"),
        ("th3", "T3"),
        ("sacrum", "sacrum"),
        ("vertebrae_S1", "sacrum"),
        ("COCCYX", "coccyx"),
        ("T13", "T13"),
    ],
)
def test_vertebrae_are_known_by_name(name: str, expected: str) -> None:
    assert labels.VERTEBRAE[_verse_id(name)].name == expected


@pytest.mark.parametrize("name", ["rib_left_1", "L7", "C8", "liver", "T", "disc_L1"])
def test_other_names_are_no_vertebrae(name: str) -> None:
    assert _verse_id(name) == 0


def test_slices_arrays_and_classes_work_too(tmp_path: Path) -> None:
    source = data_sets.spider(tmp_path / "in").source
    settings = replace(
        settings_for("spider"), classes="regions", slices="central", format="npz"
    )
    run(source, tmp_path / "out", settings)

    with np.load(tmp_path / "out" / "sub-1_t1_mr.npz") as read:
        assert read["image"].shape[0] == 1
        assert set(np.unique(read["mask"])) == {0, 3}
        assert set(np.unique(read["mask_mr"])) <= {0, 1, 2, 3}


def test_output_below_the_data_set_is_not_searched(tmp_path: Path) -> None:
    source = data_sets.verse_2020(tmp_path / "in").source
    first = run(source, source / "out", settings_for("verse"))
    second = run(source, source / "out", settings_for("verse"))

    assert set(first) == set(second)
    assert {case.status for case in second.values()} == {"skipped"}


# What cannot be used.


def edit_record(source: Path, **changes: Any) -> None:
    path = source / "dataset.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record))


def _no_record(source: Path) -> None:
    (source / "dataset.json").unlink()


def _broken_record(source: Path) -> None:
    (source / "dataset.json").write_text("{labels")


def _list_record(source: Path) -> None:
    (source / "dataset.json").write_text("[1]")


def _region(source: Path) -> None:
    edit_record(source, labels={"background": 0, "whole": [1, 2], "L1": 1})


def _channels(source: Path) -> None:
    edit_record(source, channel_names={"0": "T1", "1": "T2"})


def _organs(source: Path) -> None:
    edit_record(source, labels={"background": 0, "liver": 1})


def _pictures(source: Path) -> None:
    edit_record(source, file_ending=".png")


def _words(source: Path) -> None:
    edit_record(source, labels={"background": 0, "L1": "one"})


def _no_scans(source: Path) -> None:
    shutil.rmtree(source / "imagesTr")
    shutil.rmtree(source / "labelsTr")
    shutil.rmtree(source / "imagesTs")
    shutil.rmtree(source / "labelsTs")


@pytest.mark.parametrize(
    ("break_it", "error", "match"),
    [
        (_no_record, NotFoundError, "no dataset.json in "),
        (_broken_record, UnreadableError, "dataset.json: not JSON"),
        (_list_record, UnreadableError, "names no labels"),
        (_region, UnsupportedError, "'whole' is a region of several ids"),
        (_channels, UnsupportedError, r"2 channels \(T1, T2\); one is needed"),
        (_organs, MaskError, r"no vertebrae among its labels \(liver\)"),
        (_pictures, UnsupportedError, r"files that end in \.png"),
        (_words, UnreadableError, "a label's id is no number"),
        (_no_scans, NotFoundError, "no images in imagesTr or imagesTs"),
    ],
)
def test_broken_nnunet_is_refused(
    break_it: Callable[[Path], None],
    error: type[InputError],
    match: str,
    tmp_path: Path,
) -> None:
    source = data_sets.nnunet(tmp_path / "in").source
    break_it(source)

    with pytest.raises(error, match=match) as caught:
        PrepareRun(source, tmp_path / "out", settings_for("nnunet"))
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layout", "match"),
    [
        ("verse", "no rawdata and derivatives folders .* under .*empty"),
        ("spider", "no images and no masks folder under .*empty"),
        ("totalsegmentator", "no folders segmentations under .*empty"),
        ("nnunet", "no dataset.json in .*empty"),
        ("pairs", r"no folders of images and masks \(images, .*X_mask.* under .*empty"),
    ],
)
def test_a_folder_of_another_kind_is_refused(
    layout: str, match: str, tmp_path: Path
) -> None:
    source = tmp_path / "empty"
    source.mkdir()
    (source / "notes.txt").write_text("nothing")

    with pytest.raises(NotFoundError, match=match) as caught:
        PrepareRun(source, tmp_path / "out", settings_for(layout))
    assert caught.value.hint


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_source_that_is_no_folder_is_refused(layout: str, tmp_path: Path) -> None:
    packed = tmp_path / "images.zip"
    packed.write_bytes(b"PK")

    with pytest.raises(UnsupportedError, match=r"images\.zip is not a folder"):
        PrepareRun(packed, tmp_path / "out", settings_for(layout))
    with pytest.raises(NotFoundError, match="no such file or folder"):
        PrepareRun(tmp_path / "none", tmp_path / "out", settings_for(layout))


def test_unknown_layout_is_told_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no layout .* is called 'bids'") as caught:
        settings_for("bids")
    assert all(name in caught.value.hint for name in LAYOUTS)


def test_scheme_is_the_layouts_own_unless_it_may_be_chosen() -> None:
    assert scheme_of(None, None) == "verse"
    assert scheme_of("spider", None) == "spider"
    assert scheme_of("pairs", "totalspineseg") == "totalspineseg"
    with pytest.raises(SettingsError, match="totalspineseg does not go with"):
        scheme_of("spider", "totalspineseg")


def test_bad_cases_of_verse_stop_nobody(tmp_path: Path) -> None:
    source = data_sets.verse_2020(tmp_path / "in").source
    scan, mask = data_sets.small()
    part = source / "dataset-01training"
    raw, derived = part / "rawdata" / "x", part / "derivatives" / "x"
    alien = mask.with_voxels(np.where(mask.voxels, 99, 0).astype(np.uint8))
    shifted = phantoms.volume(mask.voxels)
    for name, label in (("alien", alien), ("shifted", shifted)):
        data_sets.write(raw, **{f"sub-{name}_ct": scan})
        data_sets.write(derived, **{f"sub-{name}_seg-vert_msk": label})
    data_sets.write(raw, **{"sub-bare_ct": scan})
    data_sets.write(derived, **{"sub-lost_seg-vert_msk": mask})
    (raw / "sub-text_ct.nii.gz").write_bytes(b"notes")
    data_sets.write(derived, **{"sub-text_seg-vert_msk": mask})
    twice = source / "dataset-03test" / "rawdata" / "sub-gl003"
    data_sets.write(twice, **{"sub-gl003_dir-ax_ct": scan})
    data_sets.write(twice, **{"sub-gl003_dir-ax_seg-vert_msk": mask})
    results = run(source, tmp_path / "out", settings_for("verse"))

    assert codes(results) == {
        "sub-alien": "mask",
        "sub-bare": "mask",
        "sub-gl003_dir-ax": "name_clash",
        "sub-lost": "mask",
        "sub-shifted": "mask",
        "sub-text": "unreadable",
    }
    assert results["sub-verse500_dir-sag"].status == "done"
    assert "holds 99, which the scheme 'verse' lacks" in message(results["sub-alien"])
    assert "does not fit its scan" in message(results["sub-shifted"])
    assert "sub-bare_ct.nii.gz has no mask" in message(results["sub-bare"])
    assert "lost_seg-vert_msk.nii.gz has no scan" in message(results["sub-lost"])
    assert "dataset-03test" in message(results["sub-gl003_dir-ax"])


def test_a_clash_is_solved_with_include(tmp_path: Path) -> None:
    source = data_sets.verse_2020(tmp_path / "in").source
    shutil.copytree(source / "dataset-01training", source / "dataset-03test")
    results = run(source, tmp_path / "out", settings_for("verse"), exclude=["*03test*"])

    assert {case.status for case in results.values()} == {"done"}
    assert len(results) == 2


def test_two_masks_of_a_verse_scan_are_refused(tmp_path: Path) -> None:
    source = data_sets.verse_2019_flat(tmp_path / "in").source
    mask = data_sets.small()[1]
    data_sets.write(source, **{"verse004_seg-vert_msk": mask})
    results = run(source, tmp_path / "out", settings_for("verse"))

    assert "are both the mask of verse004.nii.gz" in message(results["verse004"])


def test_bad_cases_of_spider(tmp_path: Path) -> None:
    source = data_sets.spider(tmp_path / "in").source
    (source / "masks" / "10_t2.mha").unlink()
    (source / "images" / "1_t2_SPACE.mha").unlink()
    mask = data_sets.other()[1]
    alien = mask.with_voxels(mask.voxels + np.uint8(40))
    phantoms.write_itk(source / "masks" / "1_t1.mha", alien)
    results = run(source, tmp_path / "out", settings_for("spider"))

    assert codes(results) == dict.fromkeys(results, "mask")
    assert "10_t2.mha has no mask" in message(results["sub-10_t2"])
    assert "1_t2_SPACE.mha has no image" in message(results["sub-1_t2_SPACE"])
    told = message(results["sub-1_t1"])
    assert "holds 40, 62, 63, 64, 66, which SPIDER's numbering lacks" in told


def test_bad_cases_of_totalsegmentator(tmp_path: Path) -> None:
    source = data_sets.totalsegmentator_mr(tmp_path / "in").source
    scan, mask = data_sets.small()
    data_sets.write(source / "s0005", ct=scan)
    data_sets.structures(source / "s0006" / "segmentations", mask)
    shutil.copytree(source / "s0004", source / "s0007")
    small = mask.with_voxels(mask.voxels[:9])
    small = replace(small, grid=replace(mask.grid, shape=small.voxels.shape))
    odd = source / "s0007" / "segmentations" / "vertebrae_T1.nii.gz"
    phantoms.write_nifti(odd, small)
    shutil.copytree(source / "s0004", source / "s0008")
    data_sets.write(source / "s0008", ct=scan)
    results = run(source, tmp_path / "out", settings_for("totalsegmentator"))

    assert codes(results) == {
        "s0005": "mask",
        "s0006": "mask",
        "s0007": "mask",
        "s0008": "name_clash",
    }
    assert results["s0004"].status == "done"
    assert "no segmentations in" in message(results["s0005"])
    assert "no ct or mri image in" in message(results["s0006"])
    told = "vertebrae_L2.nii.gz is on another grid than vertebrae_T1.nii.gz"
    assert told in message(results["s0007"])


def test_bad_cases_of_nnunet(tmp_path: Path) -> None:
    source = data_sets.nnunet(tmp_path / "in").source
    scan, mask = data_sets.other()
    data_sets.write(source / "imagesTr", alien_0000=scan, bare_0000=scan)
    data_sets.write(source / "imagesTr", two_0000=scan, two_0001=scan)
    unnamed = mask.with_voxels(np.where(mask.voxels, 9, 0).astype(np.uint8))
    data_sets.write(source / "labelsTr", alien=unnamed, lost=mask, two=mask)
    results = run(source, tmp_path / "out", settings_for("nnunet"))

    assert codes(results) == {
        "alien": "mask",
        "bare": "mask",
        "lost": "mask",
        "two": "unsupported",
    }
    assert results["spine_001"].status == "done"
    assert "holds 9, which dataset.json lacks" in message(results["alien"])
    assert "bare_0000.nii.gz has no mask: none is called bare in labelsTr" in message(
        results["bare"]
    )
    assert "lost.nii.gz has no image" in message(results["lost"])
    assert "two has 2 channels" in message(results["two"])


def test_bad_pairs_in_folders(tmp_path: Path) -> None:
    source = data_sets.pairs_folders(tmp_path / "in").source
    scan, mask = data_sets.small()
    data_sets.write(source / "Images", bare=scan, twice=scan)
    data_sets.write(source / "labels", lost=mask, twice=mask)
    data_sets.write(source / "labels", twice_mask=mask)
    settings = settings_for("pairs", "totalsegmentator")
    results = run(source, tmp_path / "out", settings)

    assert codes(results) == {"bare": "mask", "lost": "mask", "twice": "name_clash"}
    assert results["p1"].status == "done"
    assert "bare.nii.gz has no mask" in message(results["bare"])
    assert "lost.nii.gz has no image" in message(results["lost"])
    assert "are both masks of twice" in message(results["twice"])


def test_pairs_say_how_they_are_numbered(tmp_path: Path) -> None:
    source = data_sets.pairs_folders(tmp_path / "in").source
    (case,) = run(source, tmp_path / "out", settings_for("pairs")).values()

    assert "holds 29, 30, which the scheme 'verse' lacks" in message(case)
    assert case.error is not None
    assert "--scheme" in case.error.hint


def test_folders_that_both_may_hold_the_images_are_refused(tmp_path: Path) -> None:
    source = data_sets.pairs_folders(tmp_path / "in").source
    (source / "imgs").mkdir()

    with pytest.raises(UnsupportedError, match="Images and imgs; which of them"):
        PrepareRun(source, tmp_path / "out", settings_for("pairs"))


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"", UnreadableError, "no column image and no mask; it has none"),
        (b"image;file\na;b\n", UnreadableError, "no column mask; it has image, file"),
        (b"image,file\na,b\n", UnreadableError, "no column mask; it has image, file"),
        (b"image,mask\n", NotFoundError, "has no rows"),
        (b"\xff\xfe\x00", UnreadableError, "not a table"),
    ],
)
def test_broken_tables_are_refused(
    content: bytes, error: type[InputError], match: str, tmp_path: Path
) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content)

    with pytest.raises(error, match=match) as caught:
        PrepareRun(path, tmp_path / "out", settings_for("pairs"))
    assert caught.value.hint


def test_bad_rows_of_a_table(tmp_path: Path) -> None:
    path = data_sets.pairs_table(tmp_path / "in").source
    lines = (
        "a/x.nii.gz,a/none.nii.gz,no-mask,",
        "a/none.nii.gz,a/y.nii.gz,no-image,",
        "a/x.nii.gz,,empty,",
        "a/x.nii.gz,a/y.nii.gz,away/../..,",
        "a/x.nii.gz,a/y.nii.gz,.hidden,",
        "a/x.nii.gz,a/y.nii.gz,x,",
    )
    with path.open("a") as file:
        file.write("\n".join(lines) + "\n")
    results = run(path, tmp_path / "out", settings_for("pairs"))

    assert codes(results) == {
        "no-mask": "mask",
        "no-image": "mask",
        "empty": "mask",
        "line-8": "unsupported",
        "line-9": "unsupported",
        "x": "name_clash",
    }
    assert "line 5: no mask" in message(results["no-mask"])
    assert "none.nii.gz" in message(results["no-mask"])
    assert "line 6: no image" in message(results["no-image"])
    assert "line 7: no mask is named" in message(results["empty"])
    assert "'away/../..' cannot be the name" in message(results["line-8"])
    assert results["sub-P7_first"].status == "done"


def test_originals_of_a_table_are_never_overwritten(tmp_path: Path) -> None:
    path = data_sets.pairs_table(tmp_path / "in").source

    with pytest.raises(SettingsError, match="holds the originals"):
        PrepareRun(path, tmp_path / "in" / "a", settings_for("pairs"))


def test_nothing_wanted_is_told(tmp_path: Path) -> None:
    source = data_sets.verse_2020(tmp_path / "in").source

    with pytest.raises(NotFoundError, match=r"none of the 2 cases under .* is wanted"):
        PrepareRun(source, tmp_path / "out", settings_for("verse"), ["nothing*"])
