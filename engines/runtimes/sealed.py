"""Small JSON records that are kept between runs, each with a checksum of itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.files import write_json

CHECKSUM = "sha256"
"""Key of the checksum in a record."""


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Put a record with its checksum at ``path``, whole or not at all.

    Raises:
        OutputError: the folder or the disk does not take it.
    """
    write_json(path, {**record, CHECKSUM: _checksum(record)})


def read(path: Path) -> dict[str, Any]:
    """Return the record at ``path``.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is damaged.
    """
    try:
        record = json.loads(path.read_bytes())
        given = record.pop(CHECKSUM)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"{path.name} is no record with a checksum"
        raise ValueError(msg) from error
    if given != _checksum(record):
        msg = f"the checksum of {path.name} is wrong"
        raise ValueError(msg)
    return dict(record)


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
