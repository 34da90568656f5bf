"""The files of a segmented scan: label maps, and a picture of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engines import labels
from engines.files import write_bytes
from engines.networks.manifest import Manifest
from engines.report import pictures
from engines.segment.inference import Segmented
from engines.segment.native import UNCERTAIN
from engines.volume import write_nifti

if TYPE_CHECKING:
    from engines.segment.segmenter import Segmentation

MASK_SUFFIX = "_seg-spine_msk.nii.gz"
VERTEBRAE_SUFFIX = "_seg-vert_msk.nii.gz"
PREVIEW_SUFFIX = "_preview.png"

Rgb = tuple[int, int, int]

COLOURS: Mapping[int, Rgb] = {
    1: (70, 130, 240),
    2: (60, 180, 90),
    3: (240, 150, 50),
    4: (220, 80, 160),
}
"""Class index -> colour in previews; a single spine class is drawn in orange."""

UNCERTAIN_COLOUR: Rgb = (200, 200, 200)

VERTEBRA_COLOURS = {v.id: v.colour for v in labels.VERTEBRAE.values()}


def any_spine(found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 wherever a label map marks any spine; 255 stays."""
    return np.where(found == UNCERTAIN, found, found > 0).astype(np.uint8)


def write(stem: Path, result: "Segmentation") -> dict[str, Path]:
    """Write the label map, for single vertebrae also what is spine at all, a picture.

    Args:
        stem: path of the files up to their suffixes.
        result: what is written.

    Returns:
        kind -> file.

    Raises:
        OutputError: they cannot be written.
    """
    paths = {
        kind: stem.with_name(stem.name + suffix)
        for kind, suffix in (
            ("spine", MASK_SUFFIX),
            ("vertebrae", VERTEBRAE_SUFFIX),
            ("preview", PREVIEW_SUFFIX),
        )
        if kind != "vertebrae" or result.numbered
    }
    about = dict(result.provenance)
    if result.numbered:
        write_nifti(paths["vertebrae"], result.labels, result.scan, about)
        about["labels"] = {"1": "spine"}
        write_nifti(paths["spine"], result.spine, result.scan, about)
    else:
        write_nifti(paths["spine"], result.labels, result.scan, about)
    write_bytes(paths["preview"], result.preview())
    return paths


def picture(done: Segmented, manifest: Manifest, *, numbered: bool) -> bytes:
    """Draw a label map over its scan, as a PNG."""
    if numbered:
        colours = dict(VERTEBRA_COLOURS)
    else:
        colours = dict(COLOURS) if len(manifest.classes) > 2 else {1: COLOURS[3]}
    colours[UNCERTAIN] = UNCERTAIN_COLOUR
    window = pictures.window_of(done.hu, manifest.modality)
    return pictures.preview(done.hu, done.shown, colours, window)
