"""The charts of a benchmark: readable, the same each time, whatever failed."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.report import bench_chart


def network(
    backend: str, precision: str, ms: float, model: str = "m"
) -> dict[str, Any]:
    return {
        "kind": "network",
        "status": "done",
        "model": model,
        "backend": backend,
        "precision": precision,
        "ms_per_slice": ms,
        "share_of_ceiling": 0.4,
        "ceiling_precision": "bfloat16",
        "ceiling_stands_in": precision == "int8",
        "gate": {"passed": precision != "int8"},
    }


def whole(kind: str, **stages: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "status": "done",
        "wall_seconds": sum(stages.values()) + 2,
        "stage_seconds": sum(stages.values()),
        "elsewhere_seconds": 2.0,
        "overlapped_seconds": 0.0,
        "peak_memory_bytes": 2**30,
        "stages": stages,
    }


def record(*rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"gpu": None, "cpu": "A processor", "system": "Linux", "threads": 2}
    scans = [{"name": "sample"}]
    return {
        "machine": machine,
        "scans": scans,
        "synthetic": True,
        "measurements": list(rows),
    }


def pixels(record: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(bench_chart.draw(record))) as picture:
        return np.asarray(picture.convert("RGB"))


NETWORKS = (network("torch", "float32", 20), network("openvino", "int8", 5))
WHOLES = (whole("segment", read=1, network=5), whole("plain", read=1, network=40))


@pytest.mark.parametrize("rows", [NETWORKS, WHOLES, NETWORKS + WHOLES])
def test_a_picture_1200_pixels_wide(rows: tuple[dict[str, Any], ...]) -> None:
    drawn = pixels(record(*rows))

    assert drawn.shape[1] == 1200
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50
    border = np.concatenate([drawn[:2].ravel(), drawn[:, -2:].ravel()])
    assert (border == 255).all()  # nothing is cut off


def test_the_same_bytes_each_time() -> None:
    one = record(*NETWORKS, *WHOLES)

    assert bench_chart.draw(one) == bench_chart.draw(one)


def test_bars_are_as_long_as_what_they_show() -> None:
    """The int8 bar, blue, is a quarter as long as that of float32, orange."""
    drawn = pixels(record(*NETWORKS)).astype(int)
    orange = (drawn[..., 0] > 240) & (drawn[..., 2] < 60)
    blue = (drawn[..., 2] > 150) & (drawn[..., 0] < 80)

    lengths = [int(colour.sum(axis=1).max()) for colour in (orange, blue)]
    assert lengths[1] / lengths[0] == pytest.approx(0.25, abs=0.02)


def test_what_failed_has_words_in_place_of_a_bar() -> None:
    failed = {"kind": "network", "model": "m", "backend": "torch", "precision": "int8"}
    rows = [failed | {"status": status} for status in ("failed", "skipped")]

    alone, beside = pixels(record(*rows)), pixels(record(NETWORKS[0], *rows))

    assert (alone < 200).any()
    assert beside.shape[0] > alone.shape[0]
