"""What converted files are called: a template filled from the header."""

import re
import string
from collections.abc import Mapping
from pathlib import PurePosixPath

from pydicom.dataset import Dataset

from engines.convert.sidecar import scrubbed, secrets
from engines.convert.stack import Stack
from engines.errors import SettingsError

DEFAULT = "{case}_{modality}"

FIELDS: Mapping[str, str] = {
    "case": "path of the scan below the input",
    "modality": "ct, mr, ...",
    "series": "series number",
    "description": "series description",
    "protocol": "protocol name",
    "digest": "eight letters that stand for the series' UID",
    "part": "what tells volumes of one series apart",
    "patient": "patient ID",
    "date": "study date",
    "time": "study time",
    "study": "study ID",
}
"""Field of a template -> what stands in its place. The last four are personal."""

UNKNOWN = "unknown"
"""Stands where the header is silent."""

MAX_LENGTH = 80
"""Of one field; file systems take 255 bytes for a name."""

_KEYWORDS = {
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "patient": "PatientID",
    "date": "StudyDate",
    "time": "StudyTime",
    "study": "StudyID",
}


def check(template: str) -> str:
    """Return ``template`` if all its fields are known and it stays in its folder.

    Raises:
        SettingsError: it does not.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        msg = f"the name {template!r} has a brace too many or too few"
        raise SettingsError(msg) from None
    fields = [field for _, field, _, _ in parts if field is not None]
    unknown = [field for field in fields if field not in FIELDS]
    if unknown or any(form or conversion for _, _, form, conversion in parts):
        told = unknown[0] if unknown else template
        msg = f"no field of a name is called {told!r}"
        raise SettingsError(msg, hint=f"Choose from: {', '.join(FIELDS)}.")
    path = PurePosixPath(template)
    if not fields or path.is_absolute() or ".." in path.parts:
        msg = f"the name {template!r} needs a field and may not leave its folder"
        raise SettingsError(msg)
    return template


def needs_header(template: str) -> bool:
    """Say whether a template holds a field that only the whole header tells."""
    return any(f"{{{field}}}" in template for field in _KEYWORDS)


def name_of(
    stack: Stack, case: str, header: Dataset, template: str, *, keep_identifiers: bool
) -> str:
    """Return the path of a converted volume without suffix, with forward slashes.

    Args:
        stack: the images.
        case: name under which the scan was found.
        header: of its first file.
        template: of which fields are filled.
        keep_identifiers: whether free texts that name the patient may stay.
    """
    hidden = frozenset() if keep_identifiers else secrets(header)
    values = {
        field: tidy(_text(header, keyword)) for field, keyword in _KEYWORDS.items()
    }
    for field in ("description", "protocol"):
        values[field] = tidy(scrubbed(_text(header, _KEYWORDS[field]), hidden))
    values |= {
        "case": case,
        "modality": tidy(stack.origin.modality.lower() or "image"),
        "series": tidy("" if stack.origin.number is None else str(stack.origin.number)),
        "digest": stack.origin.digest,
        "part": stack.part,
    }
    named = template.format(**{k: v or UNKNOWN for k, v in values.items()})
    distinct = "{part}" in template or not stack.part or case.endswith(stack.part)
    return named if distinct else f"{named}_{stack.part}"


def tidy(text: str) -> str:
    """Return ``text`` as part of a file name: letters, digits, ``.``, ``-``, ``_``."""
    return re.sub(r"[^\w.-]+", "_", text.strip()).strip("._")[:MAX_LENGTH]


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "")
