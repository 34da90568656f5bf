"""Where a model fails: pictures with a sentence each, kept beside the model file.

``NAME.page/failures.toml`` beside ``NAME.safetensors`` lists them::

    [[failure]]
    picture = "ribs.jpg"           # in the same folder
    scan = "chest_ct"              # as 'spine segment' calls it
    sentence = "Heads of ribs are taken for spine."
    origin = "where the scan is from"
    licence = "of the scan"
    plane = "axial"                # how the picture is drawn: plane, centre in the
    centre_mm = [4.5, -20, 880]    # scan's world (RAS), and width and height about it
    size_mm = [90, 70]

To draw them all again with another model, segment the scans and call ``redraw``::

    spine segment SCANS -o OUT --model NAME

    from pathlib import Path
    from engines.report.failures import redraw
    redraw(Path("engines/networks/weights/NAME.page"), Path("SCANS"), Path("OUT"))

To add one, add its lines without a picture there yet, and call ``redraw``. Look at
what it drew, and at the sentences: another model fails elsewhere. A file
``robustness.csv`` in the folder, as ``spine evaluate --robustness`` writes it, becomes
a table of the page; ``[robustness]`` with ``data = ".."`` says of what it was measured.
"""

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from engines.errors import ModelFileError, NotFoundError
from engines.files import write_bytes
from engines.report.closeup import Cut, Plane, draw
from engines.scans import find_scans, read_scan
from engines.volume import read_mask

LIST = "failures.toml"
TABLE = "robustness.csv"

_TEXTS = ("picture", "scan", "sentence", "origin", "licence")


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of the list; see the module.

    Attributes:
        cut: None for a picture that was made in another way.
    """

    picture: str
    scan: str
    sentence: str
    origin: str
    licence: str
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Weaknesses:
    """What the folder beside a model file holds; empty without one.

    Attributes:
        failures: with their pictures, PNG or JPEG.
        robustness: rows of the table.
        measured_on: what the table was measured on.
    """

    failures: Sequence[tuple[Failure, bytes]] = ()
    robustness: Sequence[Mapping[str, Any]] = ()
    measured_on: str = ""


def read(folder: Path) -> Weaknesses:
    """Read the folder beside a model file.

    Raises:
        ModelFileError: the list is damaged, or a picture is missing.
    """
    record = _record(folder)
    found = []
    for failure in failures_of(folder, record):
        path = folder / failure.picture
        if not path.is_file():
            msg = f"{folder / LIST} names a picture that is not there: {path.name}"
            raise ModelFileError(msg, hint="Draw it again, or take it off the list.")
        found.append((failure, path.read_bytes()))
    told = record.get("robustness", {})
    data = str(told.get("data", "")) if isinstance(told, dict) else ""
    return Weaknesses(tuple(found), tuple(_table(folder / TABLE)), data)


def failures_of(folder: Path, record: Mapping[str, Any] | None = None) -> list[Failure]:
    """Return the rows of the list.

    Raises:
        ModelFileError: it is damaged.
    """
    record = _record(folder) if record is None else record
    rows = record.get("failure", [])
    try:
        return [_failure(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{folder / LIST} is no list of failures ({error})"
        hint = f"Each [[failure]] needs {', '.join(_TEXTS)}."
        raise ModelFileError(msg, hint=hint) from error


def redraw(folder: Path, scans: Path, results: Path) -> list[Path]:
    """Draw the pictures of the list again, from scans and the masks made of them.

    Args:
        folder: beside the model file.
        scans: a folder that holds the scans that the list names.
        results: what ``spine segment`` wrote for them.

    Returns:
        The pictures that were written.

    Raises:
        NotFoundError: a scan or its mask is not there.
        ModelFileError: the list is damaged.
    """
    held = {found.name: found for found in find_scans([scans])}
    written = []
    for failure in failures_of(folder):
        if failure.cut is None:
            continue
        if failure.scan not in held:
            msg = f"{scans} holds no scan that is called {failure.scan}"
            raise NotFoundError(msg)
        scan = read_scan(held[failure.scan])
        mask = read_mask(_mask_of(failure.scan, results))
        write_bytes(folder / failure.picture, draw(scan, mask, failure.cut))
        written.append(folder / failure.picture)
    return written


def _mask_of(name: str, results: Path) -> Path:
    stem = name.rsplit("/", 1)[-1]
    for kind in ("vert", "spine"):
        path = results / name / f"{stem}_seg-{kind}_msk.nii.gz"
        if path.is_file():
            return path
    msg = f"{results} holds no mask of {name}"
    raise NotFoundError(msg, hint="Run 'spine segment' on the scans first.")


def _record(folder: Path) -> Mapping[str, Any]:
    path = folder / LIST
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read ({error})"
        raise ModelFileError(msg, hint="Mend it, or remove it.") from error


def _failure(row: Mapping[str, Any]) -> Failure:
    picture, scan, sentence, origin, licence = (str(row[key]) for key in _TEXTS)
    told = Failure(picture, scan, sentence, origin, licence)
    if "plane" not in row:
        return told
    if row["plane"] not in get_args(Plane):
        msg = f"no plane is called {row['plane']!r}"
        raise ValueError(msg)
    r, a, s = map(float, row["centre_mm"])
    wide, high = map(float, row["size_mm"])
    cut = Cut(cast("Plane", row["plane"]), (r, a, s), (wide, high))
    return replace(told, cut=cut)


def _table(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {key: _value(text) for key, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _value(text: str) -> float | str | None:
    known = {"": None, "True": True, "False": False}
    if text in known:
        return known[text]
    try:
        return float(text)
    except ValueError:
        return text
