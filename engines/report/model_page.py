"""The page of a model: what it is, how good it is, and where it fails."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import __version__
from engines.metrics.table import METRICS
from engines.networks import catalog, shelf
from engines.networks.inventory import Entry
from engines.report import charts, failures, page
from engines.report.failures import Weaknesses
from engines.report.page import Page, Picture

Rows = Sequence[Sequence[Any]]
Table = tuple[str, Sequence[str], Rows]

NOTHING_KNOWN = (
    "Where it fails was not looked at: no folder with pictures lies beside the file."
)
UNTRAINED = "It comes without weights: train it with 'spine train --network {name}'."

ROBUSTNESS = {
    "alteration": "Alteration",
    "told": "What was done",
    "scans": "Scans",
    "dice": "Dice",
    "worst": "Worst",
    "unaltered": "As it is",
    "fall": "Fall",
    "remark": "Remark",
}

ROBUSTNESS_TITLE = "Robustness: Dice after alterations of the scan"

FALL = 0.03
"""A fall of the Dice by more than this is pointed out."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a person asks of a model.

    Attributes:
        sentences: what it is and does, under which licence, how it was trained.
        tables: (title, headings, rows) of its figures and its data.
        limits: where it fails, in sentences.
    """

    sentences: Sequence[str]
    tables: Sequence[Table]
    limits: Sequence[str]


def describe(entry: Entry) -> Described:
    """Return in words what ``html`` shows.

    Raises:
        ModelFileError: what lies beside the file is damaged.
    """
    record, weak = entry.as_json(), _weaknesses(entry)
    folds = _folds(entry.training)
    altered = entry.training.get("robustness") or weak.robustness
    return Described(
        [*_facts(record), *_trained(record), *_no_failures(record, weak)],
        [
            table
            for table in _tables(record, weak, folds)
            if table[2] and not table[0].startswith(ROBUSTNESS_TITLE)
        ],
        [
            *(f"{failure.sentence} ({failure.scan})" for failure, _ in weak.failures),
            *(
                f"{row.get('told')}: its Dice falls by {row['fall']:.3f}"
                for row in altered
                if (row.get("fall") or 0) > FALL
            ),
        ],
    )


def _weaknesses(entry: Entry) -> Weaknesses:
    """Return what lies beside a model file on where it fails."""
    if entry.path is None:
        return Weaknesses()
    return failures.read(shelf.page_folder(Path(entry.path)))


def _trained(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield how it was trained, in sentences."""
    training = record["training"]
    if record["path"] is None or not training:
        return
    steps, rounds = training.get("steps"), training.get("rounds") or 1
    if steps:
        often = f"{steps} steps" + (f" in {rounds} rounds" if rounds > 1 else "")
        learned = len(training.get("train") or ())
        yield f"Trained with {often} on {learned} scans and label maps"
    if training.get("command"):
        yield f"Trained by: {training['command']}"


def html(entry: Entry) -> str:
    """Return the page of a model file, or of a network that has none.

    Raises:
        ModelFileError: what lies beside the file is damaged.
    """
    record, weak = entry.as_json(), _weaknesses(entry)
    pictures = [_picture(failure, content) for failure, content in weak.failures]
    folds = _folds(entry.training)
    return page.html(
        Page(
            f"Model {entry.name}",
            [*_facts(record), *_no_failures(record, weak), f"spine {__version__}"],
            (),
            (),
            _charts(folds),
            pictures,
            "Where it fails: the scan, and what the model marks",
            [table for table in _tables(record, weak, folds) if table[2]],
            charts_legend=charts.LEGEND.replace("case", "fold"),
        )
    )


