"""Images are read as they are meant, or refused with a reason."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines import volume as volumes
from engines.errors import (
    GeometryError,
    SpineError,
    UnreadableError,
    UnsupportedError,
)
from engines.volume import Volume
from tests import phantoms

DATA = Path(__file__).parents[1] / "data"
Edit = Callable[[nib.Nifti1Header], None]


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "int32", "float32", "float64"])
def test_nifti_is_read_as_it_was_written(tmp_path: Path, name: str, dtype: str) -> None:
    made = phantoms.volume(axes="PIR", turned_deg=(5, -10, 3))
    made = made.with_voxels((made.voxels % 97).astype(dtype))
    read = Volume.read(phantoms.write_nifti(tmp_path / name, made))

    assert read.voxels.dtype == dtype
    np.testing.assert_array_equal(read.voxels, made.voxels)
    np.testing.assert_allclose(read.grid.affine, made.grid.affine, atol=1e-4)


def test_real_scan_agrees_with_nibabel() -> None:
    read = Volume.read(DATA / "tptbox_ct.nii.gz")
    image = nib.load(DATA / "tptbox_ct.nii.gz")

    np.testing.assert_array_equal(read.voxels, np.asarray(image.dataobj))
    np.testing.assert_array_equal(read.grid.affine, image.affine)


def test_big_endian_and_header_scaling(tmp_path: Path) -> None:
    stored = phantoms.volume().voxels
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(stored, phantoms.affine(), header)
    image.header.set_slope_inter(0.5, -1024)
    path = tmp_path / "scan.nii"
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([0.5, -1024], ">f4").tobytes()
    path.write_bytes(content)

    read = Volume.read(path)
    assert read.voxels.dtype == np.float32
    np.testing.assert_array_equal(read.voxels, stored * np.float32(0.5) - 1024)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_itk_files_land_where_nifti_does(tmp_path: Path, suffix: str) -> None:
    made = phantoms.volume(axes="LIP", turned_deg=(5, -10, 3))
    read = Volume.read(phantoms.write_itk(tmp_path / f"scan{suffix}", made))

    np.testing.assert_array_equal(read.voxels, made.voxels)
    np.testing.assert_allclose(read.grid.affine, made.grid.affine, atol=1e-9)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha", "mhd"])
def test_suffix_in_any_case(suffix: str) -> None:
    path = Path(f"a.b.{suffix.upper()}")

    assert volumes.suffix_of(path) == f".{suffix}"
    assert volumes.stem_of(path) == "a.b"


def _set(field: str, value: Any) -> Edit:
    def edit(header: nib.Nifti1Header) -> None:
        header[field] = value

    return edit


def _no_codes(header: nib.Nifti1Header) -> None:
    header["qform_code"] = header["sform_code"] = 0


def _pixdim(value: float) -> Edit:
    def edit(header: nib.Nifti1Header) -> None:
        header["pixdim"][2] = value

    return edit


def _move_sform(header: nib.Nifti1Header) -> None:
    header["srow_x"][3] += 20


def _shear(header: nib.Nifti1Header) -> None:
    header["qform_code"] = 0
    header["srow_y"][2] = 0.8


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (_no_codes, GeometryError, "neither qform nor sform"),
        (_move_sform, GeometryError, r"sform and qform disagree, by 28\.6 voxels"),
        (_shear, GeometryError, r"sheared by 17\.74 degrees"),
        (_pixdim(0), GeometryError, r"voxel size is 0\.7 x 0 x 2\.5 mm"),
        (_pixdim(-1.1), GeometryError, r"voxel size is 0\.7 x -1\.1 x 2\.5 mm"),
        (_pixdim(np.nan), GeometryError, "voxel size is .* nan"),
        (_set("datatype", 128), UnsupportedError, "a colour image"),
        (_set("datatype", 32), UnsupportedError, "complex values"),
        (_set("datatype", 3), UnreadableError, "cannot be read"),
        (_set("dim", [3, 7, 6, 90, 1, 1, 1, 1]), UnreadableError, "420 of 7560 bytes"),
        (_set("dim", [2, 7, 6, 1, 1, 1, 1, 1]), UnsupportedError, "3-D is needed"),
        (_set("dim", [4, 7, 6, 1, 5, 1, 1, 1]), UnsupportedError, "4-D with 5 frames"),
        (_set("dim", [3, 7, 0, 5, 1, 1, 1, 1]), UnsupportedError, "3-D is needed"),
    ],
)
def test_bad_header_is_refused(
    tmp_path: Path, edit: Edit, error: type[SpineError], match: str
) -> None:
    path = phantoms.write_nifti(tmp_path / "scan.nii", phantoms.volume(), edit)

    with pytest.raises(error, match=match) as caught:
        Volume.read(path)
    assert "scan.nii" in str(caught.value)
    assert caught.value.hint


def test_fourth_axis_of_one_frame_is_no_axis(tmp_path: Path) -> None:
    edit = _set("dim", [4, 7, 6, 5, 1, 1, 1, 1])
    path = phantoms.write_nifti(tmp_path / "scan.nii", phantoms.volume(), edit)

    np.testing.assert_array_equal(Volume.read(path).voxels, phantoms.volume().voxels)


def _whole() -> bytes:
    return (DATA / "tptbox_ct.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.nii.gz", _whole()[:5000], "cannot be read|truncated"),
        ("a.nii.gz", _whole()[:-4000], "cannot be read|truncated"),
        ("a.nii.gz", _whole()[:5000] + b"\0" * 99 + _whole()[5099:], "cannot be read"),
        ("a.nii.gz", b"these are notes\n" * 40, "not a NIfTI file"),
        (
            "a.nii.gz",
            gzip.compress(b"these are notes\n" * 40, mtime=0),
            "not a NIfTI file",
        ),
        ("a.nii.gz", b"", r"empty \(0 bytes\)"),
        ("a.nii", b"\x5c\x01", "not a NIfTI file"),
        ("a.nii", b"\x5c\x01\0\0" + b"\0" * 40, "cannot be read"),
        ("a.mha", b"", r"empty \(0 bytes\)"),
        ("a.nrrd", b"NRRD0004\nsizes: 4 4\n\n", "cannot be read"),
    ],
)
def test_damaged_file_is_unreadable(
    tmp_path: Path, name: str, content: bytes, match: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UnreadableError, match=match) as caught:
        Volume.read(tmp_path / name)
    assert name in str(caught.value)


def test_truncated_mha_is_unreadable(tmp_path: Path) -> None:
    path = phantoms.write_itk(tmp_path / "a.mha", phantoms.volume())
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(UnreadableError, match=r"a\.mha: truncated, 220 of 420 bytes"):
        Volume.read(path)


def test_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"none\.nii\.gz: cannot be read"):
        Volume.read(tmp_path / "none.nii.gz")


def test_unknown_suffix_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"a\.png: unknown suffix; known are"):
        Volume.read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("voxels", "match"),
    [
        (np.zeros((4, 4, 4, 3), np.uint8), "colour or vector"),
        (np.zeros((4, 4, 4), np.complex64), "complex"),
    ],
)
def test_itk_colour_and_complex_are_unsupported(
    tmp_path: Path, voxels: np.ndarray, match: str
) -> None:
    image = sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))

    with pytest.raises(UnsupportedError, match=match):
        Volume.read(tmp_path / "a.nrrd")


def test_mask_becomes_whole_numbers(tmp_path: Path) -> None:
    held = phantoms.volume(np.array([[[0.0, 20.0], [21.0, 0.0]]] * 2, np.float32))
    read = volumes.read_mask(phantoms.write_nifti(tmp_path / "m.nii.gz", held))

    assert read.voxels.dtype.kind == "i"
    np.testing.assert_array_equal(read.voxels, held.voxels)


@pytest.mark.parametrize("bad", [0.5, np.nan])
def test_mask_with_fractions_is_unsupported(tmp_path: Path, bad: float) -> None:
    held = phantoms.volume(np.full((2, 2, 2), bad, np.float32))
    path = phantoms.write_nifti(tmp_path / "m.nii.gz", held)

    with pytest.raises(UnsupportedError, match="fractions or non-finite"):
        volumes.read_mask(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(phantoms.ORIENTATIONS),
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.sampled_from([(1, 1), (1, 0), (0, 2), (2, 4), (4, 3)]),
    st.sampled_from([np.uint8, np.int16, np.float32]),
)
def test_label_map_lands_on_its_scan_bit_for_bit(
    tmp_path: Path,
    axes: str,
    turned_deg: tuple[float, ...],
    codes: tuple[int, int],
    dtype: type[np.generic],
) -> None:
    made = phantoms.volume(axes=axes, turned_deg=turned_deg)
    made = made.with_voxels((made.voxels % 97).astype(dtype))
    scan = phantoms.write_nifti(tmp_path / "scan.nii.gz", made, codes=codes)
    labels = (made.voxels > 40).astype(np.uint8)
    volumes.write_nifti(tmp_path / "m.nii.gz", labels, Volume.read(scan), {})

    before, after = nib.load(scan), nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asarray(after.dataobj), labels)
    np.testing.assert_array_equal(after.affine, before.affine)
    for field in (
        *("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "pixdim"),
        *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
        *("dim", "xyzt_units"),
    ):
        np.testing.assert_array_equal(after.header[field], before.header[field], field)


def test_written_file_keeps_provenance_and_no_text_of_the_source(
    tmp_path: Path,
) -> None:
    def named(header: nib.Nifti1Header) -> None:
        header["descrip"] = header["db_name"] = b"Secret Person"
        header["scl_slope"], header["scl_inter"] = 2, -7

    scan = phantoms.write_nifti(tmp_path / "s.nii", phantoms.volume(), named)
    like = Volume.read(scan)
    labels = np.ones(like.grid.shape, np.uint8)
    told = {"model": "ä", "n": [1, 2]}
    volumes.write_nifti(tmp_path / "m.nii.gz", labels, like, told)

    again = Volume.read(tmp_path / "m.nii.gz")
    assert again.provenance == told
    assert again.voxels.dtype == np.uint8
    assert b"Secret" not in gzip.decompress((tmp_path / "m.nii.gz").read_bytes())


def test_same_label_map_gives_the_same_bytes() -> None:
    scan = phantoms.volume()
    first, again = (volumes.nifti_bytes(scan.voxels, scan, {"a": 1}) for _ in range(2))

    assert first == again
    assert first[4:8] == b"\0\0\0\0"  # the time in the gzip header


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    "dim",
    [[3, 7, 6, 4, 1, 1, 1, 1], [3, 6, 6, 5, 1, 1, 1, 1], [3, 7, 5, 5, 1, 1, 1, 1]],
)
def test_header_of_fewer_voxels_than_there_are_is_refused(
    tmp_path: Path, name: str, dim: list[int]
) -> None:
    """Off by one along the first axis, every row after the first would be shifted."""
    path = phantoms.write_nifti(tmp_path / name, phantoms.volume(), _set("dim", dim))

    with pytest.raises(UnreadableError, match="more voxels than its header describes"):
        Volume.read(path)


def test_checksum_of_compressed_voxels_is_compared(tmp_path: Path) -> None:
    path = phantoms.write_nifti(tmp_path / "a.nii.gz", phantoms.volume())
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)

    with pytest.raises(UnreadableError, match=r"CRC|incorrect data check"):
        Volume.read(path)


@pytest.mark.parametrize(
    ("behind", "codes"), [(b"junk", ["trailing_bytes"]), (b"\0" * 100, [])]
)
def test_bytes_behind_a_compressed_file(
    tmp_path: Path, behind: bytes, codes: list[str]
) -> None:
    path = phantoms.write_nifti(tmp_path / "a.nii.gz", phantoms.volume())
    path.write_bytes(path.read_bytes() + behind)
    read = Volume.read(path)

    np.testing.assert_array_equal(read.voxels, phantoms.volume().voxels)
    assert [note.code for note in read.notes] == codes
