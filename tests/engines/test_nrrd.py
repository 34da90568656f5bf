"""NRRD is read as ITK reads what is sound; what is damaged is refused."""

import bz2
import gzip
import random
import time
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
from engines.scans import find_scans, read_case
from engines.volume import Volume, data_files
from tests import phantoms

SHAPE = (5, 4, 3)
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
DTYPES += ("float32", "float64")
FIELDS = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "5 4 3",
    "space directions": "(0.5,0,0) (0,1,0) (0,0,2)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(1,2,3)",
}
VOXELS = np.random.default_rng(0).integers(-900, 900, SHAPE, np.int16)
RAW = VOXELS.tobytes("F")


def _text(**changed: str | None) -> bytes:
    told = {key.replace("_", " "): value for key, value in changed.items()}
    fields = {key: value for key, value in (FIELDS | told).items() if value}
    lines = [f"{key}: {value}\n" for key, value in fields.items()]
    return "".join(["NRRD0005\n# a comment\n", *lines, "\n"]).encode()


def _nrrd(folder: Path, payload: bytes = RAW, **changed: str | None) -> Path:
    path = folder / "a.nrrd"
    path.write_bytes(_text(**changed) + payload)
    return path


def _same_as_itk(path: Path) -> None:
    image = sitk.ReadImage(str(path))
    read = Volume.read(path)
    held = sitk.GetArrayFromImage(image).T

    assert read.voxels.dtype == held.dtype
    np.testing.assert_array_equal(read.voxels, held)
    for corner in [(0, 0, 0), (4, 0, 0), (0, 3, 0), (1, 2, 2)]:
        lps = image.TransformIndexToPhysicalPoint(corner)
        ras = (read.grid.affine @ [*corner, 1])[:3]
        np.testing.assert_allclose(ras, np.array(lps) * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
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


@pytest.mark.parametrize(
    "changed",
    [
        {"space": "right-anterior-superior"},
        {"space": "RAS"},
        {"space": "left-anterior-superior"},
        {"space": "LPS", "type": "signed short int"},
        {"type": "int16_t"},
        {"space_origin": None},
        {"kinds": None},
        {"centerings": "cell cell cell", "a key:=with: a value": ""},
    ],
)
def test_spellings_that_itk_knows(tmp_path: Path, changed: dict[str, Any]) -> None:
    _same_as_itk(_nrrd(tmp_path, **changed))


def test_big_endian(tmp_path: Path) -> None:
    _same_as_itk(_nrrd(tmp_path, VOXELS.astype(">i2").tobytes("F"), endian="big"))


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gz", gzip.compress), ("bzip2", bz2.compress)]
)
def test_encodings(tmp_path: Path, encoding: str, pack: Any) -> None:
    path = _nrrd(tmp_path, pack(RAW[:50]) + pack(RAW[50:]), encoding=encoding)

    np.testing.assert_array_equal(Volume.read(path).voxels, VOXELS)


def test_lines_and_bytes_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"one line\nanother\n#####" + RAW)
    for skip in ({"line_skip": "2", "byte_skip": "5"}, {"byte_skip": "-1"}):
        path = tmp_path / "a.nhdr"
        path.write_bytes(_text(data_file="a.raw", **skip))

        np.testing.assert_array_equal(Volume.read(path).voxels, VOXELS)


def test_layer_of_a_segmentation_is_no_axis(tmp_path: Path) -> None:
    path = _nrrd(
        tmp_path,
        dimension="4",
        sizes="1 5 4 3",
        kinds="list domain domain domain",
        space_directions="none (0.5,0,0) (0,1,0) (0,0,2)",
    )

    np.testing.assert_array_equal(Volume.read(path).voxels, VOXELS)


def test_missing_origin_is_noted(tmp_path: Path) -> None:
    (note,) = Volume.read(_nrrd(tmp_path, space_origin=None)).notes

    assert note.code == "assumed"
    assert "space origin" in note.message


