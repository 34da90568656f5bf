"""MetaImage is read as ITK reads what is sound, and refused where ITK breaks."""

import random
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from engines.errors import (
    GeometryError,
    InputError,
    SpineError,
    UnreadableError,
    UnsupportedError,
)
from engines.volume import Volume, data_files
from tests import phantoms

SHAPE = (5, 4, 3)
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
DTYPES += ("float32", "float64")
HEADER = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "1 2 3",
    "ElementSpacing": "0.5 1 2",
    "DimSize": "5 4 3",
    "ElementType": "MET_SHORT",
}
VOXELS = np.random.default_rng(0).integers(-900, 900, SHAPE, np.int16)
RAW = VOXELS.tobytes("F")


def _text(**changed: str | None) -> bytes:
    tags = {key: value for key, value in (HEADER | changed).items() if value}
    named = tags.pop("ElementDataFile", "LOCAL")
    lines = [f"{key} = {value}\n" for key, value in tags.items()]
    return "".join([*lines, f"ElementDataFile = {named}\n"]).encode()


def _mha(folder: Path, payload: bytes = RAW, **changed: str | None) -> Path:
    path = folder / "a.mha"
    path.write_bytes(_text(**changed) + payload)
    return path


def _packed(folder: Path, payload: bytes, **changed: str | None) -> Path:
    size = {"CompressedData": "True", "CompressedDataSize": str(len(payload))}
    return _mha(folder, payload, **(size | changed))


def _same_as_itk(path: Path) -> None:
    image = sitk.ReadImage(str(path))
    read = Volume.read(path)
    held = sitk.GetArrayFromImage(image).T

    assert read.voxels.dtype == held.dtype
    np.testing.assert_array_equal(read.voxels, held.reshape(read.voxels.shape))
    corners = [(0, 0, 0), (4, 0, 0), (0, 3, 0), (1, 2, 2)]
    for corner in corners:
        whole = [*corner, *[0] * (image.GetDimension() - 3)]
        lps = image.TransformContinuousIndexToPhysicalPoint([float(n) for n in whole])
        ras = (read.grid.affine @ [*corner, 1])[:3]
        np.testing.assert_allclose(ras, np.array(lps[:3]) * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_what_itk_writes(
    tmp_path: Path, dtype: str, suffix: str, packed: bool
) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VOXELS.T.astype(dtype)))
    image.SetSpacing((0.5, 1.25, 2))
    image.SetOrigin((-7.5, 3, 11))
    image.SetDirection((0.0, 0.6, 0.8, 0.0, 0.8, -0.6, -1.0, 0.0, 0.0))
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), packed)

    _same_as_itk(path)
    assert Volume.read(path).notes == ()


def test_reads_a_fourth_axis_of_one_frame(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(VOXELS.T[None].copy(), isVector=False)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))

    _same_as_itk(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("element", "dtype"),
    [("MET_LONG", "<i4"), ("MET_ULONG", "<u4"), ("MET_SHORT", ">i2")],
)
def test_types_whose_size_or_order_is_not_obvious(
    tmp_path: Path, element: str, dtype: str
) -> None:
    content = np.abs(VOXELS).astype(dtype).tobytes("F")
    big = {"BinaryDataByteOrderMSB": str(dtype[0] == ">")}

    _same_as_itk(_mha(tmp_path, content, ElementType=element, **big))


@pytest.mark.parametrize(
    "changed",
    [
        {"TransformMatrix": None, "Rotation": "0 1 0 0 0 1 1 0 0"},
        {"TransformMatrix": "0 1 0 0 0 1 1 0 0", "CenterOfRotation": "4 5 6"},
        {"Offset": None, "Position": "4 5 6"},
        {"Offset": None, "Origin": "4 5 6"},
        {"ElementSpacing": None, "ElementSize": "3 4 5"},
        {"ElementSize": "3 4 5"},
        {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "F"},
        {"BinaryData": None},
        {"0008|0060": "CT", "Comment": "a = b: c"},
    ],
)
def test_spellings_that_itk_knows(tmp_path: Path, changed: dict[str, Any]) -> None:
    _same_as_itk(_mha(tmp_path, **changed))


@pytest.mark.parametrize("end", [b"\r\n", b" \n"])
def test_ends_of_lines(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(_text().replace(b"\n", end) + RAW)

    np.testing.assert_array_equal(Volume.read(path).voxels, VOXELS)


def test_header_of_raw_data_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"#" * 100 + RAW)
    for size in ("100", "-1"):
        path = tmp_path / "a.mhd"
        path.write_bytes(_text(ElementDataFile="a.raw", HeaderSize=size))

        np.testing.assert_array_equal(Volume.read(path).voxels, VOXELS)


