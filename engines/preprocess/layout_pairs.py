"""Scans and masks that are paired by their names, or by a table."""

from collections.abc import Mapping
from pathlib import Path

from engines.errors import (
    InputError,
    MaskError,
    NotFoundError,
    UnsupportedError,
)
from engines.preprocess.laid_out import (
    DataSet,
    Findings,
    LaidOut,
    Named,
    matches,
    named_after,
)
from engines.preprocess.mask_files import by_scheme
from engines.preprocess.masks import base_of
from engines.tables import read_table
from engines.volume import stem_of

CSV_SUFFIX = ".csv"
COLUMNS = ("image", "mask")
"""Columns that a table must have; ``name`` and ``subject`` are optional."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "scans")
MASK_FOLDERS = ("masks", "mask", "msks", "msk", "labels", "label", "segmentations")
"""What the folders of a pair may be called, in any case of letters."""

IMAGE_ENDINGS = ("_image", "_img")
MASK_ENDINGS = ("_mask", "_msk", "_label", "_labels", "_seg")
"""What may follow the name that an image and its mask have in common."""


def find_pairs(data: DataSet) -> Findings:
    """Find images and masks that are called alike.

    In two folders (``IMAGE_FOLDERS`` and ``MASK_FOLDERS``) they have the same stem;
    in one folder ``X_mask`` (``MASK_ENDINGS``) belongs to ``X`` or ``X_image``, and
    ``X/mask`` to ``X/image``. Folders in between become part of the name. A table
    (CSV) has the columns ``image`` and ``mask`` with paths relative to itself, and
    may have ``name`` and ``subject``.

    Raises:
        NotFoundError: no such folders and no such endings.
        UnsupportedError: two folders might hold the images, or the masks.
        UnreadableError: the table is no text or lacks a column.
    """
    if not data.root.is_dir():
        return _from_table(data)
    images, masks = _folder(data.root, IMAGE_FOLDERS), _folder(data.root, MASK_FOLDERS)
    if images is not None and masks is not None:
        return _two_folders(data, images, masks)
    return _one_folder(data)


def _folder(root: Path, names: tuple[str, ...]) -> str | None:
    found = [p.name for p in sorted(root.iterdir()) if p.name.lower() in names]
    if len(found) > 1:
        msg = f"{root} holds {' and '.join(found)}; which of them is meant is not clear"
        raise UnsupportedError(msg, hint="Rename all but one, or give a CSV table.")
    return found[0] if found else None


def _two_folders(data: DataSet, images: str, masks: str) -> Findings:
    scans, maps = (
        [(_key(path, data.root / place, ends), path) for path in data.images(place)]
        for place, ends in ((images, IMAGE_ENDINGS), (masks, MASK_ENDINGS))
    )
    return _paired(data, scans, maps, (images, masks))


def _one_folder(data: DataSet) -> Findings:
    scans: list[Named] = []
    maps: list[Named] = []
    for path in data.images():
        is_mask = f"_{stem_of(path).lower()}".endswith(MASK_ENDINGS)
        endings = MASK_ENDINGS if is_mask else IMAGE_ENDINGS
        (maps if is_mask else scans).append((_key(path, data.root, endings), path))
    if not maps:
        msg = (
            f"no folders of images and masks ({', '.join(IMAGE_FOLDERS)}; "
            f"{', '.join(MASK_FOLDERS)}) and no files X{', X'.join(MASK_ENDINGS)} "
            f"under {data.root}"
        )
        raise NotFoundError(msg, hint="Rename them so, or give a CSV table.")
    return _paired(data, scans, maps, (str(data.root), str(data.root)))


def _paired(
    data: DataSet,
    images: list[Named],
    masks: list[Named],
    places: tuple[str, str],
) -> Findings:
    cases = []
    for match in matches(images, masks, places):
        modality = _modality(match.path)
        held = by_scheme(match.mask, data.scheme) if match.mask else {}
        cases.append(LaidOut(match.key, match.path, held, modality, match.problem))
    return Findings(tuple(cases))


def _key(path: Path, root: Path, endings: tuple[str, ...]) -> str:
    """Return what an image and its mask have in common, folders joined by ``_``."""
    stem = f"_{stem_of(path)}"
    ending = next((end for end in endings if stem.lower().endswith(end)), "")
    bare = base_of(stem[: len(stem) - len(ending)])[1:]
    parts = [*path.parent.relative_to(root).parts, bare]
    return "_".join(part for part in parts if part) or root.resolve().name


def _modality(path: Path) -> str | None:
    return {"_ct": "ct", "_mr": "mr"}.get(stem_of(path)[-3:])


def _from_table(data: DataSet) -> Findings:
    rows = read_table(data.root, COLUMNS)
    if not rows:
        msg = f"{data.root} has no rows"
        raise NotFoundError(msg, hint="Add a line for each image and its mask.")
    return Findings(tuple(_row(data, line, row) for line, row in rows))


def _row(data: DataSet, line: int, told: Mapping[str, str]) -> LaidOut:
    place = f"{data.root.name}, line {line}"
    paths = {key: data.root.parent / told.get(key, "") for key in COLUMNS}
    image, mask = paths["image"], paths["mask"]
    name = told.get("name") or _key(image, image.parent, IMAGE_ENDINGS)
    problem: InputError | None = None
    for key, path in paths.items():
        if not told.get(key) or not path.is_file():
            msg = f"{place}: no {key} {path if told.get(key) else 'is named'}"
            problem = MaskError(msg, hint="Paths are relative to the table: mend it.")
    if not name or {"/", "\\"} & {*name} or name.startswith("."):
        msg = f"{place}: {name!r} cannot be the name of a file"
        problem = UnsupportedError(msg, hint="Name it with letters, digits, - and _.")
        name = f"line-{line}"
    if told.get("subject"):
        name = named_after(name, told["subject"])
    held = {} if problem else by_scheme(mask, data.scheme)
    return LaidOut(name, image, held, _modality(image), problem)
