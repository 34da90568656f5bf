"""Sizes are told by headers alone, and what cannot be read is refused before it is."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from engines import extent
from engines.errors import MemoryLimitError, UnreadableError, UnsupportedError
from engines.extent import Extent
from engines.scans import find_scans, read_case, read_scan
from engines.segment.run import FOOTPRINT, footprint
from engines.volume import Volume, extent_of, read_mask, write_nifti
from tests import phantoms

SHAPE = (13, 11, 9)


def image(path: Path, kind: str = "int16") -> Path:
    voxels = (np.arange(np.prod(SHAPE)) % 200).astype(kind).reshape(SHAPE)
    made = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    sitk.WriteImage(made, str(path), useCompression=path.suffix not in (".mhd", ".nii"))
    return path


@pytest.mark.parametrize("kind", ["uint8", "int16", "float64"])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha", "mhd", "nrrd", "nhdr"])
def test_size_is_that_of_the_voxels_when_read(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    path = image(tmp_path / f"x.{suffix}", kind)
    size = extent_of(path)

    assert size.shape == SHAPE
    assert size.bytes == Volume.read(path).voxels.nbytes
    assert (size.packed is None) == (suffix in ("nii", "mhd"))
    if suffix == "nii.gz":
        assert size.packed == path.stat().st_size


def test_scaled_voxels_count_as_what_they_become(tmp_path: Path) -> None:
    path = image(tmp_path / "x.nii", "uint8")
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2, -1024], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)

    assert extent_of(path).bytes == Volume.read(path).voxels.nbytes == 4 * 13 * 11 * 9


def bomb(path: Path, shape: tuple[int, int, int]) -> Path:
    """Write an image of zeros."""
    write_nifti(path, np.zeros((2, 2, 2), np.int16), phantoms.volume(), {})
    head = bytearray(gzip.decompress(path.read_bytes())[:352])
    head[40:56] = np.array([3, *shape, 1, 1, 1, 1], "<i2").tobytes()
    head[108:112] = np.array(352, "<f4").tobytes()
    count = int(np.prod(shape)) * 2
    path.write_bytes(gzip.compress(bytes(head) + bytes(count), 9))
    return path


def test_scan_packed_as_no_scan_can_be_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extent, "RATIO_FROM_BYTES", 1 << 22)
    path = bomb(tmp_path / "x.nii.gz", (256, 256, 128))
    assert path.stat().st_size < 20_000
    tracemalloc.start()

    with pytest.raises(
        UnsupportedError, match=r"x\.nii\.gz: 256 x 256 x 128 voxels.*packed bytes"
    ):
        read_scan(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    # An empty label map is packed as densely and is none the worse for it.
    assert not read_mask(path).voxels.any()


@pytest.mark.parametrize("read", [Volume.read, read_mask, read_scan])
def test_image_larger_than_memory_is_refused_unread(
    tmp_path: Path, read: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extent, "machine_bytes", lambda: float(1 << 20))
    path = bomb(tmp_path / "x.nii.gz", (128, 128, 128))

    with pytest.raises(MemoryLimitError, match=r"4\.0 MiB; this machine has 1\.0 MiB"):
        read(path)  # type: ignore[operator]


def test_ratio_is_told_of_large_packed_images_only() -> None:
    Extent((512, 512, 600), 2).require_scan("x")
    Extent((512, 512, 600), 2, 80_000_000).require_scan("x")
    Extent((64, 64, 64), 2, 600).require_scan("x")
    Extent((1200, 1200, 1200), 2, 1000, 1100 * 1000).require_scan("x")  # damaged
    with pytest.raises(UnsupportedError, match="1016 for each"):
        Extent((1200, 1200, 1200), 2, 3_400_000).require_scan("x")


def test_footprint_goes_by_headers_and_not_by_packed_bytes(tmp_path: Path) -> None:
    packed = image(tmp_path / "a.nii.gz")
    plain = image(tmp_path / "b.nii")
    (tmp_path / "c.nii").write_bytes(b"damaged")
    (tmp_path / "d.nii").write_bytes(plain.read_bytes()[:400])
    found = {one.name: one for one in find_scans([tmp_path])}

    assert packed.stat().st_size < plain.stat().st_size
    assert footprint(found["a"]) == footprint(found["b"]) == FOOTPRINT * 2 * 13 * 11 * 9
    assert footprint(found["c"]) == footprint(found["d"]) == 0
    with pytest.raises(UnreadableError):
        read_case(found["c"])


def test_footprint_of_dicom_is_that_of_its_images(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "ser", phantoms.volume())
    (found,) = find_scans([tmp_path / "ser"])

    assert footprint(found) == FOOTPRINT * 2 * phantoms.volume().voxels.size
