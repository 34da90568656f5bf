"""What tells apart images that lie at the same place: echo, time, b-value and so on."""

from typing import Any, NamedTuple

from pydicom.dataset import Dataset


class Marks(NamedTuple):
    """Values of an image, as text; empty where the header is silent.

    The order of the fields is the order in which they are tried as the reason why
    several images lie at one place. ``kind`` tells volumes apart that never belong
    together (magnitude and phase); the others may become a fourth axis.
    """

    kind: str = ""
    stack: str = ""
    echo: str = ""
    b_value: str = ""
    temporal: str = ""
    acquisition: str = ""
    trigger: str = ""
    acquired: str = ""
    content: str = ""


NEVER_TOGETHER = ("kind", "stack")

AXES = {
    "echo": "echo",
    "b_value": "b-value",
    "temporal": "time",
    "acquisition": "acquisition",
    "trigger": "time",
    "acquired": "time",
    "content": "time",
}
"""Mark -> what the fourth axis is called when it tells the volumes apart."""


WORDS = {
    "kind": "image type",
    "stack": "stack",
    "echo": "echo",
    "b_value": "b-value",
    "temporal": "temporal position",
    "acquisition": "acquisition number",
    "trigger": "trigger time",
    "acquired": "acquisition time",
    "content": "content time",
}
"""Mark -> what messages call it."""

PRIVATE = ("acquired", "content")
"""Marks whose values messages do not show."""


def marks_of(header: Dataset) -> Marks:
    """Return the marks of an ordinary image, or those that frames of one share."""
    return Marks(
        kind=text(header.get("ImageType")),
        echo=_first(header, "EchoNumbers", "EchoTime"),
        b_value=b_value(header),
        temporal=_first(header, "TemporalPositionIdentifier", "TemporalPositionIndex"),
        acquisition=text(header.get("AcquisitionNumber")),
        trigger=text(header.get("TriggerTime")),
        acquired=text(header.get("AcquisitionTime")),
        content=text(header.get("ContentTime")),
    )


def b_value(dataset: Dataset) -> str:
    """Return b-value and gradient direction as one text."""
    value = text(dataset.get("DiffusionBValue"))
    direction = text(dataset.get("DiffusionGradientOrientation"))
    return f"{value} {direction}".strip()


def text(value: Any) -> str:  # noqa: ANN401
    """Return a header's value as text, parts with a backslash between as in DICOM."""
    if value is None:
        return ""
    if isinstance(value, str | bytes | int | float):
        return str(value)
    try:
        return "\\".join(str(part) for part in value)
    except TypeError:
        return str(value)


def plain(value: str) -> str:
    """Return a mark without differences of case, blanks and how numbers are written."""
    parts = [part.strip().casefold() for part in value.split("\\")]
    while parts and not parts[-1]:
        parts.pop()
    try:
        return "\\".join(repr(float(part)) for part in parts)
    except ValueError:
        return "\\".join(parts)


def order(value: str) -> tuple[int, float, str]:
    """Return a key that sorts numbers as numbers and before other texts."""
    try:
        return 0, float(value.split()[0]), value
    except (ValueError, IndexError):
        return 1, 0.0, value


def _first(header: Dataset, *keywords: str) -> str:
    found = (text(header.get(keyword)) for keyword in keywords)
    return next((value for value in found if value), "")
