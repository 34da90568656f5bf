"""Masks are found beside their scans, and mapped by scheme and class."""

from pathlib import Path

import numpy as np
import pytest

from engines.errors import MaskError, SettingsError
from engines.labels import BY_NAME, SCHEMES
from engines.preprocess import masks


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def test_masks_beside_a_scan(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        *("p[1]_ct.nii.gz", "p[1]_seg-vert_msk.nii.gz", "p[1]_seg-subreg_msk.nrrd"),
        *("p[1]2_seg-vert_msk.nii.gz", "p[1]_seg-vert_ctd.json", "p1_seg-vert_msk.mha"),
    )
    found = masks.masks_of(tmp_path / "p[1]_ct.nii.gz")

    assert {kind: path.name for kind, path in found.items()} == {
        "subreg": "p[1]_seg-subreg_msk.nrrd",
        "vert": "p[1]_seg-vert_msk.nii.gz",
    }


def test_masks_in_verse_layout(tmp_path: Path) -> None:
    for part in ("rawdata", "derivatives"):
        (tmp_path / part / "sub-1").mkdir(parents=True)
    _touch(tmp_path / "rawdata" / "sub-1", "sub-1_ct.nii.gz")
    _touch(tmp_path / "derivatives" / "sub-1", "sub-1_seg-vert_msk.nii.gz")
    found = masks.masks_of(tmp_path / "rawdata" / "sub-1" / "sub-1_ct.nii.gz")

    mask = tmp_path / "derivatives" / "sub-1" / "sub-1_seg-vert_msk.nii.gz"
    assert found == {"vert": mask}


def test_two_masks_of_one_kind_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "p_ct.nii", "p_seg-vert_msk.nii", "p_seg-vert_msk.nii.gz")

    with pytest.raises(MaskError, match="are both the 'vert' mask"):
        masks.masks_of(tmp_path / "p_ct.nii")


def test_dicom_folder_has_no_masks(tmp_path: Path) -> None:
    assert masks.masks_of(tmp_path) == {}


L1, T12, C1, SACRUM = (BY_NAME[name].id for name in ("L1", "T12", "C1", "sacrum"))


@pytest.mark.parametrize(
    ("scheme", "classes", "ids", "wanted"),
    [
        ("verse", "spine", [0, C1, L1, SACRUM], [0, 1, 1, 1]),
        ("verse", "regions", [0, C1, T12, L1, SACRUM, 28], [0, 1, 2, 3, 4, 2]),
        ("verse", "vertebrae", [0, C1, 28], [0, C1, 28]),
        ("totalsegmentator", "vertebrae", [0, 50, 31, 32, 25], [0, C1, L1, T12, 26]),
        ("totalsegmentator", "regions", [0, 50, 31, 32, 25], [0, 1, 3, 2, 4]),
        ("binary", "spine", [0, 1], [0, 1]),
        ("verse", "binary", [0, 3, 200], [0, 1, 1]),
        ("verse", "as-they-are", [0, 3, 200], [0, 3, 200]),
    ],
)
def test_ids_are_mapped(
    scheme: str, classes: str, ids: list[int], wanted: list[int]
) -> None:
    voxels = np.array(ids, np.int32).reshape(1, 1, -1)
    made = masks.mapped(voxels, "vert", scheme=scheme, classes=classes)

    assert made.dtype == np.uint8
    assert made.ravel().tolist() == wanted


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_id_outside_the_scheme_is_refused(scheme: str) -> None:
    voxels = np.array([0, 1, 25, 99]).reshape(1, 2, 2)

    with pytest.raises(MaskError, match=f"holds .*99, which the scheme '{scheme}'"):
        masks.mapped(voxels, "vert", scheme=scheme, classes="spine")


def test_other_kinds_keep_ids_of_their_own() -> None:
    voxels = np.array([0, 41, 50, 300]).reshape(1, 2, 2)
    made = masks.mapped(voxels, "subreg", scheme="verse", classes="regions")

    np.testing.assert_array_equal(made, voxels)
    assert made.dtype == np.uint16


def test_spine_mask_becomes_one_class() -> None:
    voxels = np.array([0, 1, 3, 4]).reshape(1, 2, 2)
    made = masks.mapped(voxels, "spine", scheme="verse", classes="spine")

    assert made.ravel().tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("scheme", "classes", "match"),
    [
        ("spyder", "spine", "no scheme is called 'spyder'"),
        ("verse", "discs", "no set of classes is called 'discs'"),
        ("binary", "regions", "a binary mask does not tell regions apart"),
        ("binary", "vertebrae", "a binary mask does not tell vertebrae apart"),
    ],
)
def test_impossible_mapping_is_refused(scheme: str, classes: str, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        masks.check_choice(scheme, classes)


def test_choice_of_two_options() -> None:
    assert masks.choose(binary=False, classes=None) == "as-they-are"
    assert masks.choose(binary=False, classes="regions") == "regions"
    assert masks.choose(binary=True, classes=None) == "binary"
    with pytest.raises(SettingsError, match="exclude each other"):
        masks.choose(binary=True, classes="spine")
