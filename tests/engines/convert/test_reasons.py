"""A series that is refused is refused for what is really wrong with it."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import HTJ2K, UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from engines.convert.assemble import assemble
from engines.convert.checks import findings_of
from engines.convert.findings import Repairs
from engines.errors import (
    DuplicateSliceError,
    GeometryError,
    SpineError,
    TiltError,
    UnevenSlicesError,
    UnreadableError,
    UnsupportedError,
)
from tests import dicom_phantoms as made
from tests.engines.convert import test_syntaxes as syntaxes

JPEG_XL = ("110", "111", "112")


def refusal(paths: Sequence[Path], kind: type[SpineError]) -> str:
    with pytest.raises(kind) as caught:
        assemble(made.stack_of(paths))
    assert type(caught.value) is kind
    return str(caught.value)


def refused(slices: Sequence[Dataset], folder: Path, kind: type[SpineError]) -> str:
    return refusal(made.write_slices(folder, slices), kind)


def in_bytes(paths: Sequence[Path], old: bytes, new: bytes) -> Sequence[Path]:
    for path in paths:
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))
    return paths


@pytest.mark.parametrize("double", [False, True])
def test_floating_point_pixels(tmp_path: Path, *, double: bool) -> None:
    slices = [made.slice_of(n) for n in range(4)]
    for dataset in slices:
        values = np.frombuffer(dataset.PixelData, np.uint16)
        del dataset.PixelData
        dataset.BitsAllocated = dataset.BitsStored = 64 if double else 32
        dataset.HighBit = dataset.BitsStored - 1
        if double:
            dataset.DoubleFloatPixelData = values.astype("<f8").tobytes()
        else:
            dataset.FloatPixelData = values.astype("<f4").tobytes()
    message = refused(slices, tmp_path, UnsupportedError)

    assert "0.dcm: floating-point pixels, which are not read" in message


def test_file_without_pixels(tmp_path: Path) -> None:
    slices = [made.slice_of(n, PixelData=None) for n in range(4)]

    assert "ends before its pixels" in refused(slices, tmp_path, UnreadableError)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"0.7\\0.7 ", b"0,7\\0,7 ", r"no PixelSpacing of 2 numbers ('0,7\\0,7')"),
        (b"0.7\\0.7 ", b"0.7     ", "no PixelSpacing of 2 numbers ('0.7')"),
        (
            b"-10.0\\-20.0\\",
            b"-10,0\\-20,0\\",
            r"no ImagePositionPatient of 3 numbers ('-10,0\\-20,0\\100.0')",
        ),
        (b"0.7\\0.7 ", b"Secret\\P", "no PixelSpacing of 2 numbers (other text)"),
    ],
)
def test_numbers_that_cannot_be_read(
    tmp_path: Path, old: bytes, new: bytes, told: str
) -> None:
    paths = made.write_slices(tmp_path, [made.slice_of(n) for n in range(4)])
    message = refusal(in_bytes(paths, old, new), GeometryError)

    assert f"0.dcm has {told}, nor have 3 others" in message


def test_number_that_is_missing(tmp_path: Path) -> None:
    slices = [made.slice_of(n, PixelSpacing=None) for n in range(4)]
    message = refused(slices, tmp_path, GeometryError)

    assert "0.dcm has no PixelSpacing, nor have 3 others" in message


def test_volume_in_one_file_that_does_not_place_its_frames(tmp_path: Path) -> None:
    content = b"".join(made.stored_of(n).tobytes() for n in range(12))
    whole = made.slice_of(0, NumberOfFrames=12, PixelData=content)
    message = refused([whole], tmp_path, GeometryError)

    assert "0.dcm holds 12 frames and does not say where each of them lies" in message


def test_frames_that_all_lie_at_one_place_are_a_time_series(tmp_path: Path) -> None:
    def one_place(dataset: Dataset) -> None:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0].ImagePositionPatient = [1, 2, 3]

    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()], edit=one_place)

    assert "a time series" in refusal([path], DuplicateSliceError)


@pytest.mark.parametrize("number", JPEG_XL)
def test_jpeg_xl(tmp_path: Path, number: str) -> None:
    paths = compressed(tmp_path, b"\xff\x0a" + bytes(60))
    named = f"1.2.840.10008.1.2.4.{number}".encode()
    in_bytes(paths, HTJ2K.encode(), named)

    assert "compressed as JPEG XL" in refusal(paths, UnsupportedError)


@pytest.mark.parametrize("start", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_jpeg_xl_that_no_header_names(tmp_path: Path, start: bytes) -> None:
    paths = compressed(tmp_path, start + bytes(60))
    in_bytes(paths, HTJ2K.encode(), b"1.2.840.10008.1.2.4.999")

    assert "compressed as JPEG XL" in refusal(paths, UnsupportedError)


def compressed(folder: Path, stream: bytes) -> list[Path]:
    slices = [made.slice_of(n, PixelData=encapsulate([stream])) for n in range(4)]
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = HTJ2K
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    return made.write_slices(folder, slices)


@pytest.mark.parametrize("odd", [0, 11])
def test_end_slice_off_by_half_a_step(tmp_path: Path, odd: int) -> None:
    by_mm = 1.25 if odd == 0 else -1.25
    slices = [
        made.slice_of(n, z_mm=100 + 2.5 * n + (by_mm if n == odd else 0))
        for n in range(12)
    ]
    message = refused(slices, tmp_path, UnevenSlicesError)

    assert message.endswith("slices are unevenly spaced, 1.25 and 2.50 mm apart")


@pytest.mark.parametrize(
    ("first", "count"), [(6, "6 slices are"), (11, "a slice is"), (3, "3 slices are")]
)
def test_shifted_origin_is_no_tilt(tmp_path: Path, first: int, count: str) -> None:
    slices = [
        made.slice_of(
            n, ImagePositionPatient=[-5 if n >= first else -10, -20, 100 + 2.5 * n]
        )
        for n in range(12)
    ]
    message = refused(slices, tmp_path, TiltError)

    assert message.endswith(f"{count} shifted sideways by 5.00 mm")


def test_tilt_with_a_shifted_slice_is_both(tmp_path: Path) -> None:
    slices = [
        made.slice_of(
            n,
            ImagePositionPatient=[
                -10,
                -20 + 2.5 * n * np.tan(np.radians(12)) + (3 if n == 4 else 0),
                100 + 2.5 * n,
            ],
        )
        for n in range(12)
    ]
    message = refused(slices, tmp_path, TiltError)

    assert "gantry tilt of 12.0 degrees; a slice is shifted sideways by 3.00" in message


def test_shifted_slices_are_put_back(tmp_path: Path) -> None:
    slices = [
        made.slice_of(
            n, ImagePositionPatient=[-10 + (1.4 if n > 5 else 0), -20, 100 + 2.5 * n]
        )
        for n in range(12)
    ]
    stack = made.stack_of(made.write_slices(tmp_path, slices))
    read = assemble(stack, Repairs(fix_tilt=True))

    np.testing.assert_array_equal(read.voxels[:16, :, :6], made.hu_of()[:, :, :6])
    np.testing.assert_array_equal(read.voxels[2:, :, 6:], made.hu_of()[:, :, 6:])


@pytest.mark.parametrize("step", [0.009, 0.0005])
def test_micro_ct_is_read(tmp_path: Path, step: float) -> None:
    values = {"PixelSpacing": [step, step], "SliceThickness": str(step)}
    slices = [
        made.slice_of(n, z_mm=round(10 + step * n, 6), **values) for n in range(12)
    ]
    read = assemble(made.stack_of(made.write_slices(tmp_path, slices)))

    np.testing.assert_array_equal(read.voxels, made.hu_of())
    assert read.grid.spacing_mm == pytest.approx((step, step, step), rel=1e-3)


def test_missing_slice_of_micro_ct_is_told_in_its_size(tmp_path: Path) -> None:
    values = {"PixelSpacing": [0.009, 0.009], "SliceThickness": "0.009"}
    slices = [made.slice_of(n, z_mm=10 + 0.009 * n, **values) for n in range(12)]
    del slices[4]
    (stack,) = made.stacks_in(slices)
    (gap,) = [one for one in findings_of(stack) if one.fatal]

    assert gap.code == "series_gap"
    assert "the widest 0.018 mm where 0.009 mm was expected" in gap.message


def in_two_fragments(path: Path) -> None:
    """Store the pixels in two fragments, each with a place in the table."""
    dataset = pydicom.dcmread(path)
    _, stream = generate_fragments(dataset.PixelData)
    half = len(stream) // 4 * 2
    parts = [stream[:half], stream[half:]]
    table = struct.pack("<II", 0, 8 + half)
    dataset.PixelData = b"".join(
        b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
        for item in (table, *parts)
    )
    dataset["PixelData"].is_undefined_length = True
    pydicom.dcmwrite(path, dataset)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name
)
def test_table_that_lists_fragments_in_place_of_images(
    tmp_path: Path, syntax: UID
) -> None:
    paths = syntaxes.written(tmp_path, syntax, syntaxes.crop(), "uint16")
    whole = assemble(made.stack_of(paths)).voxels
    for path in paths:
        in_two_fragments(path)

    np.testing.assert_array_equal(assemble(made.stack_of(paths)).voxels, whole)


def test_two_images_where_the_header_tells_of_one(tmp_path: Path) -> None:
    paths = syntaxes.written(tmp_path, RLELossless, syntaxes.crop(), "uint16")
    for path in paths:
        dataset = pydicom.dcmread(path)
        _, stream = generate_fragments(dataset.PixelData)
        dataset.PixelData = encapsulate([stream, stream])
        pydicom.dcmwrite(path, dataset)
    message = refusal(paths, UnreadableError)

    assert "damaged pixels: 2 images where the header tells of one" in message


def test_table_that_does_not_fit_several_images(tmp_path: Path) -> None:
    frames = [made.ct()]
    path = made.write_enhanced(tmp_path / "x.dcm", frames)
    made.rewrite(path, RLELossless)
    dataset = pydicom.dcmread(path)
    streams = list(generate_fragments(dataset.PixelData))[1:]
    dataset.PixelData = encapsulate([*streams, streams[0]])
    pydicom.dcmwrite(path, dataset)
    message = refusal([path], UnreadableError)

    assert "damaged pixels: a table of 6 places for 5 images" in message
