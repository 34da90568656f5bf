"""Lengths come in mm, whatever unit a header names, or are refused."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from engines import units
from engines.errors import GeometryError
from engines.volume import Volume, read_mask, write_nifti
from tests import phantoms

SHAPE = (60, 50, 40)


def _affine(voxel: float) -> np.ndarray:
    return np.diag([voxel, voxel, voxel, 1.0])


@pytest.mark.parametrize(
    ("unit", "voxel", "voxel_mm"),
    [
        ("micron", 1500, 1.5),
        ("um", 9, 0.009),  # micro-CT
        ("\N{MICRO SIGN}m", 700, 0.7),
        ("metre", 0.0015, 1.5),
        ("meter", 0.0007, 0.7),
        ("cm", 0.15, 1.5),
        ("micrometers", 1500, 1.5),
    ],
)
def test_unit_of_the_header_is_converted(
    unit: str, voxel: float, voxel_mm: float
) -> None:
    shape = (400, 400, 300) if voxel_mm < 0.1 else SHAPE
    affine, (note,) = units.in_mm("a.nii", _affine(voxel), shape, unit)

    np.testing.assert_allclose(affine, _affine(voxel_mm))
    assert note.code == "unit"
    assert "converted to mm" in note.message


@pytest.mark.parametrize("unit", ["micron", "metre"])
@pytest.mark.parametrize("voxel", [0.7, 1.5, 5])
def test_mm_under_another_name_stay_mm(unit: str, voxel: float) -> None:
    affine, (note,) = units.in_mm("a.nii", _affine(voxel), SHAPE, unit)

    np.testing.assert_array_equal(affine, _affine(voxel))
    assert "taken for mm" in note.message


@pytest.mark.parametrize("unit", ["mm", "", "millimeters", "unknown", "?"])
def test_mm_and_nothing_are_mm(unit: str) -> None:
    affine, notes = units.in_mm("a.nii", _affine(0.7), SHAPE, unit)

    np.testing.assert_array_equal(affine, _affine(0.7))
    assert notes == ()


@pytest.mark.parametrize(
    ("unit", "voxel", "shape", "match"),
    [
        ("micron", 5, (150, 150, 450), "2.25 mm .*, 2250 mm .*both are possible"),
        ("micron", 1e6, SHAPE, "no scan has either size"),
        ("metre", 1e-9, SHAPE, "no scan has either size"),
        ("parsec", 1, SHAPE, "unknown unit"),
    ],
)
def test_what_cannot_be_told_is_refused(
    unit: str, voxel: float, shape: tuple[int, int, int], match: str
) -> None:
    with pytest.raises(GeometryError, match=match) as caught:
        units.in_mm("a.nii", _affine(voxel), shape, unit)
    assert "header" in caught.value.hint


def _scaled(factor: float, unit: str) -> Callable[[nib.Nifti1Header], None]:
    def edit(header: nib.Nifti1Header) -> None:
        for row in ("srow_x", "srow_y", "srow_z"):
            header[row] *= factor
        header["pixdim"][1:4] *= factor
        for offset in ("qoffset_x", "qoffset_y", "qoffset_z"):
            header[offset] *= factor
        header.set_xyzt_units(unit)

    return edit


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e3), ("meter", 1e-3)])
def test_mask_keeps_the_header_of_its_scan(
    tmp_path: Path, unit: str, factor: float
) -> None:
    scan = phantoms.volume()
    edit = _scaled(factor, unit)
    path = phantoms.write_nifti(tmp_path / "a.nii.gz", scan, edit)
    read = Volume.read(path)
    assert [note.code for note in read.notes] == ["unit"]
    np.testing.assert_allclose(read.grid.affine, scan.grid.affine, rtol=1e-5)

    write_nifti(tmp_path / "m.nii.gz", np.ones(read.grid.shape, np.uint8), read, {})
    before, after = nib.load(path), nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.header.get_xyzt_units()[0] == unit
    assert read_mask(tmp_path / "m.nii.gz").grid.matches(read.grid)


def test_metaimage_and_nrrd_name_units_too(tmp_path: Path) -> None:
    scan = phantoms.volume()
    big = phantoms.volume(spacing_mm=(700, 1100, 2500))
    mha = phantoms.write_itk(tmp_path / "a.mha", big)
    content = mha.read_bytes().replace(b"NDims", b"DistanceUnits = um\nNDims", 1)
    mha.write_bytes(content)
    nrrd = phantoms.write_itk(tmp_path / "a.nrrd", big)
    named = b'space units: "um" "um" "um"\nsizes'
    nrrd.write_bytes(nrrd.read_bytes().replace(b"sizes", named, 1))

    for path in (mha, nrrd):
        read = Volume.read(path)
        assert [note.code for note in read.notes] == ["unit"]
        np.testing.assert_allclose(read.grid.spacing_mm, scan.grid.spacing_mm)
