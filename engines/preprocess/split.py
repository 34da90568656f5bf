"""Deal subjects to training, validation and test, the same way for the same seed."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from engines.errors import SettingsError

FRACTIONS: Mapping[str, tuple[float, float, float]] = {
    "80/10/10": (0.8, 0.1, 0.1),
    "80/20": (0.8, 0.2, 0.0),
    "80/20-of-train": (0.64, 0.16, 0.2),
}
"""Name -> shares of training, validation and test.

"80/20-of-train" holds out a fifth to test, then a fifth of the rest to validate.
"""

PARTS = ("train", "val", "test")

_SUBJECT = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)")
_ENTITIES = re.compile(r"(_[A-Za-z]+-[^_/]+)+$")


def fractions_of(name: str) -> tuple[float, float, float]:
    """Return the shares of a split.

    Raises:
        SettingsError: there is no such split; the hint lists those there are.
    """
    try:
        return FRACTIONS[name]
    except KeyError:
        msg = f"no split is called {name!r}"
        known = ", ".join(FRACTIONS)
        raise SettingsError(msg, hint=f"Choose one of: {known}.") from None


def subject_of(name: str) -> str:
    """Return whom a scan shows: ``sub-X`` if it is there, else the bare name.

    The bare name is the last part of the path without ``_key-value`` entities, so
    that ``p7_ses-1`` and ``p7_ses-2`` are one subject, ``p_7`` and ``p_8`` two. A
    scan that is only called ``ct`` or ``mr`` has its folder's name.
    """
    told = _SUBJECT.search(name)
    if told:
        return told[1]
    *folders, last = name.split("/")
    if last in ("ct", "mr") and folders:
        return "/".join(folders)
    return _ENTITIES.sub("", last)


def deal(subjects: Sequence[str], split: str, seed: int) -> dict[str, list[str]]:
    """Return the subjects of each part, sorted.

    The order they are dealt in depends on the seed and their names alone. Each part
    of the split gets one subject at least, as long as there are enough of them.

    Raises:
        SettingsError: there is no such split.
    """
    shares = fractions_of(split)
    order = sorted(set(subjects), key=lambda subject: _draw(seed, subject))
    counts = _counts(len(order), shares)
    dealt, start = {}, 0
    for part, count in zip(PARTS, counts, strict=True):
        dealt[part] = sorted(order[start : start + count])
        start += count
    return dealt


def _counts(total: int, shares: tuple[float, float, float]) -> list[int]:
    counts = [0, 0, 0]
    for place in (2, 1):
        if shares[place] and total > place:
            counts[place] = max(1, round(total * shares[place]))
    counts[0] = total - sum(counts)
    return counts


def _draw(seed: int, subject: str) -> bytes:
    return hashlib.sha256(f"{seed}:{subject}".encode(errors="surrogateescape")).digest()
