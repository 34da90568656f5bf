"""Reorienting turns the axes, changes no voxel and leaves the patient in place."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.preprocess import orient
from engines.volume import Volume
from tests import phantoms

ANGLES = st.tuples(*[st.floats(-30, 30)] * 3)
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
DTYPES = st.sampled_from(["u1", "i1", "i2", "u2", "i4", "i8", "f4", "f8", ">i2"])
AXES = st.sampled_from(phantoms.ORIENTATIONS)


@st.composite
def scans(draw: st.DrawFn) -> Volume:
    shape = draw(SHAPES)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = np.dtype(draw(DTYPES))
    content = random.bytes(int(np.prod(shape)) * dtype.itemsize)
    voxels = np.frombuffer(content, dtype).reshape(shape)
    return phantoms.volume(voxels, draw(AXES), turned_deg=draw(ANGLES))


@given(scans(), AXES)
def test_undo_gives_every_bit_back(scan: Volume, codes: str) -> None:
    turned = orient.reorient(scan, codes)
    back = orient.undo(turned.voxels, scan.grid, codes)

    assert back.dtype == scan.voxels.dtype
    assert back.shape == scan.voxels.shape
    assert back.tobytes() == scan.voxels.tobytes()


@given(SHAPES, AXES, ANGLES, AXES)
def test_every_voxel_stays_in_place(
    shape: tuple[int, int, int], axes: str, turned_deg: tuple[float, ...], codes: str
) -> None:
    numbered = np.arange(np.prod(shape)).reshape(shape)
    scan = phantoms.volume(numbered, axes, turned_deg=turned_deg)
    turned = orient.reorient(scan, codes)

    assert turned.grid.shape == turned.voxels.shape
    np.testing.assert_allclose(places_mm(turned), places_mm(scan), atol=1e-9)


@pytest.mark.parametrize("axes", phantoms.ORIENTATIONS)
def test_axes_run_as_asked_for(axes: str) -> None:
    scan = phantoms.volume(axes=axes, turned_deg=(6, -9, 4))

    assert orient.reorient(scan).grid.axes == "RAS"
    assert orient.reorient(scan, "PIR").grid.axes == "PIR"


def test_voxel_sizes_go_with_their_axes() -> None:
    scan = phantoms.volume(axes="PIR", spacing_mm=(0.5, 0.7, 3))

    assert orient.reorient(scan).grid.spacing_mm == pytest.approx((3, 0.5, 0.7))


def test_header_of_the_other_axes_is_dropped_but_provenance_kept() -> None:
    scan = phantoms.volume()
    scan = Volume(scan.voxels, scan.grid, None, {"kind": "x"})

    assert orient.reorient(scan, "LPI").provenance == {"kind": "x"}


@pytest.mark.parametrize("codes", ["RAX", "RLS", "RA", "RASI", ""])
def test_impossible_axes_are_refused(codes: str) -> None:
    with pytest.raises(ValueError, match="give one letter of each pair"):
        orient.reorient(phantoms.volume(), codes)


def places_mm(scan: Volume) -> NDArray[Any]:
    """Return the world coordinates of the voxels, in the order of their values."""
    index = np.indices(scan.voxels.shape).reshape(3, -1)
    places = (scan.grid.affine[:3, :3] @ index).T + scan.grid.affine[:3, 3]
    ordered: NDArray[Any] = places[np.argsort(scan.voxels.ravel())]
    return ordered
