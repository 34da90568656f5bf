"""Scans that are to be prepared: where their files come from and what they become."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from engines.errors import InputError, MaskError, NameClashError
from engines.found import Found
from engines.preprocess import masks, split
from engines.preprocess.laid_out import LaidOut
from engines.preprocess.mask_files import MaskFiles
from engines.preprocess.recipe import Recipe
from engines.scans import voxel_file


@dataclass(frozen=True, slots=True)
class Case:
    """A scan with where its files go.

    Attributes:
        target: ``NAME`` in paths like ``NAME_ct.nii.gz``, below the output folder.
        ending: ``_ct`` or ``_mr``, as the scan's own name has it.
        recipe: how this scan is prepared.
        masks: kind -> mask.
    """

    found: Found
    target: PurePosixPath
    ending: str
    recipe: Recipe
    masks: Mapping[str, MaskFiles] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the case is called in records."""
        return self.found.name

    @property
    def subject(self) -> str:
        """Whom the scan shows; DICOM is filed by patient, in the topmost folder."""
        if self.found.stack is not None:
            return self.target.parts[0]
        return split.subject_of(str(self.target))


def beside(found: Found, recipe: Recipe) -> Case:
    """Return the case of a scan whose masks lie beside it."""
    base = masks.base_of(found.name)
    modality = recipe.modality
    target, ending = PurePosixPath(base), found.name[len(base) :] or f"_{modality}"
    if found.problem is not None:
        return Case(found, target, ending, recipe)
    try:
        files = masks.masks_of(found.path)
    except MaskError as error:
        broken = Found(found.name, found.path, found.files, error)
        return Case(broken, target, ending, recipe)
    held = {kind: MaskFiles((path,)) for kind, path in files.items()}
    return Case(found, target, ending, recipe, held)


def laid_out(one: LaidOut, recipe: Recipe, *, modality_told: bool) -> Case:
    """Return the case of a scan in a data set.

    Args:
        one: what was found.
        recipe: how the scans are prepared.
        modality_told: take the modality that the data set tells, where it does.
    """
    if one.modality and modality_told:
        recipe = replace(recipe, modality=one.modality)
    name = masks.base_of(one.name)
    files = (one.path, *voxel_file(one.path))
    found = Found(name, one.path, files, one.problem)
    return Case(found, PurePosixPath(name), f"_{recipe.modality}", recipe, one.masks)


def clashes(cases: Sequence[Case]) -> dict[str, InputError]:
    """Return case name -> problem, for cases whose files would have the same names."""
    by_target: defaultdict[PurePosixPath, list[Case]] = defaultdict(list)
    for case in cases:
        by_target[case.target].append(case)
    problems: dict[str, InputError] = {}
    for target, same in by_target.items():
        if len(same) > 1:
            told = " and ".join(str(case.found.path) for case in same)
            msg = f"{told} would both be called {target}"
            error = NameClashError(msg, hint="Take one of them, with --include.")
            problems |= {case.name: error for case in same}
    return problems
