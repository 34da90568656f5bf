"""Files that a mask is read from, and how their ids become those of the mask."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engines.errors import MaskError
from engines.labels import BACKGROUND, EITHER, SCHEMES, Scheme
from engines.preprocess.masks import SPINE_KIND
from engines.results import Note
from engines.scans import voxel_file
from engines.volume import Volume, read_mask

SCHEME_HINT = "Say with --scheme how its vertebrae are numbered."

LISTED = 5
"""So many ids are listed in a message."""


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """Where a mask comes from: one label map, or a file for each structure.

    Attributes:
        files: the label map, or the structures.
        ids: id in the label map -> id in the mask; None keeps them as they are.
        values: id in the mask of each structure; empty for a label map.
        told_by: what says which ids there are, for messages.
        hint: what to do about an id that it does not tell.
    """

    files: tuple[Path, ...]
    ids: Mapping[int, int] | None = None
    values: tuple[int, ...] = ()
    told_by: str = ""
    hint: str = SCHEME_HINT

    @property
    def name(self) -> str:
        """What the mask is called in messages."""
        first = self.files[0]
        return first.parent.name if self.values else first.name

    @property
    def contents(self) -> tuple[Path, ...]:
        """All files that hold the mask; a ``.mhd`` has its voxels in another."""
        return tuple(p for file in self.files for p in (file, *voxel_file(file)))

    def as_json(self) -> dict[str, Any]:
        """Return how the ids come about, for the fingerprint of a case."""
        ids = {str(old): new for old, new in (self.ids or {}).items()}
        return {"ids": ids, "values": list(self.values)}

    def read(self) -> tuple[Volume, tuple[Note, ...]]:
        """Read the mask, with what the user should know of it.

        Raises:
            MaskError: an id that is not told, or structures on different grids.
            InputError: a file that cannot be read.
        """
        if self.values:
            return self._merged()
        volume = read_mask(self.files[0])
        if self.ids is None:
            return volume, ()
        return volume.with_voxels(self._translated(volume.voxels, self.ids)), ()

    def _translated(
        self, voxels: NDArray[Any], ids: Mapping[int, int]
    ) -> NDArray[np.int16]:
        top = max(ids, default=BACKGROUND)
        table = np.full(top + 1, -1, np.int16)
        table[[*ids]] = [*ids.values()]
        table[BACKGROUND] = BACKGROUND
        beyond = (voxels < 0) | (voxels > top)
        if not beyond.any():
            made: NDArray[np.int16] = table[voxels]
            beyond = made < 0
            if not beyond.any():
                return made
        unknown = [str(value) for value in np.unique(voxels[beyond])[:LISTED]]
        msg = f"{self.name}: it holds {', '.join(unknown)}, which {self.told_by} lacks"
        raise MaskError(msg, hint=self.hint)

    def _merged(self) -> tuple[Volume, tuple[Note, ...]]:
        merged: Volume | None = None
        for path, value in zip(self.files, self.values, strict=True):
            part = read_mask(path)
            if merged is None:
                merged = part.with_voxels(np.zeros(part.grid.shape, np.uint8, "F"))
                several = np.zeros(part.grid.shape, bool, "F")
            elif not part.grid.matches(merged.grid):
                msg = f"{path.name} is on another grid than {self.files[0].name}"
                raise MaskError(msg, hint="Copy or make the structures again.")
            here = part.voxels > 0
            several |= here & (merged.voxels > 0) & (merged.voxels != value)
            merged.voxels[here] = value
        if merged is None:
            msg = "a mask of structures needs one file at least"
            raise ValueError(msg)
        shared = int(several.sum())
        if not shared:
            return merged, ()
        msg = f"{shared} voxels lie in several structures; the last, by VerSe id, won"
        return merged, (Note("overlap", msg),)


def by_scheme(path: Path, scheme: str, hint: str = SCHEME_HINT) -> dict[str, MaskFiles]:
    """Return the mask of a label map whose ids are those of ``scheme``, by kind.

    Vertebrae get VerSe ids (``vert``); a binary label map is a ``spine`` mask.
    """
    ids = SCHEMES[cast("Scheme", scheme)]
    kind = SPINE_KIND if scheme == "binary" else "vert"
    if scheme in EITHER:  # what may be either is refused as an id that is not known
        doubtful, meanings, hint = EITHER[scheme]
        ids = {old: new for old, new in ids.items() if old != doubtful}
        told_by = f"the scheme {scheme!r} (it is {meanings})"
        return {kind: MaskFiles((path,), ids, told_by=told_by, hint=hint)}
    told_by = f"the scheme {scheme!r}"
    return {kind: MaskFiles((path,), ids, told_by=told_by, hint=hint)}
