"""Find scans among files and folders, and read them.

A scan is an image file or a DICOM series. Its name is its path below the input it
was found in, without suffix; results are stored under that name.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from engines.convert.series import (
    DICOM_SUFFIX,
    Series,
    is_dicom,
    read_series,
    series_in,
)
from engines.errors import (
    NameClashError,
    NotFoundError,
    SpineError,
    UnreadableError,
    UnsupportedError,
)
from engines.files import TEMPORARY_PREFIX
from engines.volume import SUFFIXES, Volume, stem_of, suffix_of

LABEL_MAP_PATTERNS = ("*_msk.*", "*_seg-*")
"""How label maps are called; they are results or truth, never scans."""


@dataclass(frozen=True, slots=True)
class Found:
    """A scan to work on, or an input that cannot be worked on.

    Attributes:
        name: path below the input root, without suffix, with forward slashes.
        path: the image file, or the folder of the DICOM series.
        files: all files that hold the scan; they identify its contents.
        problem: why it cannot be read, None as far as can be told from outside.
    """

    name: str
    path: Path
    files: tuple[Path, ...] = ()
    problem: SpineError | None = None


@dataclass(slots=True)
class _Search:
    """What one search has seen so far: each real folder and file counts once."""

    avoid: Path | None
    folders: set[Path]
    files: set[Path]
    label_maps: int = 0
    other_dicom: int = 0
    repeats: int = 0


def find_scans(
    inputs: Sequence[Path],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    avoid: Path | None = None,
) -> list[Found]:
    """Return the scans among ``inputs``, by name in natural order.

    Nothing is passed over in silence: an input that is missing, broken or empty,
    or whose name another one has too, comes back with its ``problem``.

    Args:
        inputs: files and folders, mixed.
        include: globs on the name or the file name; without any, all are wanted.
        exclude: globs of what is not wanted, stronger than ``include``.
        avoid: the output folder, which is not searched when it lies below an input.
    """
    search = _Search(avoid.resolve() if avoid else None, set(), set())
    folders = [path for path in inputs if path.is_dir()]
    others = [path for path in inputs if not path.is_dir()]
    found = [one for folder in folders for one in _in_folder(folder, search)]
    found += _given_files(others, search)
    wanted = [
        one
        for one in found
        if (one.problem and one.path in inputs) or _wanted(one, include, exclude)
    ]
    if not wanted:
        wanted = [_nothing(inputs, len(found), search)]
    return sorted(_clashing(wanted), key=lambda one: (_natural(one.name), one.path))


def read_scan(scan: Found | Path) -> Volume:
    """Read a scan that was found, an image file or a DICOM folder.

    Raises:
        SpineError: the problem it was found with.
        InputError: it cannot be read, or a folder holds several scans.
    """
    if isinstance(scan, Path):
        several = find_scans([scan])
        if len(several) > 1:
            msg = f"{scan}: {len(several)} scans, where one is needed"
            raise UnsupportedError(msg, hint="Give one of them.")
        scan = several[0]
    if scan.problem is not None:
        raise scan.problem
    first = scan.files[0]
    return Volume.read(first) if suffix_of(first) else read_series(scan.files)


def is_label_map(path: Path) -> bool:
    """Say whether ``path`` is called like a label map."""
    return any(fnmatchcase(path.name, pattern) for pattern in LABEL_MAP_PATTERNS)


def _in_folder(root: Path, search: _Search) -> list[Found]:
    if root.resolve() in search.folders:
        return []
    maps, other, repeats = search.label_maps, search.other_dicom, search.repeats
    found = list(_walk(root, root, search))
    if found or search.repeats > repeats:
        return found
    left_out = _left_out(search.label_maps - maps, search.other_dicom - other)
    problem = NotFoundError(f"no scans under {root}{left_out}")
    return [Found(_root_name(root), root, problem=problem)]


def _left_out(label_maps: int, other_dicom: int) -> str:
    counted = (
        (label_maps, "label map(s) (*_msk.*, *_seg-*)"),
        (other_dicom, "DICOM localizer(s) or object(s) without an image"),
    )
    told = [f"{count} {what}" for count, what in counted if count]
    return f"; left out: {', '.join(told)}" if told else ""


def _walk(folder: Path, root: Path, search: _Search) -> Iterator[Found]:
    real = folder.resolve()
    if real in search.folders or (real == search.avoid and folder != root):
        return
    search.folders.add(real)
    try:
        entries = sorted(folder.iterdir(), key=lambda path: _natural(path.name))
    except OSError as error:
        msg = f"{folder}: cannot be opened ({error.strerror})"
        yield Found(_below(folder, root), folder, problem=UnreadableError(msg))
        return
    shown = [path for path in entries if not path.name.startswith(".")]
    dicom = []
    for path in shown:
        if path.is_file():
            if _seen(path, search):
                continue
            if suffix_of(path):
                yield from _image(path, _below(path, root), search)
            elif is_dicom(path):
                dicom.append(path)
        elif path.is_symlink() and not path.exists():
            yield from _broken_link(path, root)
    if dicom:
        yield from _series(folder, _below(folder, root), dicom, search)
    for path in shown:
        if path.is_dir():
            yield from _walk(path, root, search)


def _seen(path: Path, search: _Search) -> bool:
    real = path.resolve()
    if real in search.files:
        search.repeats += 1
        return True
    search.files.add(real)
    return False


def _image(path: Path, name: str, search: _Search) -> Iterator[Found]:
    if path.name.startswith(TEMPORARY_PREFIX):
        return
    if is_label_map(path):
        search.label_maps += 1
        return
    yield Found(name, path, (path, *_voxel_file(path)))


def _voxel_file(path: Path) -> tuple[Path, ...]:
    """Return the file that a ``.mhd`` header names for its voxels."""
    if suffix_of(path) != ".mhd":
        return ()
    try:
        header = path.read_text(errors="replace")
    except OSError:
        return ()
    named = re.search(r"^\s*ElementDataFile\s*=\s*(.+?)\s*$", header, re.MULTILINE)
    voxels = path.parent / named[1] if named else path
    return (voxels,) if voxels != path and voxels.is_file() else ()


def _broken_link(path: Path, root: Path) -> Iterator[Found]:
    """Report a dead link that was a scan or, without a suffix, a folder of scans."""
    if is_label_map(path):
        return
    if suffix_of(path) or path.suffix.lower() in ("", DICOM_SUFFIX):
        msg = f"{path}: a link that leads nowhere, or round in a circle"
        yield Found(_below(path, root), path, problem=NotFoundError(msg))


def _series(
    folder: Path, name: str, files: Sequence[Path], search: _Search
) -> Iterator[Found]:
    grouped = series_in(files)
    search.other_dicom += grouped.left_out
    for series in grouped.series:
        yield _of_series(series, folder, name, several=len(grouped.series) > 1)
    if grouped.unreadable:
        first = grouped.unreadable[0].name
        msg = (
            f"{len(grouped.unreadable)} of {len(files)} DICOM files in {folder} "
            f"cannot be read, the first is {first}"
        )
        suffix = "_unreadable" if grouped.series else ""
        problem = UnreadableError(msg)
        yield Found(name + suffix, folder, grouped.unreadable, problem)


def _of_series(series: Series, folder: Path, name: str, *, several: bool) -> Found:
    return Found(f"{name}_{series.digest}" if several else name, folder, series.files)


def _given_files(paths: Iterable[Path], search: _Search) -> Iterator[Found]:
    dicom: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        if not path.is_file():
            yield Found(stem_of(path) or str(path), path, problem=_missing(path))
        elif _seen(path, search):
            continue
        elif suffix_of(path):
            yield from _image(path, stem_of(path), search)
        elif is_dicom(path):
            dicom[path.parent].append(path)
        else:
            msg = f"{path}: not a scan; known are {' '.join(SUFFIXES)} and DICOM"
            yield Found(path.stem, path, problem=UnsupportedError(msg))
    for folder, files in dicom.items():
        name = files[0].stem if len(files) == 1 else _root_name(folder)
        yield from _series(folder, name, files, search)


def _missing(path: Path) -> SpineError:
    if path.is_symlink():
        msg = f"{path}: a link that leads nowhere, or round in a circle"
        return NotFoundError(msg)
    if path.exists():
        return UnsupportedError(f"{path}: neither a file nor a folder")
    return NotFoundError(f"{path}: no such file or folder")


def _nothing(inputs: Sequence[Path], unwanted: int, search: _Search) -> Found:
    path = inputs[0] if inputs else Path()
    told = ", ".join(str(one) for one in inputs) or "nothing"
    msg = f"no scans in {told}{_left_out(search.label_maps, search.other_dicom)}"
    if unwanted:
        msg = f"none of the {unwanted} scans in {told} is wanted"
        problem = NotFoundError(msg, hint="Check --include and --exclude.")
        return Found(_root_name(path), path, problem=problem)
    return Found(_root_name(path), path, problem=NotFoundError(msg))


def _wanted(one: Found, include: Sequence[str], exclude: Sequence[str]) -> bool:
    names = (one.name, one.path.name)

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob) for name in names for glob in patterns)

    return (not include or matches(include)) and not matches(exclude)


def _clashing(found: Sequence[Found]) -> Iterator[Found]:
    """Yield what was found, with a problem for each name that is not unique."""
    by_name: defaultdict[str, list[Found]] = defaultdict(list)
    for one in found:
        by_name[one.name].append(one)
    for one in found:
        same = by_name[one.name]
        if len(same) == 1 or one.problem is not None:
            yield one
            continue
        told = " and ".join(str(other.path) for other in same)
        yield replace(
            one, problem=NameClashError(f"{told} would both be called {one.name!r}")
        )


def _root_name(root: Path) -> str:
    return root.resolve().name or "scans"


def _below(path: Path, root: Path) -> str:
    """Return the name of ``path``, found below ``root``."""
    if path == root:
        return _root_name(root)
    relative = path.relative_to(root)
    stem = path.name if path.is_dir() else stem_of(path).removesuffix(DICOM_SUFFIX)
    return str(PurePosixPath(*relative.parts[:-1], stem))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that puts ``scan2`` before ``scan10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]