LAYERS = {
    "dimension": "4",
    "sizes": "2 5 4 3",
    "kinds": "list domain domain domain",
    "space_directions": "none (1,0,0) (0,1,0) (0,0,1)",
}


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"dimension": "-3"}, UnreadableError, "dimension"),
        ({"dimension": "99999999"}, UnreadableError, "dimension"),
        ({"dimension": "4"}, UnreadableError, "sizes is '5 4 3' for 4 axes"),
        ({"sizes": "5 4"}, UnreadableError, "sizes"),
        ({"sizes": "5 -4 3"}, UnreadableError, "sizes"),
        ({"sizes": "5 4 2"}, UnreadableError, "120 bytes .* describes 80"),
        ({"sizes": "5 4 4"}, UnreadableError, "truncated, 120 of 160"),
        ({"sizes": "999999999 999999999 999999999"}, UnreadableError, "120 of 1999"),
        ({"type": "block"}, UnreadableError, "type is 'block'"),
        ({"type": "float"}, UnreadableError, "truncated, 120 of 240"),
        ({"endian": None}, UnreadableError, "endian"),
        ({"encoding": "ascii"}, UnsupportedError, "as text"),
        ({"encoding": "spam"}, UnreadableError, "encoding"),
        ({"space": None}, GeometryError, "does not say how the patient lies"),
        ({"space": "scanner-xyz"}, GeometryError, "scanner-xyz"),
        ({"space_directions": None}, GeometryError, "how the patient lies"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, UnreadableError, "directions"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0)"}, UnreadableError, "direction"),
        ({"space_directions": "(1,0,0) (0,1,0) none"}, UnsupportedError, "2 axes"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, GeometryError, "sheared"),
        ({"space_origin": "(1,2)"}, UnreadableError, "direction"),
        ({"space_origin": "(1,2,nan)"}, UnreadableError, "direction"),
        ({"kinds": "RGB-color domain domain"}, UnsupportedError, "colour or vector"),
        ({"kinds": "complex domain domain"}, UnsupportedError, "complex"),
        (LAYERS, UnsupportedError, "4-D with 2 frames"),
        ({"data_file": "LIST 1"}, UnsupportedError, "list of files"),
        ({"data_file": "a%03d.raw 1 9 1"}, UnsupportedError, "list of files"),
        ({"data_file": "/etc/passwd"}, UnsupportedError, "outside its folder"),
        ({"data_file": "../a.raw"}, UnsupportedError, "outside its folder"),
        ({"data_file": "none.raw"}, UnreadableError, "are not there"),
        ({"byte_skip": "4"}, UnreadableError, "truncated, 116 of 120"),
        ({"line_skip": "4"}, UnreadableError, "line skip|truncated"),
    ],
)
def test_bad_header_is_refused(
    tmp_path: Path, changed: dict[str, Any], error: type[SpineError], match: str
) -> None:
    with pytest.raises(error, match=match) as caught:
        Volume.read(_nrrd(tmp_path, **changed))
    assert "a.nrrd" in str(caught.value)
    assert caught.value.hint


def _broken(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        (_broken(gzip.compress(RAW, mtime=0), -6), "damaged"),
        (_broken(gzip.compress(RAW, mtime=0), 60), "damaged"),
        (gzip.compress(RAW, mtime=0)[:-30], "end too early"),
        (gzip.compress(RAW[:-2], mtime=0), "truncated, 118 of 120"),
        (gzip.compress(RAW + b"\0\0", mtime=0), "holds more bytes .* describes 120"),
        (gzip.compress(RAW, mtime=0) + b"junk", "damaged"),
        (b"", "truncated"),
    ],
)
def test_bad_compressed_voxels_are_refused(
    tmp_path: Path, payload: bytes, match: str
) -> None:
    with pytest.raises(UnreadableError, match=match):
        Volume.read(_nrrd(tmp_path, payload, encoding="gzip"))


def test_header_of_its_own_is_found_in_a_folder_with_its_voxels(
    tmp_path: Path,
) -> None:
    scan = phantoms.volume()
    phantoms.write_itk(tmp_path / "x.nhdr", scan)

    (found,) = find_scans([tmp_path])
    assert found.name == "x"
    (voxels,) = data_files(tmp_path / "x.nhdr")
    assert voxels.name in ("x.raw", "x.raw.gz")
    assert found.files == (tmp_path / "x.nhdr", voxels)
    np.testing.assert_array_equal(read_case(found)[0].voxels, scan.voxels)


HOSTILE = ("-3", "0", "99999999999999999999", "1e9", "nan", "", "3 3 3 3", "\x00", "(")


def _mutated(rng: random.Random, packed: bool) -> tuple[bytes, bool]:
    """Return a damaged file, and whether its voxels may still be read in another form.

    Values of fields are swapped for hostile ones, bytes are flipped, cut out or put in.
    """
    fields: dict[str, str | None] = dict(FIELDS)
    payload = gzip.compress(RAW, mtime=0) if packed else RAW
    fields["encoding"] = "gzip" if packed else "raw"
    free = False
    for _ in range(rng.randint(1, 3)):
        name = rng.choice([*fields])
        if rng.random() < 0.5:
            fields[name] = rng.choice([*HOSTILE, str(rng.randint(-9, 9)), None])
            free |= name in ("type", "endian")
        elif rng.random() < 0.5 and name == "sizes":
            fields[name] = " ".join(str(rng.randint(1, 6)) for _ in range(3))
    content = bytearray(_text(**fields) + payload)
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
    rng = random.Random(f"nrrd {packed}")  # noqa: S311
    path = tmp_path / "a.nrrd"
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
