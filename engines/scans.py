"""Find scans among files, folders and archives, and read them.

A scan is an image file or a DICOM volume. Its name is its path below the input it
was found in, without suffix; results are stored under that name. The slices of a
DICOM series are brought together from all folders of an input.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from engines import archives, sniff
from engines.archives import Budget, Unpacked
from engines.convert.left_out import DISC_DIRECTORY, LeftOut
from engines.dicom_files import DicomFiles, Place, common, holds_dicom, is_hidden
from engines.errors import (
    NotFoundError,
    SpineError,
    UnreadableError,
    UnsupportedError,
)
from engines.files import TEMPORARY_PREFIX
from engines.found import (
    SPECIAL,
    Found,
    Search,
    Survey,
    clashing,
    entry_of,
    identity,
    is_seen,
    is_wanted,
    natural,
    root_name,
    without_persons,
)
from engines.results import Note
from engines.sniff import DICOM_SUFFIX
from engines.volume import (
    SUFFIXES,
    UNREAD,
    Volume,
    data_files,
    is_unread_image,
    require_scan_size,
    stem_of,
    suffix_of,
)

OTHER, EMPTY, HIDDEN = "not DICOM", "empty file", "hidden folder"
"""Why files and folders are passed over that are no DICOM objects."""


SPECIAL_HINT = "Put a file in its place."

FOREIGN_HINT = "Unpack it and give the folder; zip and tar archives are opened."

DICOM_HINT = "Give a folder, an archive or a file that holds DICOM images."


LABEL_MAP_PATTERNS = ("*_msk.*", "*_seg-*", "*.seg.nrrd")
"""How label maps are called; they are results or truth, never scans."""

STRUCTURE_FOLDER = "segmentations"
"""What TotalSegmentator calls the folder of a case's structures."""

LABEL_MAP_FOLDERS = (STRUCTURE_FOLDER, "labelsTr", "labelsTs")
"""Folders that hold label maps alone; the others are nnU-Net's."""

FLAT_MASK = "_seg"
"""How the masks of VerSe's challenge files, which lie beside their scans, end."""


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
    return [*survey(inputs, include, exclude, avoid).found]


def survey(
    inputs: Sequence[Path],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    avoid: Path | None = None,
    *,
    images: bool = True,
    keep_identifiers: bool = False,
) -> Survey:
    """Return the scans among ``inputs`` as ``find_scans`` does, and what was left out.

    In names and messages of what is found in DICOM, hashes stand for files and folders
    that are called after the patient.

    Args:
        inputs: files and folders, mixed.
        include: globs of what is wanted.
        exclude: globs of what is not wanted.
        avoid: the output folder.
        images: whether image files are wanted too, or DICOM only.
        keep_identifiers: whether names of patients may stay.
    """
    archives.sweep()
    search = Search(identity(avoid) if avoid else None, images, keep_identifiers)
    inputs = [_disc(path) for path in inputs]
    folders = [path for path in inputs if path.is_dir()]
    others = [path for path in inputs if not path.is_dir()]
    found = [one for folder in folders for one in _in_folder(folder, search)]
    found += _given_files(others, search)
    wanted = [
        one
        for one in found
        if (one.problem and one.path in inputs) or is_wanted(one, include, exclude)
    ]
    if not wanted:
        wanted = [_nothing(inputs, len(found), search)]
    hidden = search.hidden
    wanted = [without_persons(one, hidden) for one in clashing(wanted)]
    by_name = sorted(wanted, key=lambda one: (natural(one.name), one.path))
    left_out = (replace(one, path=hidden.path(one.path)) for one in search.left_out)
    return Survey(tuple(by_name), tuple(left_out), hidden)


def read_scan(scan: Found | Path | str) -> Volume:
    """Read a scan that was found, an image file or a DICOM folder.

    Raises:
        SpineError: the problem it was found with.
        InputError: it cannot be read, or a folder holds several scans.
    """
    return read_case(Path(scan) if isinstance(scan, str) else scan)[0]


def read_case(scan: Found | Path) -> tuple[Volume, tuple[Note, ...]]:
    """Read a scan as ``read_scan`` does, with what the user should know of it."""
    if isinstance(scan, Path):
        several = find_scans([scan])
        if len(several) > 1:
            msg = f"{scan}: {len(several)} scans, where one is needed"
            raise UnsupportedError(msg, hint="Give one of them.")
        scan = several[0]
    if scan.problem is not None:
        raise scan.problem
    if scan.stack is None:
        require_scan_size(scan.files[0])
        volume = Volume.read(scan.files[0])
        return volume, volume.notes
    from engines.convert.assemble import read_stack  # it takes pydicom

    with scan.hidden.errors():
        volume, notes = read_stack(scan.stack)
        scan.stamps.require_same()
    return volume, (*scan.notes, *scan.hidden.notes(notes))


