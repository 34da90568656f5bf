"""Files are told apart by how they begin, whatever they are called."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from engines import sniff
from tests import dicom_phantoms as made

COMMON = ("SOPClassUID", "SOPInstanceUID", "ImageType", "Modality")


def bare(folder: Path, *left_out: str, implicit: bool = False) -> bytes:
    """Return a slice as a data set without preamble and file meta information."""
    dataset = made.slice_of(3, **dict.fromkeys(left_out))
    plain = Dataset(dict(dataset.items()))
    plain.save_as(folder / "bare", implicit_vr=implicit, little_endian=True)
    return (folder / "bare").read_bytes()


def kind_of(folder: Path, content: bytes) -> str:
    path = folder / "x"
    path.write_bytes(content)
    return sniff.kind_of(path)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("left_out", [COMMON[:n] for n in range(5)])
def test_bare_data_set_is_dicom_whatever_it_begins_with(
    tmp_path: Path, left_out: tuple[str, ...], *, implicit: bool
) -> None:
    assert kind_of(tmp_path, bare(tmp_path, *left_out, implicit=implicit)) == "dicom"


@pytest.mark.parametrize("damaged", [slice(128, 132), slice(132, 138)])
def test_damage_to_one_mark_of_the_preamble_is_no_disguise(
    tmp_path: Path, damaged: slice
) -> None:
    (path,) = made.write_slices(tmp_path, [made.slice_of(0)])
    content = bytearray(path.read_bytes())
    content[damaged] = bytes(damaged.stop - damaged.start)

    assert kind_of(tmp_path, bytes(content)) == "dicom"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_dicom_is_known(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (path,) = made.write_slices(tmp_path, [made.slice_of(0)])

    assert kind_of(tmp_path, pack(path.read_bytes())) == "packed"
    assert kind_of(tmp_path, pack(b"notes" * 400)) == "other"


def test_archives_are_known(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as packed:
        packed.writestr("x", b"notes")
    with tarfile.open(tmp_path / "b", "w:gz") as tarred:
        member = tarfile.TarInfo("x")
        member.size = 5
        tarred.addfile(member, io.BytesIO(b"notes"))

    assert sniff.kind_of(tmp_path / "a") == "zip"
    assert sniff.kind_of(tmp_path / "b") == "tar"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(200), "foreign"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(200), "foreign"),
        (b"\x28\xb5\x2f\xfd" + bytes(200), "foreign"),
        (b"", "empty"),
        (b"notes" * 300, "other"),
        (bytes(2000), "other"),
        (b"\x5c\x01\x00\x00" + bytes(348), "other"),
        (b"\x1f\x8b" + b"\x00" * 30, "other"),
        (b"\x08\x00\x05\x00CS", "other"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, kind: str) -> None:
    assert kind_of(tmp_path, content) == kind


def test_file_that_is_not_there_is_closed(tmp_path: Path) -> None:
    assert sniff.kind_of(tmp_path / "none") == "closed"
