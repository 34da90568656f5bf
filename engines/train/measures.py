"""What a study measures of a trained network, one row each.

Importing this table imports nothing heavy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class Measure:
    """One row: key in files, title for human eyes, which of two values is better."""

    name: str
    title: str
    better: Literal["high", "low"] = "high"
    digits: int = 4


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        row.name: row
        for row in (
            Measure("dice", "Dice"),
            Measure("f1", "F1"),
            Measure("iou", "IoU"),
            Measure("miou", "mIoU"),
            Measure("accuracy", "accuracy"),
            Measure("precision", "precision"),
            Measure("recall", "recall"),
            Measure("hd_px", "HD px", "low", 2),
            Measure("assd_px", "ASSD px", "low", 2),
        )
    }
)