def is_label_map(path: Path) -> bool:
    """Say whether ``path`` is called like a label map."""
    return any(fnmatchcase(path.name, pattern) for pattern in LABEL_MAP_PATTERNS)


def _holds_labels(path: Path) -> bool:
    """Say whether an image file is a label map, by its name and where it lies."""
    if is_label_map(path) or path.parent.name in LABEL_MAP_FOLDERS:
        return True
    scan = stem_of(path).removesuffix(FLAT_MASK)
    if scan == stem_of(path):
        return False
    return any((path.parent / f"{scan}{suffix}").exists() for suffix in SUFFIXES)


def _disc(path: Path) -> Path:
    """Return the folder of a disc for its directory file, else ``path``."""
    directory = path.name.upper() == DISC_DIRECTORY and path.is_file()
    return path.parent if directory else path


def _in_folder(root: Path, search: Search) -> list[Found]:
    if identity(root) in search.folders:
        return []
    place = Place(root_name(root), (), root)
    return _at(place, root, search)


def _at(
    place: Place,
    folder: Path,
    search: Search,
    *held: Unpacked,
    budget: Budget | None = None,
) -> list[Found]:
    """Return what lies in one input: a folder, or an archive that was unpacked."""
    maps, other, repeats = search.label_maps, search.objects, search.repeats
    dicom = DicomFiles(held=[*held])
    found = [*_walk(folder, place, search, dicom, budget)]
    found += _dicom_scans(dicom, search)
    if found or search.repeats > repeats:
        return found
    told = _left_out(search.label_maps - maps, search.objects - other)
    problem = _not_found(f"no scans under {place.shown}{told}", search)
    return [Found(place.name, place.shown, problem=problem)]


def _left_out(label_maps: int, other_dicom: int) -> str:
    counted = (
        (label_maps, "label map(s), by name or folder"),
        (other_dicom, "DICOM localizer(s) or object(s) without an image"),
    )
    told = [f"{count} {what}" for count, what in counted if count]
    return f"; left out: {', '.join(told)}" if told else ""


def _walk(
    folder: Path,
    place: Place,
    search: Search,
    dicom: DicomFiles,
    budget: Budget | None = None,
) -> Iterator[Found]:
    """Yield what lies in a folder and below, for all its DICOM goes to ``dicom``.

    Args:
        folder: where to begin.
        place: of ``folder``.
        search: what was seen so far.
        dicom: takes DICOM files.
        budget: of the archive that the folder came out of.
    """
    waiting = [(folder, place)]
    while waiting:
        folder, place = waiting.pop()
        inner: list[tuple[Path, Place]] = []
        try:
            status = folder.stat()
            real = status.st_dev, status.st_ino
            if real in search.folders or (real == search.avoid and place.parts):
                continue
            search.folders.add(real)
            held = sorted(folder.iterdir(), key=lambda path: natural(path.name))
            entries = [(path, entry_of(path)) for path in held]
        except OSError as error:
            msg = f"{place.shown}: cannot be opened ({error.strerror})"
            yield Found(place.name, place.shown, problem=UnreadableError(msg))
            continue
        for path, kind in entries:
            if kind == "file":
                yield from _file(path, place, search, dicom, budget)
            elif kind == "dead link" and not is_hidden(path):
                yield from _broken_link(path, place)
            elif kind == "folder" and not is_hidden(path):
                inner.append((path, place.below(path.name)))
            elif kind == "folder" and holds_dicom(path):
                search.left_out.append(LeftOut(place.shown / path.name, HIDDEN))
            elif kind in SPECIAL and not is_hidden(path):
                yield from _special(path, place, search, kind)
        waiting += reversed(inner)


def _special(path: Path, place: Place, search: Search, kind: str) -> Iterator[Found]:
    """Report what is called like a scan and is no file; count what is not.

    It is never opened: that would wait until somebody writes to it.
    """
    shown = place.shown / path.name
    named = (suffix_of(path) and search.images) or path.suffix.lower() == DICOM_SUFFIX
    if not named or is_label_map(path):
        search.left_out.append(LeftOut(shown, kind))
        return
    problem = UnsupportedError(f"{shown}: a {kind}, not a file", hint=SPECIAL_HINT)
    yield Found(place.name_of(path), shown, problem=problem)


