"""What happened to each case, as frozen records that become JSON unchanged."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engines.errors import SpineError

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know about a case that did not stop it."""

    code: str
    message: str

    def as_json(self) -> dict[str, str]:
        """Return the record for ``--json``."""
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a case or a whole command failed, and what to try next.

    Attributes:
        traceback: of a fault of the program, for its log; empty for all else.
    """

    code: str
    message: str
    hint: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "Problem":
        """Describe ``error``; an unexpected one is named by its type."""
        if isinstance(error, SpineError):
            return cls(error.code, str(error), error.hint)
        return cls(
            "bug",
            f"{type(error).__name__}: {error}",
            "This is a fault of the program: please report it with this message.",
            "".join(traceback.format_exception(error)),
        )

    def as_json(self) -> dict[str, str]:
        """Return the record for ``--json``."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case of a batch.

    Attributes:
        name: the case's path below the input root, without suffix.
        input: the file or folder it was read from.
        outputs: kind of output -> path.
        seconds: stage -> seconds.
        details: what only one command has to say, merged into the JSON record.
    """

    name: str
    input: str
    status: Status
    outputs: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[Note, ...] = ()
    error: Problem | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        return {
            "name": self.name,
            "input": self.input,
            "status": self.status,
            "outputs": dict(self.outputs),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "warnings": [note.as_json() for note in self.warnings],
            "error": self.error.as_json() if self.error else None,
            **self.details,
        }
