"""Headers are read once, quietly, and damage is told from absence."""

import threading
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from engines.convert import headers
from engines.convert.assemble import read_series
from engines.convert.damage import DAMAGE
from engines.convert.headers import FrameReader, quiet
from engines.errors import GeometryError
from tests import dicom_phantoms as made
from tests import phantoms


def written(folder: Path, edit: made.Edit = made.as_is) -> Path:
    return phantoms.write_dicom(folder, made.ct(), edit=edit)[0]


def test_frame_says_what_the_header_says(tmp_path: Path) -> None:
    told = made.having(SliceThickness=3, RescaleType="HU", GantryDetectorTilt=-1.5)
    (frame,) = made.frames_of(written(tmp_path, told))

    assert (frame.shape, frame.spacing_mm) == ((6, 7), (1.1, 0.7))
    assert frame.position_mm == pytest.approx((31.5, -12.25, 640))
    assert frame.directions == (1, 0, 0, 0, 1, 0)
    assert (frame.slope, frame.intercept, frame.units) == (1, -1024, "HU")
    assert (frame.thickness_mm, frame.gantry_deg) == (3, -1.5)
    assert (frame.index, frame.tiles, frame.missing) == (0, 0, ())
    assert frame.pixels.bits_allocated == 16
    assert not frame.pixels.signed


def test_pixels_begin_where_the_frame_says(tmp_path: Path) -> None:
    path = written(tmp_path)
    (frame,) = made.frames_of(path)

    assert path.read_bytes()[frame.at :][:4] == b"\xe0\x7f\x10\x00"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (made.having(ImageType=["DERIVED", "PRIMARY", "LOCALIZER"]), "localizer"),
        (made.having(Modality="SEG"), "no image"),
        (made.having(Modality="RTDOSE"), "no image"),
        (
            made.all_of(
                made.having(Modality="OT"), made.without("ImagePositionPatient")
            ),
            "screenshot",
        ),
        (
            made.all_of(made.as_colour, made.without("ImagePositionPatient")),
            "screenshot",
        ),
    ],
)
def test_what_holds_no_slice_is_left_out(
    tmp_path: Path, edit: made.Edit, why: str
) -> None:
    assert made.frames_of(written(tmp_path, edit)) == why


def test_object_without_a_matrix_is_no_image(tmp_path: Path) -> None:
    def report(_: int, dataset: Dataset) -> None:
        del dataset.Rows, dataset.Columns, dataset.PixelData
        dataset.SOPClassUID = pydicom.uid.BasicTextSRStorage
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID

    assert made.frames_of(written(tmp_path, report)) == "no image"


def test_segmentation_object_is_no_scan(tmp_path: Path) -> None:
    def segmented(_: int, dataset: Dataset) -> None:
        dataset.Modality = "SEG"
        dataset.SOPClassUID = SegmentationStorage
        dataset.file_meta.MediaStorageSOPClassUID = SegmentationStorage

    assert made.frames_of(written(tmp_path, segmented)) == "no image"


def test_slice_of_a_scan_without_a_place_is_not_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, made.without("ImagePositionPatient"))

    with pytest.raises(GeometryError, match="has no ImagePositionPatient"):
        read_series([path])


@pytest.mark.parametrize(
    "edit",
    [
        made.having(Rows=60_000, Columns=60_000),
        made.having(NumberOfFrames=100_001),
        made.without("Rows"),
    ],
)
def test_absurd_header_is_damage(tmp_path: Path, edit: made.Edit) -> None:
    path = written(tmp_path, edit)

    with pytest.raises(DAMAGE):
        made.frames_of(path)


@pytest.mark.parametrize("kept", [132, 140, 200, 300])
def test_header_that_ends_too_early_is_damage(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(DAMAGE):
        made.frames_of(path)


@pytest.mark.parametrize(
    ("keyword", "text"),
    [("RescaleSlope", b"one"), ("SliceThickness", b"ab"), ("InstanceNumber", b"x")],
)
def test_values_that_cannot_be_read_are_none_or_nan(
    tmp_path: Path, keyword: str, text: bytes
) -> None:
    def garbled(_: int, dataset: Dataset) -> None:
        with pydicom.config.disable_value_validation():
            element = pydicom.DataElement(keyword, "LO", text.decode())
        dataset[keyword] = element

    (frame,) = made.frames_of(written(tmp_path, garbled))
    values = {
        "RescaleSlope": frame.slope,
        "SliceThickness": frame.thickness_mm,
        "InstanceNumber": frame.number,
    }

    value = values[keyword]
    assert value is None or value != value


def test_equal_records_are_shared_between_files(tmp_path: Path) -> None:
    reader = FrameReader()
    one, other = phantoms.write_dicom(tmp_path, made.ct())[:2]
    first, second = reader.read(one)[0], reader.read(other)[0]

    assert not isinstance(first, str)
    assert first.origin is second.origin
    assert first.pixels is second.pixels
    assert first.directions is second.directions
    assert first.position_mm != second.position_mm


def test_records_hold_no_names(tmp_path: Path) -> None:
    told = made.having(PatientBirthDate="19620317")
    (frame,) = made.frames_of(written(tmp_path / "x", told))

    text = repr(frame.origin) + repr(frame.marks) + frame.instance
    for secret in ("Secret", "Person", "4711", "19620317", "1.2.826"):
        assert secret not in text


def test_quiet_holds_in_all_threads_until_the_last_leaves() -> None:
    inside, done = threading.Event(), threading.Event()
    seen: list[int] = []

    def other() -> None:
        with quiet():
            inside.set()
            done.wait(10)
            seen.append(pydicom.config.settings.reading_validation_mode)

    before = pydicom.config.settings.reading_validation_mode
    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        assert inside.wait(10)
    assert pydicom.config.settings.reading_validation_mode == pydicom.config.IGNORE
    done.set()
    thread.join(10)

    assert seen == [pydicom.config.IGNORE]
    assert pydicom.config.settings.reading_validation_mode == before
    with pytest.warns(UserWarning, match="told again"):
        warnings.warn("told again", UserWarning, stacklevel=1)


def test_quiet_ends_after_an_error() -> None:
    before = pydicom.config.settings.reading_validation_mode

    with pytest.raises(ValueError, match="inside"), quiet():
        raise ValueError("inside")
    assert pydicom.config.settings.reading_validation_mode == before
    assert headers._QUIET.inside == 0
