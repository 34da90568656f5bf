"""dcm2niix gives the same voxels in the same places."""

import gzip
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from engines.convert.assemble import Assembled, assemble
from engines.convert.findings import Repairs
from engines.convert.series import series_in
from engines.geometry import Grid
from engines.volume import Volume
from tests import dicom_phantoms as made
from tests import phantoms

oracle = pytest.importorskip("dcm2niix", reason="the test extra brings dcm2niix")

DATA = Path(__file__).parents[2] / "data"
REAL = Path(nib.__file__).parent / "nicom" / "tests" / "data"
CROP = (slice(10, 58), slice(6, 62), slice(4, 40))
BODY_HU = -200


def real(
    name: str = "tptbox_ct",
    axes: str = "LPS",
    turned_deg: Sequence[float] = (0, 0, 0),
    crop: tuple[slice, slice, slice] = CROP,
) -> Volume:
    """Return a piece of a real scan with its slices in any direction."""
    image = nib.as_closest_canonical(nib.load(DATA / f"{name}.nii.gz")).slicer[crop]
    image = image.as_reoriented(
        ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(tuple(axes)))
    )
    affine = np.array(image.affine)
    turn = Rotation.from_euler("xyz", turned_deg, degrees=True).as_matrix()
    affine[:3, :3] = turn @ affine[:3, :3]
    i, j, k = image.shape
    return Volume(np.asarray(image.dataobj), Grid((i, j, k), affine))


