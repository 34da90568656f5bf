"""Data sets as they are downloaded: which files are scans and which are their masks.

Each row of ``LAYOUTS`` finds the cases of one layout. Whatever it is, masks come out
as ``vert`` with VerSe ids, or as ``spine`` where vertebrae are not told apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from engines.errors import (
    MaskError,
    NotFoundError,
    SettingsError,
    UnsupportedError,
)
from engines.labels import MR_CLASSES, SCHEMES, STRUCTURES, Scheme
from engines.preprocess.laid_out import DataSet, Findings, LaidOut, matches
from engines.preprocess.layout_nnunet import find_nnunet
from engines.preprocess.layout_pairs import CSV_SUFFIX, find_pairs
from engines.preprocess.mask_files import MaskFiles, by_scheme
from engines.preprocess.masks import DERIVATIVES, RAWDATA, base_of, masks_of
from engines.scans import FLAT_MASK, STRUCTURE_FOLDER, is_label_map
from engines.volume import stem_of

Finder = Callable[[DataSet], Findings]

SCANS = {"ct": "ct", "mri": "mr"}
"""What TotalSegmentator calls the scan of a case -> modality."""

_PARTIAL = 100
"""What SPIDER adds to the id of a vertebra that is only partly in view."""

_SPIDER_HINT = "Check that the masks are those of SPIDER; its ids are 1-25, 100-225."


@dataclass(frozen=True, slots=True)
class Layout:
    """One row.

    Attributes:
        name: what the user types.
        finder: finds the cases.
        scheme: how its vertebrae are numbered, unless the user says otherwise.
        numbered: whether the user may say otherwise; else files, names or the data
            set itself tell which vertebra is which.
        leaves_out_empty: whether cases without any spine are left out, since they are
            what a data set of the whole body holds many of.
    """

    name: str
    finder: Finder
    scheme: Scheme = "verse"
    numbered: bool = False
    leaves_out_empty: bool = False


def row_of(name: str) -> Layout:
    """Return the row called ``name``.

    Raises:
        SettingsError: there is none; the hint lists those there are.
    """
    try:
        return LAYOUTS[name]
    except KeyError:
        msg = f"no layout of a data set is called {name!r}"
        raise SettingsError(msg, hint=f"Choose one of: {', '.join(LAYOUTS)}.") from None


def scheme_of(layout: str | None, scheme: str | None) -> str:
    """Return how vertebrae are numbered, after what the user said of it, if anything.

    Raises:
        SettingsError: no such layout, or one whose numbering is not to be chosen.
    """
    if layout is None:
        return scheme or "verse"
    row = row_of(layout)
    if scheme not in (None, row.scheme) and not row.numbered:
        msg = f"--scheme {scheme} does not go with --from {layout}"
        raise SettingsError(msg, hint="Leave --scheme out: the data set tells.")
    return scheme or row.scheme


def find_cases(
    layout: str,
    source: Path,
    scheme: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    avoid: Path | None = None,
) -> Findings:
    """Return the cases of a data set, by name.

    Args:
        layout: one of ``LAYOUTS``.
        source: folder of the data set, or a table of pairs.
        scheme: how its vertebrae are numbered.
        include: globs on the name, the file name or the path below ``source``;
            empty takes all.
        exclude: globs of what is left out.
        avoid: the output folder.

    Raises:
        SettingsError: no such layout.
        InputError: ``source`` is not laid out so, or none of its cases is wanted.
    """
    row = row_of(layout)
    if not source.exists():
        msg = f"{source}: no such file or folder"
        raise NotFoundError(msg, hint="Give the folder of the data set.")
    table = row.finder is find_pairs and source.suffix.lower() == CSV_SUFFIX
    if not (source.is_dir() or table):
        msg = f"{source} is not a folder, which --from {layout} needs"
        raise UnsupportedError(msg, hint="Unpack the data set and give its folder.")
    found = row.finder(DataSet(source, scheme, avoid.resolve() if avoid else None))
    wanted = [one for one in found.cases if _wanted(one, source, include, exclude)]
    if not wanted:
        msg = f"none of the {len(found.cases)} cases under {source} is wanted"
        raise NotFoundError(msg, hint="Check --include and --exclude.")
    by_name = sorted(wanted, key=lambda one: (one.name, one.path))
    return replace(found, cases=tuple(by_name))


def find_verse(data: DataSet) -> Findings:
    """Find the cases of VerSe 2019 or 2020.

    By subject: ``rawdata/sub-X/NAME_ct.nii.gz`` with ``NAME_seg-vert_msk.nii.gz`` in
    ``derivatives/sub-X`` or beside it. As for the challenges: ``X.nii.gz`` beside
    ``X_seg.nii.gz``. Names lose their folders, so that a scan of two parts of the
    data set clashes with itself.

    Raises:
        NotFoundError: no masks.
    """
    images = data.images()
    maps = {p for p in images if is_label_map(p) or stem_of(p).endswith(FLAT_MASK)}
    cases = [_verse_case(p, data.scheme) for p in images if p not in maps]
    if not any(case.masks for case in cases) and not maps:
        msg = (
            f"no {RAWDATA} and {DERIVATIVES} folders and no files *_seg-vert_msk or "
            f"*{FLAT_MASK} under {data.root}"
        )
        raise NotFoundError(msg, hint="Give the folder that VerSe was unpacked to.")
    used = {
        file for case in cases for mask in case.masks.values() for file in mask.files
    }
    refused = {case.name for case in cases if case.problem}
    alone: dict[str, LaidOut] = {}
    for path in sorted(maps - used):
        name = stem_of(path).split("_seg")[0]
        if name not in refused:
            msg = f"{path} has no scan: neither beside it nor in {RAWDATA}"
            hint = f"Add {name}_ct.nii.gz, or leave it out with --exclude."
            alone[name] = LaidOut(name, path, problem=MaskError(msg, hint=hint))
    return Findings((*cases, *alone.values()))


def find_spider(data: DataSet) -> Findings:
    """Find the cases of SPIDER: ``images/1_t1.mha`` with ``masks/1_t1.mha``.

    They are called ``sub-1_t1``, so that the scans of one person stay together. Its
    ids: 1-25 vertebrae from L5 upwards, 101-125 the same where only a part is in
    view, 100 the spinal canal, 201-225 discs. ``vert`` has the vertebrae, those in
    part among them; ``mr`` the classes of ``labels.MR_CLASSES``.

    Raises:
        NotFoundError: one of the folders is missing.
    """
    places = ("images", "masks")
    missing = [name for name in places if not (data.root / name).is_dir()]
    if missing:
        msg = f"no {' and no '.join(missing)} folder under {data.root}"
        raise NotFoundError(
            msg, hint="Unpack images.zip and masks.zip of SPIDER there."
        )
    images, masks = (
        [(stem_of(path), path) for path in data.images(place)] for place in places
    )
    cases = []
    for match in matches(images, masks, places):
        number, _, rest = match.key.partition("_")
        name = f"sub-{number}_{rest}" if number.isdecimal() and rest else match.key
        held = _spider_masks(match.mask) if match.mask else {}
        cases.append(LaidOut(name, match.path, held, "mr", match.problem))
    return Findings(tuple(cases))


def find_totalsegmentator(data: DataSet) -> Findings:
    """Find the cases of TotalSegmentator's data sets, CT and MR.

    A case is a folder, ``s0001``, with ``ct.nii.gz`` or ``mri.nii.gz`` and a file per
    structure in ``segmentations``; those of ``labels.STRUCTURES`` become one mask.

    Raises:
        NotFoundError: no folder of structures.
    """
    files = dict(data.folders())
    structured = {folder.parent for folder in files if folder.name == STRUCTURE_FOLDER}
    if not structured:
        msg = f"no folders {STRUCTURE_FOLDER} under {data.root}"
        hint = "Give the folder that holds s0001/ct.nii.gz and s0001/segmentations."
        raise NotFoundError(msg, hint=hint)
    scans = {
        folder: [path for path in paths if stem_of(path) in SCANS]
        for folder, paths in files.items()
        if folder.name != STRUCTURE_FOLDER
    }
    cases: list[LaidOut] = []
    for folder in sorted(structured | {place for place, held in scans.items() if held}):
        name = folder.resolve().name
        structures = files.get(folder / STRUCTURE_FOLDER)
        if not scans.get(folder) or structures is None:
            lacking = "segmentations" if structures is None else "ct or mri image"
            problem = MaskError(f"no {lacking} in {folder}", hint="Unpack it again.")
            cases.append(LaidOut(name, folder, problem=problem))
            continue
        held = _structures(structures)
        cases += [
            LaidOut(name, path, held, SCANS[stem_of(path)]) for path in scans[folder]
        ]
    return Findings(tuple(cases))


def _verse_case(path: Path, scheme: str) -> LaidOut:
    stem = stem_of(path)
    name, modality = base_of(stem), "mr" if stem.endswith("_mr") else "ct"
    try:
        files = dict(masks_of(path))
    except MaskError as error:
        return LaidOut(name, path, modality=modality, problem=error)
    flat = path.with_name(path.name.replace(stem, stem + FLAT_MASK, 1))
    if flat.is_file() and files.setdefault("vert", flat) != flat:
        msg = f"{files['vert']} and {flat} are both the mask of {path.name}"
        problem = MaskError(msg, hint="Keep one of them.")
        return LaidOut(name, path, modality=modality, problem=problem)
    held = {kind: MaskFiles((file,)) for kind, file in files.items() if kind != "vert"}
    if "vert" in files:
        return LaidOut(name, path, held | by_scheme(files["vert"], scheme), modality)
    msg = (
        f"{path} has no mask: no {name}_seg-vert_msk beside it or in {DERIVATIVES}, "
        f"no {stem}{FLAT_MASK} beside it"
    )
    problem = MaskError(msg, hint="Add its mask, or leave it out with --exclude.")
    return LaidOut(name, path, modality=modality, problem=problem)


def _spider_masks(path: Path) -> dict[str, MaskFiles]:
    whole = SCHEMES["spider"]
    vertebrae = {**whole, **{old + _PARTIAL: new for old, new in whole.items()}}
    canal, discs = [100], [*range(201, 226)]
    tissues = dict.fromkeys([*range(1, 26), *range(101, 126)], MR_CLASSES["vertebra"])
    tissues |= dict.fromkeys(discs, MR_CLASSES["disc"])
    tissues |= dict.fromkeys(canal, MR_CLASSES["canal"])
    vertebrae |= dict.fromkeys([*canal, *discs], 0)
    return {
        kind: MaskFiles((path,), ids, told_by="SPIDER's numbering", hint=_SPIDER_HINT)
        for kind, ids in (("mr", tissues), ("vert", vertebrae))
    }


def _structures(paths: Sequence[Path]) -> dict[str, MaskFiles]:
    known = [(STRUCTURES[stem_of(p)], p) for p in paths if stem_of(p) in STRUCTURES]
    if not known:
        return {}
    values, files = zip(*sorted(known), strict=True)
    return {"vert": MaskFiles(files, values=values)}


def _wanted(
    one: LaidOut, root: Path, include: Sequence[str], exclude: Sequence[str]
) -> bool:
    names = [one.name, one.path.name]
    if one.path.is_relative_to(root):
        names.append(one.path.relative_to(root).as_posix())

    def matched(globs: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob) for name in names for glob in globs)

    return (not include or matched(include)) and not matched(exclude)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        row.name: row
        for row in (
            Layout("verse", find_verse, numbered=True),
            Layout("spider", find_spider, "spider"),
            Layout("totalsegmentator", find_totalsegmentator, leaves_out_empty=True),
            Layout("nnunet", find_nnunet),
            Layout("pairs", find_pairs, numbered=True),
        )
    }
)
