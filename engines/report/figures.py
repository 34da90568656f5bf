"""What pictures of charts (matplotlib) have in common."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

STEPS = (1, 2, 5, 10)
MOST = 6
"""Intervals between the marks of an axis at most."""


def round_marks(axes: Axes, which: Literal["x", "y", "both"] = "both") -> None:
    """Put the marks of linear axes at 1, 2 or 5 times a power of ten."""
    for name, axis, scale in (
        ("x", axes.xaxis, axes.get_xscale()),
        ("y", axes.yaxis, axes.get_yscale()),
    ):
        if which in (name, "both") and scale == "linear":
            axis.set_major_locator(MaxNLocator(MOST, steps=STEPS))
