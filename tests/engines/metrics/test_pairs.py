"""Which files belong together, by their names or by a table."""

from pathlib import Path

import pytest

from engines.errors import MaskError, NotFoundError, SettingsError
from engines.metrics.pairs import Key, Pair, find_pairs, key_of, read_pairs, truths_of

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


def test_nnunet_folders_match_and_their_records_are_no_maps(tmp_path: Path) -> None:
    preds = touch(
        tmp_path / "preds",
        "case_001.nii.gz",
        "case_002.nii.gz",
        "dataset.json",
        "plans.json",
        "summary.json",
    )
    truth = touch(tmp_path / "labelsTr", "case_001.nii.gz", "case_002.nii.gz")

    assert found(preds, truth) == {
        name: (f"{name}.nii.gz", f"{name}.nii.gz") for name in ("case_001", "case_002")
    }


def test_verse_names_match_each_other_and_their_centroids_are_no_maps(
    tmp_path: Path,
) -> None:
    truth = touch(
        tmp_path / "derivatives",
        "sub-verse004/sub-verse004_seg-vert_msk.nii.gz",
        "sub-verse004/sub-verse004_seg-subreg_ctd.json",
        "sub-verse010/sub-verse010_dir-ax_seg-vert_msk.nii.gz",
    )
    preds = touch(
        tmp_path / "preds",
        "sub-verse004_seg-vert_msk.nii.gz",
        "sub-verse010_dir-ax_seg-vert_msk.nii.gz",
    )

    pairs = found(preds, truth)

    assert [path for path, _ in pairs.values()] == [
        "sub-verse004_seg-vert_msk.nii.gz",
        "sub-verse010_dir-ax_seg-vert_msk.nii.gz",
    ]


@pytest.mark.parametrize("inside", ["", "segmentations/"])
def test_a_folder_of_structures_is_one_prediction(tmp_path: Path, inside: str) -> None:
    preds = touch(
        tmp_path / "preds",
        *[
            f"a/{inside}{name}.nii.gz"
            for name in ("vertebrae_L1", "vertebrae_L2", "sacrum", "aorta")
        ],
        f"b/{inside}vertebrae_L1.nii.gz",
    )
    truth = touch(tmp_path / "truth", "a_msk.nii.gz", "b_msk.nii.gz")

    assert found(preds, truth) == {
        name: (f"{name}/{inside}".rstrip("/"), f"{name}_msk.nii.gz") for name in "ab"
    }


def test_folders_of_structures_may_be_the_truth(tmp_path: Path) -> None:
    preds = touch(tmp_path / "preds", "s1/s1_ct_seg-vert_msk.nii.gz")
    truth = touch(tmp_path / "truth", "s1/segmentations/vertebrae_L1.nii.gz")

    assert found(preds, truth) == {
        "s1": ("s1/s1_ct_seg-vert_msk.nii.gz", "s1/segmentations")
    }


def test_a_scan_beside_the_structures_is_no_label_map(tmp_path: Path) -> None:
    parts = ("ct.nii.gz", "segmentations/vertebrae_L1.nii.gz")
    truth = touch(
        tmp_path / "truth", *[f"{s}/{p}" for s in ("s1", "s2") for p in parts]
    )
    preds = touch(tmp_path / "preds", "s1.nii.gz", "s2.nii.gz")

    assert found(preds, truth) == {
        name: (f"{name}.nii.gz", f"{name}/segmentations") for name in ("s1", "s2")
    }


def test_one_folder_of_structures_against_one_file_of_the_same_name(
    tmp_path: Path,
) -> None:
    preds = touch(tmp_path / "a", "vertebrae_L1.nii.gz", "vertebrae_L2.nii.gz")
    truth = touch(tmp_path / "truth", "a_seg-vert_msk.nii.gz")

    assert only(preds, truth) == Pair("a", truth / "a_seg-vert_msk.nii.gz", preds)


def table(root: Path, text: str | bytes) -> Path:
    path = touch(root, "t/a.nii", "t/b.nii", "p/a.nii", "p/b.nii") / "pairs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_says_which_files_belong_together(tmp_path: Path) -> None:
    listed = table(
        tmp_path,
        f"name,truth,note,prediction\nfirst,t/a.nii,x,p/b.nii\n,t/b.nii,,{tmp_path}/p/a.nii\n",
    )

    assert read_pairs(listed) == [
        Pair("first", tmp_path / "t/a.nii", tmp_path / "p/b.nii"),
        Pair("b", tmp_path / "t/b.nii", tmp_path / "p/a.nii"),
    ]


