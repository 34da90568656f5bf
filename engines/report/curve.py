"""The course of a training as a picture."""

import csv
import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from engines.files import write_bytes
from engines.report import figures


def draw(curve: Path, picture: Path) -> None:
    """Draw the loss and the validation Dice of ``curve``, a CSV, as a PNG."""
    with curve.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss = figure.subplots()
    steps = [int(row["step"]) for row in rows]
    loss.plot(
        steps, [float(row["loss"]) for row in rows], color="tab:blue", label="loss"
    )
    loss.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    loss.yaxis.label.set_color("tab:blue")
    dice = loss.twinx()
    scored = [(int(r["step"]), float(r["val_dice"])) for r in rows if r["val_dice"]]
    if scored:
        dice.plot(*zip(*scored, strict=True), color="tab:orange", marker="o", ms=3)
    dice.set(ylabel="validation Dice (slices)", ylim=(0, 1))
    dice.yaxis.label.set_color("tab:orange")
    loss.set_title("Training loss and validation Dice by step", fontsize=11)
    for axes in (loss, dice):
        figures.round_marks(axes)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    write_bytes(picture, content.getvalue())
