"""Raw data sets of nnU-Net, of version 2 or 1."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import (
    MaskError,
    NotFoundError,
    UnreadableError,
    UnsupportedError,
)
from engines.labels import BACKGROUND, BY_NAME
from engines.preprocess.laid_out import DataSet, Findings, LaidOut, Named, matches
from engines.preprocess.mask_files import LISTED, MaskFiles
from engines.preprocess.masks import SPINE_KIND, UNSCORED
from engines.results import Note
from engines.volume import SUFFIXES, stem_of

RECORD = "dataset.json"
PARTS = ("Tr", "Ts")
"""Endings of ``images`` and ``labels``: the folders of training and of test cases."""

SPINE_NAMES = ("spine", "vertebra", "vertebrae", "bone", "vertebral column")
"""Names of a label that says where the spine is, not which vertebra."""

_VERTEBRA = re.compile(
    r"(?:vertebrae?[ _-]?)?(?:(c|th?|l)([1-9]\d?)|(s1|sacrum)|(coccyx))", re.IGNORECASE
)
_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_MR = ("mr", "t1", "t2", "stir", "flair", "dixon", "pd")
_HINT = "Give the folder DatasetXXX_NAME of nnUNet_raw."


@dataclass(frozen=True, slots=True)
class _Record:
    """What ``dataset.json`` says.

    Attributes:
        labels: name -> id in the files.
        channels: what the values of each file of a case are.
    """

    labels: Mapping[str, int]
    channels: tuple[str, ...]

    @property
    def modality(self) -> str | None:
        first = self.channels[0].lower() if self.channels else ""
        return "ct" if first == "ct" else "mr" if first.startswith(_MR) else None


def find_nnunet(data: DataSet) -> Findings:
    """Find the cases of ``imagesTr`` and, where they have labels, ``imagesTs``.

    Labels are known by their names: VerSe's (``L1``), TotalSegmentator's
    (``vertebrae_L1``, ``sacrum``), or ``SPINE_NAMES`` for a ``spine`` mask. A label
    called ``ignore`` is left out of account in training; others are background.

    Raises:
        NotFoundError: no ``dataset.json`` or no images.
        UnreadableError: ``dataset.json`` is broken.
        UnsupportedError: a label that is a region, or several channels.
        MaskError: no vertebrae among the labels.
    """
    record = _record(data.root / RECORD)
    kind, ids, others = _ids(record.labels, data.root)
    notes = [_note_of(others)] if others else []
    cases: list[LaidOut] = []
    for part in PARTS:
        images, labels = f"images{part}", f"labels{part}"
        if not (data.root / labels).is_dir():
            unused = len(data.images(images))
            if part != PARTS[0] and unused:
                msg = f"{unused} images in {images} have no labels and were left out"
                notes.append(Note("no_labels", msg))
                continue
        cases += _cases(data, images, labels, kind, ids, record.modality)
    if not cases:
        msg = f"no images in imagesTr or imagesTs under {data.root}"
        raise NotFoundError(msg, hint=_HINT)
    return Findings(tuple(cases), tuple(notes))


def _cases(
    data: DataSet,
    images: str,
    labels: str,
    kind: str,
    ids: Mapping[int, int],
    modality: str | None,
) -> list[LaidOut]:
    channels = _channels(data.images(images))
    first = [(case, paths[0]) for case, paths in channels.items()]
    maps: list[Named] = [(stem_of(path), path) for path in data.images(labels)]
    cases = []
    for match in matches(first, maps, (images, labels)):
        problem = match.problem
        if len(channels.get(match.key, ())) > 1:
            problem = _several(match.key, [p.name for p in channels[match.key]])
        held = {}
        if match.mask:
            hint = f"Add the label to {RECORD}."
            held[kind] = MaskFiles((match.mask,), ids, told_by=RECORD, hint=hint)
        cases.append(LaidOut(match.key, match.path, held, modality, problem))
    return cases


def _channels(paths: Sequence[Path]) -> Mapping[str, list[Path]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        parts = _CHANNEL.match(stem_of(path))
        found[parts["case"] if parts else stem_of(path)].append(path)
    return found


def _several(what: str, channels: Sequence[str]) -> UnsupportedError:
    msg = f"{what} has {len(channels)} channels ({', '.join(channels)}); one is needed"
    return UnsupportedError(msg, hint="Make a data set of one of the channels.")


def _record(path: Path) -> _Record:
    if not path.is_file():
        msg = f"no {RECORD} in {path.parent}"
        raise NotFoundError(msg, hint=_HINT)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: not JSON ({error})"
        raise UnreadableError(msg) from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        msg = f"{path} names no labels"
        hint = 'Add them, as in "labels": {"background": 0, "L1": 1}.'
        raise UnreadableError(msg, hint=hint)
    told = content.get("channel_names") or content.get("modality") or {}
    names = told.values() if isinstance(told, dict) else told
    channels = tuple(str(name) for name in names)
    if len(channels) > 1:
        raise _several(str(path), channels)
    ending = content.get("file_ending", ".nii.gz")
    if ending not in SUFFIXES:
        msg = f"{path}: files that end in {ending}; known are {' '.join(SUFFIXES)}"
        raise UnsupportedError(msg, hint="Convert the scans to NIfTI.")
    return _Record(_by_name(labels, path), channels)


def _by_name(labels: Mapping[str, Any], path: Path) -> Mapping[str, int]:
    """Return name -> id; version 1 has them the other way round."""
    if all(key.isdecimal() for key in labels):
        return {str(name): int(key) for key, name in labels.items()}
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    if regions:
        msg = f"{path}: the label {regions[0]!r} is a region of several ids"
        raise UnsupportedError(msg, hint="Give each label one id of its own.")
    try:
        return {name: int(value) for name, value in labels.items()}
    except (TypeError, ValueError) as error:
        msg = f"{path}: a label's id is no number ({error})"
        raise UnreadableError(msg, hint=f"Mend the labels in {RECORD}.") from error


def _ids(
    labels: Mapping[str, int], root: Path
) -> tuple[str, Mapping[int, int], list[str]]:
    """Return the kind of the masks, id -> id in the mask, and what is background."""
    inside = {name: place for name, place in labels.items() if place != BACKGROUND}
    ignored = {place for name, place in inside.items() if name.lower() == "ignore"}
    inside = {name: place for name, place in inside.items() if place not in ignored}
    known = {name: _verse_id(name) for name in inside}
    kind = "vert"
    if not any(known.values()):
        known = {name: int(name.lower() in SPINE_NAMES) for name in inside}
        kind = SPINE_KIND
    if not any(known.values()):
        told = ", ".join([*inside][:LISTED]) or "none but the background"
        msg = f"{root / RECORD}: no vertebrae among its labels ({told})"
        raise MaskError(msg, hint="Name them as in L1, vertebrae_L1, sacrum or spine.")
    ids = {place: known[name] for name, place in inside.items()}
    ids |= dict.fromkeys(ignored, UNSCORED)
    return kind, ids, [name for name, found in known.items() if not found]


def _verse_id(name: str) -> int:
    """Return the VerSe id of the vertebra called so, 0 for what is none."""
    parts = _VERTEBRA.fullmatch(name.strip())
    if parts is None:
        return BACKGROUND
    letter, number, sacrum, _ = parts.groups()
    called = "sacrum" if sacrum else "coccyx"
    if letter:
        called = f"{letter[0].upper()}{number}"
    vertebra = BY_NAME.get(called)
    return vertebra.id if vertebra else BACKGROUND


def _note_of(others: Sequence[str]) -> Note:
    more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
    told = ", ".join(others[:LISTED]) + more
    return Note("other_labels", f"labels that are no vertebrae are background: {told}")
