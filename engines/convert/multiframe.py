"""Frames of multi-frame objects: enhanced CT, MR and PET, and their legacy copies.

What a frame says of itself lies in its functional groups, else in those that all
frames share, else (some vendors) at the top of the header.
"""

from collections.abc import Callable
from dataclasses import replace

from pydicom.dataset import Dataset

from engines.convert import marks
from engines.convert.frames import Frame, Shared, decimals, floats, items, unread

_FRAME_TYPES = (
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
)
Group = Callable[[str], Dataset]
"""Name of a functional group -> its item, empty if there is none."""

_VALUES = "PixelValueTransformationSequence"


def frames(base: Frame, header: Dataset, shared: Shared) -> list[Frame]:
    """Return the frames of a multi-frame object.

    Args:
        base: what the top of the header says.
        header: of the object.
        shared: makes equal records the same object.
    """
    together = _first(header, "SharedFunctionalGroupsSequence")
    each = items(header, "PerFrameFunctionalGroupsSequence")
    if each and len(each) != base.pixels.frames:
        msg = f"{base.pixels.frames} frames, of which {len(each)} say where they lie"
        raise ValueError(msg)
    found = []
    for index in range(base.pixels.frames):
        own = each[index] if each else Dataset()

        def group(name: str, own: Dataset = own) -> Dataset:
            return _first(own, name) or _first(together, name)

        found.append(_frame(base, index, group, shared, alone=not each))
    return found


def _frame(
    base: Frame, index: int, group: Group, shared: Shared, *, alone: bool
) -> Frame:
    """Return one frame; ``alone`` if it has no functional groups of its own."""
    measures = group("PixelMeasuresSequence")
    orientation = group("PlaneOrientationSequence")
    place = group("PlanePositionSequence")
    values = group(_VALUES)
    plane = floats(orientation, "ImageOrientationPatient", 6)
    position = floats(place, "ImagePositionPatient", 3)
    spacing = floats(measures, "PixelSpacing", 2)
    frame = replace(
        base,
        index=index,
        position_mm=position or (base.position_mm if alone else None),
        directions=shared(plane or base.directions),
        spacing_mm=shared(spacing or base.spacing_mm),
        slope=_number(values, "RescaleSlope", base.slope),
        intercept=_number(values, "RescaleIntercept", base.intercept),
        units=str(values.get("RescaleType") or base.units).strip().upper(),
        thickness_mm=_number(measures, "SliceThickness", base.thickness_mm),
        number=index + 1,
        decimals=shared(decimals(place, "ImagePositionPatient")),
        placed=bool(place),
        marks=shared(_marks(base.marks, group)),
    )
    if not frame.missing:
        return frame
    held = (place, orientation, measures)
    told = [one for item in held for one in unread(item, frame.missing)]
    return replace(frame, unread=tuple(told) or base.unread)


def _first(dataset: Dataset, name: str) -> Dataset:
    held = items(dataset, name)
    return held[0] if held else Dataset()


def _number(dataset: Dataset, keyword: str, otherwise: float | None) -> float | None:
    value = dataset.get(keyword)
    try:
        return otherwise if value in (None, "") else float(value)
    except TypeError:
        msg = f"{keyword} is no number"
        raise ValueError(msg) from None


def _marks(base: marks.Marks, group: Group) -> marks.Marks:
    content = group("FrameContentSequence")
    kinds = (marks.text(group(name).get("FrameType")) for name in _FRAME_TYPES)
    diffusion = group("MRDiffusionSequence")
    gradient = _first(diffusion, "DiffusionGradientDirectionSequence")
    b_value = marks.text(diffusion.get("DiffusionBValue"))
    direction = marks.text(gradient.get("DiffusionGradientOrientation"))
    echo = marks.text(group("MREchoSequence").get("EffectiveEchoTime"))
    trigger = group("CardiacSynchronizationSequence")
    own = {
        "kind": next((kind for kind in kinds if kind), ""),
        "stack": marks.text(content.get("StackID")),
        "echo": echo,
        "b_value": f"{b_value} {direction}".strip(),
        "temporal": marks.text(content.get("TemporalPositionIndex")),
        "acquisition": marks.text(content.get("FrameAcquisitionNumber")),
        "trigger": marks.text(trigger.get("NominalCardiacTriggerDelayTime")),
        "acquired": marks.text(content.get("FrameAcquisitionDateTime")),
    }
    return base._replace(**{key: value for key, value in own.items() if value})
