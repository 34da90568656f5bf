"""Every transfer syntax gives the voxels that plain files give, named or not."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from engines.convert import decode
from engines.convert.assemble import Assembled, assemble
from engines.convert.frames import Frame
from engines.convert.headers import FrameReader, quiet
from engines.errors import MissingDecoderError, UnreadableError, UnsupportedError
from engines.geometry import Grid
from engines.scans import survey
from engines.volume import Volume
from tests import phantoms

gdcm = pytest.importorskip("gdcm")
pytest.importorskip("openjpeg")

CT = Path(__file__).parents[2] / "data" / "tptbox_ct.nii.gz"
CORNER, SHAPE = (16, 6, 30), (40, 34, 5)

GDCM_NAMES = {
    JPEGLossless: "JPEGLosslessProcess14",
    JPEGLosslessSV1: "JPEGLosslessProcess14_1",
    JPEGLSLossless: "JPEGLSLossless",
    JPEGLSNearLossless: "JPEGLSNearLossless",
}
PYDICOM_OPTIONS = {RLELossless: {}, JPEG2000Lossless: {}, JPEG2000: {"j2k_psnr": [80]}}
NEAR_LOSSLESS = 2
JPEG_QUALITY = 95

LOSSLESS = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)
GUESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)
PLACED = (
    "693_J2KI.dcm",
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "examples_overlay.dcm",
)
UNPLACED = (
    "ExplVR_BigEnd.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_jpeg_no_color_transform_2.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+n2.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm",
    "SC_rgb_jpeg_dcmd.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jpeg_lossy_gdcm.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_rle_16bit.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_32bit.dcm",
    "SC_rgb_rle_32bit_2frame.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "examples_jpeg2k.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
    "image_dfl.dcm",
)
IDENTIFIERS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
)


def keyword_of(syntax: UID) -> str:
    return syntax.keyword


def crop() -> Volume:
    whole = Volume.read(CT)
    window = tuple(slice(low, low + n) for low, n in zip(CORNER, SHAPE, strict=True))
    affine = whole.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ CORNER
    return Volume(whole.voxels[window].astype(np.int16), Grid(SHAPE, affine))


def grey_levels() -> Volume:
    scan = crop()
    return scan.with_voxels((np.clip(scan.voxels, -500, 520) + 500) // 4)


def encode(path: Path, syntax: UID) -> None:
    """Write a plain file again, in another transfer syntax."""
    dataset = pydicom.dcmread(path)
    if syntax in GDCM_NAMES:
        put_encoded(dataset, encoded_with_gdcm(path, syntax), syntax)
    elif syntax in PYDICOM_OPTIONS:
        options = PYDICOM_OPTIONS[syntax]
        dataset.compress(syntax, generate_instance_uid=False, **options)
    elif syntax == JPEGBaseline8Bit:
        put_encoded(dataset, encoded_with_pillow(dataset.pixel_array), syntax)
    else:
        if syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
            words = np.frombuffer(dataset.PixelData, "<u2")
            dataset.PixelData = words.astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
    content = BytesIO()
    pydicom.dcmwrite(content, plain_copy(dataset), enforce_file_format=True)
    path.write_bytes(content.getvalue())


def plain_copy(dataset: Dataset) -> Dataset:
    """Return a dataset that may be written in another byte order."""
    copied = Dataset()
    copied.file_meta = dataset.file_meta
    for element in dataset:
        copied.add(element)
    return copied


def put_encoded(dataset: Dataset, content: bytes, syntax: UID) -> None:
    dataset.PixelData = encapsulate([content])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


def encoded_with_pillow(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def encoded_with_gdcm(path: Path, syntax: UID) -> bytes:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    kind = getattr(gdcm.TransferSyntax, GDCM_NAMES[syntax])
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    codec = gdcm.JPEGLSCodec()
    if syntax == JPEGLSNearLossless:
        codec.SetLossless(False)
        codec.SetLossyError(NEAR_LOSSLESS)
        change.SetUserCodec(codec)
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    beside = path.with_suffix(".gdcm")
    writer.SetFileName(str(beside))
    assert writer.Write()
    content = pydicom.dcmread(beside).PixelData
    beside.unlink()
    return next(pydicom.encaps.generate_frames(content, number_of_frames=1))


def written(folder: Path, syntax: UID, scan: Volume, stored: str) -> list[Path]:
    intercept = 0.0 if stored in ("uint8", "int16") else -1024.0
    paths = phantoms.write_dicom(folder, scan, stored=stored, intercept=intercept)
    for path in paths:
        encode(path, syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    return paths


def converted(folder: Path) -> Assembled:
    found = survey([folder], images=False).found
    assert [one.problem for one in found] == [None]
    assert found[0].stack is not None
    return assemble(found[0].stack)


def expect_place(made: Assembled, scan: Volume) -> NDArray[np.int16]:
    """Return the voxels of ``scan`` in the order of slices of ``made``."""
    backward = made.grid.affine[:3, 2] @ scan.grid.affine[:3, 2] < 0
    affine = scan.grid.affine.copy()
    if backward:
        affine[:3, 3] += affine[:3, 2] * (SHAPE[2] - 1)
        affine[:3, 2] *= -1
    np.testing.assert_allclose(made.grid.affine, affine, atol=1e-4)
    return scan.voxels[:, :, ::-1] if backward else scan.voxels


@pytest.mark.parametrize("stored", ["uint16", "int16"])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=keyword_of)
def test_lossless_syntax_keeps_every_voxel(
    tmp_path: Path, syntax: UID, stored: str
) -> None:
    written(tmp_path, syntax, crop(), stored)
    made = converted(tmp_path)

    assert made.voxels.dtype == np.int16
    np.testing.assert_array_equal(made.voxels, expect_place(made, crop()))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=keyword_of)
def test_lossless_syntax_keeps_twelve_bits_that_are_stored(
    tmp_path: Path, syntax: UID
) -> None:
    def twelve_bits(_: int, dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 11

    for path in phantoms.write_dicom(tmp_path, crop(), edit=twelve_bits):
        encode(path, syntax)
    made = converted(tmp_path)

    np.testing.assert_array_equal(made.voxels, expect_place(made, crop()))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=keyword_of)
def test_lossless_syntax_keeps_bytes(tmp_path: Path, syntax: UID) -> None:
    written(tmp_path, syntax, grey_levels(), "uint8")
    made = converted(tmp_path)

    assert made.voxels.dtype == np.uint8
    np.testing.assert_array_equal(made.voxels, expect_place(made, grey_levels()))


@pytest.mark.parametrize(
    ("syntax", "scan", "stored", "bound"),
    [
        (JPEGLSNearLossless, crop, "uint16", NEAR_LOSSLESS),
        (JPEGLSNearLossless, crop, "int16", NEAR_LOSSLESS),
        (JPEG2000, crop, "uint16", 40),
        (JPEG2000, crop, "int16", 40),
        (JPEGBaseline8Bit, grey_levels, "uint8", 12),
    ],
)
def test_lossy_syntax_stays_near(
    tmp_path: Path, syntax: UID, scan: Callable[[], Volume], stored: str, bound: int
) -> None:
    written(tmp_path, syntax, scan(), stored)
    made = converted(tmp_path)
    off = made.voxels.astype(int) - expect_place(made, scan())

    assert 0 < np.abs(off).max() <= bound
    assert abs(off.mean()) <= bound / 8


def without_names(path: Path, *, meta: bool) -> Path:
    """Write a file again without UIDs and, perhaps, without what comes before it."""
    dataset = pydicom.dcmread(path)
    implicit, little = dataset.original_encoding
    for keyword in IDENTIFIERS:
        if keyword in dataset:
            delattr(dataset, keyword)
    if meta:
        del dataset.file_meta.TransferSyntaxUID
        del dataset.file_meta.MediaStorageSOPClassUID
        del dataset.file_meta.MediaStorageSOPInstanceUID
    else:
        del dataset.file_meta
        dataset.preamble = None
    bare = path.with_suffix("")
    path.unlink()
    pydicom.dcmwrite(bare, dataset, implicit_vr=implicit, little_endian=little)
    assert bare.read_bytes()[128:132] == (
        b"DICM" if meta else bare.read_bytes()[128:132]
    )
    return bare


@pytest.mark.parametrize("meta", [True, False], ids=["meta", "bare"])
@pytest.mark.parametrize("syntax", GUESSED, ids=keyword_of)
def test_file_that_names_nothing_is_told_by_its_pixels(
    tmp_path: Path, syntax: UID, meta: bool
) -> None:
    for path in written(tmp_path, syntax, crop(), "uint16"):
        without_names(path, meta=meta)
    made = converted(tmp_path)

    np.testing.assert_array_equal(made.voxels, expect_place(made, crop()))


def with_syntax(content: bytes, named: UID) -> bytes:
    """Return a file that names another transfer syntax and is else the same."""
    meta = pydicom.dcmread(BytesIO(content), stop_before_pixels=True).file_meta
    old, new = BytesIO(), BytesIO()
    pydicom.filewriter.write_file_meta_info(old, meta)
    meta.TransferSyntaxUID = named
    pydicom.filewriter.write_file_meta_info(new, meta)
    rest = content[132 + len(old.getvalue()) :]
    return content[:132] + new.getvalue() + rest


@pytest.mark.parametrize("named", [ExplicitVRLittleEndian, JPEG2000Lossless])
@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLossless, JPEGLSLossless], ids=keyword_of
)
def test_wrong_name_of_compressed_pixels_never_gives_other_voxels(
    tmp_path: Path, syntax: UID, named: UID
) -> None:
    for path in written(tmp_path, syntax, crop(), "uint16"):
        path.write_bytes(with_syntax(path.read_bytes(), named))
    if named == ExplicitVRLittleEndian:
        made = converted(tmp_path)
        np.testing.assert_array_equal(made.voxels, expect_place(made, crop()))
    else:
        with pytest.raises(UnreadableError, match="damaged pixels"):
            converted(tmp_path)


def frames_of(path: Path) -> list[Frame]:
    found = FrameReader().read(path)
    assert isinstance(found, list)
    return found


def placed(name: str, folder: Path) -> Path:
    """Return a copy of a shipped file that says where it lies, as scans do."""
    dataset = pydicom.dcmread(get_testdata_file(name))
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.save_as(folder / name)
    return folder / name


def expect_pixels(path: Path, original: Path) -> None:
    frames = frames_of(path)
    with quiet():
        made = np.stack([image for _, image in decode.stored(frames)])
        pixels = pydicom.dcmread(original).pixel_array
    expected = pixels if len(frames) > 1 else pixels[None]
    assert made.dtype.kind == expected.dtype.kind
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", PLACED)
def test_shipped_scan_gives_the_pixels_that_pydicom_gives(name: str) -> None:
    path = Path(get_testdata_file(name))

    expect_pixels(path, path)


@pytest.mark.parametrize("name", UNPLACED)
def test_shipped_picture_gives_the_pixels_that_pydicom_gives(
    tmp_path: Path, name: str
) -> None:
    expect_pixels(placed(name, tmp_path), Path(get_testdata_file(name)))


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_twelve_bits_of_lossy_jpeg_are_called_what_they_are(
    tmp_path: Path, name: str
) -> None:
    frames = frames_of(placed(name, tmp_path))

    with quiet(), pytest.raises(UnsupportedError, match="JPEG Extended"):
        list(decode.stored(frames))


def test_truncated_shipped_scan_is_unreadable() -> None:
    frames = frames_of(Path(get_testdata_file("MR_truncated.dcm")))

    with pytest.raises(UnreadableError, match="8130 of 8192 bytes"):
        list(decode.stored(frames))


@pytest.mark.parametrize(
    "syntax",
    [
        RLELossless,
        JPEGBaseline8Bit,
        JPEGLossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEGLSNearLossless,
        JPEG2000Lossless,
        JPEG2000,
    ],
    ids=keyword_of,
)
def test_missing_decoder_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
) -> None:
    stored = "uint8" if syntax == JPEGBaseline8Bit else "uint16"
    scan = grey_levels() if stored == "uint8" else crop()
    written(tmp_path, syntax, scan, stored)
    monkeypatch.setattr(get_decoder(syntax), "_available", {})

    with pytest.raises(MissingDecoderError) as caught:
        converted(tmp_path)
    assert syntax.name in str(caught.value)
    assert "pip install pylibjpeg pylibjpeg-openjpeg python-gdcm" in caught.value.hint


def test_missing_decoder_is_named_for_pixels_that_name_no_syntax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in written(tmp_path, JPEGLSLossless, crop(), "uint16"):
        without_names(path, meta=False)
    monkeypatch.setattr(get_decoder(JPEGLSLossless), "_available", {})

    with pytest.raises(MissingDecoderError, match="JPEG-LS Lossless"):
        converted(tmp_path)


def test_slices_of_one_series_may_be_compressed_each_in_its_way(tmp_path: Path) -> None:
    paths = written(tmp_path, ExplicitVRLittleEndian, crop(), "uint16")
    for path, syntax in zip(paths, LOSSLESS[4:], strict=True):
        encode(path, syntax)
    made = converted(tmp_path)

    np.testing.assert_array_equal(made.voxels, expect_place(made, crop()))


def test_pixels_of_another_size_than_the_header_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, JPEG2000Lossless, crop(), "uint16")[0]
    [frame] = frames_of(path)
    larger = replace(frame.pixels, shape=(35, 40))

    with quiet(), pytest.raises(UnreadableError):
        list(decode.stored([replace(frame, pixels=larger)]))