def test_an_empty_prediction_in_a_table_is_a_missing_one(tmp_path: Path) -> None:
    listed = table(tmp_path, "prediction,truth\n,t/a.nii\n p/b.nii , t/b.nii\n")

    lost, whole = read_pairs(listed)

    assert (lost.name, lost.prediction) == ("a", None)
    assert whole.prediction == tmp_path / "p/b.nii"


def test_a_table_from_a_spreadsheet_begins_with_a_mark(tmp_path: Path) -> None:
    listed = table(tmp_path, b"\xef\xbb\xbfprediction,truth\r\np/a.nii,t/a.nii\r\n")

    assert [pair.name for pair in read_pairs(listed)] == ["a"]


def test_a_table_may_list_folders_of_structures(tmp_path: Path) -> None:
    touch(tmp_path, "p/s1/vertebrae_L1.nii.gz")
    listed = table(tmp_path, "prediction,truth\np/s1,t/a.nii\n")

    assert read_pairs(listed)[0].prediction == tmp_path / "p/s1"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("prediction,reference\np/a.nii,t/a.nii\n", "no column truth"),
        ("a,b\n1,2\n", "no column prediction and no truth"),
        ("", "no column prediction and no truth"),
        ("prediction,truth\n", "no rows"),
        (
            "prediction,truth\np/a.nii,t/a.nii\np/b.nii,t/a.nii\n",
            "several cases are called a",
        ),
        (
            "name,prediction,truth\nx,p/a.nii,t/a.nii\nx,p/b.nii,t/b.nii\n",
            "several cases are called x",
        ),
        (b"a\0b,c\n" * 50, "not a table"),
    ],
)
def test_what_is_no_table_of_pairs_is_refused(
    tmp_path: Path, text: str | bytes, match: str
) -> None:
    with pytest.raises(SettingsError, match=rf"pairs\.csv.* {match}"):
        read_pairs(table(tmp_path, text))


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("p/x.nii,t/a.nii", r"line 3: the prediction .*x\.nii does not exist"),
        ("p/a.nii,t/y.nii", r"line 3: the truth .*y\.nii does not exist"),
        ("p/a.nii,", "line 3: no truth is named"),
        ("p/a.nii", "line 3: no truth is named"),
    ],
)
def test_a_bad_row_of_a_table_is_a_bad_case_among_others(
    tmp_path: Path, row: str, match: str
) -> None:
    listed = table(tmp_path, f"prediction,truth\np/b.nii,t/b.nii\n{row}\n")

    good, bad = read_pairs(listed)

    assert (good.name, good.problem) == ("b", None)
    with pytest.raises((MaskError, NotFoundError), match=match):
        raise bad.problem or AssertionError


TEXT = "Prediction,TRUTH,Name\np/a.nii,t/a.nii,one\n,t/b.nii,\n\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.replace(",", ";").encode(),
        TEXT.replace(",", "\t").encode(),
        TEXT.replace(",", " , ").encode(),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-8-sig").replace(b"\n", b"\r\n"),
        b'"prediction";"truth";"name"\n"p/a.nii";"t/a.nii";"one"\n;t/b.nii\n',
        TEXT.replace("/", "\\").encode(),
    ],
    ids=[
        *("commas", "semicolons", "tabs", "spaced", "utf-16", "utf-16 without mark"),
        *("windows", "quoted, short rows", "backslashes"),
    ],
)
def test_tables_of_any_program_are_read(tmp_path: Path, content: bytes) -> None:
    one, other = read_pairs(table(tmp_path, content))

    assert (one.name, other.name) == ("one", "b")
    assert one.prediction == tmp_path / "p/a.nii"
    assert other.prediction is None
    assert other.truth == tmp_path / "t/b.nii"


def test_columns_parted_by_spaces(tmp_path: Path) -> None:
    text = "name  prediction truth\none p/a.nii   t/a.nii\n"

    assert read_pairs(table(tmp_path, text)) == [
        Pair("one", tmp_path / "t/a.nii", tmp_path / "p/a.nii")
    ]


def test_letters_of_windows(tmp_path: Path) -> None:
    text = "name,prediction,truth\nH\xfcfte,p/a.nii,t/a.nii\n"

    (pair,) = read_pairs(table(tmp_path, text.encode("cp1252")))
    assert pair.name == "H\xfcfte"


