"""By what a study knows its own results again: hashes of settings and data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from engines.train.settings import TrainSettings

UNCOUNTED = ("name", "device", "origin", "licence")
"""Settings that change nothing about what is learnt."""


def fingerprint(settings: TrainSettings) -> str:
    """Return a hash of what decides the result.

    Settings that have their default do not count, so that a later version with more
    of them still knows the results of this one.
    """
    return hashed(_changed(settings))


def hashed(record: object) -> str:
    """Return the SHA-256 of a record as JSON."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _changed(record: Any) -> Any:  # noqa: ANN401
    """Return a settings record as nested tables without what is at its default."""
    if is_dataclass(record) and not isinstance(record, type):
        counted = [f for f in fields(record) if f.name not in UNCOUNTED]
        held = [(f, getattr(record, f.name)) for f in counted]
        return {f.name: _changed(v) for f, v in held if v != _usual(f)}
    if isinstance(record, tuple):
        return [_changed(one) for one in record]
    return dict(record) if isinstance(record, Mapping) else record


def _usual(field: Field[Any]) -> Any:  # noqa: ANN401
    made = field.default_factory
    return field.default if made is MISSING else made()
