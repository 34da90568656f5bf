"""What is exported holds the same voxels at the same places."""

import io

import numpy as np
import pytest

from engines.errors import IntensityError, MaskError
from engines.preprocess import export
from tests import phantoms


def test_central_slice_without_mask_is_the_middle_one() -> None:
    scan = phantoms.volume(axes="PIR")
    cut, masks = export.central_slice(scan, {})

    np.testing.assert_array_equal(cut.voxels, scan.voxels[:, :, 2:3])
    assert masks == {}
    first = scan.grid.affine @ [0, 0, 2, 1]
    np.testing.assert_allclose(cut.grid.affine @ [0, 0, 0, 1], first)


def test_central_slice_goes_through_what_is_marked() -> None:
    scan = phantoms.volume()
    empty = np.zeros(phantoms.SHAPE, np.uint8)
    mask = empty.copy()
    mask[5:, 2, 2] = 20
    mask[6, 3, 2] = 21
    cut, masks = export.central_slice(scan, {"other": empty, "vert": mask})

    np.testing.assert_array_equal(cut.voxels, scan.voxels[6:7])
    np.testing.assert_array_equal(masks["vert"], mask[6:7])
    assert cut.grid.shape == (1, 6, 5)


@pytest.mark.parametrize(("modality", "order"), [("ct", (2, 0, 1)), ("mr", (0, 1, 2))])
def test_arrays_are_stacked_slice_by_slice(
    modality: str, order: tuple[int, int, int]
) -> None:
    scan = phantoms.volume()
    mask = (scan.voxels % 3).astype(np.uint8)
    arrays = export.stacked(scan, {"vert": mask}, modality)

    np.testing.assert_array_equal(arrays["image"], scan.voxels.transpose(order))
    np.testing.assert_array_equal(arrays["mask"], mask.transpose(order))
    spacing_mm = [phantoms.SPACING_MM[axis] for axis in order]
    np.testing.assert_allclose(arrays["spacing"], spacing_mm)
    assert (arrays["image"].dtype, arrays["mask"].dtype) == (np.int16, np.uint8)


def test_central_slice_is_one_sagittal_slice_for_ct_too() -> None:
    cut, masks = export.central_slice(phantoms.volume(), {})

    assert export.stacked(cut, masks, "ct")["image"].shape == (1, 6, 5)


def test_fractions_become_float16_and_several_masks_keep_their_names() -> None:
    scan = phantoms.volume().with_voxels(np.full(phantoms.SHAPE, 0.5, np.float32))
    mask = np.ones(phantoms.SHAPE, np.uint8)
    arrays = export.stacked(scan, {"subreg": mask, "vert": 2 * mask}, "ct")

    assert arrays["image"].dtype == np.float16
    assert set(arrays) == {"image", "spacing", "mask", "mask_subreg"}
    assert arrays["mask"].max() == 2


def test_what_does_not_fit_is_refused() -> None:
    big = phantoms.volume().with_voxels(np.full(phantoms.SHAPE, 7e4, np.float32))
    mask = np.full(phantoms.SHAPE, 300, np.uint16)

    with pytest.raises(IntensityError, match="values up to 70000 do not fit"):
        export.stacked(big, {}, "ct")
    with pytest.raises(MaskError, match="'vert' mask holds 300; arrays hold ids up"):
        export.stacked(phantoms.volume(), {"vert": mask}, "ct")


def test_archive_reads_back_and_has_the_same_bytes_each_time() -> None:
    arrays = export.stacked(phantoms.volume(), {}, "ct")
    content = export.npz_bytes(arrays)

    assert content == export.npz_bytes(dict(reversed(arrays.items())))
    with np.load(io.BytesIO(content)) as read:
        assert set(read) == {"image", "spacing"}
        np.testing.assert_array_equal(read["image"], arrays["image"])
