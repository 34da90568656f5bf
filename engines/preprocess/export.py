"""The files that a prepared scan becomes: volumes or arrays, all slices or one."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import IntensityError, MaskError
from engines.geometry import Grid
from engines.preprocess.masks import SPINE_KIND, VERTEBRA_KINDS
from engines.preprocess.prepare import slice_axis
from engines.volume import Volume

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The date in the archives, so that the same arrays give the same bytes."""

Masks = Mapping[str, NDArray[Any]]


def central_slice(volume: Volume, masks: Masks) -> tuple[Volume, Masks]:
    """Return the mid-sagittal slice of a scan and its masks, as volumes of one slice.

    With a mask that is not empty it is the slice in the middle of what is marked.
    """
    axis = slice_axis(volume.grid, "mr")
    marked = next((mask for mask in masks.values() if mask.any()), None)
    place = volume.grid.shape[axis] // 2
    if marked is not None:
        found = np.sort(np.nonzero(marked)[axis])
        place = int(found[len(found) // 2])
    grid = _one_slice(volume.grid, axis, place)
    cut = Volume(volume.voxels.take([place], axis), grid, None, volume.provenance)
    return cut, {kind: mask.take([place], axis) for kind, mask in masks.items()}


def stacked(volume: Volume, masks: Masks, modality: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a scan, slice by slice.

    Slices are axial for CT and sagittal for MR and for a single sagittal slice; H
    and W are the two other axes, in the volume's order.

    Returns:
        ``image`` (N, H, W), int16 for whole values, else float16; ``mask``
        (N, H, W), uint8, of the vertebrae if there are several masks, the others
        as ``mask_KIND``; ``spacing`` (3,), mm along N, H, W.

    Raises:
        IntensityError: values beyond the range of float16.
        MaskError: an id above 255.
    """
    largest = float(np.abs(volume.voxels).max())
    whole = volume.voxels.dtype == np.int16
    if not whole and largest > float(np.finfo(np.float16).max):
        msg = f"values up to {largest:g} do not fit into float16"
        raise IntensityError(msg, hint="Choose a --normalisation, or --format nifti.")
    single = volume.grid.shape[slice_axis(volume.grid, "mr")] == 1
    axis = slice_axis(volume.grid, "mr" if single else modality)
    order = [axis, *(i for i in range(3) if i != axis)]
    image = np.moveaxis(volume.voxels, axis, 0)
    arrays: dict[str, NDArray[Any]] = {
        "image": image.astype(np.int16 if whole else np.float16),
        "spacing": np.array([volume.grid.spacing_mm[i] for i in order], np.float32),
    }
    first = next((k for k in (*VERTEBRA_KINDS, SPINE_KIND) if k in masks), None)
    for kind, mask in masks.items():
        if mask.max() > np.iinfo(np.uint8).max:
            msg = f"the {kind!r} mask holds {mask.max()}; arrays hold ids up to 255"
            raise MaskError(msg, hint="Choose --binary, or --format nifti.")
        main = kind == first or len(masks) == 1
        name = "mask" if main else f"mask_{kind}"
        arrays[name] = np.moveaxis(mask, axis, 0).astype(np.uint8)
    return arrays


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a compressed ``.npz`` file; the same arrays give the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            plain = io.BytesIO()
            np.lib.format.write_array(
                plain, np.ascontiguousarray(arrays[name]), allow_pickle=False
            )
            archive.writestr(entry, plain.getvalue())
    return content.getvalue()


def _one_slice(grid: Grid, axis: int, place: int) -> Grid:
    shape = [1 if i == axis else n for i, n in enumerate(grid.shape)]
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * place
    return Grid((shape[0], shape[1], shape[2]), affine)
