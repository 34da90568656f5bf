"""Tell CT from everything else, and bring its values to Hounsfield units.

Values can prove CT. They cannot prove MR: a CT that was windowed, clipped or scaled
looks like nothing in particular. What a scan is otherwise is said by its DICOM
header, its name, or the user.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModalityError
from engines.preprocess import hounsfield, padding
from engines.preprocess.hounsfield import HU, Scale, find_scale
from engines.preprocess.restore import PREPROCESSED
from engines.results import Note
from engines.volume import Volume, suffix_of

Modality = Literal["ct", "mr", "unknown"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

PADDING_HU = -1500.0
"""Below this there is no tissue: -2048 or -3024 fill what was not scanned."""

AIR_HU = -900.0
"""Below this is air around the patient or, rarely, in a lung."""

FAT_HU = -60.0
"""Fat and lung lie below; noise around water and muscle seldom does."""

LEAST_SHARE_BELOW_WATER = 0.005
"""Share of voxels under -20 HU that even a crop inside the body has."""

LEAST_SHARE_OF_FAT = 0.001
"""Share of voxels under ``FAT_HU``, which ringing around 0 does not reach."""

LEAST_SHARE_OF_TISSUE = 0.08
"""Share of tissue among what is no air, which phase images do not reach."""

TISSUE_HU = (-20.0, 200.0)

MR_ENDINGS = ("mr", "mri", "t1", "t2", "t1w", "t2w", "stir", "dixon", "water", "fat")
"""Last words of the names of MR scans; BIDS and SPIDER have such."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a sample of the voxels shows.

    Attributes:
        low: lowest value; ``high`` the highest.
        below_water: share under ``TISSUE_HU``, padding aside.
        fat: share under ``FAT_HU``, padding aside.
        tissue: share within ``TISSUE_HU`` among what is neither air nor padding.
        whole: all values are whole numbers.
    """

    low: float
    high: float
    below_water: float
    fat: float
    tissue: float
    whole: bool


def guess_modality(volume: Volume) -> Modality:
    """Say what kind of scan has such values, ``unknown`` where they do not prove it.

    A scan that this program prepared is known by its record. Without one the values
    prove CT, where they are Hounsfield units or were before a known offset was
    added; they never prove MR.
    """
    record = volume.provenance
    if record.get("kind") == PREPROCESSED and record.get("modality") in MODALITIES:
        return cast("Modality", record["modality"])
    return "ct" if _scale(volume).usable else "unknown"


def recognise(volume: Volume, name: str, header: str) -> Modality:
    """Say what kind of scan this is from all that is known of it.

    What its header says goes before Hounsfield units, those before its name, and
    that before values that would be Hounsfield units after an offset is taken off.

    Args:
        volume: the scan.
        name: what it is called, as ``NAME_ct``, ``NAME_mr`` or ``NAME_T2w``.
        header: ``CT``, ``MR`` or so, as DICOM says it; empty without one.
    """
    told = header.lower()
    if told:
        return cast("Modality", told) if told in ("ct", "mr") else "unknown"
    guessed = guess_modality(volume)
    last = re.split(r"[_\-. ]", name.rsplit("/", 1)[-1].lower())[-1]
    if last not in MR_ENDINGS:
        return guessed
    proven = volume.provenance.get("kind") == PREPROCESSED or _scale(volume) == HU
    return guessed if proven and guessed != "unknown" else "mr"


def sidecar_modality(path: Path) -> str:
    """Return what the JSON sidecar of a scan says it is; empty without one."""
    sidecar = path.with_name(path.name.removesuffix(suffix_of(path)) + ".json")
    try:
        told: Any = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(told.get("Modality", "")) if isinstance(told, dict) else ""


def require_known(volume: Volume, name: str, header: str, known: Sequence[str]) -> str:
    """Return the modality of a scan for which there are models of ``known`` ones.

    Raises:
        ModalityError: it is of another, or cannot be told.
    """
    found = recognise(volume, name, header)
    if found in known:
        return found
    seen = _told(volume, "ct")
    if found == "unknown":
        said = f"its header says {header}; " if header else ""
        msg = f"cannot tell whether it is CT or MR: {said}{seen}"
        hint = (
            "Give CT in Hounsfield units; if it is MR, --modality mr goes on, or call "
            "it NAME_mr."
        )
        if _scale(volume).candidates:
            hint += " If it is CT, --modality ct takes off the larger offset."
        raise ModalityError(msg, hint=hint)
    msg = f"{seen}; there is no model for {found.upper()} here"
    raise ModalityError(msg, hint="Give one with --model.")


def admit(
    volume: Volume,
    wanted: str,
    *,
    force: bool = False,
    told: str = "",
    may_force: bool = True,
) -> tuple[Volume, tuple[Note, ...]]:
    """Return a scan as a model for ``wanted`` takes it, or refuse it.

    CT comes in Hounsfield units: a known offset is taken off, signs that were lost
    are put back, and padding becomes air. A scan prepared by this program is known
    by its record and stays as it is.

    Args:
        volume: the scan, in the units it was measured in.
        wanted: ``ct``, which has to be recognised, or ``mr``, which must not be CT.
        force: return a note instead of refusing.
        told: what the user says it is, ``ct`` or ``mr``; empty where nothing is said.
        may_force: whether ``--force`` is an option of the command, for hints.

    Raises:
        ModalityError: what was seen, and how to go on all the same.
    """
    if told not in ("", wanted) and not force:
        msg = f"{wanted.upper()} is needed, and --modality says {told.upper()}"
        hint = f"Choose a model for {told.upper()}, or leave --modality out."
        raise ModalityError(msg, hint=hint)
    if volume.provenance.get("kind") == PREPROCESSED:
        return volume, _prepared(volume, wanted, force=force, may_force=may_force)
    scale = _scale(volume)
    if wanted == "mr":
        refused = scale.usable and told != "mr"
    else:
        likely = told == "ct" and bool(scale.candidates)
        refused = not (scale.usable or likely)
    if refused:
        notes = _refuse(volume, wanted, force=force, may_force=may_force)
        return volume, notes
    if wanted == "mr":
        voxels, padding_notes = padding.without_negatives(volume.voxels)
        notes = (Note("modality", _but_ct(volume)),) if scale.usable else ()
    else:
        notes = _shifted(scale)
        voxels, padding_notes = padding.without_padding(scale.apply(volume.voxels))
        padding_notes += padding.cut_off(voxels)
    return replace(volume, voxels=voxels), (*notes, *padding_notes)


def _scale(volume: Volume) -> Scale:
    """Return on which scale the values are those of CT.

    Crops and windows of CT that show less than the whole pattern are accepted in
    Hounsfield units alone.
    """
    scale = find_scale(volume.voxels)
    if scale.kind == "unknown" and _is_ct(_look(volume.voxels)):
        return HU
    return scale


def _shifted(scale: Scale) -> tuple[Note, ...]:
    if scale.kind == "hu":
        return ()
    done = "put back" if scale.kind == "wrapped" else "taken off"
    msg = f"{scale.told}: it was {done}"
    if scale.kind == "wrapped":
        msg = f"{scale.told}: they were {done}"
    if not scale.certain:
        msg = f"{scale.told}: {scale.offset:g} was taken off"
    return (Note("offset", msg),)


def _but_ct(volume: Volume) -> str:
    return f"{_told(volume, 'mr')}; taken for MR, as --modality says"


def _prepared(
    volume: Volume, wanted: str, *, force: bool, may_force: bool
) -> tuple[Note, ...]:
    found = guess_modality(volume)
    if found == wanted or (wanted == "mr" and found != "ct"):
        return _cut_off(volume.provenance) if wanted == "ct" else ()
    return _refuse(volume, wanted, force=force, may_force=may_force)


def _refuse(
    volume: Volume, wanted: str, *, force: bool, may_force: bool
) -> tuple[Note, ...]:
    msg = f"{_told(volume, wanted)}; {wanted.upper()} is needed"
    if force:
        return (Note("modality", f"{msg}, used all the same"),)
    raise ModalityError(msg, hint=_hint(volume, wanted, may_force=may_force))


def _cut_off(record: Mapping[str, Any]) -> tuple[Note, ...]:
    """Return a note when the preparation left neither fat nor air."""
    limits = record.get("clamp")
    if not limits or limits[0] <= FAT_HU:
        return ()
    msg = f"what lay below {limits[0]:g} HU was cut off when the scan was prepared"
    return (Note("cut_off", msg),)


def _hint(volume: Volume, wanted: str, *, may_force: bool) -> str:
    other = "MR" if wanted == "ct" else "CT"
    kind = "the CT in Hounsfield units" if wanted == "ct" else "the MR"
    hint = f"Give {kind}, or choose a model for {other}"
    if not may_force:
        return f"{hint}."
    if wanted == "ct" and find_scale(volume.voxels).candidates:
        return f"{hint}; --modality ct takes off the larger offset."
    return f"{hint}; --force goes on."


def _is_ct(look: _Look) -> bool:
    return (
        look.below_water >= LEAST_SHARE_BELOW_WATER
        and look.fat >= LEAST_SHARE_OF_FAT
        and look.tissue >= LEAST_SHARE_OF_TISSUE
    )


def _told(volume: Volume, wanted: str) -> str:
    """Say what the values look like, to whom wants CT or MR."""
    voxels = volume.voxels
    span, look, scale = _span(voxels), _look(voxels), _scale(volume)
    if scale == HU:
        return f"{span} look like CT in Hounsfield units"
    if scale.told:
        return f"{span} look like {scale.told}{'' if scale.usable else ', or MR'}"
    if wanted == "mr":
        return f"{span} are not known to be those of MR"
    if look.low >= 0:
        why = "MR, or CT without Hounsfield units"
        if _is_8_bit(look):
            why = "an 8-bit image without Hounsfield units"
        return f"{span}, none negative: {why}"
    if look.below_water < LEAST_SHARE_BELOW_WATER or look.fat < LEAST_SHARE_OF_FAT:
        return f"{span}, but hardly any as low as fat or air: no Hounsfield units"
    return f"{span}, but hardly any of soft tissue: no Hounsfield units"


def _span(voxels: NDArray[Any]) -> str:
    return f"values from {voxels.min():g} to {voxels.max():g} ({voxels.dtype.name})"


def _is_8_bit(look: _Look) -> bool:
    return look.whole and look.low >= 0 and look.high <= 255


def _look(voxels: NDArray[Any]) -> _Look:
    sample = np.asarray(hounsfield.sample(voxels), np.float32)
    filled = sample[sample > PADDING_HU]
    return _Look(
        low=float(sample.min()),
        high=float(sample.max()),
        below_water=_share(filled < TISSUE_HU[0]),
        fat=_share(filled < FAT_HU),
        tissue=_share(_within(filled[filled > AIR_HU], TISSUE_HU)),
        whole=bool((sample == np.rint(sample)).all()),
    )


def _within(
    values: NDArray[np.float32], limits: tuple[float, float]
) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (values >= limits[0]) & (values <= limits[1])
    return inside


def _share(held: NDArray[np.bool_]) -> float:
    return float(held.mean()) if held.size else 0.0
