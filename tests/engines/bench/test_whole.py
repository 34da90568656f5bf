"""Whole runs: medians by stage, and what of them lies outside of stages."""

import json
from pathlib import Path
from typing import Any

import pytest

from engines.bench import whole
from engines.bench.process import Ended
from engines.bench.whole import Once
from engines.errors import BenchError

NOWHERE = Path("nowhere")


def once(seconds: float, *stages: dict[str, float], peak: int | None = 2**30) -> Once:
    return Once(seconds, stages, peak, tuple(NOWHERE for _ in stages), {})


def test_medians_and_what_is_left_of_a_single_scan() -> None:
    runs = [
        once(10.0, {"read": 1.0, "network": 5.0}),
        once(12.0, {"read": 3.0, "network": 6.0}),
        once(90.0, {"read": 2.0, "network": 7.0}, peak=2**31),
    ]

    told = whole.figures(runs)

    assert told["wall_seconds"] == 12
    assert told["wall_range"] == [10, 90]
    assert told["stages"] == {"read": 2, "network": 6}
    assert (told["stage_seconds"], told["elsewhere_seconds"]) == (8, 4)
    assert told["overlapped_seconds"] == 0
    assert told["network_share"] == 0.5
    assert told["peak_memory_bytes"] == 2**31


def test_stages_of_several_scans_overlap() -> None:
    scans = [{"read": 1.0, "network": 4.0, "write": 2.0} for _ in range(3)]

    told = whole.figures([once(15.0, *scans)])

    assert told["scans"] == 3
    assert told["stages"] == {"read": 3, "network": 12, "write": 6}
    assert (told["overlapped_seconds"], told["elsewhere_seconds"]) == (6, 0)
    assert told["network_share"] == 0.8


def test_stages_have_whatever_names_the_record_gives() -> None:
    told = whole.figures([once(4.0, {"one": 1.0}, {"two": 1.0}, peak=None)])

    assert told["stages"] == {"one": 1, "two": 1}
    assert told["network_seconds"] is told["network_share"] is None
    assert told["peak_memory_bytes"] is None


def failing(record: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "" if record is None else json.dumps(record)
    ended = Ended(1, 1.0, None, text, "chatter\nkilled by something\n")
    monkeypatch.setattr(whole, "timed", lambda command: ended)


def test_a_process_without_a_record_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(None, monkeypatch)

    with pytest.raises(BenchError, match="status 1: killed by something"):
        whole.segment([NOWHERE], NOWHERE, "cpu", NOWHERE)


def test_an_error_of_the_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"code": "device", "message": "no such device", "hint": "Choose another."}
    failing({"error": error, "cases": []}, monkeypatch)

    with pytest.raises(BenchError, match="no such device") as raised:
        whole.segment([NOWHERE], NOWHERE, "cpu", NOWHERE)
    assert raised.value.hint == "Choose another."


def test_a_scan_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"name": "a", "status": "failed", "error": {"message": "truncated"}}
    failing({"error": None, "cases": [case]}, monkeypatch)

    with pytest.raises(BenchError, match="a: truncated"):
        whole.segment([NOWHERE], NOWHERE, "cpu", NOWHERE)