def _file(
    path: Path,
    place: Place,
    search: Search,
    dicom: DicomFiles,
    budget: Budget | None = None,
) -> Iterator[Found]:
    if path.name.startswith(TEMPORARY_PREFIX) or is_seen(path, search):
        return
    kind = sniff.kind_of(path)
    if kind == "dicom":
        dicom.add(path, place)
    elif kind == "packed":
        yield from _packed(path, place, dicom, budget)
    elif is_hidden(path):
        return
    elif suffix_of(path):
        yield from _image(path, place, search, tuple(dicom.held))
    elif is_unread_image(path) and search.images:
        yield from _unread(path, place)
    elif archives.is_archive(path, kind):
        yield from _archive(path, place, search, dicom, budget)
    elif kind == "closed" or path.suffix.lower() == DICOM_SUFFIX:
        dicom.add(path, place)
    elif kind == "foreign" or path.name.lower().endswith(sniff.FOREIGN_SUFFIXES):
        yield _foreign(path, place)
    else:
        why = EMPTY if kind == "empty" else OTHER
        search.left_out.append(LeftOut(place.shown / path.name, why))


def _foreign(path: Path, place: Place) -> Found:
    shown = place.shown / path.name
    msg = f"{shown}: an archive of a kind that is not opened, scans may lie in it"
    problem = UnsupportedError(msg, hint=FOREIGN_HINT)
    return Found(place.below(path.name).name, shown, problem=problem)


def _unread(path: Path, place: Place) -> Iterator[Found]:
    """Report an image of a format that is not read; a header stands for its voxels."""
    lower = path.name.lower()
    stem = path.name[
        : len(path.name) - next(len(s) for s in UNREAD if lower.endswith(s))
    ]
    header = any(path.with_name(stem + end).exists() for end in (".hdr", ".HDR"))
    if path.name.startswith(TEMPORARY_PREFIX) or (".img" in lower and header):
        return
    shown = place.shown / path.name
    msg = f"{shown}: an image in a format that is not read"
    error = UnsupportedError(msg, hint="Convert it to NIfTI (.nii.gz).")
    yield Found(place.below(stem).name, shown, (path,), error)


def _packed(
    path: Path, place: Place, dicom: DicomFiles, budget: Budget | None
) -> Iterator[Found]:
    try:
        dicom.add_packed(path, place, budget)
    except SpineError as error:
        yield Found(place.name_of(path), place.shown / path.name, problem=error)


def _archive(
    path: Path,
    place: Place,
    search: Search,
    dicom: DicomFiles,
    budget: Budget | None = None,
) -> Iterator[Found]:
    inside = archives.stem_of(path)
    if is_label_map(path):
        return
    budget = budget or Budget.of(path)
    try:
        with budget.inside():
            unpacked = archives.unpack(path, budget)
            dicom.held.append(unpacked)
            within = Place(place.root, (*place.parts, inside), place.shown / path.name)
            yield from _walk(unpacked.root, within, search, dicom, budget)
    except SpineError as error:
        name = place.below(inside).name
        yield Found(name, place.shown / path.name, problem=error)


def _image(
    path: Path, place: Place, search: Search, held: tuple[Unpacked, ...] = ()
) -> Iterator[Found]:
    if not search.images:
        search.left_out.append(LeftOut(place.shown / path.name, OTHER))
        return
    if _holds_labels(path):
        search.label_maps += 1
        return
    files = (path, *voxel_file(path))
    yield Found(place.name_of(path), place.shown / path.name, files, held=held)


def voxel_file(path: Path) -> tuple[Path, ...]:
    """Return the file that a header names for its voxels, if it lies beside it."""
    return data_files(path)


def _broken_link(path: Path, place: Place) -> Iterator[Found]:
    """Report a dead link that was a scan or, without a suffix, a folder of scans."""
    if is_label_map(path):
        return
    if suffix_of(path) or path.suffix.lower() in ("", DICOM_SUFFIX):
        shown = place.shown / path.name
        msg = f"{shown}: a link that leads nowhere, or round in a circle"
        yield Found(place.name_of(path), shown, problem=NotFoundError(msg))


