"""Label maps as files: one map, or a folder with a file per structure."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.errors import InputError, MaskError
from engines.geometry import Grid
from engines.labels import structures
from engines.results import Note
from engines.volume import Volume, read_mask, stem_of, suffix_of

LISTED = 3
"""So many names are listed in a message."""


def read_side(path: Path, which: str) -> Volume:
    """Read a label map as ``read_map``, whose errors and notes say which it is.

    Args:
        path: of a map, or a folder of structures.
        which: ``prediction`` or ``truth``.

    Raises:
        InputError: as ``read_map``.
    """
    try:
        volume = read_map(path)
    except InputError as error:
        error.message = f"the {which} cannot be used: {error.message}"
        raise
    notes = [Note(note.code, f"the {which}: {note.message}") for note in volume.notes]
    return Volume(
        volume.voxels, volume.grid, volume.header, volume.provenance, tuple(notes)
    )


def read_map(path: Path) -> Volume:
    """Read a label map: a file, or a folder with a file per structure.

    Where structures overlap the one of the highest VerSe id wins, with a note.

    Raises:
        MaskError: the files of a folder do not fit together.
        InputError: one cannot be read.
    """
    if not path.is_dir():
        return read_mask(path)
    files = structure_files(path)
    if not files:
        msg = f"{path}: no files of structures (vertebrae_L1.nii.gz ...)"
        raise MaskError(msg)
    ids = structures(stem_of(file) for file in files)
    files = sorted(files, key=lambda file: ids[stem_of(file)])
    first = read_mask(files[0])
    merged = np.zeros(first.grid.shape, np.uint8, order="F")
    several = np.zeros(first.grid.shape, bool, order="F")
    notes = list(first.notes)
    for file in files:
        part = read_mask(file)
        if not part.grid.matches(first.grid):
            raise _different_grids(path, files)
        here, value = part.voxels > 0, ids[stem_of(file)]
        several |= here & (merged > 0) & (merged != value)
        merged[here] = value
    shared = int(several.sum())
    if shared:
        msg = f"{shared} voxels lie in several structures; the lower vertebra won"
        notes.append(Note("overlap", msg))
    return Volume(merged, first.grid, notes=tuple(notes))


def structure_files(folder: Path) -> list[Path]:
    """Return the files of ``folder`` that hold a vertebra or the sacrum each."""
    images = [path for path in sorted(folder.iterdir()) if suffix_of(path)]
    held = structures(stem_of(path) for path in images)
    return [path for path in images if stem_of(path) in held]


def _different_grids(folder: Path, files: Sequence[Path]) -> MaskError:
    """Say which files lie on another grid than most of the others."""
    groups: defaultdict[int, list[Path]] = defaultdict(list)
    grids: list[Grid] = []
    for file in files:
        grid = read_mask(file).grid
        known = next((i for i, one in enumerate(grids) if one.matches(grid)), None)
        if known is None:
            known = len(grids)
            grids.append(grid)
        groups[known].append(file)
    most = max(groups.values(), key=len)
    others = [group for group in groups.values() if group is not most]
    hint = "Make the structures again, on one grid."
    if any(len(group) == len(most) for group in others):
        shown = " and ".join(group[0].name for group in (most, *others)[:LISTED])
        return MaskError(f"{folder}: {shown} are on different grids", hint=hint)
    names = [file.name for group in others for file in group]
    told = ", ".join(names[:LISTED]) + (" and more" if len(names) > LISTED else "")
    verb = "is" if len(names) == 1 else "are"
    msg = f"{folder}: {told} {verb} on another grid than the other {len(most)}"
    return MaskError(msg, hint=hint)
