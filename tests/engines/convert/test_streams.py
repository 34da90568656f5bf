"""Streams that a decoder might stumble over are refused before it gets them."""

from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.uid import UID, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from engines.convert import streams
from tests.engines.convert import test_syntaxes as syntaxes

ROWS, COLUMNS = syntaxes.SHAPE[1::-1]


def stream_of(folder: Path, syntax: UID) -> bytes:
    path = syntaxes.written(folder, syntax, syntaxes.crop(), "uint16")[0]
    dataset = pydicom.dcmread(path)
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def check(stream: bytes, rows: int = ROWS, columns: int = COLUMNS) -> None:
    streams.check_jpeg(stream, (rows, columns), 1, 16)


def changed(stream: bytes, at: int, value: int) -> bytes:
    return stream[:at] + bytes([value]) + stream[at + 1 :]


@pytest.fixture(
    params=[JPEGLossless, JPEGLosslessSV1, JPEGLSLossless], ids=syntaxes.keyword_of
)
def jpeg(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    return stream_of(tmp_path, request.param)


def frame_at(stream: bytes) -> int:
    """Return where the precision of the frame is."""
    starts = [stream.find(bytes([0xFF, marker])) for marker in (0xC3, 0xF7)]
    return min(start for start in starts if start >= 0) + 4


def test_a_sound_stream_passes(jpeg: bytes) -> None:
    check(jpeg)
    check(jpeg + b"\0\0")


@pytest.mark.parametrize("bits", [0, 1, 17, 198])
def test_more_bits_than_the_header_has_room_for_are_refused(
    jpeg: bytes, bits: int
) -> None:
    with pytest.raises(ValueError, match=f"pixels with {bits} bits"):
        check(changed(jpeg, frame_at(jpeg), bits))


def test_another_size_than_the_header_tells_is_refused(jpeg: bytes) -> None:
    with pytest.raises(ValueError, match=f"frame of {ROWS} x {COLUMNS} pixels"):
        check(jpeg, ROWS + 1)
    with pytest.raises(ValueError, match=f"frame of {ROWS} x {COLUMNS} pixels"):
        check(jpeg, ROWS, COLUMNS - 1)


def test_a_stream_without_its_end_is_refused(jpeg: bytes) -> None:
    with pytest.raises(ValueError, match="without beginning or end"):
        check(jpeg[: len(jpeg) // 2])
    with pytest.raises(ValueError, match="without beginning or end"):
        check(jpeg[2:])


def test_a_segment_longer_than_its_stream_is_refused(jpeg: bytes) -> None:
    with pytest.raises(ValueError, match="longer than its stream"):
        check(changed(jpeg, frame_at(jpeg) - 2, 0xFF))


def test_a_second_frame_is_refused(jpeg: bytes) -> None:
    start = frame_at(jpeg) - 4
    length = int.from_bytes(jpeg[start + 2 : start + 4], "big") + 2
    twice = jpeg[:start] + jpeg[start : start + length] * 2 + jpeg[start + length :]
    with pytest.raises(ValueError, match="or a second one"):
        check(twice)


def test_a_scan_that_names_no_table_is_refused(tmp_path: Path) -> None:
    jpeg = stream_of(tmp_path, JPEGLosslessSV1)
    scan = jpeg.find(b"\xff\xda")
    with pytest.raises(ValueError, match="tables which are not there"):
        check(changed(jpeg, scan + 6, 0x30))


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    jpeg = stream_of(tmp_path, JPEGLosslessSV1)
    table = jpeg.find(b"\xff\xc4")
    with pytest.raises(ValueError, match="damaged table"):
        check(changed(jpeg, table + 5, 0xFF))


def test_rle_unpacks_to_its_pixels(tmp_path: Path) -> None:
    stream = stream_of(tmp_path, RLELossless)
    streams.check_rle(stream, ROWS * COLUMNS)
    with pytest.raises(ValueError, match=f"{ROWS * COLUMNS} bytes where"):
        streams.check_rle(stream, ROWS * COLUMNS + 9)


@pytest.mark.parametrize("head", [b"", b"\0" * 64, b"\xff" * 64])
def test_rle_without_a_header_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="without a header"):
        streams.check_rle(head, 4)


@pytest.mark.parametrize(
    ("packed", "count"),
    [
        (bytes([2, 7, 8, 9]), 3),
        (bytes([254, 7]), 3),
        (bytes([128, 0, 7]), 1),
        (bytes([1, 7, 8, 255, 9]), 4),
    ],
)
def test_packed_bits_are_counted(packed: bytes, count: int) -> None:
    head = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    streams.check_rle(head + packed, count)
    with pytest.raises(ValueError, match=f"of {count} bytes"):
        streams.check_rle(head + packed, count + 1)
