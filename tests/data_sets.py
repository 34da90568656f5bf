"""Miniature data sets in the layouts they are downloaded in, from the real samples."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.geometry import Grid
from engines.labels import VERTEBRAE
from engines.volume import Volume, read_mask
from tests import phantoms

DATA = Path(__file__).parent / "data"

LUMBAR_FROM_BELOW = {24: 1, 23: 2, 22: 3, 21: 4, 20: 5}
"""VerSe id of L5 to L1 -> id in SPIDER, written out as its documentation has it."""


@dataclass(frozen=True)
class Made:
    """A data set on disk, and what has to come of it.

    Attributes:
        source: what is given to the program.
        masks: name of the case -> kind -> mask on the scan's own grid.
        ending: of the scans.
        scheme: to be given too.
    """

    source: Path
    masks: Mapping[str, Mapping[str, Volume]]
    ending: str = "_ct"
    scheme: str | None = None


@cache
def sample(name: str, corner: tuple[int, int, int], size: int) -> tuple[Volume, Volume]:
    """Return a block of a sample and of its mask of VerSe ids."""
    scan = Volume.read(DATA / f"{name}_ct.nii.gz")
    mask = read_mask(DATA / f"{name}_seg-vert_msk.nii.gz")
    return block(scan, corner, size), block(mask, corner, size)


def block(volume: Volume, corner: tuple[int, int, int], size: int) -> Volume:
    """Return a cube of a volume, where it was."""
    i, j, k = corner
    voxels = volume.voxels[i : i + size, j : j + size, k : k + size].copy()
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ corner
    a, b, c = voxels.shape
    return Volume(voxels, Grid((a, b, c), affine))


def small() -> tuple[Volume, Volume]:
    """Return a block with L2, L3 and L4, axes PIR."""
    return sample("tptbox", (20, 8, 20), 32)


def other() -> tuple[Volume, Volume]:
    """Return a block with L3 to the sacrum, 3 mm, from another scan."""
    return sample("tsexample", (40, 16, 38), 36)


def renumbered(mask: Volume, ids: Mapping[int, int]) -> Volume:
    """Return a mask whose ids are the values of ``ids``, all others 0."""
    made = np.zeros(mask.voxels.shape, np.uint8)
    for old, new in ids.items():
        made[mask.voxels == old] = new
    return mask.with_voxels(made)


def only(mask: Volume, *ids: int) -> Volume:
    """Return a mask with ``ids`` alone."""
    return renumbered(mask, {value: value for value in ids})


def write(folder: Path, **files: Volume) -> None:
    """Write volumes as ``NAME.nii.gz``."""
    for name, volume in files.items():
        phantoms.write_nifti(folder / f"{name}.nii.gz", volume)


def verse_2019(root: Path) -> Made:
    """By subject, with a scan that was split in two series."""
    top = root / "dataset-verse19training"
    expected = {}
    for name, (scan, mask) in {
        "sub-verse004": small(),
        "sub-verse401_split-verse253": other(),
    }.items():
        subject = name.split("_")[0]
        write(top / "rawdata" / subject, **{f"{name}_ct": scan})
        held = {f"{name}_seg-vert_msk": mask}
        write(top / "derivatives" / subject, **held)
        expected[name] = {"vert": mask}
    return Made(root, expected)


def verse_2019_flat(root: Path) -> Made:
    """As for the challenge, beside a case that is named by subject."""
    scan, mask = small()
    write(root, verse004=scan, verse004_seg=mask)
    (root / "verse004_ctd.json").write_text("[]")
    expected = {"verse004": {"vert": mask}}
    scan, mask = other()
    write(root, **{"sub-verse005_ct": scan, "sub-verse005_seg-vert_msk": mask})
    return Made(root, expected | {"sub-verse005": {"vert": mask}})


def verse_2020(root: Path) -> Made:
    """Training and validation beside each other."""
    expected = {}
    for part, name, (scan, mask) in (
        ("dataset-01training", "sub-gl003_dir-ax", small()),
        ("dataset-02validation", "sub-verse500_dir-sag", other()),
    ):
        subject = name.split("_")[0]
        write(root / part / "rawdata" / subject, **{f"{name}_ct": scan})
        derived = root / part / "derivatives" / subject
        write(derived, **{f"{name}_seg-vert_msk": mask})
        (derived / f"{name}_seg-subreg_ctd.json").write_text("[]")
        expected[name] = {"vert": mask}
    return Made(root, expected)


def spider(root: Path) -> Made:
    """Three scans of two persons; L5 in part, two discs and the canal."""
    scan, mask = other()
    bright = scan.with_voxels((scan.voxels + 1100).clip(min=0).astype(np.int16))
    whole = renumbered(mask, LUMBAR_FROM_BELOW)
    numbered = whole.voxels.copy()
    numbered[numbered == 1] = 101
    numbered[(numbered == 0) & (np.indices(numbered.shape)[0] == 2)] = 100
    numbered[(numbered == 0) & (np.indices(numbered.shape)[0] == 3)] = 201
    numbered[(numbered == 0) & (np.indices(numbered.shape)[0] == 4)] = 202
    tissue = np.select(
        [numbered == 0, numbered == 100, numbered > 200], [0, 3, 2], 1
    ).astype(np.uint8)
    held = {
        "vert": only(mask, *LUMBAR_FROM_BELOW),
        "mr": mask.with_voxels(tissue),
    }
    for name in ("1_t1", "1_t2_SPACE", "10_t2"):
        phantoms.write_itk(root / "images" / f"{name}.mha", bright)
        given = mask.with_voxels(numbered)
        phantoms.write_itk(root / "masks" / f"{name}.mha", given)
    (root / "overview.csv").write_text("new_file_name,subset\n1_t1,training\n")
    names = ("sub-1_t1", "sub-1_t2_SPACE", "sub-10_t2")
    return Made(root, dict.fromkeys(names, held), "_mr")


def structures(folder: Path, mask: Volume) -> None:
    """Write a file per vertebra, empty ones too, and organs."""
    for vertebra in VERTEBRAE.values():
        if vertebra.id <= 26 and vertebra.name != "L6":
            stem = "sacrum" if vertebra.id == 26 else f"vertebrae_{vertebra.name}"
            there = mask.with_voxels((mask.voxels == vertebra.id).astype(np.uint8))
            write(folder, **{stem: there})
    write(folder, liver=mask.with_voxels(np.ones(mask.voxels.shape, np.uint8)))


def totalsegmentator(root: Path) -> Made:
    """CT; the second case holds no spine."""
    scan, mask = other()
    write(root / "s0001", ct=scan)
    structures(root / "s0001" / "segmentations", mask)
    empty = mask.with_voxels(np.zeros_like(mask.voxels))
    write(root / "s0002", ct=scan)
    structures(root / "s0002" / "segmentations", empty)
    (root / "meta.csv").write_text("image_id;split\ns0001;train\ns0002;test\n")
    return Made(root, {"s0001": {"vert": mask}})


def totalsegmentator_mr(root: Path) -> Made:
    """MR, with few structures."""
    scan, mask = small()
    bright = scan.with_voxels((scan.voxels + 1100).clip(min=0).astype(np.int16))
    write(root / "s0004", mri=bright)
    folder = root / "s0004" / "segmentations"
    for value in (21, 22, 23):
        stem = f"vertebrae_{VERTEBRAE[value].name}"
        there = mask.with_voxels((mask.voxels == value).astype(np.uint8))
        write(folder, **{stem: there})
    return Made(root, {"s0004": {"vert": mask}}, "_mr")


def nnunet(root: Path) -> Made:
    """Version 2, with names of both kinds, ribs, and a label to ignore."""
    labels = {"background": 0, "vertebrae_L3": 1, "l4": 2, "vertebrae_L5": 3}
    labels |= {"Sacrum": 4, "rib_left_1": 5, "rib_left_2": 6, "ignore": 7}
    record = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(record))
    scan, mask = other()
    given = renumbered(mask, {22: 1, 23: 2, 24: 3, 26: 4})
    given.voxels[0, 0, :3] = 5, 6, 7
    expected = only(mask, 22, 23, 24, 26)
    expected.voxels[0, 0, :3] = 0, 0, 255
    write(root / "imagesTr", spine_001_0000=scan)
    write(root / "labelsTr", spine_001=given)
    write(root / "imagesTs", spine_002_0000=scan)
    write(root / "labelsTs", spine_002=given)
    names = ("spine_001", "spine_002")
    return Made(root, {name: {"vert": expected} for name in names})


def nnunet_1(root: Path) -> Made:
    """Version 1, where one label is all of the spine; the test images have none."""
    labels = {"0": "background", "1": "Spine"}
    record = {"modality": {"0": "CT"}, "labels": labels, "numTest": 1}
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(record))
    scan, mask = small()
    there = mask.with_voxels((mask.voxels > 0).astype(np.uint8))
    write(root / "imagesTr", a_0000=scan)
    write(root / "labelsTr", a=there)
    write(root / "imagesTs", b_0000=scan)
    return Made(root, {"a": {"spine": there}})


def pairs_folders(root: Path) -> Made:
    """Two folders, the same stems, ids of TotalSegmentator."""
    scan, mask = small()
    given = renumbered(mask, {21: 30, 22: 29, 23: 28})  # L2 to L4 there
    write(root / "Images", p1=scan)
    write(root / "labels", p1=given)
    expected = {"p1": {"vert": mask}}
    return Made(root, expected, scheme="totalsegmentator")


def pairs_endings(root: Path) -> Made:
    """One folder, endings of three kinds, and a folder for a case."""
    for (scan, mask), image, label in (
        (small(), "p1_image", "p1_mask"),
        (other(), "p2", "p2_seg"),
        (small(), "p3_ct", "p3_label"),
    ):
        write(root, **{image: scan, label: mask})
    write(root / "p4", image=small()[0], mask=small()[1])
    return Made(
        root,
        {
            name: {"vert": mask}
            for name, mask in zip(
                ("p1", "p2", "p3", "p4"),
                (small()[1], other()[1], small()[1], small()[1]),
                strict=True,
            )
        },
    )


def pairs_binary(root: Path) -> Made:
    """Two folders, masks of 0 and 1."""
    scan, mask = small()
    there = mask.with_voxels((mask.voxels > 0).astype(np.uint8))
    write(root / "img", p1=scan)
    write(root / "msk", p1=there)
    return Made(root, {"p1": {"spine": there}}, scheme="binary")


def pairs_table(root: Path) -> Made:
    """A table, with two scans of one subject."""
    scan, mask = small()
    write(root / "a", x=scan, y=mask)
    with (root / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Image", "mask", "name", "subject"])
        writer.writerow(["a/x.nii.gz", "a/y.nii.gz", "first", "P-7"])
        writer.writerow(["a/x.nii.gz", "a/y.nii.gz", "second", "P-7"])
        writer.writerow(["a/x.nii.gz", "a/y.nii.gz", "", ""])
    names = ("sub-P7_first", "sub-P7_second", "x")
    return Made(root / "cases.csv", {name: {"vert": mask} for name in names})


MAKERS: Mapping[str, tuple[str, Callable[[Path], Made]]] = {
    "verse-2019": ("verse", verse_2019),
    "verse-2019-flat": ("verse", verse_2019_flat),
    "verse-2020": ("verse", verse_2020),
    "spider": ("spider", spider),
    "totalsegmentator": ("totalsegmentator", totalsegmentator),
    "totalsegmentator-mr": ("totalsegmentator", totalsegmentator_mr),
    "nnunet-2": ("nnunet", nnunet),
    "nnunet-1": ("nnunet", nnunet_1),
    "pairs-folders": ("pairs", pairs_folders),
    "pairs-endings": ("pairs", pairs_endings),
    "pairs-binary": ("pairs", pairs_binary),
    "pairs-table": ("pairs", pairs_table),
}
"""Name -> its layout, and what makes it."""


def along_ras(volume: Volume) -> NDArray[Any]:
    """Return voxels along RAS axes, for axes that run straight, after nibabel."""
    import nibabel as nib

    image = nib.Nifti1Image(volume.voxels, volume.grid.affine)
    return np.asarray(nib.as_closest_canonical(image).dataobj)
