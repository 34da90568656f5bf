"""Which prediction belongs to which truth, by the names of the files.

A file's key is its path below the folder given, without the endings that say what
it holds (``_ct``, ``_mr``, ``_seg-..``, ``_msk``, ``.seg``) and without the folder of
its own that ``spine segment`` gives each case. ``_dir-..`` and the folders above may be
missing on one side; where both sides have them they must agree, so that a scan is
never scored against another patient's truth. A folder with one file per structure, as
TotalSegmentator writes it, counts as one map that is called like the folder. A CSV
table may say instead which files belong together.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from engines.errors import (
    MaskError,
    NotFoundError,
    SettingsError,
    SpineError,
    UnreadableError,
)
from engines.files import files_below
from engines.labels import structures
from engines.results import Note
from engines.scans import STRUCTURE_FOLDER, is_label_map
from engines.tables import read_table
from engines.volume import is_unread_image, stem_of, suffix_of

PREFERRED_KINDS = ("spine", "vert")
"""What is compared when a case has several label maps: ``_seg-KIND``."""

CSV_COLUMNS = ("prediction", "truth")

LISTED = 5
"""So many names are listed in a message; the others are counted."""

NAMING = (
    "Names must agree up to _ct, _mr, _seg-.., _msk and .seg: "
    "NAME_ct/NAME_ct_seg-spine_msk.nii.gz belongs to NAME_seg-vert_msk.nii.gz."
)

_KIND = re.compile(r"_seg-([^_]+)", re.IGNORECASE)
_ENDING = re.compile(
    r"(_(ct|mr|msk|mask|seg|label|labels|seg-[^_]+)|\.seg)$", re.IGNORECASE
)
_MARK = re.compile(r"_seg-|_msk$|[._]seg$|_mask$|_labels?$", re.IGNORECASE)
_SCAN = re.compile(r"_(ct|mr|mri|t1w?|t2w?)$|^(ct|mri?)$", re.IGNORECASE)
_DIRECTION = re.compile(r"_dir-([^_]+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """A case to score.

    Attributes:
        prediction: None where it is missing.
        problem: why it is not clear which files belong together, or None.
    """

    name: str
    truth: Path
    prediction: Path | None = None
    problem: SpineError | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """What identifies a case: folders, name, and direction if the name has one."""

    folders: tuple[str, ...]
    name: str
    direction: str = ""

    def __str__(self) -> str:
        direction = f"_dir-{self.direction}" if self.direction else ""
        return "/".join([*self.folders, self.name + direction])

    def may_be(self, other: "Key") -> bool:
        """Say whether both can be the same case: no part of them disagrees."""
        common = min(len(self.folders), len(other.folders))
        return (
            self.name == other.name
            and (not common or self.folders[-common:] == other.folders[-common:])
            and other.direction in ("", self.direction or other.direction)
        )


_Files = dict[Key, list[Path]]


def find_pairs(predictions: Path, truth: Path) -> tuple[list[Pair], list[Note]]:
    """Return the cases to score, by name, and warnings about the others.

    Args:
        predictions: a label map, or a folder of them, searched with its subfolders.
        truth: the same for the truth; every label map in it becomes a case.

    Raises:
        NotFoundError: a path does not exist, holds no label maps, or no prediction
            has a truth.
    """
    both = predictions, truth
    if all(path.is_file() for path in both) or all(map(_is_one_case, both)):
        return [Pair(str(key_of(Path(truth.name))), truth, predictions)], []
    sides = _searched(predictions), _searched(truth)
    others = sides[1].sure.keys(), sides[0].sure.keys()
    predicted, true = (
        side.label_maps(known) for side, known in zip(sides, others, strict=True)
    )
    exact = true.keys() & predicted.keys()
    matched = {
        key: [key] if key in exact else _alike(key, predicted.keys() - exact)
        for key in true
    }
    if predictions.is_file():
        matched = {key: found for key, found in matched.items() if found}
    if not any(matched.values()):
        msg = f"no prediction in {predictions} has a truth in {truth}"
        raise NotFoundError(msg, hint=NAMING)
    pairs = [_pair(key, true[key], found, predicted) for key, found in matched.items()]
    left = [] if truth.is_file() else _left_over(predicted, matched)
    told = "predictions", "truth"
    for side, known, which in zip(sides, others, told, strict=True):
        left += side.passed_over(known, which)
    return sorted(_unshared(pairs), key=lambda pair: pair.name), left


def read_pairs(table: Path) -> list[Pair]:
    """Return the cases that a CSV table lists.

    The columns ``prediction`` and ``truth`` hold paths, from the folder of the table;
    an empty prediction is a missing one. A column ``name`` may name the case. A row
    whose files are not there becomes a case with a problem.

    Raises:
        SettingsError: it is no such table, or two rows have the same name.
    """
    hint = "Give a CSV file with the columns prediction and truth."
    try:
        rows = read_table(table, CSV_COLUMNS)
    except UnreadableError as error:
        raise SettingsError(error.message, hint=hint) from None
    if not rows:
        raise SettingsError(f"{table}: no rows", hint=hint)
    pairs = [_listed_pair(table, line, row) for line, row in rows]
    names = [pair.name for pair in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{table}: several cases are called {_listed(twice)}"
        raise SettingsError(msg, hint="Add a column 'name' that tells them apart.")
    return pairs


def truths_of(
    names: Sequence[str], truth: Path, kind: str = ""
) -> dict[str, Path | SpineError]:
    """Return for scans, by name, the label map that is their truth, or why none is.

    Args:
        names: of scans, as ``scans.find_scans`` gives them.
        truth: a label map, or a folder of them.
        kind: of label map, ``_seg-KIND``, that is preferred where there are several.

    Raises:
        NotFoundError: there are no label maps.
    """
    found = _searched(truth)
    maps = found.label_maps({key_of(Path(name)) for name in names})
    if len(names) == 1 and truth.is_file():
        return {names[0]: truth}
    return {name: _truth_of(name, maps, truth, kind) for name in names}


def _truth_of(name: str, maps: _Files, truth: Path, kind: str) -> Path | SpineError:
    key = key_of(Path(name))
    found = [key] if key in maps else [one for one in maps if _same(key, one)]
    candidates = [path for one in found for path in maps[one]]
    if not candidates:
        return NotFoundError(f"{name} has no truth in {truth}", hint=NAMING)
    try:
        return _chosen(name, candidates, [kind] if kind else [])
    except MaskError as error:
        return error


def _same(key: Key, other: Key) -> bool:
    return key.may_be(other) or other.may_be(key)


def _listed_pair(table: Path, line: int, row: Mapping[str, str]) -> Pair:
    given = {side: row[side] for side in CSV_COLUMNS}
    paths = {side: _listed_file(table, told) for side, told in given.items() if told}
    truth, prediction = paths.get("truth"), paths.get("prediction")
    place = f"{table.name}, line {line}"
    named = str(key_of(Path(truth.name))) if truth else f"line {line}"
    name = row.get("name") or named
    if truth is None:
        shown = prediction or table
        msg = f"{place}: no truth is named"
        hint = "Every case needs a truth to be scored against."
        return Pair(name, shown, prediction, MaskError(msg, hint=hint))
    for side, path in paths.items():
        if not path.exists():
            msg = f"{place}: the {side} {path} does not exist"
            hint = "Paths count from the folder of the table."
            return Pair(name, truth, None, NotFoundError(msg, hint=hint))
    return Pair(name, truth, prediction)


def _listed_file(table: Path, told: str) -> Path:
    path = table.parent / told
    if "\\" in told and not path.exists():
        return table.parent / told.replace("\\", "/")
    return path


def key_of(path: Path) -> Key:
    """Return the key of a label map, given by its path below the folder searched."""
    name, direction = _name_of(stem_of(path))
    folders = path.parent.parts
    if folders and _name_of(folders[-1]) == (name, direction):
        folders = folders[:-1]
    return Key(folders, name, direction)


def kind_of(path: Path) -> str:
    """Return what ``_seg-..`` in the file name says, in lower case, or nothing."""
    found = None if path.is_dir() else _KIND.search(stem_of(path))
    return found[1].lower() if found else ""


def _name_of(stem: str) -> tuple[str, str]:
    bare = _without_endings(stem)
    direction = _DIRECTION.search(bare)
    if direction is None:
        return bare, ""
    return _without_endings(bare[: direction.start()]), direction[1]


def _without_endings(stem: str) -> str:
    shorter = _ENDING.sub("", stem)
    return stem if shorter in ("", stem) else _without_endings(shorter)


@dataclass(slots=True)
class _Found:
    """What lies in a folder of label maps.

    Attributes:
        sure: label maps, by their keys.
        scans: called like scans, among label maps that are marked as such; one may
            be a label map all the same, if nothing else can be the other side's.
        beside: images beside a label map of the same key: its scan.
        unread: images of formats that are not read.
    """

    sure: _Files
    scans: _Files
    beside: list[Path]
    unread: list[Path]

    def label_maps(self, known: Set[Key]) -> _Files:
        """Return the label maps; of what is called like a scan, those ``known``."""
        return self.sure | self._taken(known)

    def _taken(self, known: Set[Key]) -> _Files:
        """Return what is called like a scan where only it can be of a known case."""
        return {
            key: files
            for key, files in self.scans.items()
            if any(_same(key, other) for other in known)
            and not any(_same(key, own) for own in self.sure)
        }

    def passed_over(self, known: Set[Key], side: str) -> list[Note]:
        """Return notes that name every image that was not taken for a label map."""
        taken = self._taken(known)
        left = [files for key, files in self.scans.items() if key not in taken]
        scans = [path for files in left for path in files]
        notes = []
        for code, files, why in (
            ("scans_left_out", [*self.beside, *scans], "taken for scans"),
            ("unread", self.unread, "of a format that is not read"),
        ):
            if files:
                told = f"{len(files)} image(s) among the {side} are {why}, not scored: "
                notes.append(Note(code, told + _listed(p.name for p in files)))
        return notes


def _searched(given: Path) -> _Found:
    if given.is_file():
        return _Found({key_of(Path(given.name)): [given]}, {}, [], [])
    if not given.is_dir():
        msg = f"{given} does not exist"
        raise NotFoundError(msg, hint="Give a label map or a folder of them.")
    files = [path for path in sorted(files_below(given)) if _is_shown_file(path)]
    unread = [path for path in files if is_unread_image(path)]
    images = [path for path in files if suffix_of(path)]
    if not images:
        told = f"; {len(unread)} of a format that is not read" if unread else ""
        msg = f"no label maps under {given}{told}"
        raise NotFoundError(msg, hint="Give a label map or a folder of them.")
    split = _folders_of_structures(images)
    cases = split | {one.parent for one in split if one.name == STRUCTURE_FOLDER}
    whole = [path for path in images if path.parent not in cases]
    sure: _Files = {}
    for folder in sorted(split):
        sure.setdefault(_key_of_folder(folder, given), []).append(folder)
    marked = [path for path in whole if _is_marked(path)]
    for path in marked:
        sure.setdefault(key_of(path.relative_to(given)), []).append(path)
    found = _Found(sure, {}, [], unread)
    found.beside = [
        path
        for path in images
        if path.parent in cases - split and path.parent not in split
    ]
    masked = {key_of(path.relative_to(given)) for path in marked}
    for path in whole:
        key = key_of(path.relative_to(given))
        if _is_marked(path):
            continue
        if key in masked:
            found.beside.append(path)
        elif marked and _SCAN.search(stem_of(path)):
            found.scans.setdefault(key, []).append(path)
        else:
            sure.setdefault(key, []).append(path)
    return found


def _is_marked(path: Path) -> bool:
    """Say whether a file is called as only label maps are."""
    return is_label_map(path) or bool(_MARK.search(stem_of(path)))


def _folders_of_structures(images: Iterable[Path]) -> set[Path]:
    by_folder: dict[Path, list[str]] = {}
    for path in images:
        by_folder.setdefault(path.parent, []).append(stem_of(path))
    return {folder for folder, stems in by_folder.items() if structures(stems)}


def _is_one_case(path: Path) -> bool:
    """Say whether a folder itself holds a file per structure."""
    return path.is_dir() and bool(
        structures(stem_of(one) for one in path.iterdir() if suffix_of(one))
    )


def _key_of_folder(folder: Path, root: Path) -> Key:
    """Return the key of a folder that holds a file per structure."""
    if folder != root and folder.name == STRUCTURE_FOLDER:
        folder = folder.parent
    return key_of(folder.relative_to(root) if folder != root else Path(root.name))


def _is_shown_file(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()


def _alike(key: Key, others: Iterable[Key]) -> list[Key]:
    return sorted((other for other in others if key.may_be(other)), key=str)


def _pair(
    key: Key, truths: Sequence[Path], found: Sequence[Key], predicted: _Files
) -> Pair:
    name = str(key)
    candidates = [path for partner in found for path in predicted[partner]]
    try:
        if len(found) > 1:
            raise _ambiguous(name, candidates)
        in_both = [kind for kind in _kinds(truths) if kind in _kinds(candidates)]
        prediction = _chosen(name, candidates, in_both) if candidates else None
        return Pair(name, _chosen(name, truths, in_both), prediction)
    except MaskError as error:
        return Pair(name, truths[0], None, error)


def _kinds(paths: Sequence[Path]) -> list[str]:
    return [kind for kind in map(kind_of, paths) if kind]


def _chosen(name: str, paths: Sequence[Path], in_both: Sequence[str]) -> Path:
    """Return the label map to compare: of a kind both sides have, or the preferred.

    Raises:
        MaskError: several are as good.
    """
    order = [kind for kind in PREFERRED_KINDS if kind in in_both]
    order += [kind for kind in in_both if kind not in PREFERRED_KINDS]
    order += [kind for kind in PREFERRED_KINDS if kind not in in_both]
    best = next((kind for kind in order if kind in _kinds(paths)), None)
    left = [p for p in paths if kind_of(p) == best] if best else list(paths)
    if len(left) > 1:
        raise _ambiguous(name, left)
    return left[0]


def _ambiguous(name: str, paths: Iterable[Path]) -> MaskError:
    msg = f"{name}: more than one label map fits: {_listed(paths)}"
    return MaskError(msg, hint="Give the two files to compare, or keep one of them.")


def _unshared(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs, those refused that have one prediction between them."""
    owners: dict[Path | None, list[Path]] = {}
    for pair in pairs:
        owners.setdefault(pair.prediction, []).append(pair.truth)
    return [
        pair
        if pair.prediction is None or len(owners[pair.prediction]) == 1
        else Pair(
            pair.name,
            pair.truth,
            problem=_ambiguous(str(pair.prediction), owners[pair.prediction]),
        )
        for pair in pairs
    ]


def _left_over(predicted: _Files, matched: Mapping[Key, list[Key]]) -> list[Note]:
    used = {key for found in matched.values() for key in found}
    names = [str(key) for key in predicted if key not in used]
    if not names:
        return []
    told = f"{len(names)} prediction(s) without truth are not scored: {_listed(names)}"
    return [Note("no_truth", told)]


def _listed(names: Iterable[object]) -> str:
    told = [str(name) for name in names]
    more = len(told) - LISTED
    return ", ".join(told[:LISTED]) + (f" and {more} more" if more > 0 else "")
