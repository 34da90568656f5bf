"""A stack that makes no volume is refused with its numbers and what mends it."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from engines.convert.checks import findings_of, require
from engines.convert.findings import NONE, Repairs
from engines.convert.layout import layout_of
from engines.convert.stack import Stack, ordered
from engines.errors import (
    DuplicateSliceError,
    FewSlicesError,
    GeometryError,
    MissingDecoderError,
    MixedSeriesError,
    RescaleError,
    SeriesGapError,
    SpineError,
    TiltError,
    UnevenSlicesError,
    UnreadableError,
)
from tests import dicom_phantoms as made
from tests import phantoms

FINE = (0.1, 0.1, 0.12)


def stack(folder: Path, edit: made.Edit = made.as_is, count: int = 5) -> Stack:
    paths = phantoms.write_dicom(folder / "folder", made.ct(), edit=edit)
    return made.stack_of(paths[:count])


def codes(stack: Stack, repairs: Repairs = NONE) -> list[tuple[str, bool]]:
    return [(one.code, one.fatal) for one in findings_of(stack, repairs)]


def test_a_whole_series_has_nothing_wrong(tmp_path: Path) -> None:
    square = made.ct(spacing_mm=(1, 1, 2.5))
    paths = phantoms.write_dicom(tmp_path, square)

    assert findings_of(made.stack_of(paths)) == []
    require(made.stack_of(paths), [])


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (
            made.moved({4: (0, 0, 5.0)}),
            SeriesGapError,
            r"2 slice\(s\) missing in 1 gap\(s\), the widest 7\.50 mm where 2\.50 mm "
            "was expected",
        ),
        (
            made.moved({3: (0, 0, 2.5), 4: (0, 0, 5.0)}),
            SeriesGapError,
            r"2 slice\(s\) missing in 2 gap\(s\), the widest 5\.00 mm where 2\.50 mm",
        ),
        (
            made.moved({2: (0, 0, 0.4)}),
            UnevenSlicesError,
            r"unevenly spaced, 2\.10, 2\.50 and 2\.90 mm apart",
        ),
        (
            made.moved({3: (0, 0, 1.0), 4: (0, 0, 1.0)}),
            UnevenSlicesError,
            r"unevenly spaced, 2\.50 and 3\.50 mm apart",
        ),
        (made.tilted(12), TiltError, r"gantry tilt of 12\.0 degrees"),
        (made.tilted(-24.5), TiltError, r"gantry tilt of 24\.5 degrees"),
        (
            made.moved({2: (1.5, 0, 0)}),
            TiltError,
            r"a slice is shifted sideways by 1\.50 mm",
        ),
        (
            made.without("ImagePositionPatient", "PixelSpacing"),
            GeometryError,
            r"IM\d+\.dcm has no ImagePositionPatient and no PixelSpacing, nor have 4 "
            "others",
        ),
        (
            made.having(2, ImagePositionPatient=[1, 2]),
            GeometryError,
            r"IM\d+\.dcm has no ImagePositionPatient of 3 numbers \('1\.0\\\\2\.0'\)$",
        ),
        (
            made.having(ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0]),
            GeometryError,
            "no unit vectors at right angles",
        ),
        (
            made.having(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]),
            GeometryError,
            "no unit vectors at right angles",
        ),
        (
            made.having(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
            GeometryError,
            "no unit vectors at right angles",
        ),
        (made.having(PixelSpacing=[0, 0]), GeometryError, "pixel size is 0 x 0 mm"),
        (
            made.having(PixelSpacing=[-1, 0.5]),
            GeometryError,
            "pixel size is -1 x 0.5 mm",
        ),
        (
            made.having(2, RescaleSlope=0),
            UnreadableError,
            r"IM\d+\.dcm: the rescale slope or intercept is no sane number",
        ),
        (
            made.having(2, RescaleSlope=2),
            RescaleError,
            "slope and intercept: 1 and -1024 in 4 slices, 2 and -1024 in 1 slices",
        ),
        (
            made.without("RescaleSlope", "RescaleIntercept", only=2),
            RescaleError,
            "1 and -1024 in 4 slices, none and none in 1 slices",
        ),
        (
            made.having(2, RescaleType="OD"),
            RescaleError,
            "slices in different units: HU, OD",
        ),
        (
            made.having(ImagePositionPatient=[1, 2, 3]),
            DuplicateSliceError,
            r"5 images at 1 place\(s\): a time series or a monitoring scan, not a "
            "volume",
        ),
        (
            made.moved({4: (0, 0, 1e6)}),
            UnevenSlicesError,
            r"unevenly spaced, 2\.50 and 1000002\.50 mm apart",
        ),
    ],
)
def test_bad_series_is_refused(
    tmp_path: Path, edit: made.Edit, error: type[SpineError], match: str
) -> None:
    in_hu = made.having(RescaleType="HU")
    bad = stack(tmp_path, made.all_of(in_hu, edit))

    with pytest.raises(error, match=match) as caught:
        require(bad, findings_of(bad))
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"series 3 (..{bad.origin.digest}) in 'folder'")
    for secret in ("Secret", "Person", "4711"):
        assert secret not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("edit", "repair", "code"),
    [
        (made.moved({4: (0, 0, 5.0)}), {"allow_gaps": True}, "series_gap"),
        (made.moved({4: (0, 0, 5.0)}), {"regrid": True}, "series_gap"),
        (made.moved({2: (0, 0, 0.4)}), {"regrid": True}, "uneven_slices"),
        (made.tilted(12), {"fix_tilt": True}, "gantry_tilt"),
        (made.moved({2: (1.5, 0, 0)}), {"fix_tilt": True}, "gantry_tilt"),
        (
            made.having(2, RescaleSlope=2),
            {"allow_slopes": True},
            "inconsistent_slope",
        ),
    ],
)
def test_only_the_fitting_repair_allows_it(
    tmp_path: Path, edit: made.Edit, repair: dict[str, bool], code: str
) -> None:
    bad = stack(tmp_path, edit)
    others = {
        name: True
        for name in ("allow_gaps", "regrid", "fix_tilt", "allow_slopes")
        if name not in repair
        and (name, code) not in (("allow_gaps", "series_gap"), ("regrid", "series_gap"))
    }

    assert (code, True) in codes(bad)
    assert (code, False) in codes(bad, Repairs(**repair))
    assert (code, True) in codes(bad, Repairs(**others, allow_few_slices=True))
    require(bad, findings_of(bad, Repairs(**repair)))


@pytest.mark.parametrize(
    ("error", "option"),
    [
        (SeriesGapError, "--allow-gaps"),
        (UnevenSlicesError, "--regrid"),
        (TiltError, "--fix-tilt"),
        (FewSlicesError, "--allow-few-slices"),
        (RescaleError, "--allow-slopes"),
        (DuplicateSliceError, "--duplicates first"),
    ],
)
def test_errors_name_the_option_that_mends_them(
    error: type[SpineError], option: str
) -> None:
    assert option in error("").hint


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    bad = stack(
        tmp_path,
        made.all_of(
            made.tilted(12),
            made.moved({2: (0, 0, 0.7)}),
            made.having(1, RescaleIntercept=0),
        ),
    )

    with pytest.raises(RescaleError, match=r"gantry tilt.*; .*unevenly") as caught:
        require(bad, findings_of(bad))
    for option in ("--allow-slopes", "--fix-tilt", "--regrid"):
        assert option in caught.value.hint


def test_missing_slice_in_a_fine_stack_is_a_gap(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct(spacing_mm=FINE))
    bad = made.stack_of([*paths[:1], *paths[2:]])

    with pytest.raises(SeriesGapError, match=r"widest 0\.24 mm where 0\.12 mm"):
        require(bad, findings_of(bad))


def test_uneven_fine_stack_is_refused(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(
        tmp_path, made.ct(spacing_mm=FINE), edit=made.moved({2: (0, 0, 0.04)})
    )
    bad = made.stack_of(paths)

    with pytest.raises(UnevenSlicesError, match=r"0\.08, 0\.12 and 0\.16 mm apart"):
        require(bad, findings_of(bad))


def test_tilt_and_gap_with_oblique_axes(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct("PSL", (10, -20, 5)))
    bad = made.stack_of([*paths[:2], *paths[3:]])

    assert codes(bad) == [("series_gap", True), ("non_square_pixels", False)]


def test_two_slices_tell_no_step(tmp_path: Path) -> None:
    bad = stack(tmp_path, count=2)

    with pytest.raises(FewSlicesError, match=r"2 slices only, 2\.50 mm apart"):
        require(bad, findings_of(bad))
    assert ("too_few_slices", False) in codes(bad, Repairs(allow_few_slices=True))


def test_one_slice_is_a_remark(tmp_path: Path) -> None:
    assert codes(stack(tmp_path, count=1)) == [("single_slice", False)]


def test_repeated_slices_are_a_remark_until_they_are_compared(tmp_path: Path) -> None:
    found = findings_of(stack(tmp_path, made.moved({3: (0, 0, -2.5), 4: (0, 0, -2.5)})))

    assert [one.message for one in found if one.code == "duplicate_slices"] == [
        "1 of 5 slices lie where another one does"
    ]
    assert not any(one.fatal for one in found)


def test_orientations_with_too_few_slices_are_counted(tmp_path: Path) -> None:
    axial = phantoms.write_dicom(tmp_path / "a", made.ct("LPS"))[:2]
    coronal = phantoms.write_dicom(tmp_path / "b", made.ct("LSP"))[3:4]
    bad = made.stack_of([*axial, *coronal])

    with pytest.raises(
        MixedSeriesError, match=r"2 kinds \(2 axial, 1 coronal\), none with 3 slices"
    ):
        require(bad, findings_of(bad))


def test_stacks_side_by_side_are_no_tilt(tmp_path: Path) -> None:
    aside = made.all_of(
        made.moved(dict.fromkeys(range(5), (60.0, 0, 0))),
        made.instances("b"),
    )
    one = phantoms.write_dicom(tmp_path / "a", made.ct())
    two = phantoms.write_dicom(tmp_path / "b", made.ct(), edit=aside)
    bad = made.stack_of([*one, *two])

    with pytest.raises(MixedSeriesError, match="stacks that lie side by side"):
        require(bad, findings_of(bad))


def test_syntax_without_decoder_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = made.as_is
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=named)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(dataset.PixelData)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
    monkeypatch.setattr(pydicom.pixels.get_decoder(JPEGLSLossless), "_available", {})
    bad = made.stack_of(paths)

    with pytest.raises(MissingDecoderError, match="JPEG-LS Lossless") as caught:
        require(bad, findings_of(bad))
    assert "pip install pylibjpeg pylibjpeg-openjpeg python-gdcm" in caught.value.hint


@pytest.mark.parametrize(
    ("edit", "code", "told"),
    [
        (made.as_is, "non_square_pixels", "pixels are not square: 0.7 x 1.1 mm"),
        (
            made.having(SliceThickness=4),
            "overlapping_slices",
            "slices overlap: 4 mm thick, 2.50 mm apart",
        ),
        (
            made.having(GantryDetectorTilt=-14.5),
            "tilt_only_told",
            "the header tells a gantry tilt of -14.5 degrees, but the slices are "
            "placed upright: if they were not corrected, the volume is sheared",
        ),
        (
            made.without("RescaleSlope", "RescaleIntercept"),
            "no_rescale",
            "no rescale slope and intercept: values may not be Hounsfield units",
        ),
    ],
)
def test_remarks_stop_nothing(
    tmp_path: Path, edit: made.Edit, code: str, told: str
) -> None:
    remarks = {
        one.code: (one.message, one.fatal) for one in findings_of(stack(tmp_path, edit))
    }

    assert remarks[code] == (told, False)


def test_tilt_that_the_header_tells_too_is_told_once(tmp_path: Path) -> None:
    both = made.all_of(made.tilted(12), made.having(GantryDetectorTilt=12))

    assert [code for code, _ in codes(stack(tmp_path, both))].count("gantry_tilt") == 1
    assert "tilt_only_told" not in dict(codes(stack(tmp_path, both)))


def test_mr_slices_may_differ_in_slope(tmp_path: Path) -> None:
    slopes = made.all_of(made.as_mr, made.each("RescaleSlope", [1, 2, 3, 4, 5]))

    assert codes(stack(tmp_path, slopes)) == [("non_square_pixels", False)]


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_rounded_positions_are_even(tmp_path: Path, digits: int) -> None:
    def rounded(_: int, dataset: pydicom.Dataset) -> None:
        place = [round(float(mm), digits) for mm in dataset.ImagePositionPatient]
        dataset.ImagePositionPatient = place

    fine = made.ct(spacing_mm=(0.7, 0.7, 0.625))
    good = made.stack_of(phantoms.write_dicom(tmp_path, fine, edit=rounded))

    assert findings_of(good) == []


def test_layout_says_where_slices_lie(tmp_path: Path) -> None:
    edit = made.all_of(made.moved({4: (0, 0, 2.5)}), made.tilted(10))
    layout = layout_of(ordered(stack(tmp_path, edit).volumes[0]))

    np.testing.assert_allclose(np.diff(layout.heights_mm), [2.5, 2.5, 2.5, 5])
    assert layout.steps.tolist() == [0, 1, 2, 3, 5]
    assert layout.tilted
    assert layout.gaps
    assert not layout.even
