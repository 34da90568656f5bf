"""Tiles of a Siemens mosaic become slices where the private header puts them."""

import gzip
import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from engines.convert.assemble import assemble, read_series
from engines.convert.series import series_in
from engines.volume import Volume
from tests import dicom_phantoms as made
from tests import phantoms

REAL = Path(nib.__file__).parent / "nicom" / "tests" / "data"


def scan(axes: str = "LPS", count: int = 5) -> Volume:
    values = np.arange(42 * count, dtype=np.int16).reshape(7, 6, count)
    return phantoms.volume(values, axes, turned_deg=(4, -7, 11))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("axes", ["LPS", "PSL", "LSA"])
def test_tiles_become_slices(tmp_path: Path, axes: str, *, flipped: bool) -> None:
    path = made.write_mosaic(tmp_path / "x.dcm", scan(axes), flipped=flipped)
    read = read_series([path])

    assert read.grid.axes == axes
    np.testing.assert_array_equal(read.voxels, scan(axes).voxels)
    np.testing.assert_allclose(read.grid.affine, scan(axes).grid.affine, atol=1e-9)


@pytest.mark.parametrize(("count", "side"), [(3, 2), (4, 2), (9, 3), (10, 4), (17, 5)])
def test_empty_tiles_at_the_end_are_no_slices(
    tmp_path: Path, count: int, side: int
) -> None:
    path = made.write_mosaic(tmp_path / "x.dcm", scan(count=count))
    frames = made.frames_of(path)

    assert [frame.index for frame in frames] == list(range(count))
    assert {(frame.tiles, frame.shape) for frame in frames} == {(side, (6, 7))}
    np.testing.assert_array_equal(read_series([path]).voxels, scan(count=count).voxels)


def test_step_of_the_private_header_is_the_strongest(tmp_path: Path) -> None:
    csa = {
        "NumberOfImagesInMosaic": ("US", [5]),
        "SliceNormalVector": ("FD", []),
        "SpacingBetweenSlices": ("FD", [3.25]),
    }
    path = made.write_mosaic(tmp_path / "x.dcm", scan(), csa=csa)

    assert read_series([path]).grid.spacing_mm == pytest.approx((0.7, 1.1, 3.25))


def test_thickness_stands_in_for_the_step(tmp_path: Path) -> None:
    silent = made.without("SpacingBetweenSlices")
    path = made.write_mosaic(tmp_path / "x.dcm", scan(), edit=silent)

    assert read_series([path]).grid.spacing_mm == pytest.approx((0.7, 1.1, 1.25))


def test_mosaics_of_several_times_make_a_fourth_axis(tmp_path: Path) -> None:
    paths, scans = [], []
    for number in (1, 2, 3):
        values = scan().voxels + np.int16(number)
        scans.append(scan().with_voxels(values))

        def timed(_: int, dataset: Dataset, number: int = number) -> None:
            dataset.SOPInstanceUID = f"1.2.3.{number}"
            dataset.AcquisitionNumber = number

        path = tmp_path / f"{number}.dcm"
        paths.append(made.write_mosaic(path, scans[-1], edit=timed))
    (stack,) = series_in(paths[::-1]).stacks

    assert (stack.axis, stack.steps) == ("acquisition", ("1", "2", "3"))
    voxels = assemble(stack).voxels
    for number in range(3):
        np.testing.assert_array_equal(voxels[..., number], scans[number].voxels)


def _unplaced(_: int, dataset: Dataset) -> None:
    del dataset.ImagePositionPatient


def _unmarked(_: int, dataset: Dataset) -> None:
    del dataset[0x0029, 0x1010]


@pytest.mark.parametrize(
    ("count", "edit"),
    [
        ([], made.as_is),
        ([0], made.as_is),
        ([-3], made.as_is),
        ([10_001], made.as_is),
        ([1_000_000_000], made.as_is),
        ([5], _unplaced),
        ([5], _unmarked),
        (
            [5],
            made.all_of(
                made.having(SpacingBetweenSlices=0), made.having(SliceThickness=0)
            ),
        ),
    ],
)
def test_mosaic_that_does_not_tell_its_slices_is_unreadable(
    tmp_path: Path, count: Sequence[int], edit: made.Edit
) -> None:
    csa = {"NumberOfImagesInMosaic": ("US", count), "SliceNormalVector": ("FD", [])}
    path = made.write_mosaic(tmp_path / "x.dcm", scan(), csa=csa, edit=edit)

    assert series_in([path]).unreadable == (path,)


def test_damaged_private_header_is_unreadable(tmp_path: Path) -> None:
    def damaged(_: int, dataset: Dataset) -> None:
        dataset[0x0029, 0x1010].value = dataset[0x0029, 0x1010].value[:101] + b"\0"

    path = made.write_mosaic(tmp_path / "x.dcm", scan(), edit=damaged)

    assert series_in([path]).unreadable == (path,)


@pytest.mark.parametrize("name", ["siemens_dwi_0", "siemens_dwi_1000"])
def test_real_mosaic_agrees_with_nibabel(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(gzip.decompress((REAL / f"{name}.dcm.gz").read_bytes()))
    read = read_series([path])
    with warnings.catch_warnings(action="ignore"):
        from nibabel.nicom import dicomwrappers

        other = dicomwrappers.wrapper_from_file(path)

    assert read.grid.shape == (128, 128, 48)
    wanted = other.get_data().swapaxes(0, 1)
    np.testing.assert_array_equal(read.voxels, wanted)
    lps = other.affine[:, [1, 0, 2, 3]]
    np.testing.assert_allclose(read.grid.affine, phantoms.LPS_TO_RAS @ lps, atol=1e-3)