def _facts(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the model is, in sentences."""
    if record["problem"]:
        yield f"It cannot be used: {record['problem']}"
        return
    classes = [name for name, index in record["classes"].items() if index]
    yield (
        f"Network {record['architecture']} for {record['modality'].upper()}, which "
        f"marks {', '.join(classes)}"
        + (f"; sees {', '.join(record['views'])} slices" if record["views"] else "")
    )
    if record["path"] is None:
        yield UNTRAINED.format(name=record["name"])
        source = record["training"].get("source")
        if source:
            yield f"After: {source}"
        return
    if record["guide"]:
        yield (
            f"It numbers the vertebrae of the spine that {record['guide']} finds: "
            "both are run, one after the other"
        )
    yield f"Licence of the weights: {record['licence'] or 'not told'}"
    if record["probes"]:
        yield _probes(record)
    if record["parent"]:
        yield (
            f"Made from {record['parent']['name']}, "
            f"SHA-256 {record['parent']['sha256'][:16]}"
        )
    yield "A mask is a proposal: look at it before use. This is no medical device."


def _probes(record: Mapping[str, Any]) -> str:
    """Return in words what backends are compared with the maker's reference on."""
    solid = catalog.find(record["architecture"]).dimensions == 3
    inputs, scans = record["probes"]["inputs"], record["probes"]["scans"]
    return f"Golden probes: {inputs} {'cubes' if solid else 'slices'} of {scans} scans"


def _no_failures(record: Mapping[str, Any], weak: Weaknesses) -> list[str]:
    has_weights = record["path"] is not None and not record["problem"]
    return [NOTHING_KNOWN] if has_weights and not weak.failures else []


def _picture(failure: failures.Failure, content: bytes) -> Picture:
    told = f"{failure.sentence} ({failure.scan}: {failure.origin}, {failure.licence})"
    return Picture(content, failure.sentence, caption=told)


def _charts(folds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    values = [float(fold["dice"]) for fold in folds]
    if len(values) < 2:
        return []
    low = math.floor(10 * min(values)) / 10
    title = "Dice of the folds of the cross-validation"
    return [(title, charts.distribution(values, title, (low, 1.0)))]


def _tables(
    record: Mapping[str, Any],
    weak: Weaknesses,
    folds: Sequence[Mapping[str, Any]],
) -> Iterator[Table]:
    training = record["training"]
    yield _accuracy(record["accuracy"])
    yield _cross_validation(training.get("cross_validation") or {}, folds)
    own = training.get("robustness")
    yield _robustness(own or weak.robustness, "" if own else weak.measured_on)
    yield "Size", ("What", "How much"), list(_size(record))
    yield (
        "Training data",
        ("Data", "As", "Origin", "Licence"),
        [
            [source.get(key, "") for key in ("data", "kind", "origin", "licence")]
            for source in training.get("sources") or ()
        ],
    )
    yield (
        "Scans",
        ("Part", "Scans"),
        [
            (title, ", ".join(training[key]))
            for key, title in (("train", "Learned from"), ("val", "Held out"))
            if training.get(key)
        ],
    )


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> Table:
    first = ("data", "metric", "value")
    more = list(dict.fromkeys(k for row in rows for k in row if k not in first))
    headings = [key.capitalize() for key in (*first, *more)]
    return "Accuracy", headings, [[row.get(k) for k in (*first, *more)] for row in rows]


def _folds(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    told = training.get("cross_validation") or {}
    return [fold for fold in told.get("folds", ()) if fold.get("dice") is not None]


def _cross_validation(
    told: Mapping[str, Any], folds: Sequence[Mapping[str, Any]]
) -> Table:
    first = ("held_out", "dice")
    more = list(dict.fromkeys(k for row in folds for k in row if k not in first))
    rows = [[_plain(fold.get(key)) for key in (*first, *more)] for fold in folds]
    for key, title in (("mean", "mean"), ("sd", "standard deviation")):
        if rows and told.get(key) is not None:
            rows.append([title, told[key], *[""] * len(more)])
    headings = ["Held out", *(_heading(key) for key in ("dice", *more))]
    note = told.get("note")
    return "Cross-validation" + (f" ({note})" if note else ""), headings, rows


def _heading(key: str) -> str:
    """Return a key as people write it: ``hd95_mm`` is HD95 mm."""
    if key in METRICS:
        title = METRICS[key].title
        return title[0].upper() + title[1:]
    return key.replace("_", " ").capitalize()


def _plain(value: Any) -> Any:  # noqa: ANN401
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _robustness(rows: Sequence[Mapping[str, Any]], data: str) -> Table:
    rows = [{**row, "remark": _remark(row)} for row in rows]
    keys = [k for k in ROBUSTNESS if any(row.get(k) not in (None, "") for row in rows)]
    if all(row.get("worst") == row.get("dice") for row in rows):
        keys = [key for key in keys if key != "worst"]
    title = ROBUSTNESS_TITLE
    cells = [[_cell(key, row.get(key)) for key in keys] for row in rows]
    return title + (f" ({data})" if data else ""), [ROBUSTNESS[k] for k in keys], cells


def _remark(row: Mapping[str, Any]) -> str:
    told = []
    if (row.get("fall") or 0) > FALL:
        told.append(f"falls by more than {FALL:g}")
    if row.get("identical") is not None:
        told.append("the same mask" if row["identical"] else "another mask")
    return ", ".join(told)


def _cell(key: str, value: float | str | None) -> float | str | None:
    return int(value) if key == "scans" and value is not None else value


def _size(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    parameters = record["parameters"]
    if parameters:
        yield "Parameters", f"{parameters['total']:,}"
        yield "of them trainable", f"{parameters['trainable']:,}"
        size = record["slice_size"]
        yield f"GFLOP of a slice of {size} x {size}", f"{record['gflop_per_slice']:.2f}"
    if record["size_bytes"]:
        yield "File", f"{record['size_bytes'] / 1e6:.1f} MB"
    if record["sha256"]:
        yield "SHA-256", record["sha256"]
    for key, value in record["options"].items():
        yield key, str(value)
