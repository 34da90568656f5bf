"""Small anisotropic phantoms, in memory and as files; no axis is like another."""

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from engines.geometry import Grid
from engines.volume import Volume

SHAPE = (7, 6, 5)
SPACING_MM = (0.7, 1.1, 2.5)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

ORIENTATIONS = [
    "".join(codes)
    for pairs in permutations(("LR", "PA", "IS"))
    for codes in product(*pairs)
]
"""The 48 ways in which three axes can run."""


def affine(
    axes: str = "RAS",
    spacing_mm: Sequence[float] = SPACING_MM,
    turned_deg: Sequence[float] = (0.0, 0.0, 0.0),
    origin_mm: Sequence[float] = (-31.5, 12.25, 640.0),
) -> NDArray[np.float64]:
    """Return the affine of voxels along ``axes``, turned about the world's axes."""
    made = np.diag([0.0, 0.0, 0.0, 1.0])
    for column, (code, size_mm) in enumerate(zip(axes, spacing_mm, strict=True)):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        made[row, column] = size_mm if code in "RAS" else -size_mm
    made[:3, :3] = (
        Rotation.from_euler("xyz", turned_deg, degrees=True).as_matrix()
        @ (made[:3, :3])
    )
    made[:3, 3] = origin_mm
    return made


def volume(
    voxels: NDArray[Any] | None = None,
    axes: str = "RAS",
    spacing_mm: Sequence[float] = SPACING_MM,
    turned_deg: Sequence[float] = (0.0, 0.0, 0.0),
) -> Volume:
    """Return a volume; without ``voxels`` each has a value of its own."""
    if voxels is None:
        voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    i, j, k = voxels.shape
    return Volume(voxels, Grid((i, j, k), affine(axes, spacing_mm, turned_deg)))


def ct_values(shape: tuple[int, int, int] = (24, 20, 16)) -> NDArray[np.int16]:
    """Return a body in Hounsfield units along RAS: air, fat, muscle and a spine."""
    places = [np.linspace(-1, 1, n) for n in shape]
    x, y, _ = np.meshgrid(*places, indexing="ij")
    radius = np.hypot(x, y)
    values = np.full(shape, -1000, np.int16)
    values[radius < 0.95] = -100
    values[radius < 0.8] = 45
    values[spine(shape)] = 400
    noise = np.random.default_rng(0).integers(-12, 13, shape)
    return values + noise.astype(np.int16)


def spine(shape: tuple[int, int, int] = (24, 20, 16)) -> NDArray[np.bool_]:
    """Return where the bone of ``ct_values`` is: left of and behind the middle."""
    places = [np.linspace(-1, 1, n) for n in shape]
    x, y, _ = np.meshgrid(*places, indexing="ij")
    return np.hypot(x + 0.2, y + 0.4) < 0.25


def write_nifti(
    path: Path,
    scan: Volume,
    edit: Callable[[nib.Nifti1Header], None] = lambda header: None,
    codes: tuple[int, int] = (1, 1),
) -> Path:
    """Write ``scan`` with nibabel, after ``edit`` changed its header's bytes.

    Args:
        path: with the suffix ``.nii`` or ``.nii.gz``.
        scan: what to write.
        edit: may make the header say anything, however wrong.
        codes: of qform and sform.
    """
    image = nib.Nifti1Image(scan.voxels, scan.grid.affine, dtype=scan.voxels.dtype)
    image.set_qform(scan.grid.affine, codes[0])
    image.set_sform(scan.grid.affine, codes[1])
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header.from_fileobj(BytesIO(content), check=False)
    edit(header)
    content[: len(header.binaryblock)] = header.binaryblock
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = nib.openers.Opener(str(path), "wb")
    with opener as file:
        file.write(bytes(content))
    return path


def write_itk(path: Path, scan: Volume) -> Path:
    """Write ``scan`` as NRRD or MetaImage."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(scan.voxels.T))
    lps = LPS_TO_RAS @ scan.grid.affine
    image.SetSpacing(scan.grid.spacing_mm)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / scan.grid.spacing_mm).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_dicom(
    folder: Path,
    scan: Volume,
    *,
    slope: float = 1.0,
    intercept: float = -1024.0,
    stored: str = "uint16",
    edit: Callable[[int, Dataset], None] = lambda number, dataset: None,
    uid: str = "1.2.826.0.1.3680043.8.498.1",
) -> list[Path]:
    """Write ``scan`` as one DICOM file per slice of its third axis.

    Rows of pixels run along the first axis. Names and instance numbers say nothing
    about the order; ``edit`` gets the number of a slice and its dataset.

    Returns:
        The files, in the order of the third axis.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS_TO_RAS @ scan.grid.affine
    spacing_mm = scan.grid.spacing_mm
    count = scan.grid.shape[2]
    shuffled = np.random.default_rng(1).permutation(count)
    paths = []
    for number in range(count):
        dataset = _dataset(uid, int(shuffled[number]))
        dataset.ImagePositionPatient = (lps @ [0, 0, number, 1])[:3].tolist()
        across, down = lps[:3, 0] / spacing_mm[0], lps[:3, 1] / spacing_mm[1]
        dataset.ImageOrientationPatient = [*across.tolist(), *down.tolist()]
        dataset.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        pixels = np.rint((scan.voxels[:, :, number].T - intercept) / slope)
        _set_pixels(dataset, pixels.astype(stored))
        edit(number, dataset)
        path = folder / f"IM{shuffled[number]:04d}.dcm"
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        paths.append(path)
    return paths


def _dataset(uid: str, number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[uid, str(number)])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName = "Secret^Person"
    dataset.PatientID = "4711"
    dataset.SeriesInstanceUID = uid
    dataset.SeriesNumber = 3
    dataset.InstanceNumber = number
    return dataset


def _set_pixels(dataset: Dataset, pixels: NDArray[Any]) -> None:
    bits = 8 * pixels.dtype.itemsize
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
