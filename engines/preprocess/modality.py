"""Tell CT in Hounsfield units from everything else, by the values alone."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModalityError
from engines.preprocess.restore import PREPROCESSED
from engines.results import Note
from engines.volume import Volume, suffix_of

Modality = Literal["ct", "mr", "unknown"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

SAMPLE_VOXELS = 200_000
"""About so many voxels, evenly spread, stand for the scan."""

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

OFFSET = 1024
"""What is added to Hounsfield units to store them without a sign."""

LEAST_SHARE_OF_OFFSET_TISSUE = 0.2

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
        offset_tissue: the same share after ``OFFSET`` is taken off.
        whole: all values are whole numbers.
    """

    low: float
    high: float
    below_water: float
    fat: float
    tissue: float
    offset_tissue: float
    whole: bool


def guess_modality(volume: Volume) -> Modality:
    """Guess what kind of scan has such values.

    A scan that this program prepared is known by its record.

    Returns:
        ``ct`` for Hounsfield units: fat or air well below 0 and soft tissue above.
        ``mr`` for magnitudes: none below 0, and neither 8-bit nor CT with an offset.
        ``unknown`` for all else, 8-bit pictures of either kind among it.
    """
    record = volume.provenance
    if record.get("kind") == PREPROCESSED and record.get("modality") in MODALITIES:
        return cast("Modality", record["modality"])
    return _guess(_look(volume.voxels))


def recognise(volume: Volume, name: str, header: str) -> Modality:
    """Tell what kind of scan this is from all that is known of it.

    What its header says goes before its values, and those before its name, which
    decides where values are of neither kind for certain, as in 8-bit images. It is
    unknown where the header says something else, as PET, or where values of MR are
    called CT, as of a CT without what lies below water.

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
    if guessed == "unknown":
        return "mr" if last in MR_ENDINGS else "unknown"
    return "unknown" if guessed == "mr" and last == "ct" else guessed


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
    seen = _told(_look(volume.voxels), volume.voxels, "ct")
    if found == "unknown":
        said = f"its header says {header}; " if header else ""
        msg = f"{said}{seen}; CT in Hounsfield units or MR is needed"
        hint = "Call it NAME_mr if it is MR, choose a --model, or add --force."
        raise ModalityError(msg, hint=hint)
    msg = f"{seen}; there is no model for {found.upper()} here"
    raise ModalityError(msg, hint="Give one with --model, or add --force.")


def require_modality(
    volume: Volume, wanted: str, force: bool = False
) -> tuple[Note, ...]:
    """Refuse a scan whose values are not of the kind that a model was trained on.

    A scan prepared by this program is known by its record, not by its values.

    Args:
        volume: the scan, in the units it was measured in.
        wanted: ``ct``, which has to be recognised, or ``mr``, which must not be CT.
        force: return a note instead of refusing.

    Raises:
        ModalityError: what was seen, and how to go on all the same.
    """
    found = guess_modality(volume)
    if found == wanted or (wanted == "mr" and found != "ct"):
        return _cut_off(volume.provenance) if wanted == "ct" else ()
    seen = _told(_look(volume.voxels), volume.voxels, wanted)
    msg = f"{seen}; {wanted.upper()} is needed"
    if force:
        return (Note("modality", f"{msg}, used all the same"),)
    raise ModalityError(msg, hint=_hint(wanted))


def _cut_off(record: Mapping[str, Any]) -> tuple[Note, ...]:
    """Return a note when the preparation left neither fat nor air."""
    limits = record.get("clamp")
    if not limits or limits[0] <= FAT_HU:
        return ()
    msg = f"what lay below {limits[0]:g} HU was cut off when the scan was prepared"
    return (Note("cut_off", msg),)


def _hint(wanted: str) -> str:
    other = "MR" if wanted == "ct" else "CT"
    kind = "the CT in Hounsfield units" if wanted == "ct" else "the MR"
    return f"Give {kind}, choose a model for {other}, or add --force to go on."


def _guess(look: _Look) -> Modality:
    if (
        look.below_water >= LEAST_SHARE_BELOW_WATER
        and look.fat >= LEAST_SHARE_OF_FAT
        and look.tissue >= LEAST_SHARE_OF_TISSUE
    ):
        return "ct"
    if look.low < 0 or _is_8_bit(look) or _has_offset(look) or look.high <= 1:
        return "unknown"
    return "mr"


def _told(look: _Look, voxels: NDArray[Any], wanted: str) -> str:
    span = _span(voxels)
    if wanted == "mr":
        return f"{span} look like CT in Hounsfield units"
    if look.low >= 0:
        if _is_8_bit(look):
            why = "an 8-bit image without Hounsfield units"
        elif _has_offset(look):
            why = f"CT stored with an offset of {OFFSET}, or no CT"
        else:
            why = "MR, or CT without Hounsfield units"
        return f"{span}, none negative: {why}"
    if look.below_water < LEAST_SHARE_BELOW_WATER or look.fat < LEAST_SHARE_OF_FAT:
        return f"{span}, but hardly any as low as fat or air: no Hounsfield units"
    return f"{span}, but hardly any of soft tissue: no Hounsfield units"


def _span(voxels: NDArray[Any]) -> str:
    return f"values from {voxels.min():g} to {voxels.max():g} ({voxels.dtype.name})"


def _is_8_bit(look: _Look) -> bool:
    return look.whole and look.low >= 0 and look.high <= 255


def _has_offset(look: _Look) -> bool:
    return look.offset_tissue >= LEAST_SHARE_OF_OFFSET_TISSUE and look.low < OFFSET / 2


def _look(voxels: NDArray[Any]) -> _Look:
    sample = _sample(voxels)
    filled = sample[sample > PADDING_HU]
    return _Look(
        low=float(sample.min()),
        high=float(sample.max()),
        below_water=_share(filled < TISSUE_HU[0]),
        fat=_share(filled < FAT_HU),
        tissue=_share(_within(filled[filled > AIR_HU], TISSUE_HU)),
        offset_tissue=_share(_within(_body(sample), TISSUE_HU)),
        whole=bool((sample == np.rint(sample)).all()),
    )


def _body(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = sample - OFFSET
    return shifted[shifted > AIR_HU]


def _within(
    values: NDArray[np.float32], limits: tuple[float, float]
) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (values >= limits[0]) & (values <= limits[1])
    return inside


def _share(held: NDArray[np.bool_]) -> float:
    return float(held.mean()) if held.size else 0.0


def _sample(voxels: NDArray[Any]) -> NDArray[np.float32]:
    """Return about ``SAMPLE_VOXELS`` voxels, every n-th along each axis."""
    step = max(1, round((voxels.size / SAMPLE_VOXELS) ** (1 / 3)))
    steps = tuple(slice(None, None, min(step, max(1, n // 8))) for n in voxels.shape)
    return np.asarray(voxels[steps], np.float32).ravel()
