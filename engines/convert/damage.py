"""What a damaged DICOM file makes pydicom and the decoders raise, and what is a bug."""

import struct
import traceback
import zlib

from pydicom.errors import BytesLengthException, InvalidDicomError

DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    RecursionError,
    AssertionError,
    struct.error,
    zlib.error,
    MemoryError,
)
"""What damage may raise; see ``is_damage``."""

_DOUBTFUL = (TypeError, LookupError, AttributeError, RuntimeError, AssertionError)
"""Faults of a program raise these too: only those of the parsers are damage."""

PARSERS = (
    "pydicom",
    "pylibjpeg",
    "openjpeg",
    "libjpeg",
    "jpeg_ls",
    "gdcm",
    "PIL",
    "nibabel",
)
"""Packages that read what is in a file."""


def is_damage(error: BaseException) -> bool:
    """Say whether one of ``DAMAGE`` comes of a file, not of a fault of this program."""
    return not isinstance(error, _DOUBTFUL) or _of_parsers(error)


def require_damage(error: BaseException) -> None:
    """Raise ``error``, which was caught, again if it is no sign of damage."""
    if not is_damage(error):
        raise error


def _of_parsers(error: BaseException) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    modules = (str(frame.f_globals.get("__name__", "")) for frame in frames)
    return any(name.partition(".")[0] in PARSERS for name in modules)
