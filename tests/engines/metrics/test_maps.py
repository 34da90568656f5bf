"""Two maps on one grid with one set of ids, and a note of all that was done."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import MaskError, UnsupportedError
from engines.geometry import Grid
from engines.labels import BY_NAME, SCHEMES, STRUCTURES, Scheme
from engines.metrics.map_files import read_map
from engines.metrics.maps import Compared, MapSettings, together
from engines.metrics.pairs import Pair
from engines.volume import Volume
from tests import phantoms

T12, L1, L2, SACRUM = 19, 20, 21, 26
NAMES = ("C7", "T1", "T12", "L1", "L5", "sacrum")


def column() -> NDArray[np.uint8]:
    """Return a vertebra of two voxels along J for each of ``NAMES``, along I."""
    voxels = np.zeros(phantoms.SHAPE, np.uint8)
    for place, name in enumerate(NAMES):
        voxels[place, 1:3, 2] = BY_NAME[name].id
    return voxels


def everywhere() -> NDArray[np.uint8]:
    """Return a map whose labels reach every face of the grid; no two planes agree."""
    return np.random.default_rng(0).integers(0, 20, phantoms.SHAPE).astype(np.uint8)


def write(path: Path, voxels: NDArray[Any], **where: Any) -> Path:
    return phantoms.write_nifti(path, phantoms.volume(voxels, **where))


def compared(
    tmp_path: Path,
    prediction: NDArray[Any] | Volume,
    truth: NDArray[Any] | Volume,
    *,
    binary: bool = False,
    **settings: Any,
) -> Compared:
    paths = []
    for name, one in (("p", prediction), ("t", truth)):
        scan = one if isinstance(one, Volume) else phantoms.volume(one)
        paths.append(phantoms.write_nifti(tmp_path / name / "a.nii.gz", scan))
    pair = Pair("a", paths[1], paths[0])
    return together(pair, MapSettings(**settings), binary=binary)


def whole(found: Compared, which: str = "prediction") -> NDArray[Any]:
    """Return a map as it was before the background around it was cut away."""
    cut = getattr(found.maps, which)
    voxels = np.zeros(found.grid.shape, cut.dtype)
    box = tuple(
        slice(start, start + count)
        for start, count in zip(found.corner, cut.shape, strict=True)
    )
    voxels[box] = cut
    return voxels


def codes(found: Compared) -> list[str]:
    return [note.code for note in found.notes]


def in_scheme(voxels: NDArray[np.uint8], scheme: Scheme) -> NDArray[np.uint8]:
    """Return VerSe ids as ``scheme`` numbers them."""
    back = {verse: label for label, verse in [*SCHEMES[scheme].items()][::-1]}
    table = np.zeros(256, np.uint8)
    for label in np.unique(voxels[voxels > 0]).tolist():
        table[label] = back.get(label, 0)
    return table[voxels]


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "binary"])
def test_every_scheme_becomes_the_same_map(tmp_path: Path, scheme: Scheme) -> None:
    truth = column()
    if scheme == "spider":  # it numbers no sacrum
        truth[truth == SACRUM] = 0

    found = compared(tmp_path, in_scheme(truth, scheme), truth, scheme=scheme)

    np.testing.assert_array_equal(whole(found), truth)
    assert found.vertebrae
    assert (found.names[L1], codes(found)) == ("L1", [])


def test_the_truth_has_a_scheme_of_its_own(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        in_scheme(column(), "totalsegmentator"),
        in_scheme(column(), "totalspineseg"),
        scheme="totalsegmentator",
        truth_scheme="totalspineseg",
    )

    np.testing.assert_array_equal(whole(found), column())
    np.testing.assert_array_equal(whole(found, "truth"), column())


def test_binary_is_a_scheme_without_names(tmp_path: Path) -> None:
    mask = (column() > 0).astype(np.uint8)

    found = compared(tmp_path, mask, column(), scheme="binary")

    np.testing.assert_array_equal(found.maps.prediction, found.maps.truth)
    assert set(found.names.values()) == {"spine"}
    assert not found.vertebrae


def test_labels_that_the_scheme_lacks_are_left_out_and_told(tmp_path: Path) -> None:
    prediction = in_scheme(column(), "totalsegmentator")
    for place, organ in enumerate(range(1, 8)):
        prediction[place, 5, 4] = organ

    found = compared(tmp_path, prediction, column(), scheme="totalsegmentator")

    np.testing.assert_array_equal(whole(found), column())
    (note,) = found.notes
    assert note.code == "unknown_labels"
    assert "prediction" in note.message
    assert note.message.endswith("1, 2, 3, 4, 5 and 2 more")


def test_nothing_that_the_scheme_has_is_an_empty_prediction(tmp_path: Path) -> None:
    found = compared(tmp_path, column() * 0 + 9, column(), scheme="totalspineseg")

    assert codes(found) == ["unknown_labels", "empty_prediction"]


@pytest.mark.parametrize("value", [-1, 3000])
@pytest.mark.parametrize("settings", [{"scheme": "verse"}, {"binary": True}])
def test_intensities_are_never_taken_for_labels(
    tmp_path: Path, value: int, settings: dict[str, Any]
) -> None:
    scan = column().astype(np.int16)
    scan[0, 0, 0] = value

    with pytest.raises(MaskError, match=r"-1|3000"):
        compared(tmp_path, scan, column(), **settings)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_fractions_and_what_is_no_number_are_refused(
    tmp_path: Path, value: float
) -> None:
    floats = column().astype(np.float32)
    floats[0, 0, 0] = value

    with pytest.raises(UnsupportedError, match="fractions or non-finite values"):
        compared(tmp_path, floats, column())


@pytest.mark.parametrize(
    "kind", ["u1", "i1", "<i2", ">i2", "<u2", ">i4", "<u4", "<i8", "<u8", "<f4", ">f8"]
)
@pytest.mark.parametrize("settings", [{}, {"scheme": "verse"}, {"resample": True}])
def test_whole_numbers_of_any_type_are_labels(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    truth = np.roll(column(), (1, 1), (0, 2))  # away from the faces of the grid
    prediction = _turned(
        phantoms.volume(truth), "LPS" if settings.get("resample") else "RAS"
    )

    found = compared(
        tmp_path,
        prediction.with_voxels(prediction.voxels.astype(kind)),
        truth,
        **settings,
    )

    np.testing.assert_array_equal(whole(found), truth)


def _turned(scan: Volume, axes: str) -> Volume:
    """Return the same voxels at the same places, indices running along ``axes``."""
    opposite = dict(zip("RLAPIS", "LRPASI", strict=True))
    kept = [code in scan.grid.axes for code in axes]
    order = [
        scan.grid.axes.index(code if keep else opposite[code])
        for code, keep in zip(axes, kept, strict=True)
    ]
    index = np.eye(4)  # from the new index to that of the scan
    index[:3, :3] = np.eye(3)[:, order] * np.where(kept, 1, -1)
    for axis, keep in zip(order, kept, strict=True):
        index[axis, 3] = 0 if keep else scan.grid.shape[axis] - 1
    flips = tuple(slice(None, None, 1 if keep else -1) for keep in kept)
    turned = scan.voxels.transpose(order)[flips]
    i, j, k = turned.shape
    return Volume(turned, Grid((i, j, k), scan.grid.affine @ index))


@pytest.mark.parametrize("turned_deg", [(0, 0, 0), (12, -7, 31)])
@pytest.mark.parametrize("axes", phantoms.ORIENTATIONS)
def test_a_turned_prediction_is_brought_back_voxel_by_voxel(
    tmp_path: Path, axes: str, turned_deg: tuple[float, float, float]
) -> None:
    truth = phantoms.volume(everywhere(), turned_deg=turned_deg)
    prediction = _turned(truth, axes)
    at = [prediction.grid.affine @ [*index, 1] for index in ((0, 0, 0), (1, 2, 3))]
    back = [np.rint(np.linalg.inv(truth.grid.affine) @ place) for place in at]
    for index, there in zip(((0, 0, 0), (1, 2, 3)), back, strict=True):
        i, j, k = there[:3].astype(int)
        assert prediction.voxels[index] == truth.voxels[i, j, k]

    found = compared(tmp_path, prediction, truth, resample=True)

    np.testing.assert_array_equal(whole(found), truth.voxels)


def test_a_coarser_prediction_gives_every_voxel_its_nearest_label(
    tmp_path: Path,
) -> None:
    coarse = everywhere()[:3, :2, :2]
    affine = phantoms.affine(spacing_mm=[2 * mm for mm in phantoms.SPACING_MM])
    fine = phantoms.affine()
    affine[:3, 3] = fine[:3, :3] @ [0.5, 0.5, 0.5] + fine[:3, 3]
    truth = np.full((6, 4, 4), L1, np.uint8)

    found = compared(
        tmp_path,
        Volume(coarse, Grid((3, 2, 2), affine)),
        truth,
        resample=True,
    )

    wanted = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(whole(found), wanted)


def test_what_lies_outside_a_prediction_is_background(tmp_path: Path) -> None:
    truth = column()
    small = phantoms.volume(truth[:4])

    found = compared(tmp_path, small, truth, resample=True)

    wanted = truth.copy()
    wanted[4:] = 0
    np.testing.assert_array_equal(whole(found), wanted)


def test_resampling_is_recorded_with_the_difference(tmp_path: Path) -> None:
    flipped = _turned(phantoms.volume(column()), "LAS")

    (note,) = compared(tmp_path, flipped, column(), resample=True).notes

    assert note.code == "resampled"
    assert "LAS axes and RAS axes" in note.message


def test_maps_on_one_grid_are_not_resampled(tmp_path: Path) -> None:
    assert codes(compared(tmp_path, column(), column(), resample=True)) == []


def test_other_grids_are_refused_unless_resampled(tmp_path: Path) -> None:
    flipped = _turned(phantoms.volume(column()), "LAS")

    with pytest.raises(MaskError, match="LAS axes and RAS axes") as caught:
        compared(tmp_path, flipped, column())

    assert "--resample" in caught.value.hint


@pytest.mark.parametrize(
    ("prediction", "truth", "code"),
    [
        (column() * 0, column(), "empty_prediction"),
        (column(), column() * 0, "empty_truth"),
        (column() * 0, column() * 0, "empty"),
    ],
)
def test_an_empty_map_is_told(
    tmp_path: Path, prediction: NDArray[Any], truth: NDArray[Any], code: str
) -> None:
    assert codes(compared(tmp_path, prediction, truth)) == [code]


def test_a_missing_prediction_is_told_once(tmp_path: Path) -> None:
    truth = write(tmp_path / "a.nii.gz", column())

    found = together(Pair("a", truth), MapSettings(), binary=False)

    assert codes(found) == ["missing_prediction"]
    assert not found.maps.prediction.any()


def structures(folder: Path, voxels: NDArray[Any], **where: Any) -> Path:
    """Write one file for each vertebra, as TotalSegmentator does."""
    for name, verse in STRUCTURES.items():
        if name != "vertebrae_S1" and (voxels == verse).any():
            part = (voxels == verse).astype(np.uint8)
            write(folder / f"{name}.nii.gz", part, **where)
    return folder


def test_a_folder_of_structures_is_one_map(tmp_path: Path) -> None:
    folder = structures(tmp_path / "a", column())
    write(folder / "aorta.nii.gz", np.ones(phantoms.SHAPE, np.uint8))
    (folder / "notes.txt").touch()

    found = read_map(folder)

    np.testing.assert_array_equal(found.voxels, column())
    assert found.grid.matches(phantoms.volume().grid)


def test_a_folder_of_structures_has_verse_ids_whatever_the_scheme_of_files(
    tmp_path: Path,
) -> None:
    folder = structures(tmp_path / "p/a", column())
    truth = write(tmp_path / "a.nii.gz", in_scheme(column(), "totalsegmentator"))
    settings = MapSettings(scheme="totalsegmentator", truth_scheme="totalsegmentator")

    found = together(Pair("a", truth, folder), settings, binary=False)

    np.testing.assert_array_equal(whole(found), column())
    assert codes(found) == []


def test_the_first_sacral_vertebra_is_part_of_the_sacrum(tmp_path: Path) -> None:
    one, other = column() == L1, column() == L2
    write(tmp_path / "sacrum.nii.gz", one.astype(np.uint8))
    write(tmp_path / "vertebrae_S1.nii.gz", other.astype(np.uint8))

    found = read_map(tmp_path)

    np.testing.assert_array_equal(found.voxels == SACRUM, one | other)


@pytest.mark.parametrize("odd", ["vertebrae_C1", "vertebrae_L5", "vertebrae_T12"])
def test_the_structure_on_another_grid_is_named(tmp_path: Path, odd: str) -> None:
    names = ("vertebrae_C1", "vertebrae_L5", "vertebrae_T12", "sacrum")
    for name in names:
        axes = "LPS" if name == odd else "RAS"
        write(tmp_path / f"{name}.nii.gz", column(), axes=axes)

    with pytest.raises(MaskError, match=f": {odd}.nii.gz is on another grid than the"):
        read_map(tmp_path)


def test_structures_of_which_none_is_the_odd_one_are_both_named(tmp_path: Path) -> None:
    write(tmp_path / "vertebrae_L1.nii.gz", column())
    write(tmp_path / "vertebrae_L2.nii.gz", column(), axes="LPS")

    with pytest.raises(MaskError, match=r"L1\.nii\.gz and .*L2\.nii\.gz are on differ"):
        read_map(tmp_path)


def test_overlapping_structures_are_counted(tmp_path: Path) -> None:
    one, other = column() == L1, (column() == L1) | (column() == L2)
    folder = tmp_path / "p"
    write(folder / "L1.nii.gz", one.astype(np.uint8))
    write(folder / "L2.nii.gz", other.astype(np.uint8))
    truth = write(tmp_path / "t.nii.gz", column())

    found = together(Pair("a", truth, folder), MapSettings(), binary=False)

    (note,) = found.notes
    assert note.code == "overlap"
    assert note.message.startswith(f"the prediction: {int(one.sum())} voxels")
    assert not (whole(found) == L1).any()


@pytest.mark.parametrize("side", ["prediction", "truth"])
def test_an_id_of_two_versions_has_to_be_told(tmp_path: Path, side: str) -> None:
    maps = {name: column() for name in ("prediction", "truth")}
    maps[side] = in_scheme(column(), "totalsegmentator-v2")
    maps[side][maps[side] == 25] = 26
    option = "scheme" if side == "prediction" else "truth_scheme"

    with pytest.raises(
        MaskError, match=f"label 26 of the {side} is S1 .* L6"
    ) as caught:
        compared(tmp_path, *maps.values(), **{option: "totalsegmentator"})
    flag = "--scheme" if side == "prediction" else "--truth-scheme"
    assert f"{flag} totalsegmentator-v2" in caught.value.hint
    found = compared(tmp_path, *maps.values(), **{option: "totalsegmentator-v2"})
    np.testing.assert_array_equal(whole(found), column())


@pytest.mark.parametrize("side", ["prediction", "truth"])
def test_nearly_whole_labels_are_rounded_with_a_note(tmp_path: Path, side: str) -> None:
    maps = {name: column() for name in ("prediction", "truth")}
    maps[side] = maps[side].astype(np.float32) - np.float32(1e-4) * (maps[side] > 0)

    found = compared(tmp_path, *maps.values())

    (note,) = found.notes
    assert note.code == "rounded"
    assert note.message.startswith(f"the {side}: ")
    np.testing.assert_array_equal(whole(found), column())


def test_a_channel_for_each_label_is_no_series(tmp_path: Path) -> None:
    hot = np.stack([column() == label for label in (0, L1, L2)], axis=-1)
    path = tmp_path / "p.nii.gz"
    nib.save(nib.Nifti1Image(hot.astype(np.uint8), np.eye(4)), path)
    truth = write(tmp_path / "t.nii.gz", column())

    with pytest.raises(UnsupportedError, match="the prediction cannot") as caught:
        together(Pair("a", truth, path), MapSettings(), binary=False)
    assert "one-hot" in caught.value.hint
    assert "Split" not in caught.value.hint


def test_a_folder_without_structures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="no files of structures"):
        read_map(tmp_path)


def test_the_cut_map_knows_where_it_was(tmp_path: Path) -> None:
    found = compared(tmp_path, column(), column())

    assert found.corner == (0, 1, 2)
    assert found.maps.truth.shape == (6, 2, 1)
    assert found.maps.voxels == np.prod(phantoms.SHAPE)
    assert found.maps.spacing_mm == pytest.approx(phantoms.SPACING_MM)