def test_what_the_header_leaves_out_is_noted(tmp_path: Path) -> None:
    read = Volume.read(_mha(tmp_path, TransformMatrix=None, Offset=None))

    assert [note.code for note in read.notes] == ["assumed"]
    assert "TransformMatrix" in read.notes[0].message
    assert "Offset" in read.notes[0].message


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"NDims": "-3"}, UnreadableError, "NDims is '-3'"),
        ({"NDims": "99999999"}, UnreadableError, "NDims"),
        ({"NDims": "17"}, UnreadableError, "NDims"),
        ({"NDims": None}, UnreadableError, "NDims"),
        ({"NDims": "4"}, UnreadableError, "DimSize is '5 4 3' for 4 axes"),
        ({"DimSize": "5 4"}, UnreadableError, "DimSize"),
        ({"DimSize": "5 -4 3"}, UnreadableError, "DimSize"),
        ({"DimSize": "5 0 3"}, UnreadableError, "DimSize"),
        ({"DimSize": "5 4 2"}, UnreadableError, "120 bytes .* describes 80"),
        ({"DimSize": "5 4 4"}, UnreadableError, "truncated, 120 of 160 bytes"),
        ({"DimSize": "4 4 3"}, UnreadableError, "120 bytes .* describes 96"),
        ({"DimSize": "999999999 999999999 999999999"}, UnreadableError, "120 of 1999"),
        ({"ElementType": "MET_FLOAT"}, UnreadableError, "truncated, 120 of 240"),
        ({"ElementType": "MET_UCHAR"}, UnreadableError, "describes 60"),
        ({"ElementType": "MET_SPAM"}, UnreadableError, "ElementType"),
        ({"ElementNumberOfChannels": "3"}, UnsupportedError, "colour or vector"),
        ({"BinaryData": "False"}, UnsupportedError, "as text"),
        ({"BinaryData": "perhaps"}, UnreadableError, "BinaryData"),
        ({"ElementSpacing": None}, GeometryError, "no voxel size"),
        ({"ElementSpacing": "1 1"}, UnreadableError, "ElementSpacing"),
        ({"ElementSpacing": "1 1 nan"}, UnreadableError, "ElementSpacing"),
        ({"ElementSpacing": "1 0 1"}, GeometryError, "voxel size"),
        ({"ElementSpacing": "1 -1 1"}, GeometryError, "voxel size"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, GeometryError, "voxel size"),
        ({"TransformMatrix": "1 0 0 1 1 0 0 0 1"}, GeometryError, "sheared"),
        ({"Orientation": "0 1 0 0 0 1 1 0 0"}, UnreadableError, "twice"),
        ({"ElementDataFile": "LIST"}, UnsupportedError, "list of files"),
        ({"ElementDataFile": "a%03d.raw"}, UnsupportedError, "list of files"),
        ({"ElementToIntensityFunctionSlope": "2"}, UnsupportedError, "Slope is 2"),
        ({"ObjectType": "Tube"}, UnsupportedError, "Tube"),
        ({"HeaderSize": "4"}, UnreadableError, "bytes of voxels"),
    ],
)
def test_bad_header_is_refused(
    tmp_path: Path, changed: dict[str, Any], error: type[SpineError], match: str
) -> None:
    with pytest.raises(error, match=match) as caught:
        Volume.read(_mha(tmp_path, **changed))
    assert "a.mha" in str(caught.value)
    assert caught.value.hint


def _broken(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("payload", "changed", "match"),
    [
        (_broken(zlib.compress(RAW), -1), {}, "damaged .*incorrect data check"),
        (_broken(zlib.compress(RAW), 60), {}, "damaged"),
        (zlib.compress(RAW)[:-30], {}, "end too early"),
        (zlib.compress(RAW)[:-30], {"CompressedDataSize": None}, "end too early"),
        (zlib.compress(RAW), {"CompressedDataSize": "7"}, "promises 7 bytes"),
        (zlib.compress(RAW) + b"\0" * 9, {}, "bytes follow the end"),
        (zlib.compress(RAW[:-2]), {}, "truncated, 118 of 120"),
        (zlib.compress(RAW + b"\0\0"), {}, "holds more bytes .* describes 120"),
        (zlib.compress(bytes(1 << 24)), {}, "holds more bytes"),
        (zlib.compress(RAW), {"DimSize": "5 4 2"}, "holds more bytes"),
        (zlib.compress(RAW), {"DimSize": "99999 99999 99999"}, "at most"),
        (b"", {}, "truncated"),
        (RAW, {}, "damaged"),
    ],
)
def test_bad_compressed_voxels_are_refused(
    tmp_path: Path, payload: bytes, changed: dict[str, Any], match: str
) -> None:
    with pytest.raises(UnreadableError, match=match):
        Volume.read(_packed(tmp_path, payload, **changed))


def test_large_compressed_volume_is_read_whole(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 9, (160, 128, 100), np.int16)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    sitk.WriteImage(image, str(tmp_path / "a.mha"), True)

    np.testing.assert_array_equal(Volume.read(tmp_path / "a.mha").voxels, voxels)


