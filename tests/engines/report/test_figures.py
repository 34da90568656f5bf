"""Pictures of charts have titles and round marks."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from engines.report import bench_chart, curve, figures, prune_page
from tests.engines.report.test_bench_chart import NETWORKS, WHOLES, record
from tests.engines.report.test_prune_page import points


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the figures that are drawn."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn


def is_round(step: float) -> bool:
    return f"{step:.6e}"[0] in "125" and not f"{step:.6e}"[2:8].strip("0")


def require_round(figure: Figure) -> None:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_ticklabels() or axis.get_scale() != "linear":
                continue
            if any(label.get_text().isalpha() for label in axis.get_ticklabels()):
                continue
            ticks = axis.get_ticklocs()
            assert is_round(ticks[1] - ticks[0])


def titles(figure: Figure) -> list[str]:
    own = [axes.get_title() or axes.get_title("left") for axes in figure.axes]
    return [title for title in (figure.get_suptitle(), *own) if title]


@pytest.mark.parametrize("highest", [0.37, 1.0, 2.0, 75.0, 2150.0])
def test_marks_are_round(highest: float) -> None:
    axes = Figure().subplots()
    axes.plot([0, highest], [0, highest])
    figures.round_marks(axes)

    for ticks in (axes.get_xticks(), axes.get_yticks()):
        assert 2 <= len(ticks) <= figures.MOST + 2
        assert is_round(ticks[1] - ticks[0])


def test_a_curve(tmp_path: Path, kept: list[Figure]) -> None:
    table = tmp_path / "curve.csv"
    table.write_text("step,loss,val_dice\n0,1.7,\n750,0.4,0.8\n")

    curve.draw(table, tmp_path / "curve.png")

    (figure,) = kept
    assert titles(figure) == ["Training loss and validation Dice by step"]
    require_round(figure)


def test_a_pruning(tmp_path: Path, kept: list[Figure]) -> None:
    prune_page.write(tmp_path, points(gradient=(0.91, 0.92), random=(0.9, 0.9)), [])

    assert [titles(figure)[0][:10] for figure in kept] == ["Validation", "Layers: ho"]
    require_round(kept[0])


def test_a_benchmark(kept: list[Figure]) -> None:
    bench_chart.draw(record(*NETWORKS, *WHOLES))

    (figure,) = kept
    assert len(titles(figure)) == 3
    for axes in figure.axes:
        assert is_round(axes.get_xticks()[1] - axes.get_xticks()[0])
