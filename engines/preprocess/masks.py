"""Masks that belong to a scan: where they lie, and the classes they are mapped to."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from engines.errors import MaskError, SettingsError
from engines.labels import (
    BACKGROUND,
    CLASS_SETS,
    EITHER,
    SCHEMES,
    VERTEBRAE,
    Scheme,
    class_of,
)
from engines.volume import stem_of, suffix_of

Classes = Literal["as-they-are", "binary", "spine", "regions", "vertebrae"]

CLASS_CHOICES: tuple[Classes, ...] = get_args(Classes)

VERTEBRA_KINDS = ("vert", "body")
"""Kinds of mask whose ids are vertebrae; others have ids of their own."""

SPINE_KIND = "spine"
"""The kind of mask that says where bone of the spine is, not which."""

UNSCORED = 255
"""Id of voxels that training leaves out of account."""

RAWDATA, DERIVATIVES = "rawdata", "derivatives"
"""Folders of scans and of their masks in the VerSe data sets."""

_ENDINGS = ("_ct", "_mr")


def base_of(name: str) -> str:
    """Return what a scan and its masks have in common, ``NAME`` of ``NAME_ct``."""
    return next((name[: -len(end)] for end in _ENDINGS if name.endswith(end)), name)


def masks_of(scan: Path) -> Mapping[str, Path]:
    """Return the masks that belong to an image file: kind -> path, by kind.

    ``NAME_seg-vert_msk.nii.gz`` beside ``NAME_ct.nii.gz`` is of the kind ``vert``.
    As in VerSe, the masks of ``rawdata/X`` may also lie in ``derivatives/X``. A
    DICOM folder has none.

    Raises:
        MaskError: two masks of one kind.
    """
    if not suffix_of(scan):
        return {}
    start, found = f"{base_of(stem_of(scan))}_seg-", dict[str, Path]()
    for path in sorted(p for folder in _folders(scan) for p in folder.iterdir()):
        stem = stem_of(path)
        if not (suffix_of(path) and stem.startswith(start) and stem.endswith("_msk")):
            continue
        kind = stem.removeprefix(start).removesuffix("_msk")
        if kind in found:
            msg = f"{found[kind].name} and {path.name} are both the {kind!r} mask"
            raise MaskError(msg, hint="Keep one of them.")
        found[kind] = path
    return MappingProxyType(dict(sorted(found.items())))


def _folders(scan: Path) -> list[Path]:
    apart = [DERIVATIVES if part == RAWDATA else part for part in scan.parent.parts]
    other = Path(*apart)
    found = [scan.parent]
    return [*found, other] if other != scan.parent and other.is_dir() else found


def choose(*, binary: bool, classes: str | None) -> str:
    """Return the one of ``CLASS_CHOICES`` that two options ask for.

    Raises:
        SettingsError: both were given.
    """
    if binary and classes:
        msg = "--binary and --classes exclude each other"
        raise SettingsError(msg, hint="Give one of them.")
    return "binary" if binary else classes or "as-they-are"


def check_choice(scheme: str, classes: str) -> None:
    """Refuse a mapping that does not exist.

    Raises:
        SettingsError: an unknown name, or classes that a binary mask cannot give.
    """
    for value, known, what in (
        (scheme, tuple(SCHEMES), "scheme"),
        (classes, CLASS_CHOICES, "set of classes"),
    ):
        if value not in known:
            msg = f"no {what} is called {value!r}"
            raise SettingsError(msg, hint=f"Choose one of: {', '.join(known)}.")
    if scheme == "binary" and classes in ("regions", "vertebrae"):
        msg = f"a binary mask does not tell {classes} apart"
        raise SettingsError(msg, hint="Choose --classes spine, or another --scheme.")


def mapped_scored(voxels: NDArray[Any], kind: str, *, classes: str) -> NDArray[Any]:
    """Return a mask of VerSe ids as ``mapped`` does, in which ``UNSCORED`` stays.

    Raises:
        MaskError: an id that VerSe does not have.
    """
    aside = voxels == UNSCORED
    scored = np.where(aside, BACKGROUND, voxels) if aside.any() else voxels
    made = mapped(scored, kind, scheme="verse", classes=classes)
    made[aside] = UNSCORED
    return made


def mapped(
    voxels: NDArray[Any], kind: str, *, scheme: str, classes: str
) -> NDArray[Any]:
    """Return the mask with its ids mapped to ``classes``, in the smallest type.

    Only masks of vertebrae are mapped by id; ``binary`` sets every kind to 0 and 1.

    Raises:
        MaskError: an id that the scheme does not have.
    """
    if classes == "binary" or classes == kind == SPINE_KIND:
        return (voxels > BACKGROUND).astype(np.uint8)
    if classes == "as-they-are" or kind not in VERTEBRA_KINDS:
        return _compact(voxels)
    table = SCHEMES[cast("Scheme", scheme)]
    ids, places = np.unique(voxels, return_inverse=True)
    if scheme in EITHER and EITHER[scheme][0] in ids:
        doubtful, meanings, hint = EITHER[scheme]
        msg = f"{doubtful} in the {kind!r} mask is {meanings} of {scheme}"
        raise MaskError(msg, hint=hint)
    unknown = [value for value in ids.tolist() if value and value not in table]
    if unknown:
        told = ", ".join(str(value) for value in unknown[:5])
        msg = f"the {kind!r} mask holds {told}, which the scheme {scheme!r} has not"
        raise MaskError(msg, hint="Say with --scheme how its vertebrae are numbered.")
    targets = [_target(table[v], classes) if v else BACKGROUND for v in ids.tolist()]
    return np.array(targets, np.uint8)[places].reshape(voxels.shape)


def _target(verse_id: int, classes: str) -> int:
    if classes == "vertebrae":
        return VERTEBRAE[verse_id].id
    return class_of(verse_id, CLASS_SETS[classes])


def _compact(voxels: NDArray[Any]) -> NDArray[Any]:
    ends = (np.min_scalar_type(int(end)) for end in (voxels.min(), voxels.max()))
    needed = np.result_type(np.uint8, *ends)
    return voxels.astype(needed)