def _dicom_scans(dicom: DicomFiles, search: Search) -> Iterator[Found]:
    """Yield the volumes of an input, named after the folder that holds them."""
    if not dicom.places:
        return
    grouped = dicom.collector.grouped()
    places = dicom.places
    search.persons.update(dicom.collector.reader.persons)
    hidden = search.hidden
    for one in grouped.left_out:
        search.left_out.append(LeftOut(places[one.path].shown / one.path.name, one.why))
    homes = [common([places[path] for path in stack.files]) for stack in grouped.stacks]
    count = Counter(hidden.name(home.name) for home in homes)
    taken: Counter[str] = Counter()
    for stack, home in zip(grouped.stacks, homes, strict=True):
        name = hidden.name(home.name)
        if count[name] > 1:
            parts = (name, stack.origin.digest, stack.part)
            name = "_".join(part for part in parts if part)
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}_{taken[name]}"
        yield Found(
            name,
            home.shown,
            stack.files,
            stack=stack,
            held=tuple(dicom.held),
            stamps=dicom.stamps_of(stack.files),
            real=home.name,
            notes=hidden.told(home.shown, home.name),
        )
    yield from _unreadable(grouped.unreadable, places, set(count))
    faults = {places[path]: (path, error) for path, error in grouped.faults}
    for place, (path, error) in faults.items():
        yield Found(f"{place.name}_fault", place.shown, (path,), error)


def _unreadable(
    files: Sequence[Path], places: Mapping[Path, Place], taken: Collection[str]
) -> Iterator[Found]:
    """Yield a problem for each folder with DICOM files that cannot be read."""
    by_place: defaultdict[Place, list[Path]] = defaultdict(list)
    for path in files:
        by_place[places[path]].append(path)
    total = Counter(places.values())
    for place, broken in by_place.items():
        msg = (
            f"{len(broken)} of {total[place]} DICOM files in {place.shown} "
            f"cannot be read, the first is {broken[0].name}"
        )
        suffix = "_unreadable" if place.name in taken else ""
        problem = UnreadableError(msg)
        yield Found(place.name + suffix, place.shown, tuple(broken), problem)


def _given_files(paths: Iterable[Path], search: Search) -> Iterator[Found]:
    dicom: defaultdict[Path, DicomFiles] = defaultdict(DicomFiles)
    for path in paths:
        if not path.is_file():
            problem = _missing(path, search)
            yield Found(stem_of(path) or str(path), path, problem=problem)
        elif is_seen(path, search):
            continue
        else:
            yield from _given_file(path, search, dicom[path.parent])
    for files in dicom.values():
        if not files.places:
            continue
        alone = next(iter(files.places)) if len(files.places) == 1 else None
        if alone is not None:
            files.places[alone] = Place(alone.stem, (), alone.parent)
        yield from _dicom_scans(files, search)


def _given_file(path: Path, search: Search, dicom: DicomFiles) -> Iterator[Found]:
    kind = sniff.kind_of(path)
    place = Place(root_name(path.parent), (), path.parent)
    if kind == "packed":
        yield from _packed(path, place, dicom, None)
    elif kind == "dicom":
        dicom.add(path, place)
    elif suffix_of(path):
        yield from _image(path, Place("", (), path.parent), search)
    elif archives.is_archive(path, kind):
        yield from _given_archive(path, search)
    elif kind == "closed" or path.suffix.lower() == DICOM_SUFFIX:
        dicom.add(path, place)
    elif kind == "foreign" or path.name.lower().endswith(sniff.FOREIGN_SUFFIXES):
        yield _foreign(path, place)
    else:
        msg = f"{path}: not a scan; known are {' '.join(SUFFIXES)} and DICOM"
        yield Found(path.stem, path, problem=UnsupportedError(msg))


def _given_archive(path: Path, search: Search) -> Iterator[Found]:
    name = archives.stem_of(path)
    budget = Budget.of(path)
    try:
        with budget.inside():
            unpacked = archives.unpack(path, budget)
            place = Place(name, (), path)
            yield from _at(place, unpacked.root, search, unpacked, budget=budget)
    except SpineError as error:
        yield Found(name, path, problem=error)


def _missing(path: Path, search: Search) -> SpineError:
    if path.is_symlink():
        msg = f"{path}: a link that leads nowhere, or round in a circle"
        return _not_found(msg, search)
    if path.exists():
        return UnsupportedError(f"{path}: neither a file nor a folder")
    return _not_found(f"{path}: no such file or folder", search)


def _nothing(inputs: Sequence[Path], unwanted: int, search: Search) -> Found:
    path = inputs[0] if inputs else Path()
    told = ", ".join(str(one) for one in inputs) or "nothing"
    left_out = _left_out(search.label_maps, search.objects)
    msg = f"no scans in {told}{left_out}"
    if unwanted:
        msg = f"none of the {unwanted} scans in {told} is wanted"
        problem = NotFoundError(msg, hint="Check --include and --exclude.")
        return Found(root_name(path), path, problem=problem)
    return Found(root_name(path), path, problem=_not_found(msg, search))


def _not_found(message: str, search: Search) -> NotFoundError:
    return NotFoundError(message, hint=None if search.images else DICOM_HINT)
