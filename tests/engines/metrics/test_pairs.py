"""Which files belong together, by their names alone."""

from pathlib import Path

import pytest

from engines.errors import MaskError, NotFoundError
from engines.metrics.pairs import Key, Pair, find_pairs, key_of

GZ = ".nii.gz"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(preds: Path, truth: Path) -> dict[str, tuple[str | None, str]]:
    """Return case -> (prediction, truth), as paths below their roots."""
    pairs, _ = find_pairs(preds, truth)
    assert [pair.problem for pair in pairs if pair.problem] == []
    return {
        pair.name: (
            pair.prediction.relative_to(preds).as_posix() if pair.prediction else None,
            pair.truth.relative_to(truth).as_posix(),
        )
        for pair in pairs
    }


def only(preds: Path, truth: Path) -> Pair:
    (pair,), _ = find_pairs(preds, truth)
    return pair


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("verse014_seg-vert_msk.nii.gz", Key((), "verse014")),
        ("tsexample_ct/tsexample_ct_seg-spine_msk.nii.gz", Key((), "tsexample")),
        ("a/b_mr/b_mr_seg-spine_msk.nii.gz", Key(("a",), "b")),
        ("a/b/c_msk.nrrd", Key(("a", "b"), "c")),
        ("case.one.nii", Key((), "case.one")),
        ("x_CT_SEG-vert_MSK.nii.gz", Key((), "x")),
        ("s1_dir-ax_ct_seg-vert_msk.nii.gz", Key((), "s1", "ax")),
        ("s1_ct_dir-sag_seg-vert_msk.nii.gz", Key((), "s1", "sag")),
        ("_ct.nii.gz", Key((), "_ct")),
    ],
)
def test_key(path: str, wanted: Key) -> None:
    assert key_of(Path(path)) == wanted


def test_what_segment_writes_matches_the_masks_beside_the_scans(tmp_path: Path) -> None:
    preds = touch(
        tmp_path / "preds",
        "tsexample_ct/tsexample_ct_seg-spine_msk.nii.gz",
        "tsexample_ct/tsexample_ct_preview.png",
        "deep/er/x_ct/x_ct_seg-spine_msk.nii.gz",
        "spine-run.json",
    )
    truth = touch(
        tmp_path / "truth",
        "tsexample_ct.nii.gz",
        "tsexample_seg-vert_msk.nii.gz",
        "unlabelled_ct.nii.gz",
        "deep/er/x_ct.nii.gz",
        "deep/er/x_seg-vert_msk.nii.gz",
    )

    assert found(preds, truth) == {
        "tsexample": (
            "tsexample_ct/tsexample_ct_seg-spine_msk.nii.gz",
            "tsexample_seg-vert_msk.nii.gz",
        ),
        "deep/er/x": (
            "deep/er/x_ct/x_ct_seg-spine_msk.nii.gz",
            "deep/er/x_seg-vert_msk.nii.gz",
        ),
    }


def test_plain_names_match_plain_names(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "a.nii.gz", "b.nrrd", ".hidden.nii.gz")
    truth = touch(tmp_path / "truth", "a.nii", "b.nii.gz")

    assert found(preds, truth) == {
        "a": ("a.nii.gz", "a.nii"),
        "b": ("b.nrrd", "b.nii.gz"),
    }


def test_a_missing_prediction_stays_a_case(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "a.nii.gz")
    truth = touch(tmp_path / "truth", "a.nii.gz", "b.nii.gz")

    assert found(preds, truth) == {
        "a": ("a.nii.gz", "a.nii.gz"),
        "b": (None, "b.nii.gz"),
    }


