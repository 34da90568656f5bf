"""Which prediction belongs to which truth, by the names of the files.

A file's key is its path below the folder given, without the endings that say what
it holds (``_ct``, ``_mr``, ``_seg-..``, ``_msk``) and without the folder of its own
that ``spine segment`` gives each case. ``_dir-..`` and the folders above may be
missing on one side; where both sides have them they must agree, so that a scan is
never scored against another patient's truth. A folder with one file per structure, as
TotalSegmentator writes it, counts as one map that is called like the folder. A CSV
table may say instead which files belong together.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import MaskError, NotFoundError, SettingsError, SpineError
from engines.files import files_below
from engines.labels import STRUCTURES
from engines.results import Note
from engines.scans import STRUCTURE_FOLDER, is_label_map
from engines.volume import stem_of, suffix_of

PREFERRED_KINDS = ("spine", "vert")
"""What is compared when a case has several label maps: ``_seg-KIND``."""

CSV_COLUMNS = ("prediction", "truth")

LISTED = 5
"""So many names are listed in a message; the others are counted."""

NAMING = (
    "Names must agree up to _ct, _mr, _seg-.. and _msk: "
    "NAME_ct/NAME_ct_seg-spine_msk.nii.gz belongs to NAME_seg-vert_msk.nii.gz."
)

_KIND = re.compile(r"_seg-([^_]+)", re.IGNORECASE)
_ENDING = re.compile(r"_(ct|mr|msk|seg-[^_]+)$", re.IGNORECASE)
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
    predicted, true = _label_maps(predictions), _label_maps(truth)
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
    return sorted(_unshared(pairs), key=lambda pair: pair.name), left


def read_pairs(table: Path) -> list[Pair]:
    """Return the cases that a CSV table lists.

    The columns ``prediction`` and ``truth`` hold paths, from the folder of the table;
    an empty prediction is a missing one. A column ``name`` may name the case.

    Raises:
        SettingsError: it is no such table, or two rows have the same name.
        NotFoundError: a file that it lists does not exist.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(CSV_COLUMNS) - set(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        msg = f"{table}: cannot be read as a table ({type(error).__name__})"
        raise SettingsError(msg) from None
    if missing or not rows:
        msg = f"{table}: no column {' and '.join(sorted(missing))}"
        raise SettingsError(
            msg if missing else f"{table}: no rows",
            hint="Give a CSV file with the columns prediction and truth.",
        )
    pairs = [_listed_pair(table, row) for row in rows]
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
    maps = _label_maps(truth)
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


def _listed_pair(table: Path, row: Mapping[str, str | None]) -> Pair:
    if not (row["truth"] or "").strip():
        msg = f"{table}: a row without truth"
        raise SettingsError(msg, hint="Every case needs a truth to be scored against.")
    truth = table.parent / (row["truth"] or "").strip()
    told = (row["prediction"] or "").strip()
    prediction = table.parent / told if told else None
    for path in (truth, prediction):
        if path is not None and not path.exists():
            msg = f"{table}: {path} does not exist"
            raise NotFoundError(msg, hint="Paths count from the folder of the table.")
    name = (row.get("name") or "").strip() or str(key_of(Path(truth.name)))
    return Pair(name, truth, prediction)


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


def _label_maps(given: Path) -> _Files:
    if given.is_file():
        return {key_of(Path(given.name)): [given]}
    if not given.is_dir():
        msg = f"{given} does not exist"
        raise NotFoundError(msg, hint="Give a label map or a folder of them.")
    images = [path for path in sorted(files_below(given)) if _is_image(path)]
    if not images:
        msg = f"no label maps under {given}"
        raise NotFoundError(msg, hint="Give a label map or a folder of them.")
    split = {path.parent for path in images if stem_of(path) in STRUCTURES}
    cases = split | {one.parent for one in split if one.name == STRUCTURE_FOLDER}
    whole = [path for path in images if path.parent not in cases]
    named = [path for path in whole if is_label_map(path)]
    found: _Files = {}
    for folder in sorted(split):
        found.setdefault(_key_of_folder(folder, given), []).append(folder)
    for path in named or whole:
        found.setdefault(key_of(path.relative_to(given)), []).append(path)
    return found


def _is_one_case(path: Path) -> bool:
    """Say whether a folder itself holds a file per structure."""
    return path.is_dir() and any(
        stem_of(one) in STRUCTURES for one in path.iterdir() if suffix_of(one)
    )


def _key_of_folder(folder: Path, root: Path) -> Key:
    """Return the key of a folder that holds a file per structure."""
    if folder != root and folder.name == STRUCTURE_FOLDER:
        folder = folder.parent
    return key_of(folder.relative_to(root) if folder != root else Path(root.name))


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".") and bool(suffix_of(path)) and path.is_file()


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
