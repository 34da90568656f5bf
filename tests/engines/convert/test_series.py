"""DICOM series are read where the patient lay, or refused with numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from engines.convert.assemble import read_series
from engines.convert.series import is_dicom, series_in
from engines.errors import (
    DuplicateSliceError,
    GeometryError,
    MissingDecoderError,
    MixedSeriesError,
    SeriesGapError,
    SpineError,
    UnreadableError,
    UnsupportedError,
)
from engines.preprocess.orient import reorient
from engines.volume import Volume
from tests import phantoms

Edit = Callable[[int, Dataset], None]


def scan(axes: str = "LPS", turned_deg: tuple[float, ...] = (0, 0, 0)) -> Volume:
    voxels = phantoms.volume().voxels * np.int16(9) - np.int16(1000)
    return phantoms.volume(voxels, axes, turned_deg=turned_deg)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.sampled_from(phantoms.ORIENTATIONS),
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.integers(0, 9999),
)
def test_every_voxel_lands_in_its_place(
    tmp_path: Path, axes: str, turned_deg: tuple[float, ...], number: int
) -> None:
    made = scan(axes, turned_deg)
    folder = tmp_path / f"{axes}{number}{hash(turned_deg)}"
    read = read_series(phantoms.write_dicom(folder, made))

    one, other = reorient(made), reorient(read)
    assert read.voxels.dtype == np.int16
    np.testing.assert_array_equal(other.voxels, one.voxels)
    np.testing.assert_allclose(
        other.grid.corners_mm(), one.grid.corners_mm(), atol=1e-6
    )


def test_order_of_files_does_not_matter(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, scan())

    np.testing.assert_array_equal(read_series(paths).voxels, scan().voxels)
    np.testing.assert_array_equal(read_series(sorted(paths)).voxels, scan().voxels)


def test_slices_run_along_the_normal(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, scan("LPI"))
    read = read_series(paths)

    assert read.grid.axes == "LPS"
    np.testing.assert_array_equal(read.voxels, scan("LPI").voxels[:, :, ::-1])


def test_pixel_spacing_is_row_then_column(tmp_path: Path) -> None:
    read = read_series(phantoms.write_dicom(tmp_path, scan()))

    assert read.grid.shape == phantoms.SHAPE
    assert read.grid.spacing_mm == pytest.approx(phantoms.SPACING_MM)


@pytest.mark.parametrize(
    ("stored", "intercept", "slope", "dtype"),
    [
        ("uint16", -1024, 1, "int16"),
        ("int16", 0, 1, "int16"),
        ("uint16", -3000, 2, "int16"),
        ("uint16", -1024, 0.5, "float32"),
        ("uint16", -1000.5, 1, "float32"),
    ],
)
def test_rescaled_values_and_type(
    tmp_path: Path, stored: str, intercept: float, slope: float, dtype: str
) -> None:
    even = scan().with_voxels((scan().voxels // 2 * 2).astype(np.float64))
    even = even.with_voxels(even.voxels + intercept % 1)
    paths = phantoms.write_dicom(
        tmp_path, even, stored=stored, intercept=intercept, slope=slope
    )
    read = read_series(paths)

    assert read.voxels.dtype == dtype
    np.testing.assert_array_equal(read.voxels, even.voxels)


def test_values_beyond_int16_become_int32(tmp_path: Path) -> None:
    values = scan().voxels.astype(np.int32)
    values[3, 3, 3] = 60000
    paths = phantoms.write_dicom(tmp_path, scan().with_voxels(values))
    read = read_series(paths)

    assert read.voxels.dtype == np.int32
    np.testing.assert_array_equal(read.voxels, values)


def test_slices_may_be_scaled_each_in_its_way(tmp_path: Path) -> None:
    def rescale(number: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = number + 1, -number

    made = scan().with_voxels(np.full(phantoms.SHAPE, 10, np.int16))
    read = read_series(phantoms.write_dicom(tmp_path, made, intercept=0, edit=rescale))

    assert read.voxels[0, 0].tolist() == [10, 19, 28, 37, 46]


def test_mr_without_rescale_is_read(tmp_path: Path) -> None:
    def as_mr(_: int, dataset: Dataset) -> None:
        dataset.Modality = "MR"
        del dataset.RescaleSlope, dataset.RescaleIntercept

    read = read_series(phantoms.write_dicom(tmp_path, scan(), edit=as_mr))

    np.testing.assert_array_equal(read.voxels, scan().voxels + 1024)


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path: Path) -> None:
    def rounded(_: int, dataset: Dataset) -> None:
        place = [round(float(mm), 1) for mm in dataset.ImagePositionPatient]
        dataset.ImagePositionPatient = place

    fine = phantoms.volume(scan().voxels, "LPS", (0.7, 0.7, 0.625))
    read = read_series(phantoms.write_dicom(tmp_path, fine, edit=rounded))

    assert read.grid.spacing_mm[2] == pytest.approx(0.625, abs=0.02)


def _shift(mm_by_slice: dict[int, tuple[float, float, float]]) -> Edit:
    def edit(number: int, dataset: Dataset) -> None:
        by = mm_by_slice.get(number, (0, 0, 0))
        place = np.array(dataset.ImagePositionPatient, float) + by
        dataset.ImagePositionPatient = place.tolist()

    return edit


def _tilt(number: int, dataset: Dataset) -> None:
    by_mm = 2.5 * number * np.tan(np.radians(12))
    _shift({number: (0, by_mm, 0)})(number, dataset)


def _set(keyword: str, value: Any, only: int | None = None) -> Edit:
    def edit(number: int, dataset: Dataset) -> None:
        if only in (None, number):
            setattr(dataset, keyword, value)

    return edit


def _without(*keywords: str) -> Edit:
    def edit(_: int, dataset: Dataset) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return edit


def _as_report(_: int, dataset: Dataset) -> None:
    del dataset.Rows, dataset.PixelData
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (
            _shift({4: (0, 0, 5.0)}),
            SeriesGapError,
            r"1 gap\(s\), the widest 7\.50 mm where 2\.50 mm was expected",
        ),
        (
            _shift({2: (0, 0, 0.4)}),
            SeriesGapError,
            r"unevenly spaced: 2\.10 to 2\.90 mm apart",
        ),
        (_shift({3: (0, 0, -2.5)}), DuplicateSliceError, "1 of 5 slices lie where"),
        (_tilt, GeometryError, r"gantry tilt of 12\.0 degrees"),
        (_shift({2: (1.5, 0, 0)}), GeometryError, r"shifted sideways by 1\.50 mm"),
        (
            _set("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], 2),
            MixedSeriesError,
            "do not lie in parallel",
        ),
        (_set("PixelSpacing", [1.1, 0.8], 2), MixedSeriesError, "different pixel size"),
        (_set("SeriesInstanceUID", "1.2.3", 2), MixedSeriesError, "belong to 2 series"),
        (
            _without("ImagePositionPatient", "PixelSpacing"),
            GeometryError,
            "has no ImagePositionPatient and no PixelSpacing",
        ),
        (_set("ImagePositionPatient", [1, 2]), GeometryError, "no ImagePosition"),
        (
            _set("ImageOrientationPatient", [1, 0, 0, 0.5, 0.8, 0]),
            GeometryError,
            "no unit vectors at right angles",
        ),
        (
            _set("ImageOrientationPatient", [2, 0, 0, 0, 1, 0]),
            GeometryError,
            "no unit vectors at right angles",
        ),
        (_set("PixelSpacing", [0, 0]), GeometryError, "voxel size is 0 x 0 x 2.5"),
        (_set("Modality", "PT"), UnsupportedError, "modality PT; CT or MR is needed"),
        (_set("NumberOfFrames", 5), UnsupportedError, "enhanced multi-frame"),
        (_set("SamplesPerPixel", 3), UnsupportedError, "a colour image"),
    ],
)
def test_bad_series_is_refused(
    tmp_path: Path, edit: Edit, error: type[SpineError], match: str
) -> None:
    paths = phantoms.write_dicom(tmp_path / "folder", scan(), edit=edit)

    with pytest.raises(error, match=match) as caught:
        read_series(paths)
    assert type(caught.value) is error
    assert str(caught.value).startswith("series 3 (..")
    assert "in 'folder': " in str(caught.value)
    for secret in ("Secret", "Person", "4711"):
        assert secret not in str(caught.value) + caught.value.hint


def test_missing_slice_in_a_fine_stack_is_a_gap(tmp_path: Path) -> None:
    fine = phantoms.volume(scan().voxels, "LPS", (0.1, 0.1, 0.12))
    paths = phantoms.write_dicom(tmp_path, fine)

    with pytest.raises(SeriesGapError, match=r"widest 0\.24 mm where 0\.12 mm"):
        read_series([*paths[:1], *paths[2:]])


def test_uneven_fine_stack_is_refused(tmp_path: Path) -> None:
    fine = phantoms.volume(scan().voxels, "LPS", (0.1, 0.1, 0.12))
    paths = phantoms.write_dicom(tmp_path, fine, edit=_shift({2: (0, 0, 0.04)}))

    with pytest.raises(SeriesGapError, match=r"unevenly spaced: 0\.08 to 0\.16 mm"):
        read_series(paths)


def test_slices_of_different_sizes_are_refused(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "a", scan())
    other = phantoms.volume(scan().voxels[:, :4], "LPS")
    paths[2] = phantoms.write_dicom(tmp_path / "b", other)[2]

    with pytest.raises(MixedSeriesError, match="different sizes: 7 x 4, 7 x 6"):
        read_series(paths)


def test_single_slice_is_refused(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, scan())

    with pytest.raises(UnsupportedError, match="one slice only"):
        read_series(paths[:1])


def test_truncated_pixels_are_unreadable(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, scan())
    paths[1].write_bytes(paths[1].read_bytes()[:-30])

    with pytest.raises(UnreadableError, match=rf"{paths[1].name}: truncated or damage"):
        read_series(paths)


@pytest.mark.parametrize("content", [b"", b"notes" * 50, b"\0" * 128 + b"DICM" + b"x"])
def test_file_that_is_no_dicom_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "IM1.dcm").write_bytes(content)

    with pytest.raises(UnreadableError, match="IM1"):
        read_series([tmp_path / "IM1.dcm"])


def test_rle_is_decoded(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, scan())
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)

    np.testing.assert_array_equal(read_series(paths).voxels, scan().voxels)


def test_syntax_without_decoder_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = phantoms.write_dicom(tmp_path, scan())
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(dataset.PixelData)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})

    with pytest.raises(MissingDecoderError, match="JPEG-LS Lossless") as caught:
        read_series(paths)
    assert "pip install pylibjpeg pylibjpeg-openjpeg python-gdcm" in caught.value.hint


def test_localizer_in_the_series_is_left_alone(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, scan())
    scout = pydicom.dcmread(paths[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.save_as(tmp_path / "scout.dcm")

    read = read_series([tmp_path / "scout.dcm", *paths])
    np.testing.assert_array_equal(read.voxels, scan().voxels)


def test_files_are_grouped_by_series(tmp_path: Path) -> None:
    one = phantoms.write_dicom(tmp_path / "a", scan(), uid="1.2.3")
    two = phantoms.write_dicom(
        tmp_path / "b", scan(), uid="1.2.4", edit=_set("SeriesNumber", None)
    )
    scout = phantoms.write_dicom(
        tmp_path / "c", scan(), uid="1.2.5", edit=_set("ImageType", "LOCALIZER")
    )
    report = phantoms.write_dicom(tmp_path / "d", scan(), uid="1.2.6", edit=_as_report)
    (tmp_path / "e.dcm").write_bytes(b"notes")
    (tmp_path / "f.dcm").write_bytes(one[0].read_bytes()[:500])
    bad = tmp_path / "e.dcm", tmp_path / "f.dcm"
    found = series_in([*two, *scout, *one, *report, *bad])

    assert [set(series.files) for series in found.series] == [set(two), set(one)]
    assert [series.number for series in found.series] == [None, 3]
    assert len({series.digest for series in found.series}) == 2
    assert all(len(series.digest) == 8 for series in found.series)
    assert found.unreadable == bad
    assert found.left_out == 10


def test_directory_of_a_disc_is_left_out(tmp_path: Path) -> None:
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.FileSetID = "DISC"
    pydicom.dcmwrite(tmp_path / "DICOMDIR", directory, enforce_file_format=True)
    assert is_dicom(tmp_path / "DICOMDIR")
    found = series_in([tmp_path / "DICOMDIR"])

    assert (found.series, found.unreadable, found.left_out) == ((), (), 1)


def test_dicom_is_known_by_suffix_or_by_its_first_bytes(tmp_path: Path) -> None:
    path = phantoms.write_dicom(tmp_path, scan())[0]
    bare = path.rename(tmp_path / "IM0001")
    (tmp_path / "notes").write_bytes(b"x" * 500)
    (tmp_path / "empty").write_bytes(b"")

    assert is_dicom(bare)
    assert is_dicom(tmp_path / "none.DCM")
    assert not is_dicom(tmp_path / "notes")
    assert not is_dicom(tmp_path / "empty")


def test_long_numbers_in_the_header_are_quietly_read(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    paths = phantoms.write_dicom(tmp_path, scan())
    for path in paths:
        text = path.read_bytes()
        assert b"-1024" in text
        dataset = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            dataset.PixelSpacing = ["1.1000000000000000001", "0.7000000000000000001"]
            dataset.save_as(path)
    recwarn.clear()

    assert read_series(paths).grid.spacing_mm == pytest.approx(phantoms.SPACING_MM)
    assert not recwarn.list