@pytest.mark.parametrize(
    ("preds", "truths", "cases"),
    [
        # One marked name among others, on either side.
        (
            ["a_seg-spine_msk.nii", "b.nii", "c.nii"],
            ["a.nii", "b.nii", "c.nii"],
            {"a": "a_seg-spine_msk.nii", "b": "b.nii", "c": "c.nii"},
        ),
        (
            ["a.nii", "b.nii"],
            ["a_msk.nii", "b.nii", "c.nii"],
            {"a": "a.nii", "b": "b.nii", "c": None},
        ),
        # What another program wrote under the name of the scan.
        (
            ["a_seg-spine_msk.nii", "b_ct.nii"],
            ["a_msk.nii", "b_msk.nii"],
            {"a": "a_seg-spine_msk.nii", "b": "b_ct.nii"},
        ),
        (
            ["a_msk.nii", "b_msk.nii"],
            ["a_msk.nii", "b_ct.nii"],
            {"a": "a_msk.nii", "b": "b_msk.nii"},
        ),
        # Names of 3D Slicer, and of VerSe's challenge.
        (["x.seg.nrrd"], ["x.mha"], {"x": "x.seg.nrrd"}),
        (["x.mha"], ["x.seg.nrrd"], {"x": "x.mha"}),
        (["x.mha", "x.seg.nrrd"], ["x.mha", "x.seg.nrrd"], {"x": "x.seg.nrrd"}),
        (["x_ct.nii"], ["x_seg.nii"], {"x": "x_ct.nii"}),
        (["x_mask.nii"], ["x_label.nii"], {"x": "x_mask.nii"}),
    ],
)
def test_a_marked_name_hides_no_other(
    tmp_path: Path, preds: list[str], truths: list[str], cases: dict[str, str | None]
) -> None:
    both = touch(tmp_path / "preds", *preds), touch(tmp_path / "truth", *truths)

    assert {name: pair[0] for name, pair in found(*both).items()} == cases


def test_every_image_is_scored_or_named(tmp_path: Path) -> None:
    preds = touch(
        tmp_path / "preds",
        *("a_ct.nii", "a_seg-spine_msk.nii", "extra_msk.nii", "old.hdr", "old.img"),
    )
    truth = touch(
        tmp_path / "truth", "a_ct.nii", "a_msk.nii", "b_mr.nii", "c.nii", "c.mgz"
    )

    pairs, notes = find_pairs(preds, truth)

    assert [(pair.name, pair.prediction is None) for pair in pairs] == [
        ("a", False),
        ("c", True),
    ]
    told = "\n".join(note.message for note in notes)
    for name in ("extra", "old.hdr", "old.img", "b_mr.nii", "c.mgz"):
        assert name in told
    assert told.count("a_ct.nii") == 2


@pytest.mark.parametrize(
    ("names", "one"),
    [
        (["L2", "L3", "sacrum"], True),
        (["vertebra_L2"], True),
        (["Vertebrae_L2"], True),
        (["T1", "T2", "T3"], True),
        (["T1", "T2"], False),
    ],
)
def test_structures_by_other_names(tmp_path: Path, names: list[str], one: bool) -> None:
    preds = touch(tmp_path / "preds", *[f"case/{name}.nii.gz" for name in names])
    truth = touch(tmp_path / "truth", "case_msk.nii.gz", "case/T1.nii.gz")

    pairs, _ = find_pairs(preds, truth)
    case = next(pair for pair in pairs if pair.name == "case")
    assert (case.prediction == preds / "case") is one


def test_truths_of_scans(tmp_path: Path) -> None:
    for name in ("a_seg-vert_msk", "a_seg-spine_msk", "sub/b_seg-vert_msk", "a_ct"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()

    found = truths_of(["a_ct", "b_ct", "c_ct"], tmp_path)
    told = truths_of(["a_ct"], tmp_path, "vert")

    assert found["a_ct"] == tmp_path / "a_seg-spine_msk.nii.gz"
    assert found["b_ct"] == tmp_path / "sub/b_seg-vert_msk.nii.gz"
    assert isinstance(found["c_ct"], NotFoundError)
    assert told["a_ct"] == tmp_path / "a_seg-vert_msk.nii.gz"


def test_one_scan_and_one_file_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "anything.nii.gz"
    path.touch()

    assert truths_of(["scan_ct"], path) == {"scan_ct": path}
    assert isinstance(truths_of(["a", "b"], path)["a"], NotFoundError)