def _mhd(folder: Path, named: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "a.mhd"
    path.write_bytes(_text(ElementDataFile=named))
    return path


@pytest.mark.parametrize("named", ["/etc/passwd", "../secret", "sub/../../secret"])
def test_voxels_outside_the_folder_are_refused(tmp_path: Path, named: str) -> None:
    (tmp_path / "secret").write_bytes(RAW)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    path = _mhd(tmp_path / "in", named)

    with pytest.raises(UnsupportedError, match="outside its folder"):
        Volume.read(path)
    assert data_files(path) == ()


def test_link_to_voxels_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(RAW)
    path = _mhd(tmp_path / "in", "a.raw")
    (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "secret")

    with pytest.raises(UnsupportedError, match="outside its folder"):
        Volume.read(path)


def test_pair_of_links_is_read(tmp_path: Path) -> None:
    """A data set of links to another folder, header and voxels alike."""
    store = _mhd(tmp_path / "store", "a.raw")
    (tmp_path / "store" / "a.raw").write_bytes(RAW)
    (tmp_path / "in").mkdir()
    for name in ("a.mhd", "a.raw"):
        (tmp_path / "in" / name).symlink_to(store.with_name(name))
    path = tmp_path / "in" / "a.mhd"

    np.testing.assert_array_equal(Volume.read(path).voxels, VOXELS)
    assert data_files(path) == (tmp_path / "in" / "a.raw",)


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_voxels_beside_a_header_are_part_of_its_contents(
    tmp_path: Path, suffix: str
) -> None:
    path = _mhd(tmp_path, "voxels.raw").rename(tmp_path / f"a{suffix}")
    (tmp_path / "voxels.raw").write_bytes(RAW)

    assert data_files(path) == (tmp_path / "voxels.raw",)
    np.testing.assert_array_equal(Volume.read(path).voxels, VOXELS)


def test_pipe_is_no_file_of_voxels(tmp_path: Path) -> None:
    import os

    path = _mhd(tmp_path, "a.raw")
    os.mkfifo(tmp_path / "a.raw")

    with pytest.raises(UnreadableError, match="are not there"):
        Volume.read(path)


HOSTILE = ("-3", "0", "99999999999999999999", "1e9", "nan", "", "3 3 3 3", "\x00", "%s")


def _mutated(rng: random.Random, packed: bool) -> tuple[bytes, bool]:
    """Return a damaged file, and whether its voxels may still be read in another form.

    Values of tags are swapped for hostile ones, bytes are flipped, cut out or put in.
    """
    tags: dict[str, str | None] = dict(HEADER)
    payload = zlib.compress(RAW, rng.choice([0, 1, 9])) if packed else RAW
    if packed:
        tags |= {"CompressedData": "True", "CompressedDataSize": str(len(payload))}
    free = False
    for _ in range(rng.randint(1, 3)):
        name = rng.choice([*tags])
        if rng.random() < 0.5:
            tags[name] = rng.choice([*HOSTILE, str(rng.randint(-9, 9)), None])
            free |= name in ("ElementType", "BinaryDataByteOrderMSB")
        elif rng.random() < 0.5 and name == "DimSize":
            tags[name] = " ".join(str(rng.randint(1, 6)) for _ in range(3))
    content = bytearray(_text(**tags) + payload)
    start = len(content) - len(payload)
    if rng.random() < 0.6:
        at = rng.randrange(len(content))
        kind = rng.choice(["flip", "cut", "put", "end"])
        if kind == "flip":
            content[at] = rng.randrange(256)
        elif kind == "cut":
            del content[at : at + rng.randint(1, 40)]
        elif kind == "put":
            content[at:at] = rng.randbytes(rng.randint(1, 40))
        else:
            del content[at:]
        # Nothing tells one voxel from another where there is no checksum.
        free |= at < start or (kind == "flip" and not packed)
    return bytes(content), free


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_damage_is_refused_or_harmless(tmp_path: Path, packed: bool) -> None:
    rng = random.Random(f"metaimage {packed}")  # noqa: S311
    path = tmp_path / "a.mha"
    outcomes = {"read": 0, "refused": 0}
    started = time.monotonic()
    for _ in range(1500):
        content, free = _mutated(rng, packed)
        path.write_bytes(content)
        try:
            read = Volume.read(path)
        except InputError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        same = read.voxels.tobytes("F") == RAW
        assert same or free, content
    assert time.monotonic() - started < 60
    assert min(outcomes.values()) > 50, outcomes


def test_whole_run_survives_what_ended_it(tmp_path: Path) -> None:
    """The headers that killed or hung ITK's reader are failed cases among others."""
    from engines.scans import find_scans, read_case

    scan = phantoms.volume()
    phantoms.write_itk(tmp_path / "z.mha", scan)
    for number, dims in enumerate(("-3", "123456789", "2147483647", "1000000")):
        (tmp_path / f"bad{number}.mha").write_bytes(_text(NDims=dims) + RAW)

    found = find_scans([tmp_path])
    *bad, good = found
    for one in bad:
        with pytest.raises(UnreadableError, match="NDims"):
            read_case(one)
    np.testing.assert_array_equal(read_case(good)[0].voxels, scan.voxels)
