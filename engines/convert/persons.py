"""What names a patient in file and folder names, and the hashes that stand for it."""

import copy
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

from engines.errors import SpineError
from engines.results import Note

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FIELDS = ("PatientName", "PatientID")
"""Whose values must not get into the names of outputs."""

NOBODY = (
    *("anon", "anonym", "anonymous", "anonymized", "anonymised", "deidentified"),
    *("unknown", "none", "null", "name", "noname", "patient", "subject", "case"),
    *("test", "phantom"),
)
"""Words in these fields that name nobody."""

PREFIX = "anon-"
"""How names begin that stand for others; eight letters of a hash follow."""

SHORTEST = 3
"""Shorter words are found in too many others; in other scripts than Latin, two."""

WITHIN = 4
"""Words as long as this are found within others too, shorter ones by themselves."""

NUMBER_WITHIN = 5
"""The same for numbers."""

_HASHED = re.compile(rf"{PREFIX}[0-9a-f]{{8}}")
_PIECES = re.compile(r"([/\\'\"\n]+)")
_WORDS = re.compile(r"[^\s(),;:=\[\]]+")
_SPELLED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


def words_of(header: "Dataset") -> Iterator[tuple[str, str]]:
    """Yield each word that names the patient of a header, with its field.

    Headers that say that the identity was removed name nobody.
    """
    if str(header.get("PatientIdentityRemoved") or "").strip().upper() == "YES":
        return
    for group in re.split("=", str(header.get("PatientName") or "")):
        parts = re.findall(r"[^\W_]+", group)
        for text in (*parts, "".join(parts), "".join(reversed(parts))):
            yield from ((word, "PatientName") for word in _spellings(text))
    identity = str(header.get("PatientID") or "")
    numbers = [part for part in re.findall(r"\d+", identity) if len(part) > WITHIN]
    for text in (identity, *numbers):
        yield from ((word, "PatientID") for word in _spellings(text))


@dataclass(frozen=True, slots=True)
class Hidden:
    """Replaces what contains a patient's name or ID.

    Attributes:
        words: in plain letters -> field of the header.
    """

    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    _known: dict[str, list[str]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def fields_in(self, text: str) -> list[str]:
        """Return the fields of which a name contains a word."""
        if not self.words or _HASHED.fullmatch(text):
            return []
        if text not in self._known:
            self._known[text] = self._fields_in(text)
        return self._known[text]

    def _fields_in(self, text: str) -> list[str]:
        within, alone = _spellings(text, shortest=0), _tokens(text)
        found = {
            field
            for word, field in self.words.items()
            if word in alone
            or (_may_be_within(word) and any(word in one for one in within))
        }
        return sorted(found)

    def part(self, text: str) -> str:
        """Return the name of a file or folder, or a hash of it."""
        if not self.fields_in(text):
            return text
        content = unicodedata.normalize("NFC", text).encode(errors="surrogateescape")
        return PREFIX + hashlib.sha256(content).hexdigest()[:8]

    def name(self, name: str) -> str:
        """Return the name of a scan, a path with forward slashes."""
        return str(PurePosixPath(*map(self.part, PurePosixPath(name).parts)))

    def path(self, path: Path) -> Path:
        """Return a path as it may be shown."""
        return Path(*map(self.part, path.parts)) if self.words else path

    def text(self, text: str) -> str:
        """Return a message as it may be shown."""
        if not self.words:
            return text
        return "".join(map(self._piece, _PIECES.split(text)))

    def notes(self, notes: Sequence[Note]) -> tuple[Note, ...]:
        """Return notes as they may be shown."""
        return tuple(Note(note.code, self.text(note.message)) for note in notes)

    def error(self, error: SpineError) -> SpineError:
        """Return an error as it may be shown."""
        told = self.text(error.message)
        if told == error.message:
            return error
        shown = copy.copy(error)
        shown.message, shown.args = told, (told,)
        return shown

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise errors of the block as they may be shown."""
        try:
            yield
        except SpineError as error:
            shown = self.error(error)
            if shown is error:
                raise
            raise shown from None

    def told(self, path: Path, name: str) -> tuple[Note, ...]:
        """Return the note of a scan whose path or name is replaced, showing neither."""
        parts = {*path.parts, *PurePosixPath(name).parts}
        fields = sorted({field for part in parts for field in self.fields_in(part)})
        if not fields:
            return ()
        msg = (
            f"a folder or file is named after the patient ({', '.join(fields)} of the "
            "header): a hash stands for it in records and in the names of outputs"
        )
        return (Note("name_hidden", msg),)

    def _piece(self, piece: str) -> str:
        if not self.fields_in(piece):
            return piece
        told = _WORDS.sub(lambda found: self.part(found[0]), piece)
        return self.part(piece) if told == piece else told


def _spellings(text: str, shortest: int = SHORTEST) -> set[str]:
    """Return a text in plain letters and digits alone, as it may be spelled."""
    found = set()
    for spelled in (text, unicodedata.normalize("NFC", text.casefold())):
        plain = unicodedata.normalize("NFKD", spelled.casefold().translate(_SPELLED))
        if spelled is text:
            plain = unicodedata.normalize("NFKD", text.casefold())
        word = "".join(c for c in plain if c.isalnum())
        enough = shortest if word.isascii() else min(shortest, 2)
        if len(word) >= enough and word not in NOBODY:
            found.add(word)
    return found


def _tokens(text: str) -> set[str]:
    """Return the words of a name, parted by signs, digits and capitals."""
    words = re.findall(r"[^\W_]+", text)
    words += re.findall(r"\d+|[^\W\d_]+", text)
    words += re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)
    return {one for word in words for one in _spellings(word)}


def _may_be_within(word: str) -> bool:
    if not word.isascii():
        return True
    return len(word) >= (NUMBER_WITHIN if word.isdecimal() else WITHIN)
