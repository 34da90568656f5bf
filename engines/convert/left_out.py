"""DICOM files that hold nothing to convert, and why; without pydicom."""

from dataclasses import dataclass
from pathlib import Path

LOCALIZER, NO_IMAGE, SCREENSHOT = "localizer", "no image", "screenshot"

DISC_DIRECTORY = "DICOMDIR"
"""File that lists the others on a disc; what it says is not needed to find them."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that holds nothing to convert.

    Attributes:
        why: one of ``LOCALIZER``, ``NO_IMAGE``, ``SCREENSHOT``.
    """

    path: Path
    why: str

    def as_json(self) -> dict[str, str]:
        """Return the record for ``--json``."""
        return {"path": str(self.path), "why": self.why}
