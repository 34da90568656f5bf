"""The table of series is told by headers alone, and tells what convert would do."""

from pathlib import Path

import pydicom
import pytest

from engines.convert.findings import Repairs
from engines.convert.inspect import Row, inspect
from engines.convert.stack import LeftOut
from tests import dicom_phantoms as made
from tests import phantoms


def row(folder: Path, edit: made.Edit = made.as_is, axes: str = "LPS") -> Row:
    """Return the only row of a series with ``edit``."""
    phantoms.write_dicom(folder / "ser", made.ct(axes), edit=edit)
    (found,) = inspect([folder / "ser"]).rows
    return found


def test_whole_series_is_described(tmp_path: Path) -> None:
    told = made.having(SeriesDescription="L-Spine")
    found = row(tmp_path, told, "PSL")

    assert (found.name, found.input) == ("ser", str(tmp_path / "ser"))
    assert (found.series, found.modality, found.description) == (3, "CT", "L-Spine")
    assert (found.matrix, found.slices, found.volumes) == ((7, 6), 5, 1)
    assert found.spacing_mm == pytest.approx(phantoms.SPACING_MM)
    assert (found.orientation, found.syntax) == ("PSL", ("explicit LE",))
    assert (found.files, found.axis, found.error) == (5, "", None)
    assert [note.code for note in found.remarks] == ["non_square_pixels"]


@pytest.mark.parametrize(
    ("edit", "code", "told"),
    [
        (made.tilted(12), "gantry_tilt", "gantry tilt of 12.0 degrees"),
        (made.moved({4: (0, 0, 2.5)}), "series_gap", "1 slice(s) missing in 1 gap(s)"),
        (made.moved({4: (0, 0, 1.0)}), "uneven_slices", "2.50 and 3.50 mm apart"),
        (made.having(2, RescaleSlope=2), "inconsistent_slope", "2 and -1024 in 1"),
        (made.without("PixelSpacing"), "geometry", "has no PixelSpacing"),
        (
            made.having(ImagePositionPatient=[0, 0, 0]),
            "duplicate_slices",
            "5 images at 1 place(s)",
        ),
    ],
)
def test_refusal_is_told_with_its_reason(
    tmp_path: Path, edit: made.Edit, code: str, told: str
) -> None:
    error = row(tmp_path, edit).error

    assert error is not None
    assert error.code == code
    assert told in error.message


def test_repairs_that_are_asked_for_turn_errors_to_warnings(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "ser", made.ct(), edit=made.tilted(12))
    (found,) = inspect([tmp_path], repairs=Repairs(fix_tilt=True)).rows

    assert found.error is None
    assert "gantry_tilt" in [note.code for note in found.remarks]


def test_all_reasons_and_hints_are_told(tmp_path: Path) -> None:
    both = made.all_of(made.tilted(12), made.having(2, RescaleSlope=2))
    error = row(tmp_path, both).error

    assert error is not None
    assert "rescale slope" in error.message
    assert "gantry tilt" in error.message
    assert "--allow-slopes" in error.hint
    assert "--fix-tilt" in error.hint


def test_pixels_are_not_read(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "ser", made.ct())
    for path in paths:
        path.write_bytes(path.read_bytes()[:-84])
    (found,) = inspect([tmp_path]).rows

    assert (found.error, found.slices) == (None, 5)


def test_fourth_axis_is_described(tmp_path: Path) -> None:
    made.write_marked(tmp_path, [made.ct(), made.ct()], "b_value")
    (found,) = inspect([tmp_path]).rows

    assert (found.slices, found.volumes, found.axis) == (5, 2, "b-value")
    assert found.files == 10


def test_duplicates_are_counted_once_and_remarked(tmp_path: Path) -> None:
    found = row(tmp_path, made.moved({3: (0, 0, -2.5), 4: (0, 0, -2.5)}))

    assert (found.slices, found.files) == (4, 5)
    assert "duplicate_slices" in [note.code for note in found.remarks]


def test_description_that_names_the_patient_is_not_shown(tmp_path: Path) -> None:
    assert (
        row(tmp_path, made.having(SeriesDescription="Secret spine")).description == ""
    )


def test_single_slice_has_its_thickness_for_a_step(tmp_path: Path) -> None:
    thick = made.having(SliceThickness=4.5)
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=thick)
    (found,) = inspect(paths[:1]).rows

    assert found.spacing_mm == pytest.approx((0.7, 1.1, 4.5))
    assert [note.code for note in found.remarks] == ["single_slice"]


def test_series_without_geometry_is_still_described(tmp_path: Path) -> None:
    bare = made.without(
        "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"
    )
    found = row(tmp_path, bare)

    assert (found.slices, found.matrix) == (5, (7, 6))
    assert found.spacing_mm == (None, None, None)
    assert found.orientation == ""


def test_syntax_has_a_short_name(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    made.rewrite(paths[0], pydicom.uid.RLELossless)
    made.rewrite(paths[1], pydicom.uid.ExplicitVRBigEndian)
    (found,) = inspect([tmp_path]).rows

    assert set(found.syntax) == {"explicit LE", "RLE", "explicit BE"}


def test_left_out_and_unreadable_files_are_told(tmp_path: Path) -> None:
    scout = made.having(ImageType="LOCALIZER")
    paths = phantoms.write_dicom(tmp_path / "scout", made.ct(), edit=scout)
    phantoms.write_dicom(tmp_path / "ser", made.ct(), uid="1.2.3")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.dcm").write_bytes(b"notes")
    seen = inspect([tmp_path])

    assert [one.name for one in seen.rows] == ["bad", "ser"]
    bad = seen.rows[0]
    assert bad.error is not None
    assert (bad.error.code, bad.files, bad.slices) == ("unreadable", 1, 0)
    assert set(seen.left_out) == {LeftOut(path, "localizer") for path in paths}


def test_image_files_are_no_series(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "ser", made.ct())
    phantoms.write_nifti(tmp_path / "x.nii", phantoms.volume())

    assert [one.name for one in inspect([tmp_path]).rows] == ["ser"]


def test_globs_choose_the_rows(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "a", made.ct(), uid="1.2.3")
    phantoms.write_dicom(tmp_path / "b", made.ct(), uid="1.2.4")

    assert [one.name for one in inspect([tmp_path], ["a*"]).rows] == ["a"]
    assert [one.name for one in inspect([tmp_path], exclude=["a*"]).rows] == ["b"]


def test_nothing_found_is_a_row_with_its_reason(tmp_path: Path) -> None:
    (found,) = inspect([tmp_path]).rows

    assert found.error is not None
    assert found.error.code == "not_found"


def test_rows_become_json(tmp_path: Path) -> None:
    told = row(tmp_path, made.tilted(12)).as_json()

    assert told["matrix"] == [7, 6]
    assert told["error"]["code"] == "gantry_tilt"
    assert told["warnings"][0]["code"] == "non_square_pixels"
    assert {"name", "series", "slices", "spacing_mm", "orientation"} <= set(told)