def converted(source: Path, output: Path, *options: str) -> dict[str, nib.Nifti1Image]:
    """Convert with dcm2niix; return its images by name."""
    output.mkdir()
    command = [oracle.bin, "-b", "n", "-z", "n", "-f", "x", *options, "-o", output]
    done = subprocess.run(
        [*map(str, command), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: nib.load(path) for path in sorted(output.glob("*.nii"))}


def turned_like(image: nib.Nifti1Image, grid: Grid) -> nib.Nifti1Image:
    """Return an image with its axes in the order of ``grid``."""
    apart = ornt_transform(io_orientation(image.affine), io_orientation(grid.affine))
    return image.as_reoriented(apart)


def assert_same(ours: Assembled, theirs: nib.Nifti1Image) -> None:
    """Check voxels, and corners to a thousandth of a millimetre."""
    other = turned_like(theirs, ours.grid)
    assert other.shape == ours.planes.shape
    np.testing.assert_array_equal(np.asanyarray(other.dataobj), ours.voxels)
    x, y, z = ours.grid.shape
    corners = Grid((x, y, z), np.array(other.affine)).corners_mm()
    np.testing.assert_allclose(ours.grid.corners_mm(), corners, rtol=0, atol=1e-3)


def check(folder: Path, output: Path) -> None:
    """Check that both make the same one volume of a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    (image,) = converted(folder, output).values()
    assert_same(assemble(made.stack_of(paths)), image)


@pytest.mark.parametrize(
    ("axes", "turned_deg"),
    [
        ("LPS", (0, 0, 0)),
        ("LPI", (0, 0, 0)),
        ("PIL", (0, 0, 0)),
        ("PIR", (0, 0, 0)),
        ("LIA", (0, 0, 0)),
        ("LIP", (0, 0, 0)),
        ("RAS", (0, 0, 0)),
        ("SPL", (0, 0, 0)),
        ("LPS", (12, -7, 4)),
        ("PIL", (5, 20, -9)),
        ("LIA", (-25, 3, 14)),
    ],
)
def test_any_orientation(
    tmp_path: Path, axes: str, turned_deg: tuple[float, ...]
) -> None:
    scan = real(axes=axes, turned_deg=turned_deg)
    phantoms.write_dicom(tmp_path / "in", scan, stored="int16", intercept=0)

    check(tmp_path / "in", tmp_path / "out")


def test_whole_scan(tmp_path: Path) -> None:
    everything = (slice(None), slice(None), slice(None))
    scan = real("tsexample_ct", crop=everything)
    phantoms.write_dicom(tmp_path / "in", scan, stored="int16", intercept=0)

    check(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    "crop",
    [
        (slice(0, 73, 3), slice(0, 73), slice(0, 30)),
        (slice(0, 73), slice(0, 73, 2), slice(0, 40, 4)),
    ],
)
@pytest.mark.parametrize("axes", ["LPS", "PIL"])
def test_pixels_that_are_not_square(
    tmp_path: Path, axes: str, crop: tuple[slice, slice, slice]
) -> None:
    scan = real(axes=axes, crop=crop, turned_deg=(3, 4, 5))
    phantoms.write_dicom(tmp_path / "in", scan, stored="int16", intercept=0)

    check(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("stored", "slope", "intercept"),
    [
        ("uint16", 1, -1024),
        ("uint16", 1, -8192),
        ("int16", 1, 0),
        ("int16", 1, -1024),
        ("int32", 1, 0),
    ],
)
def test_any_way_to_store_values(
    tmp_path: Path, stored: str, slope: float, intercept: float
) -> None:
    scan = real()
    scan = scan.with_voxels(np.maximum(scan.voxels, -1024))
    phantoms.write_dicom(
        tmp_path / "in", scan, stored=stored, slope=slope, intercept=intercept
    )

    check(tmp_path / "in", tmp_path / "out")


def test_values_with_a_fraction(tmp_path: Path) -> None:
    scan = real()
    phantoms.write_dicom(
        tmp_path / "in", scan, stored="uint16", slope=0.37, intercept=-1100.5
    )
    paths = sorted((tmp_path / "in").iterdir())
    (image,) = converted(tmp_path / "in", tmp_path / "out").values()
    ours = assemble(made.stack_of(paths))
    theirs = turned_like(image, ours.grid).get_fdata()

    np.testing.assert_allclose(ours.voxels, theirs, atol=1e-3)


def test_numbers_that_say_nothing(tmp_path: Path) -> None:
    scan = real(axes="PIL")
    count = scan.grid.shape[2]
    random = np.random.default_rng(9).permutation(count) + 1
    edit = made.each("InstanceNumber", random.tolist())
    phantoms.write_dicom(tmp_path / "in", scan, stored="int16", intercept=0, edit=edit)

    check(tmp_path / "in", tmp_path / "out")


def test_series_split_over_folders(tmp_path: Path) -> None:
    paths = phantoms.write_dicom(tmp_path / "in" / "a", real())
    (tmp_path / "in" / "b" / "c").mkdir(parents=True)
    for path in paths[::3]:
        path.rename(tmp_path / "in" / "b" / "c" / path.name)

    check(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless],
    ids=lambda uid: uid.name,
)
def test_any_syntax_of_its_own_decoders(tmp_path: Path, syntax: UID) -> None:
    for path in phantoms.write_dicom(tmp_path / "in", real()):
        made.rewrite(path, syntax)

    check(tmp_path / "in", tmp_path / "out")


def complete(dataset: Dataset) -> None:
    """Add what dcm2niix wants of an enhanced object."""
    dataset.ContentDate, dataset.ContentTime = "20240101", "101500"
    organisation, place = Dataset(), Dataset()
    uid = generate_uid(entropy_srcs=["organisation"])
    organisation.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organisation]
    place.DimensionOrganizationUID = uid
    place.DimensionIndexPointer = 0x00209057
    place.FunctionalGroupPointer = 0x00209111
    dataset.DimensionIndexSequence = [place]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        content = frame.FrameContentSequence[0]
        content.StackID = "1"
        content.DimensionIndexValues = content.InStackPositionNumber


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("axes", ["LPS", "PIL"])
def test_shuffled_frames_of_one_file(tmp_path: Path, axes: str, modality: str) -> None:
    scan = real(axes=axes, turned_deg=(4, 2, -6))
    scan = scan.with_voxels(np.maximum(scan.voxels, -1024))
    path = tmp_path / "in" / "x.dcm"
    made.write_enhanced(path, [scan], modality=modality, edit=complete)

    check(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["siemens_dwi_0", "siemens_dwi_1000", "philips_mprage"]
)
def test_real_files_of_scanners(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.dcm"
    path.write_bytes(gzip.decompress((REAL / f"{name}.dcm.gz").read_bytes()))
    (image,) = converted(tmp_path / "in", tmp_path / "out", "-p", "n").values()
    ours = assemble(made.stack_of([path]))
    other = turned_like(image, ours.grid)

    np.testing.assert_allclose(other.get_fdata(), ours.voxels, rtol=1e-5)
    np.testing.assert_allclose(ours.grid.affine, other.affine, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm"])
def test_single_slices_of_scanners(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    (image,) = converted(tmp_path / "in", tmp_path / "out").values()
    ours = assemble(made.stack_of([path]))
    other = turned_like(image, ours.grid)

    np.testing.assert_array_equal(np.asanyarray(other.dataobj), ours.voxels)
    np.testing.assert_allclose(
        ours.grid.affine[:3, :2], other.affine[:3, :2], atol=1e-5
    )
    np.testing.assert_allclose(ours.grid.affine[:3, 3], other.affine[:3, 3], atol=1e-3)


def _tilted(angle_deg: float) -> made.Edit:
    """Return an edit that tilts slices forwards.

    Those that tilt backwards dcm2niix places up to a pixel off, since it shears them
    from the last slice but keeps the position of the first.
    """
    told = made.having(GantryDetectorTilt=-angle_deg)
    return made.all_of(made.tilted(angle_deg, 1.5), told)


def _uneven(number: int, dataset: Dataset) -> None:
    made.moved({number: (0, 0, 0.9 * max(0, number - 12))})(number, dataset)


def _within(values: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return by how much 99 of 100 voxels differ at most inside the body."""
    body = (values > BODY_HU) & (other > BODY_HU)
    assert body.mean() > 0.3
    return float(np.percentile(np.abs(values[body] - other[body]), 99))


@pytest.mark.parametrize(
    ("edit", "ending", "repairs"),
    [
        (_tilted(-14), "_Tilt", Repairs(fix_tilt=True)),
        (_tilted(-21.5), "_Tilt", Repairs(fix_tilt=True)),
        (_uneven, "_Eq", Repairs(regrid=True)),
    ],
)
def test_repairs_agree(
    tmp_path: Path, edit: made.Edit, ending: str, repairs: Repairs
) -> None:
    paths = phantoms.write_dicom(
        tmp_path / "in", real(), stored="int16", intercept=0, edit=edit
    )
    images = converted(tmp_path / "in", tmp_path / "out")
    (theirs,) = [image for name, image in images.items() if ending in name]
    ours = assemble(made.stack_of(paths), repairs)
    values, other = _on_one_grid(ours, theirs)

    assert _within(values, other) <= 1


def _on_one_grid(
    ours: Assembled, theirs: nib.Nifti1Image
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both volumes at the places of the other program's voxels."""
    from scipy import ndimage

    other = turned_like(theirs, ours.grid)
    places = np.linalg.inv(ours.grid.affine) @ other.affine
    sampled: Callable[..., NDArray[np.float64]] = ndimage.affine_transform
    values = sampled(
        ours.voxels.astype(float),
        places[:3, :3],
        places[:3, 3],
        output_shape=other.shape,
        order=1,
        mode="nearest",
    )
    return values, other.get_fdata()


def test_both_see_two_series(tmp_path: Path) -> None:
    for uid in ("1.2.826.0.1.3680043.8.498.31", "1.2.826.0.1.3680043.8.498.32"):
        number = made.having(SeriesNumber=int(uid[-1]))
        phantoms.write_dicom(tmp_path / "in" / uid, real(), uid=uid, edit=number)
    paths = sorted((tmp_path / "in").rglob("*.dcm"))
    images = converted(tmp_path / "in", tmp_path / "out", "-f", "%s")
    stacks = {str(s.origin.number): s for s in series_in(paths).stacks}

    assert images.keys() == stacks.keys() == {"1", "2"}
    for name, image in images.items():
        assert_same(assemble(stacks[name]), image)


@pytest.mark.parametrize("mark", ["temporal", "echo"])
def test_both_make_a_fourth_axis(tmp_path: Path, mark: str) -> None:
    first = real(axes="PIL")
    second = first.with_voxels(first.voxels[::-1])
    (tmp_path / "in").mkdir()
    as_mr = made.having(Modality="MR")
    paths = made.write_marked(tmp_path / "in", [first, second], mark, as_mr)
    images = converted(tmp_path / "in", tmp_path / "out")
    ours = assemble(made.stack_of(paths))

    volumes = [
        volume
        for image in images.values()
        for volume in (nib.four_to_three(image) if image.ndim == 4 else [image])
    ]
    assert len(volumes) == 2
    for number, image in enumerate(volumes):
        other = turned_like(image, ours.grid)
        np.testing.assert_array_equal(
            np.asanyarray(other.dataobj), ours.voxels[..., number]
        )


def test_the_oracle_sees_a_wrong_affine(tmp_path: Path) -> None:
    scan = real()
    paths = phantoms.write_dicom(tmp_path / "in", scan, stored="int16", intercept=0)
    (image,) = converted(tmp_path / "in", tmp_path / "out").values()
    for path in paths:
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + 0.01, y, z]
        dataset.save_as(path)

    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same(assemble(made.stack_of(paths)), image)