def test_predictions_without_truth_are_told(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", *[f"{name}.nii" for name in "abcdefgh"])
    truth = touch(tmp_path / "truth", "a.nii")

    pairs, (note,) = find_pairs(preds, truth)

    assert [pair.name for pair in pairs] == ["a"]
    assert note.code == "no_truth"
    assert note.message.startswith("7 prediction(s) without truth")
    assert note.message.endswith("b, c, d, e, f and 2 more")


def test_folders_above_may_be_missing_on_one_side(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "site/a_ct/a_ct_seg-spine_msk.nii.gz")
    truth = touch(tmp_path / "truth", "a_seg-vert_msk.nii.gz")

    assert found(preds, truth)["a"][0] == "site/a_ct/a_ct_seg-spine_msk.nii.gz"


def test_an_exact_name_is_not_shared_with_a_similar_one(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "site/a.nii.gz")
    truth = touch(tmp_path / "truth", "site/a.nii.gz", "a.nii.gz")

    assert found(preds, truth) == {
        "a": (None, "a.nii.gz"),
        "site/a": ("site/a.nii.gz", "site/a.nii.gz"),
    }


def test_another_patient_s_truth_is_never_taken(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "p1/scan.nii.gz", "p3/scan.nii.gz")
    truth = touch(tmp_path / "truth", "p1/scan.nii.gz", "p2/scan.nii.gz")

    assert found(preds, truth) == {
        "p1/scan": ("p1/scan.nii.gz", "p1/scan.nii.gz"),
        "p2/scan": (None, "p2/scan.nii.gz"),
    }


def test_a_direction_may_be_missing_but_not_differ(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "s1_dir-ax_ct.nii.gz", "s2_dir-ax_ct.nii.gz")
    truth = touch(tmp_path / "truth", "s1_ct.nii.gz", "s2_dir-sag_ct.nii.gz")

    assert found(preds, truth) == {
        "s1": ("s1_dir-ax_ct.nii.gz", "s1_ct.nii.gz"),
        "s2_dir-sag": (None, "s2_dir-sag_ct.nii.gz"),
    }


@pytest.mark.parametrize(
    ("preds", "truths", "wanted"),
    [
        (["spine"], ["vert", "subreg"], ("spine", "vert")),
        (["spine"], ["vert", "spine"], ("spine", "spine")),
        (["spine", "vert"], ["vert"], ("vert", "vert")),
        (["vert"], ["spine", "vert"], ("vert", "vert")),
        (["spine", "vert"], ["spine", "vert"], ("spine", "spine")),
        (["subreg"], ["vert", "subreg"], ("subreg", "subreg")),
        (["spine"], ["body"], ("spine", "body")),
    ],
)
def test_which_of_several_label_maps(
    tmp_path: Path, preds: list[str], truths: list[str], wanted: tuple[str, str]
) -> None:
    files = [
        touch(tmp_path / side, *[f"a_seg-{kind}_msk{GZ}" for kind in kinds])
        for side, kinds in (("preds", preds), ("truth", truths))
    ]

    pair = only(*files)

    assert pair.problem is None
    assert pair.prediction is not None
    told = pair.prediction.name, pair.truth.name
    assert told == tuple(f"a_seg-{kind}_msk{GZ}" for kind in wanted)


@pytest.mark.parametrize(
    ("preds", "truths", "named"),
    [
        (["a.nii"], ["a_seg-body_msk.nii", "a_seg-disc_msk.nii"], "body.*disc"),
        (["a.nii"], ["a_seg-vert_msk.nii", "a_seg-vert_msk.nii.gz"], r"nii,.*nii\.gz"),
        (["a.nii", "a_ct.nii.gz"], ["a.nii"], r"a\.nii,.*a_ct\.nii\.gz"),
        (["x/a.nii", "y/a.nii"], ["a.nii"], r"x/a\.nii,.*y/a\.nii"),
        (["s_dir-ax.nii", "s_dir-sag.nii"], ["s.nii"], "dir-ax.*dir-sag"),
        (
            ["s_dir-ax_seg-vert_msk.nii", "s_dir-sag_seg-spine_msk.nii"],
            ["s_seg-vert_msk.nii"],
            "dir-ax.*dir-sag",
        ),
        (["s.nii"], ["s_dir-ax.nii", "s_dir-sag.nii"], "dir-ax.*dir-sag"),
    ],
)
def test_what_is_not_clear_is_refused_by_name(
    tmp_path: Path, preds: list[str], truths: list[str], named: str
) -> None:
    pairs, _ = find_pairs(
        touch(tmp_path / "preds", *preds), touch(tmp_path / "truth", *truths)
    )

    for pair in pairs:
        assert pair.prediction is None
        assert isinstance(pair.problem, MaskError)
        with pytest.raises(MaskError, match=f"more than one label map fits: .*{named}"):
            raise pair.problem


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    root = touch(tmp_path, "out.nii.gz", "reference_seg-vert_msk.nii.gz")
    truth = root / "reference_seg-vert_msk.nii.gz"

    pair = only(root / "out.nii.gz", truth)

    assert (pair.name, pair.prediction, pair.truth) == (
        "reference",
        root / "out.nii.gz",
        truth,
    )


def test_one_file_against_a_folder(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "a_ct/a_ct_seg-spine_msk.nii.gz", "b.nii.gz")
    truth = touch(tmp_path / "truth", "a_seg-vert_msk.nii.gz", "b_msk.nii.gz")
    mask = preds / "a_ct/a_ct_seg-spine_msk.nii.gz"

    one = only(mask, truth)
    other = only(preds, truth / "a_seg-vert_msk.nii.gz")

    assert one == other
    assert find_pairs(preds, truth / "a_seg-vert_msk.nii.gz")[1] == []


def test_nothing_in_common_is_an_error_not_a_row_of_zeros(tmp_path: Path) -> None:
    preds, truth = touch(tmp_path / "p", "a.nii"), touch(tmp_path / "t", "b.nii")

    with pytest.raises(NotFoundError, match=r"no prediction in .* has a truth"):
        find_pairs(preds, truth)


@pytest.mark.parametrize(
    ("preds", "match"), [("nowhere", "does not exist"), ("empty", "no label maps")]
)
def test_nothing_to_read_is_an_error(tmp_path: Path, preds: str, match: str) -> None:
    truth = touch(tmp_path / "truth", "a.nii")
    touch(tmp_path, "empty/readme.txt")

    with pytest.raises(NotFoundError, match=match):
        find_pairs(tmp_path / preds, truth)
