"""Slices become a volume where the patient lay, with the values that were scanned."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from engines.convert.assemble import assemble, read_series, read_stack
from engines.convert.findings import Repairs
from engines.convert.stack import Stack
from engines.errors import (
    DuplicateSliceError,
    FewSlicesError,
    MixedSeriesError,
    NotFoundError,
    RescaleError,
    TiltError,
    UnreadableError,
    UnsupportedError,
)
from engines.preprocess.orient import reorient
from engines.volume import RGB
from tests import dicom_phantoms as made
from tests import phantoms

TWICE = made.moved({3: (0, 0, -2.5), 4: (0, 0, -2.5)})
"""The fourth slice lies where the third does."""


def warned(stack: Stack, repairs: Repairs) -> dict[str, str]:
    return {note.code: note.message for note in assemble(stack, repairs).warnings}


def same_image(number: int, dataset: Dataset) -> None:
    if number in (2, 3):
        dataset.PixelData = bytes(len(dataset.PixelData))


@pytest.mark.parametrize("axes", phantoms.ORIENTATIONS)
def test_rows_and_columns_may_run_any_way(tmp_path: Path, axes: str) -> None:
    scan = made.ct(axes)
    paths = phantoms.write_dicom(tmp_path, scan)
    read = read_series(sorted(paths))

    one, other = reorient(scan), reorient(read)
    np.testing.assert_array_equal(other.voxels, one.voxels)
    np.testing.assert_allclose(other.grid.affine, one.grid.affine, atol=1e-9)
    assert read.grid.axes[:2] == axes[:2]
    assert read.grid.shape == phantoms.SHAPE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.sampled_from(phantoms.ORIENTATIONS),
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.integers(0, 9999),
)
def test_every_voxel_lands_in_its_place(
    tmp_path: Path, axes: str, turned_deg: tuple[float, ...], number: int
) -> None:
    scan = made.ct(axes, turned_deg)
    folder = tmp_path / f"{axes}{number}{hash(turned_deg)}"
    read = read_series(phantoms.write_dicom(folder, scan))

    one, other = reorient(scan), reorient(read)
    assert read.voxels.dtype == np.int16
    np.testing.assert_array_equal(other.voxels, one.voxels)
    np.testing.assert_allclose(
        other.grid.corners_mm(), one.grid.corners_mm(), atol=1e-6
    )


def test_slices_run_along_the_normal(tmp_path: Path) -> None:
    read = read_series(phantoms.write_dicom(tmp_path, made.ct("LPI")))

    assert read.grid.axes == "LPS"
    np.testing.assert_array_equal(read.voxels, made.ct("LPI").voxels[:, :, ::-1])


def test_pixel_spacing_is_row_then_column(tmp_path: Path) -> None:
    read = read_series(phantoms.write_dicom(tmp_path, made.ct()))

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
        ("int32", 0, 1, "int16"),
        ("uint32", -100000, 1, "int16"),
    ],
)
def test_rescaled_values_and_type(
    tmp_path: Path, stored: str, intercept: float, slope: float, dtype: str
) -> None:
    even = made.ct().with_voxels((made.ct().voxels // 2 * 2).astype(np.float64))
    even = even.with_voxels(even.voxels + intercept % 1)
    paths = phantoms.write_dicom(
        tmp_path, even, stored=stored, intercept=intercept, slope=slope
    )
    read = read_series(paths)

    assert read.voxels.dtype == dtype
    np.testing.assert_array_equal(read.voxels, even.voxels)


def test_unscaled_bytes_stay_bytes(tmp_path: Path) -> None:
    values = phantoms.volume().voxels % 250
    scan = made.ct().with_voxels(values)
    paths = phantoms.write_dicom(
        tmp_path, scan, stored="uint8", intercept=0, edit=made.as_mr
    )
    read = read_series(paths)

    assert read.voxels.dtype == np.uint8
    np.testing.assert_array_equal(read.voxels, values)


@pytest.mark.parametrize(
    ("value", "dtype"), [(32767, "int16"), (32768, "int32"), (60000, "int32")]
)
def test_values_beyond_int16_become_int32(
    tmp_path: Path, value: int, dtype: str
) -> None:
    values = made.ct().voxels.astype(np.int32)
    values[3, 3, 3] = value
    scan = made.ct().with_voxels(values)
    stack = made.stack_of(phantoms.write_dicom(tmp_path, scan))

    for hold in (True, False):
        done = assemble(stack, hold=hold)
        assert done.planes.dtype == dtype
        np.testing.assert_array_equal(done.voxels, values)


def test_mr_slices_are_scaled_each_in_its_way(tmp_path: Path) -> None:
    slopes = made.all_of(
        made.as_mr,
        made.each("RescaleSlope", [1, 2, 3, 4, 5]),
        made.each("RescaleIntercept", [0, -1, -2, -3, -4]),
    )
    scan = made.ct().with_voxels(np.full(phantoms.SHAPE, 10, np.int16))
    paths = phantoms.write_dicom(tmp_path, scan, intercept=0, edit=slopes)

    assert read_series(paths).voxels[0, 0].tolist() == [10, 19, 28, 37, 46]


def test_ct_slices_of_different_slopes_are_converted_knowingly(tmp_path: Path) -> None:
    scan = made.ct().with_voxels(np.full(phantoms.SHAPE, 10, np.int16))
    slopes = made.each("RescaleSlope", [1, 1, 1, 2, 3])
    stack = made.stack_of(
        phantoms.write_dicom(tmp_path, scan, intercept=0, edit=slopes)
    )

    with pytest.raises(RescaleError, match="1 and 0 in 3 slices, 2 and 0 in 1"):
        assemble(stack)
    done = assemble(stack, Repairs(allow_slopes=True))
    assert done.voxels[0, 0].tolist() == [10, 10, 10, 20, 30]
    assert done.repairs == {"slopes_applied_per_slice": True}
    assert [note.code for note in done.warnings] == ["inconsistent_slope"]


def test_mr_without_rescale_is_read(tmp_path: Path) -> None:
    read = read_series(phantoms.write_dicom(tmp_path, made.ct(), edit=made.as_mr))

    np.testing.assert_array_equal(read.voxels, made.ct().voxels + 1024)


def test_ct_without_rescale_is_read_with_a_warning(tmp_path: Path) -> None:
    silent = made.without("RescaleSlope", "RescaleIntercept")
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=silent)
    volume, notes = read_stack(made.stack_of(paths))

    np.testing.assert_array_equal(volume.voxels, made.ct().voxels + 1024)
    assert [note.code for note in notes] == ["no_rescale"]


def test_a_fourth_axis_holds_the_volumes_in_order(tmp_path: Path) -> None:
    first = made.ct("PSL", (3, 0, 8))
    second = first.with_voxels(first.voxels + 5)
    stack = made.stack_of(made.write_marked(tmp_path, [first, second], "temporal"))

    for hold in (True, False):
        done = assemble(stack, hold=hold)
        assert done.planes.shape == (*phantoms.SHAPE, 2)
        np.testing.assert_array_equal(done.voxels[..., 0], first.voxels)
        np.testing.assert_array_equal(done.voxels[..., 1], second.voxels)


def test_time_series_that_lacks_a_slice_is_refused(tmp_path: Path) -> None:
    first = made.ct()
    second = first.with_voxels(first.voxels + 5)
    paths = made.write_marked(tmp_path, [first, second], "temporal")

    with pytest.raises(DuplicateSliceError, match="different images at 4 of 5 places"):
        assemble(made.stack_of([*paths[:7], *paths[8:]]))


def test_colour_slices_keep_their_colours(tmp_path: Path) -> None:
    scan = made.ct().with_voxels((phantoms.volume().voxels % 250).astype(np.int16))
    paths = phantoms.write_dicom(tmp_path, scan, intercept=0, edit=made.as_colour)
    done = assemble(made.stack_of(paths))

    assert done.planes.dtype == RGB
    np.testing.assert_array_equal(done.voxels["R"], scan.voxels)
    np.testing.assert_array_equal(done.voxels["G"], 255 - scan.voxels)
    np.testing.assert_array_equal(done.voxels["B"], scan.voxels // 2)
    np.testing.assert_allclose(done.grid.affine, scan.grid.affine, atol=1e-9)


def test_colour_is_no_scan_to_work_on(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=made.as_colour)

    with pytest.raises(UnsupportedError, match="a colour image, not a scan"):
        read_series(paths)


def test_held_and_streamed_voxels_are_the_same(tmp_path: Path) -> None:
    stack = made.stack_of(phantoms.write_dicom(tmp_path, made.ct("PSR")))
    held, streamed = assemble(stack), assemble(stack, hold=False)

    np.testing.assert_array_equal(held.voxels, streamed.voxels)
    assert held.planes.dtype == streamed.planes.dtype
    np.testing.assert_array_equal(held.grid.affine, streamed.grid.affine)


def test_streamed_voxels_are_read_again_from_the_files(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    held = assemble(made.stack_of(paths))
    streamed = assemble(made.stack_of(paths), hold=False)
    for path in paths:
        path.unlink()

    np.testing.assert_array_equal(held.voxels, made.ct().voxels)
    with pytest.raises(UnreadableError, match=r"IM\d+\.dcm: truncated or damaged"):
        streamed.planes.array()


@pytest.mark.parametrize("hold", [True, False])
def test_damage_is_found_at_once(tmp_path: Path, *, hold: bool) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    paths[1].write_bytes(paths[1].read_bytes()[:-30])

    with pytest.raises(
        UnreadableError,
        match=rf"^series 3 .* {paths[1].name}: truncated: 54 of 84 bytes of pixels",
    ):
        assemble(made.stack_of(paths), hold=hold)


def test_two_slices_are_converted_knowingly(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())[1:3]
    stack = made.stack_of(paths)

    with pytest.raises(FewSlicesError, match=r"2 slices only, 2\.50 mm apart"):
        assemble(stack)
    done = assemble(stack, Repairs(allow_few_slices=True))
    np.testing.assert_array_equal(done.voxels, made.ct().voxels[:, :, 1:3])
    assert done.grid.spacing_mm == pytest.approx(phantoms.SPACING_MM)
    assert done.repairs == {"step_not_confirmed": True}
    assert [note.code for note in done.warnings] == ["too_few_slices"]


@pytest.mark.parametrize(
    ("thickness", "step_mm"), [(4.5, 4.5), (None, 1.0), (0, 1.0), (-3, 1.0), (1e6, 1.0)]
)
def test_one_slice_is_an_image_with_a_warning(
    tmp_path: Path, thickness: float | None, step_mm: float
) -> None:
    thick = made.having(SliceThickness=thickness)
    paths = phantoms.write_dicom(tmp_path, made.ct("PSL"), edit=thick)[2:3]
    done = assemble(made.stack_of(paths))

    np.testing.assert_array_equal(done.voxels, made.ct("PSL").voxels[:, :, 2:3])
    assert done.grid.spacing_mm == pytest.approx((0.7, 1.1, step_mm))
    np.testing.assert_allclose(
        done.grid.affine[:3, 3], (made.ct("PSL").grid.affine @ [0, 0, 2, 1])[:3]
    )
    assert [note.code for note in done.warnings] == ["single_slice"]


def test_one_slice_is_no_scan_to_work_on(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())

    with pytest.raises(UnsupportedError, match="one slice only; 3-D is needed"):
        read_series(paths[:1])


def test_several_volumes_are_no_scan_to_work_on(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "temporal")

    with pytest.raises(UnsupportedError, match="4-D with 2 volumes; one is") as caught:
        read_series(paths)
    assert "spine convert --split" in caught.value.hint


@pytest.mark.parametrize(("modality", "told"), [("PT", "PT"), ("", "unknown")])
def test_other_modalities_are_no_scan_to_work_on(
    tmp_path: Path, modality: str, told: str
) -> None:
    other = made.having(Modality=modality)
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=other)

    with pytest.raises(UnsupportedError, match=f"modality {told}; CT or MR is needed"):
        read_series(paths)
    assert assemble(made.stack_of(paths)).planes.shape == phantoms.SHAPE


def test_read_stack_mends_nothing(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=made.tilted(8))

    with pytest.raises(TiltError, match=r"gantry tilt of 8\.0 degrees"):
        read_stack(made.stack_of(paths))


def test_identical_duplicates_are_dropped_with_a_note(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(
        tmp_path, made.ct(), edit=made.all_of(TWICE, same_image)
    )
    done = assemble(made.stack_of(paths))

    assert done.planes.shape == (7, 6, 4)
    np.testing.assert_array_equal(done.voxels[:, :, 3], made.ct().voxels[:, :, 4])
    told = "1 slices that lie where another does were left out (identical)"
    assert [(note.code, note.message) for note in done.warnings] == [
        ("duplicate_slices", told)
    ]
    assert done.repairs == {"duplicates": told}


def test_different_duplicates_are_refused(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=TWICE)

    with pytest.raises(
        DuplicateSliceError, match="different images at 1 of 4 places"
    ) as caught:
        assemble(made.stack_of(paths))
    assert "--duplicates first" in caught.value.hint


def test_duplicates_of_another_slope_are_different(tmp_path: Path) -> None:
    scaled = made.all_of(TWICE, same_image, made.having(3, RescaleSlope=2))
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=scaled)

    with pytest.raises(DuplicateSliceError, match="different images at 1 of 4"):
        assemble(made.stack_of(paths), Repairs(allow_slopes=True))


@pytest.mark.parametrize(("kept", "slice_number"), [("first", 2), ("last", 3)])
def test_one_of_different_duplicates_is_kept_knowingly(
    tmp_path: Path, kept: str, slice_number: int
) -> None:
    numbered = made.all_of(TWICE, made.each("InstanceNumber", [1, 2, 3, 4, 5]))
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=numbered)
    stack = made.stack_of(paths)
    done = assemble(stack, Repairs(duplicates=kept))  # type: ignore[arg-type]

    wanted = made.ct().voxels[:, :, [0, 1, slice_number, 4]]
    np.testing.assert_array_equal(done.voxels, wanted)
    assert "(1 of them different)" in done.repairs["duplicates"]


def test_stray_slice_leaves_a_gap_that_is_told(tmp_path: Path) -> None:
    stray = made.having(4, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=stray)
    done = assemble(made.stack_of(paths))

    np.testing.assert_array_equal(done.voxels, made.ct().voxels[:, :, :4])
    assert [note.code for note in done.warnings] == ["stray_slices"]
    assert paths[4].name in done.warnings[0].message


def test_files_of_several_series_are_no_series(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(
        tmp_path, made.ct(), edit=made.having(2, SeriesInstanceUID="1.2.3")
    )

    with pytest.raises(MixedSeriesError, match="the files make 2 volumes"):
        read_series(paths)


def test_no_files_are_no_series() -> None:
    with pytest.raises(NotFoundError, match="no DICOM images were given"):
        read_series([])


@pytest.mark.parametrize("content", [b"", b"notes" * 50, b"\0" * 128 + b"DICM" + b"x"])
def test_file_that_is_no_dicom_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "IM1.dcm").write_bytes(content)

    with pytest.raises(UnreadableError, match=r"IM1\.dcm: not an intact DICOM file"):
        read_series([tmp_path / "IM1.dcm"])


def test_mixed_encodings_make_one_volume(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    for path in paths[::2]:
        made.rewrite(path, RLELossless)

    for hold in (True, False):
        done = assemble(made.stack_of(paths), hold=hold)
        np.testing.assert_array_equal(done.voxels, made.ct().voxels)


def test_long_numbers_in_the_header_are_quietly_read(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    for path in paths:
        dataset = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            dataset.PixelSpacing = ["1.1000000000000000001", "0.7000000000000000001"]
            dataset.save_as(path)
    recwarn.clear()

    assert read_series(paths).grid.spacing_mm == pytest.approx(phantoms.SPACING_MM)
    assert not recwarn.list
