"""A table of the volumes under a path, and what is wrong with each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import UID

from engines import geometry
from engines.convert import checks, sidecar
from engines.convert.damage import DAMAGE, require_damage
from engines.convert.findings import NONE, Finding, Repairs
from engines.convert.layout import distinct
from engines.convert.left_out import LeftOut
from engines.convert.stack import (
    Stack,
    direction_of,
    heights_mm,
    normal_of,
    ordered,
)
from engines.found import Found
from engines.results import Note, Problem
from engines.scans import survey

SHORT_SYNTAX = {
    "1.2.840.10008.1.2": "implicit LE",
    "1.2.840.10008.1.2.1": "explicit LE",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.2": "explicit BE",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS lossy",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000 lossy",
    "1.2.840.10008.1.2.5": "RLE",
}
"""Transfer syntax -> what tables call it."""

_LPS_TO_RAS = np.array([[-1.0], [-1.0], [1.0]])


@dataclass(frozen=True, slots=True)
class Row:
    """One volume, or an input that holds none.

    Attributes:
        name: under which it would be converted.
        input: folder or file.
        series: number that the scanner gave, None if it gave none.
        description: what the scanner's user called it, without personal data.
        matrix: columns, rows.
        slices: images of one volume.
        volumes: along the fourth axis, whose name is ``axis``.
        spacing_mm: between columns, rows and slices; None where unknown.
        orientation: direction in which columns, rows and slices run, as ``LPS``.
        syntax: transfer syntaxes.
        error: why it would be refused.
        remarks: what else is to be known.
        study: hash of the study's UID; empty where no study is named.
    """

    name: str
    input: str
    series: int | None = None
    description: str = ""
    modality: str = ""
    matrix: tuple[int, int] = (0, 0)
    slices: int = 0
    volumes: int = 0
    axis: str = ""
    spacing_mm: tuple[float | None, ...] = ()
    orientation: str = ""
    syntax: tuple[str, ...] = ()
    files: int = 0
    error: Problem | None = None
    remarks: tuple[Note, ...] = ()
    study: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``."""
        return {
            "name": self.name,
            "input": self.input,
            "series": self.series,
            "study": self.study,
            "description": self.description,
            "modality": self.modality,
            "matrix": list(self.matrix),
            "slices": self.slices,
            "volumes": self.volumes,
            "axis": self.axis,
            "spacing_mm": list(self.spacing_mm),
            "orientation": self.orientation,
            "syntax": list(self.syntax),
            "files": self.files,
            "error": self.error.as_json() if self.error else None,
            "warnings": [note.as_json() for note in self.remarks],
        }


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that lies under the inputs.

    Attributes:
        rows: volumes and problems, by name.
        left_out: DICOM files that hold no scan.
    """

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]


def inspect(
    inputs: Sequence[Path],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    repairs: Repairs = NONE,
) -> Inspection:
    """Tell what DICOM lies under ``inputs``, from headers alone.

    Args:
        inputs: folders, archives and files.
        include: globs of names to take; empty takes all.
        exclude: globs of names to leave out.
        repairs: what would be allowed.
    """
    seen = survey(inputs, include, exclude, images=False)
    return Inspection(
        tuple(row_of(found, repairs) for found in seen.found), seen.left_out
    )


def row_of(found: Found, repairs: Repairs = NONE) -> Row:
    """Describe one volume."""
    stack = found.stack
    if stack is None:
        error = Problem.of(found.problem) if found.problem else None
        return Row(found.name, str(found.path), files=len(found.files), error=error)
    findings = checks.findings_of(stack, repairs)
    first = stack.volumes[0][0]
    remarks = (*stack.notes, *(one.note() for one in findings if not one.fatal))
    return Row(
        found.name,
        str(found.path),
        stack.origin.number,
        _description(stack),
        stack.origin.modality,
        (first.shape[1], first.shape[0]),
        _slices(stack),
        len(stack.volumes),
        stack.axis,
        _spacing(stack),
        _orientation(stack),
        tuple(dict.fromkeys(_syntax(f.pixels.syntax) for f in stack.frames)),
        len(stack.files),
        _problem(found, stack, findings),
        (*found.notes, *found.hidden.notes(remarks)),
        stack.origin.study,
    )


def _problem(found: Found, stack: Stack, findings: Sequence[Finding]) -> Problem | None:
    if found.problem is not None:
        return Problem.of(found.problem)
    fatal = [one for one in findings if one.fatal and one.error is not None]
    if not fatal:
        return None
    hints = dict.fromkeys(one.error.hint for one in fatal if one.error is not None)
    told = found.hidden.text("; ".join(one.message for one in fatal))
    return Problem(fatal[0].code, told, " ".join(hint for hint in hints if hint))


def _description(stack: Stack) -> str:
    try:
        header = sidecar.facts(stack.volumes[0][0].path)
    except DAMAGE as error:
        require_damage(error)
        return ""
    return sidecar.scrubbed(stack.origin.description, sidecar.secrets(header))


def _slices(stack: Stack) -> int:
    volume = stack.volumes[0]
    if any(frame.missing for frame in volume) or stack.orientations > 1:
        return len(volume)
    return len(distinct(ordered(volume)))


def _spacing(stack: Stack) -> tuple[float | None, ...]:
    first = stack.volumes[0][0]
    rows_mm, columns_mm = first.spacing_mm or (None, None)
    return columns_mm, rows_mm, next(_step_mm(stack), None)


def _step_mm(stack: Stack) -> Iterator[float]:
    """Yield the usual distance of slices, if it can be told."""
    volume = stack.volumes[0]
    if any(frame.missing for frame in volume) or stack.orientations > 1:
        return
    once = distinct(ordered(volume))
    if len(once) > 1:
        yield round(float(np.median(np.diff(heights_mm(once)))), 4)
    elif once[0].thickness_mm:
        yield once[0].thickness_mm


def _orientation(stack: Stack) -> str:
    first = stack.volumes[0][0]
    if first.directions is None:
        return ""
    affine = np.eye(4)
    axes = np.stack([*direction_of(first), normal_of(first)], axis=1)
    if not np.abs(axes).sum(axis=0).all():
        return ""
    affine[:3, :3] = _LPS_TO_RAS * axes
    return geometry.axis_codes(affine)


def _syntax(uid: str) -> str:
    return SHORT_SYNTAX.get(uid) or (UID(uid).name if uid else "not named")
