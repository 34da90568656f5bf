"""Studies: grids of trainings that reprint a paper's table, read from TOML.

A study has the settings of one training in ``[base]`` and what is changed in them,
either as axes, whose rows are combined in every way, or as explicit runs.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from engines.errors import SettingsError, UnknownModelError
from engines.train import measures
from engines.train.settings import TrainSettings, from_record, read_toml

KEYS = (
    "title",
    "notes",
    "published",
    "metrics",
    "seeds",
    "base",
    "axis",
    "run",
    "figure",
)
METRICS = ("dice", "iou")
"""What is shown where the study does not say."""

RUN = "Configuration"
"""Heading of the labels of explicit runs."""

Published = float | str
"""A published figure: a number, or text where it is a range or has a spread."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One line of the table.

    Attributes:
        labels: one for each axis, or that of the run.
        settings: of its trainings, but for name and seed.
        published: metric -> figure of the paper.
    """

    labels: tuple[str, ...]
    settings: TrainSettings
    published: Mapping[str, Published]

    @property
    def name(self) -> str:
        """What it is called in texts."""
        return ", ".join(self.labels)

    @property
    def slug(self) -> str:
        """What its folders and models are called."""
        return slug_of(self.labels)

    def run_name(self, seed: int) -> str:
        """Return what the folder and the model of one training are called."""
        return f"{self.slug}-seed{seed}"

    def of_seed(self, seed: int, device: str = "auto") -> TrainSettings:
        """Return the settings of one training."""
        return replace(
            self.settings, name=self.run_name(seed), seed=seed, device=device
        )


@dataclass(frozen=True, slots=True)
class Study:
    """A grid of trainings.

    Attributes:
        notes: what the reader of the table should know.
        published: where the figures of the paper come from.
        metrics: names of ``measures.MEASURES`` that the table shows.
        seeds: every configuration is trained once with each.
        headings: of the labels, one for each axis.
    """

    title: str
    notes: str
    published: str
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    headings: tuple[str, ...]
    configurations: tuple[Configuration, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    changes: Mapping[str, Any]


def shipped() -> dict[str, Path]:
    """Return the studies that come with the program, by name."""
    folder = Path(str(files("engines.train").joinpath("studies")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """Return the file of a study: a path, or the name of a shipped one.

    Raises:
        SettingsError: there is none.
    """
    known = shipped()
    if Path(name).is_file():
        return Path(name)
    if name in known:
        return known[name]
    msg = f"there is no study {name}"
    hint = f"Give a TOML file, or one of: {', '.join(known)}."
    raise SettingsError(msg, hint=hint)


def read(path: Path) -> Study:
    """Read a study and check every configuration of it.

    Raises:
        SettingsError: not TOML, an unknown key, a configuration that cannot be
            trained or is there twice, a figure that belongs to none.
    """
    record = read_toml(path)
    _require_keys("study", record, KEYS)
    headings, combined = _grid(record)
    metrics = _metrics(record.get("metrics", METRICS))
    seeds = _seeds(record)
    base = _table(record.get("base", {}), "base")
    figures = _figures(record)
    configurations = tuple(
        _configuration(rows, base, figures.pop(_labels(rows), {})) for rows in combined
    )
    _require_distinct(configurations)
    if figures:
        msg = f"a figure belongs to no configuration: {', '.join(next(iter(figures)))}"
        hint = f"Give one label for each of: {', '.join(headings)}."
        raise SettingsError(msg, hint=hint)
    return Study(
        _text(record, "title", path.stem),
        _text(record, "notes"),
        _text(record, "published"),
        metrics,
        seeds,
        headings,
        configurations,
    )


def slug_of(labels: Sequence[str]) -> str:
    """Return labels as a name for files: lower case, digits and hyphens."""
    told = "-".join(labels).lower().replace("+", "-and-")
    return re.sub(r"[^a-z0-9]+", "-", told).strip("-")


def _grid(
    record: Mapping[str, Any],
) -> tuple[tuple[str, ...], Iterator[tuple[_Row, ...]]]:
    """Return the headings of the labels, and the rows of each configuration."""
    axes, runs = _tables(record, "axis"), _tables(record, "run")
    if bool(axes) == bool(runs):
        msg = "a study has both axes and runs" if axes else "no axes and no runs"
        hint = "Give [[axis]] tables, whose rows are combined, or [[run]] tables."
        raise SettingsError(msg, hint=hint)
    if runs:
        rows = [_row(run, "run") for run in runs]
        return (RUN,), ((row,) for row in rows)
    read_axes = [_axis(axis) for axis in axes]
    headings = tuple(name for name, _ in read_axes)
    return headings, itertools.product(*(rows for _, rows in read_axes))


def _axis(axis: Mapping[str, Any]) -> tuple[str, list[_Row]]:
    _require_keys("axis", axis, ("name", "row", "key", "values"))
    short = "key" in axis and "values" in axis
    name = _text(axis, "name", _text(axis, "key"))
    if short == ("row" in axis) or not name:
        msg = f"axis {name or '?'}: there are no rows, or rows and values"
        hint = "Give name and [[axis.row]] tables, or key and values."
        raise SettingsError(msg, hint=hint)
    if not short:
        return name, [_row(row, "axis.row") for row in _tables(axis, "row")]
    values = axis["values"]
    if not isinstance(values, list) or not values:
        msg = f"axis {name}: values must be a list that is not empty, not {values!r}"
        raise SettingsError(msg, hint='Give it as values = ["bce", "dice"].')
    return name, [_Row(_told(v), _nested(axis["key"], v)) for v in values]


def _row(row: Mapping[str, Any], where: str) -> _Row:
    _require_keys(where, row, ("label", "set"))
    label = _text(row, "label")
    if not label:
        msg = f"{where}: a row has no label"
        raise SettingsError(msg, hint='Give it as label = "Dice".')
    return _Row(label, _table(row.get("set", {}), f"{where} {label!r}: set"))


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nested(key: str, value: object) -> dict[str, Any]:
    """Return ``network_options.encoder`` as a table in a table."""
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _labels(rows: Sequence[_Row]) -> tuple[str, ...]:
    return tuple(row.label for row in rows)


def _configuration(
    rows: Sequence[_Row],
    base: Mapping[str, Any],
    published: Mapping[str, Published],
) -> Configuration:
    record: Mapping[str, Any] = base
    for row in rows:
        record = _merged(record, row.changes)
    labels = _labels(rows)
    try:
        return Configuration(labels, from_record(record), published)
    except (SettingsError, UnknownModelError) as error:
        msg = f"{', '.join(labels)}: {error.message}"
        raise SettingsError(msg, hint=error.hint) from error
    except (TypeError, AttributeError, ValueError) as error:
        msg = f"{', '.join(labels)}: a setting is of the wrong kind ({error})"
        raise SettingsError(msg, hint="See the settings of 'spine train'.") from error


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``old`` with the values of ``new`` put in, tables within tables."""
    merged = dict(old)
    for key, value in new.items():
        held = merged.get(key)
        both = isinstance(held, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(held, value) if both else value  # type: ignore[arg-type]
    return merged


def _require_distinct(configurations: Sequence[Configuration]) -> None:
    for slug, count in Counter(c.slug for c in configurations).items():
        if count > 1 or not slug:
            alike = [c.name for c in configurations if c.slug == slug]
            msg = f"configurations with the same labels: {' and '.join(alike)}"
            hint = "Give each labels that differ in letters or digits."
            raise SettingsError(msg, hint=hint)


def _metrics(names: object) -> tuple[str, ...]:
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        msg = f"metrics must be a list of names, not {names!r}"
        raise SettingsError(msg, hint=f"Known are: {', '.join(measures.MEASURES)}.")
    for name in names:
        _require_metric(name, "metrics")
    return tuple(names)


def _require_metric(name: object, where: str) -> None:
    if name not in measures.MEASURES:
        msg = f"{where}: there is no metric called {name!r}"
        raise SettingsError(msg, hint=f"Known are: {', '.join(measures.MEASURES)}.")


def _seeds(record: Mapping[str, Any]) -> tuple[int, ...]:
    base = _table(record.get("base", {}), "base")
    seeds = record.get("seeds", [base.get("seed", 0)])
    whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        msg = f"seeds must be different whole numbers, not {seeds!r}"
        raise SettingsError(msg, hint="Give them as seeds = [0, 1, 2].")
    return tuple(seeds)


def _figures(record: Mapping[str, Any]) -> dict[tuple[str, ...], dict[str, Published]]:
    figures: dict[tuple[str, ...], dict[str, Published]] = {}
    for figure in _tables(record, "figure"):
        labels = figure.get("labels")
        if not isinstance(labels, list) or not labels:
            msg = f"a figure has no labels: {figure!r}"
            raise SettingsError(msg, hint='Give it as labels = ["U-Net", "Dice"].')
        values = {key: value for key, value in figure.items() if key != "labels"}
        for key, value in values.items():
            _require_metric(key, "figure")
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                msg = f"figure {', '.join(map(str, labels))}: {key} cannot be {value!r}"
                raise SettingsError(msg, hint="Give a number, or text for a range.")
        figures.setdefault(tuple(map(str, labels)), {}).update(values)
    return figures


def _require_keys(where: str, record: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in record:
        if key not in known:
            msg = f"{where}: there is no setting called {key!r}"
            raise SettingsError(msg, hint=f"Known are: {', '.join(known)}.")


def _text(record: Mapping[str, Any], key: str, default: str = "") -> str:
    value = record.get(key, default)
    if not isinstance(value, str):
        msg = f"{key} must be text, not {value!r}"
        raise SettingsError(msg, hint=f'Give it as {key} = "...".')
    return value.strip()


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"{where} must be a table, not {value!r}"
        raise SettingsError(msg, hint='Give it as { loss = "dice" }.')
    return value


def _tables(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = record.get(key, [])
    if not isinstance(found, list):
        msg = f"{key} must be a list of tables, not {found!r}"
        raise SettingsError(msg, hint=f"Head each with [[{key}]].")
    return [_table(one, key) for one in found]
