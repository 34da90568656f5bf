"""Stored pixels come back as they were stored, however the file packs them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from engines.convert import decode
from engines.convert.assemble import read_series
from engines.convert.headers import quiet
from engines.errors import UnreadableError, UnsupportedError
from tests import dicom_phantoms as made
from tests import phantoms

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
]
PLAIN = SYNTAXES[:2]


def pixels_of(path: Path) -> NDArray[Any]:
    """Return the stored pixels of a file that holds one image."""
    with quiet():
        ((_, image),) = decode.stored(made.frames_of(path))
    return image


def slice_in(
    folder: Path, edit: made.Edit = made.as_is, stored: str = "uint16"
) -> tuple[Path, NDArray[np.int16]]:
    """Write a slice; return its file and the values that were scanned, as rows."""
    path = phantoms.write_dicom(folder, made.ct(), stored=stored, edit=edit)[0]
    return path, made.ct().voxels[:, :, 0].T


def as_stored(values: NDArray[Any]) -> Callable[[int, Dataset], None]:
    """Return an edit that puts values of any type into the pixels."""

    def edit(_: int, dataset: Dataset) -> None:
        dataset.PixelData = values.tobytes()
        dataset.Rows, dataset.Columns = values.shape
        bits = 8 * values.dtype.itemsize
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(values.dtype.kind == "i")

    return edit


@pytest.mark.parametrize(
    ("syntax", "dtype"),
    [
        (syntax, dtype)
        for syntax in SYNTAXES
        for dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32")
        if syntax != RLELossless or not dtype.endswith("32")
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_syntax_and_type_comes_back(
    tmp_path: Path, syntax: UID, dtype: str
) -> None:
    room = np.iinfo(dtype)
    values = np.linspace(room.min, room.max, 42).astype(dtype).reshape(6, 7)
    path, _ = slice_in(tmp_path, as_stored(values))
    made.rewrite(path, syntax)

    np.testing.assert_array_equal(pixels_of(path), values)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_only_uncompressed_little_endian_is_plain(tmp_path: Path, syntax: UID) -> None:
    path, _ = slice_in(tmp_path)
    (frame,) = made.frames_of(made.rewrite(path, syntax))

    assert decode.is_plain(frame) is (syntax in PLAIN)


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda uid: uid.name)
def test_plain_pixels_are_read_without_pydicom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
) -> None:
    path, values = slice_in(tmp_path)
    (frame,) = made.frames_of(made.rewrite(path, syntax))
    monkeypatch.delattr(pydicom, "dcmread")

    ((_, image),) = decode.stored([frame])
    np.testing.assert_array_equal(image.astype(int) - 1024, values)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("signed", [False, True])
def test_bits_of_an_overlay_above_the_stored_ones_are_cleared(
    tmp_path: Path, syntax: UID, *, signed: bool
) -> None:
    values = np.array([[0, 1, 2047, 2048, 4095, 77]], np.uint16)
    overlay = np.array([[0xF, 0, 0xA, 1, 8, 0xF]], np.uint16) << 12
    wanted = values.astype(np.int16)
    if signed:
        wanted[wanted > 2047] -= 4096

    def twelve_bits(_: int, dataset: Dataset) -> None:
        as_stored(values | overlay)(0, dataset)
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.PixelRepresentation = int(signed)
        dataset.add_new((0x6000, 0x0102), "US", 12)  # where the overlay lies

    path, _ = slice_in(tmp_path, twelve_bits)
    made.rewrite(path, syntax)

    np.testing.assert_array_equal(pixels_of(path), wanted)


def test_bits_at_the_upper_end_are_shifted_down(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2047, 4095]], np.uint16)

    def left(_: int, dataset: Dataset) -> None:
        as_stored(values << 4)(0, dataset)
        dataset.BitsStored, dataset.HighBit = 12, 15

    path, _ = slice_in(tmp_path, left)

    np.testing.assert_array_equal(pixels_of(path), values)


def test_inverted_grey_keeps_its_hounsfield_units(tmp_path: Path) -> None:
    inverted = made.having(PhotometricInterpretation="MONOCHROME1")
    paths = phantoms.write_dicom(tmp_path, made.ct(), edit=inverted)

    np.testing.assert_array_equal(read_series(paths).voxels, made.ct().voxels)


@pytest.mark.parametrize("syntax", [*PLAIN, ExplicitVRBigEndian], ids=lambda u: u.name)
def test_syntax_that_is_not_named_is_told_by_the_header(
    tmp_path: Path, syntax: UID
) -> None:
    paths = phantoms.write_dicom(tmp_path, made.ct())
    for path in paths:
        dataset = pydicom.dcmread(made.rewrite(path, syntax))
        body = Dataset(dict(dataset.items()))
        little = syntax.is_little_endian
        body.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=little)
        assert path.read_bytes()[128:132] != b"DICM"

    np.testing.assert_array_equal(read_series(paths).voxels, made.ct().voxels)


def misname(path: Path, wrong: str) -> None:
    """Let a file name another transfer syntax than it is in."""
    content = path.read_bytes()
    right = pydicom.dcmread(path).file_meta.TransferSyntaxUID.encode()
    places = b"\2\0\x10\0UI"
    start = content.index(places) + len(places)
    length = int.from_bytes(content[start : start + 2], "little")
    assert content[start + 2 :].startswith(right)
    padded = wrong.encode() + b"\0" * (len(wrong) % 2)
    told = len(padded).to_bytes(2, "little") + padded
    path.write_bytes(content[:start] + told + content[start + 2 + length :])
    assert made.frames_of(path)[0].pixels.syntax == wrong


@pytest.mark.parametrize(
    "wrong",
    ["", "1.2.840.10008.1.2.77", ImplicitVRLittleEndian, ExplicitVRLittleEndian],
)
def test_compressed_pixels_are_told_by_their_first_bytes(
    tmp_path: Path, wrong: str
) -> None:
    path, values = slice_in(tmp_path)
    misname(made.rewrite(path, RLELossless), wrong)

    np.testing.assert_array_equal(pixels_of(path).astype(int) - 1024, values)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (ExplicitVRLittleEndian, RLELossless),
        (ImplicitVRLittleEndian, RLELossless),
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, "1.2.840.10008.1.2.77"),
    ],
)
@pytest.mark.parametrize("rows", [6, 1800])
def test_uncompressed_pixels_under_a_wrong_name_are_read(
    tmp_path: Path, right: UID, wrong: str, rows: int
) -> None:
    values = np.arange(7 * rows, dtype=np.uint16).reshape(rows, 7)
    path, _ = slice_in(tmp_path, as_stored(values))
    misname(made.rewrite(path, right), wrong)

    np.testing.assert_array_equal(pixels_of(path), values)


def test_unknown_compression_is_refused(tmp_path: Path) -> None:
    path, _ = slice_in(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff" * 120])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    misname(path, "1.2.840.10008.1.2.77")

    with pytest.raises(
        UnsupportedError,
        match=r"IM\d+\.dcm: compressed in a way that neither the header nor the pixels",
    ):
        pixels_of(path)


def test_private_syntax_that_nothing_decodes_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"1\.3\.46\.670589\.33\.1\.4\.1, which"):
        decode.require_decoder("1.3.46.670589.33.1.4.1")


def test_every_syntax_of_scans_has_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gdcm", reason="the test extra brings the decoders")
    pytest.importorskip("openjpeg", reason="the test extra brings the decoders")

    assert decode.missing_decoders() == []
    decoder = pydicom.pixels.get_decoder(RLELossless)
    monkeypatch.setattr(decoder, "_available", {})
    assert decode.missing_decoders() == ["RLE Lossless"]


@pytest.mark.parametrize("type_name", ["uint16", "uint8"])
def test_modality_table_leads_to_real_values(tmp_path: Path, type_name: str) -> None:
    stored = (phantoms.volume().voxels[:, :, 0].T % 16).astype(type_name)
    table = [n * n - 50 + 50 for n in range(16)]

    def with_table(_: int, dataset: Dataset) -> None:
        as_stored(stored)(0, dataset)
        item = Dataset()
        item.LUTDescriptor, item.ModalityLUTType = [16, 0, 16], "HU"
        item.LUTData = table
        item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
        dataset.ModalityLUTSequence = [item]
        del dataset.RescaleSlope, dataset.RescaleIntercept

    path, _ = slice_in(tmp_path, with_table)

    np.testing.assert_array_equal(pixels_of(path), stored.astype(int) ** 2)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("lost", [20, 40, 80])
def test_truncated_pixels_are_unreadable(
    tmp_path: Path, syntax: UID, lost: int
) -> None:
    path, _ = slice_in(tmp_path)
    made.rewrite(path, syntax)
    path.write_bytes(path.read_bytes()[:-lost])

    with pytest.raises(
        UnreadableError, match=f"{path.name}: (truncated|not an intact)"
    ):
        read_series([path, *phantoms.write_dicom(tmp_path / "x", made.ct())[1:]])


def test_pixels_shorter_than_the_matrix_are_unreadable(tmp_path: Path) -> None:
    path, _ = slice_in(tmp_path, made.having(Rows=7))

    with pytest.raises(UnreadableError, match="truncated: 84 of 98 bytes of pixels"):
        pixels_of(path)


def test_more_pixels_than_the_header_tells_of_are_refused(tmp_path: Path) -> None:
    path, _ = slice_in(tmp_path, made.having(Rows=5))

    with pytest.raises(UnreadableError, match="14 bytes more of pixels"):
        pixels_of(path)


def test_padding_after_the_pixels_is_no_pixels(tmp_path: Path) -> None:
    def pad(_: int, dataset: Dataset) -> None:
        dataset.PixelData += bytes(20)

    path, values = slice_in(tmp_path, pad)

    np.testing.assert_array_equal(pixels_of(path).astype(int) - 1024, values)


def test_file_that_vanished_is_unreadable(tmp_path: Path) -> None:
    path, _ = slice_in(tmp_path)
    frames = made.frames_of(path)
    path.unlink()

    with pytest.raises(UnreadableError, match=r"IM\d+\.dcm: truncated or damaged"):
        list(decode.stored(frames))


@pytest.mark.parametrize(
    ("photometric", "samples", "told"),
    [
        ("PALETTE COLOR", 1, "PALETTE COLOR pixels with 1 sample"),
        ("RGB", 1, "RGB pixels with 1 sample"),
        ("MONOCHROME2", 3, "MONOCHROME2 pixels with 3 sample"),
        ("RGB", 4, "RGB pixels with 4 sample"),
    ],
)
def test_pictures_of_other_kinds_are_refused(
    tmp_path: Path, photometric: str, samples: int, told: str
) -> None:
    path, _ = slice_in(
        tmp_path,
        made.having(PhotometricInterpretation=photometric, SamplesPerPixel=samples),
    )

    with pytest.raises(UnsupportedError, match=told):
        pixels_of(path)


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_may_be_stored_plane_by_plane(tmp_path: Path, planar: int) -> None:
    path, _ = slice_in(tmp_path, made.as_colour)
    dataset = pydicom.dcmread(path)
    colours = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
    dataset.PlanarConfiguration = planar
    inner = colours.transpose(2, 0, 1) if planar else colours
    dataset.PixelData = inner.tobytes()
    dataset.save_as(path)

    np.testing.assert_array_equal(pixels_of(path), colours)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_frames_of_one_file_come_in_the_order_asked_for(
    tmp_path: Path, syntax: UID
) -> None:
    path = made.write_enhanced(tmp_path / "x.dcm", [made.ct()])
    in_order = pydicom.dcmread(path).pixel_array
    frames = made.frames_of(made.rewrite(path, syntax))
    asked = [4, 0, 0, 3]
    with quiet():
        images = [image for _, image in decode.stored([frames[n] for n in asked])]

    np.testing.assert_array_equal(images, in_order[asked])


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_tiles_of_a_mosaic_are_cut_out(tmp_path: Path, syntax: UID) -> None:
    scan = phantoms.volume(axes="LPS")
    path = made.write_mosaic(tmp_path / "x.dcm", scan)
    frames = made.frames_of(made.rewrite(path, syntax))
    with quiet():
        images = [image for _, image in decode.stored(frames)]

    np.testing.assert_array_equal(np.stack(images, axis=-1), scan.voxels.swapaxes(0, 1))
