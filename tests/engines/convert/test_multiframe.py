"""Frames of one file are placed by their own groups, else by what they share."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from engines.convert.assemble import assemble, read_series
from engines.convert.findings import Repairs
from engines.convert.series import series_in
from engines.errors import GeometryError, SeriesGapError, UnreadableError
from tests import dicom_phantoms as made
from tests import phantoms

TWO = [made.ct(), made.ct().with_voxels(made.ct().voxels + 5)]


@pytest.mark.parametrize("axes", ["LPS", "PSL", "LSA", "RAI"])
def test_shuffled_frames_become_a_volume(tmp_path: Path, axes: str) -> None:
    scan = made.ct(axes, (5, -8, 12))
    read = read_series([made.write_enhanced(tmp_path / "x.dcm", [scan])])

    voxels = scan.voxels if read.grid.axes == axes else scan.voxels[:, :, ::-1]
    np.testing.assert_array_equal(read.voxels, voxels)
    corners = sorted(map(tuple, np.round(scan.grid.corners_mm(), 6)))
    assert sorted(map(tuple, np.round(read.grid.corners_mm(), 6))) == corners


def test_frames_count_from_the_place_they_are_stored_at(tmp_path: Path) -> None:
    frames = made.frames_of(made.write_enhanced(tmp_path / "x.dcm", [made.ct()]))

    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.number for frame in frames] == [1, 2, 3, 4, 5]
    assert {frame.thickness_mm for frame in frames} == {2.5}
    assert {(frame.slope, frame.intercept, frame.units) for frame in frames} == {
        (1.0, -1024.0, "HU")
    }


@pytest.mark.parametrize("mark", ["temporal", "echo", "b_value", "acquisition"])
def test_marks_of_frames_make_a_fourth_axis(tmp_path: Path, mark: str) -> None:
    axis, values = made.MARKS[mark]
    path = made.write_enhanced(tmp_path / "x.dcm", TWO, mark, modality="MR")
    (stack,) = series_in([path]).stacks

    assert stack.axis == axis
    assert [float(step) for step in stack.steps] == list(values)
    voxels = assemble(stack).voxels
    for number, scan in enumerate(TWO):
        np.testing.assert_array_equal(voxels[..., number], scan.voxels)


@pytest.mark.parametrize(
    ("mark", "parts"), [("stack", ["s1", "s2"]), ("kind", ["m", "p"])]
)
def test_stacks_and_kinds_of_frames_become_volumes(
    tmp_path: Path, mark: str, parts: list[str]
) -> None:
    path = made.write_enhanced(tmp_path / "x.dcm", TWO, mark, modality="MR")
    stacks = series_in([path]).stacks

    assert [stack.part for stack in stacks] == parts
    for stack, scan in zip(stacks, TWO, strict=True):
        np.testing.assert_array_equal(assemble(stack).voxels, scan.voxels)


def test_frames_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    path = made.write_enhanced(tmp_path / "x.dcm", TWO)

    with pytest.raises(GeometryError, match="different images at 5 of 5 places"):
        read_series([path])


def test_own_groups_are_stronger_than_shared_ones(tmp_path: Path) -> None:
    def own(dataset: Dataset) -> None:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            values = Dataset()
            values.RescaleSlope, values.RescaleIntercept = 2, 0
            frame.PixelValueTransformationSequence = [values]
            measures = Dataset()
            measures.PixelSpacing = [3, 4]
            frame.PixelMeasuresSequence = [measures]

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=own)
    read = read_series([path])

    np.testing.assert_array_equal(read.voxels, (made.ct().voxels + 1024) * 2)
    assert read.grid.spacing_mm == pytest.approx((4, 3, 2.5))


def test_top_of_the_header_stands_in_for_missing_groups(tmp_path: Path) -> None:
    def flat(dataset: Dataset) -> None:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        measures = shared.PixelMeasuresSequence[0]
        plane = shared.PlaneOrientationSequence[0]
        dataset.PixelSpacing = measures.PixelSpacing
        dataset.ImageOrientationPatient = plane.ImageOrientationPatient
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        del dataset.SharedFunctionalGroupsSequence

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=flat)

    np.testing.assert_array_equal(read_series([path]).voxels, made.ct().voxels)


def test_one_position_for_all_frames_is_refused(tmp_path: Path) -> None:
    def unplaced(dataset: Dataset) -> None:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence
        dataset.ImagePositionPatient = [1, 2, 3]

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=unplaced)

    with pytest.raises(GeometryError, match="has no ImagePositionPatient, nor have 4"):
        read_series([path])


def test_frames_without_any_groups_are_refused(tmp_path: Path) -> None:
    def bare(dataset: Dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence
        del dataset.PerFrameFunctionalGroupsSequence

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=bare)

    with pytest.raises(
        GeometryError,
        match="no ImagePositionPatient and no ImageOrientationPatient and no PixelSp",
    ):
        read_series([path])


def test_groups_for_fewer_frames_than_there_are_are_refused(tmp_path: Path) -> None:
    def short(dataset: Dataset) -> None:
        frames = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = frames[:4]

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=short)

    with pytest.raises(UnreadableError, match=r"x\.dcm: not an intact DICOM file"):
        read_series([path])


def test_missing_frame_is_a_gap_that_can_be_filled(tmp_path: Path) -> None:
    def gap(dataset: Dataset) -> None:
        frames = dataset.PerFrameFunctionalGroupsSequence
        places = [f.FrameContentSequence[0].InStackPositionNumber for f in frames]
        keep = [n for n, place in enumerate(places) if place != 3]
        size = len(dataset.PixelData) // 5
        parts = [dataset.PixelData[n * size : (n + 1) * size] for n in keep]
        dataset.PixelData = b"".join(parts)
        dataset.PerFrameFunctionalGroupsSequence = [frames[n] for n in keep]
        dataset.NumberOfFrames = 4

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=gap)

    with pytest.raises(SeriesGapError, match=r"widest 5\.00 mm where 2\.50 mm"):
        read_series([path])
    mended = assemble(made.stack_of([path]), Repairs(allow_gaps=True))
    np.testing.assert_array_equal(mended.voxels, made.ct().voxels)


@pytest.mark.parametrize("frames", [6, 500])
def test_more_frames_than_pixels_are_unreadable(tmp_path: Path, frames: int) -> None:
    def claim(dataset: Dataset) -> None:
        each = dataset.PerFrameFunctionalGroupsSequence
        for number in range(5, frames):
            frame = Dataset()
            place = Dataset()
            place.ImagePositionPatient = [0, 0, 700 + 2.5 * number]
            frame.PlanePositionSequence = [place]
            each.append(frame)
        dataset.NumberOfFrames = frames

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=claim)
    stack = made.stack_of([path])
    anyway = Repairs(allow_gaps=True, regrid=True, fix_tilt=True)

    with pytest.raises(
        UnreadableError, match=f"truncated: 420 of {84 * frames} bytes of pixels"
    ):
        assemble(stack, anyway)


def test_absurd_number_of_frames_is_unreadable(tmp_path: Path) -> None:
    def absurd(dataset: Dataset) -> None:
        dataset.NumberOfFrames = 10**8

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=absurd)

    assert series_in([path]).unreadable == (path,)


def test_single_frame_of_an_enhanced_object_is_an_image(tmp_path: Path) -> None:
    one = phantoms.volume(made.ct().voxels[:, :, :1], "LPS")
    done = assemble(made.stack_of([made.write_enhanced(tmp_path / "x.dcm", [one])]))

    np.testing.assert_array_equal(done.voxels, one.voxels)
    assert done.grid.spacing_mm == pytest.approx(phantoms.SPACING_MM)


def test_frames_of_several_files_make_one_volume(tmp_path: Path) -> None:
    whole = made.ct().voxels
    paths = []
    for number, part in enumerate((whole[:, :, :3], whole[:, :, 3:])):
        scan = phantoms.volume(part, "LPS")

        def placed(dataset: Dataset, number: int = number) -> None:
            dataset.SOPInstanceUID = f"1.2.3.{number}"
            dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
            for frame in dataset.PerFrameFunctionalGroupsSequence:
                place = frame.PlanePositionSequence[0]
                x, y, z = place.ImagePositionPatient
                place.ImagePositionPatient = [x, y, z + number * 7.5]

        path = tmp_path / f"{number}.dcm"
        paths.append(made.write_enhanced(path, [scan], edit=placed))

    np.testing.assert_array_equal(read_series(paths[::-1]).voxels, whole)
