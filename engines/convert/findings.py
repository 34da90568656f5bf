"""What is found about a stack of slices, and what may be mended knowingly."""

from dataclasses import dataclass
from typing import Literal

from engines.errors import InputError
from engines.results import Note

Duplicates = Literal["error", "first", "last"]


@dataclass(frozen=True, slots=True)
class Repairs:
    """What may be mended knowingly; all of it is recorded.

    Attributes:
        allow_gaps: fill missing slices by interpolation.
        regrid: interpolate unevenly spaced slices to even steps.
        fix_tilt: shear slices that are stacked sideways to a grid at right angles.
        allow_few_slices: take the distance of two slices for their step.
        allow_slopes: let CT slices differ in rescale slope and intercept.
        duplicates: which of several different images at one place to keep.
    """

    allow_gaps: bool = False
    regrid: bool = False
    fix_tilt: bool = False
    allow_few_slices: bool = False
    allow_slopes: bool = False
    duplicates: Duplicates = "error"


NONE = Repairs()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a stack that a user should know.

    Attributes:
        error: of the kind it raises; None for a remark.
        allowed: whether a repair was asked for that mends it.
    """

    code: str
    message: str
    error: InputError | None = None
    allowed: bool = False

    @property
    def fatal(self) -> bool:
        """Whether the stack is refused for it."""
        return self.error is not None and not self.allowed

    def note(self) -> Note:
        """Return it as a warning."""
        return Note(self.code, self.message)


def fatal(error: InputError) -> Finding:
    """Return what no repair mends."""
    return Finding(error.code, str(error), error)
