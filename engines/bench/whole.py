"""``spine segment`` from start to end, as a process of its own, stage by stage."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.bench.process import Ended, timed
from engines.errors import BenchError

KIND = "segment"

NETWORK = "network"
"""The stage in which the network runs."""


@dataclass(frozen=True, slots=True)
class Once:
    """One run over all scans.

    Attributes:
        seconds: of the process, from its start to its end.
        stages: per scan, stage -> seconds; they may overlap those of another scan.
        peak_bytes: most memory of the process; None where that is not known.
        masks: per scan, its label map.
        facts: backend, precision, device and gate, where the program chose them.
    """

    seconds: float
    stages: tuple[Mapping[str, float], ...]
    peak_bytes: int | None
    masks: tuple[Path, ...]
    facts: Mapping[str, Any]


def segment(
    scans: Sequence[Path],
    model: Path,
    device: str,
    output: Path,
    options: Sequence[str] = (),
) -> Once:
    """Segment ``scans`` into ``output`` with a new process.

    Args:
        options: more of the command line.

    Raises:
        BenchError: a scan was not segmented.
    """
    command = [
        *(sys.executable, "-m", "spinecli", "segment"),
        *(str(scan) for scan in scans),
        *("--output", str(output), "--model", str(model), "--device", device, "--json"),
        *options,
    ]
    ended = timed(command)
    record = _record(ended)
    for case in record["cases"]:
        if case["status"] != "done":
            raise BenchError(f"{case['name']}: {case['error']['message']}")
    kinds = [case["outputs"] for case in record["cases"]]
    return Once(
        ended.seconds,
        tuple(case["seconds"] for case in record["cases"]),
        ended.peak_bytes,
        tuple(Path(kind.get("vertebrae", kind["spine"])) for kind in kinds),
        {key: record.get(key) for key in ("backend", "precision", "device", "gate")},
    )


def figures(runs: Sequence[Once]) -> dict[str, Any]:
    """Return the medians over ``runs`` of the same scans.

    ``elsewhere_seconds`` is what no stage of a single scan accounts for: starting
    Python and its libraries, finding the scan, ending. Of several scans stages
    overlap: ``stage_seconds`` is their sum over all scans, ``overlapped_seconds`` by
    how much it exceeds the time that passed, and ``network_share`` the share of that
    time in which the network ran; the closer to 1, the better all else is hidden.
    """
    wall = statistics.median(run.seconds for run in runs)
    scans = [_medians([run.stages[i] for run in runs]) for i in range(_count(runs))]
    names = list(dict.fromkeys(stage for scan in scans for stage in scan))
    stages = {name: sum(scan.get(name, 0.0) for scan in scans) for name in names}
    busy = sum(stages.values())
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    network = stages.get(NETWORK)
    return {
        "scans": len(scans),
        "repeats": len(runs),
        "wall_seconds": round(wall, 3),
        "wall_range": [
            round(end, 3)
            for end in (min(r.seconds for r in runs), max(r.seconds for r in runs))
        ],
        "stages": {name: round(seconds, 3) for name, seconds in stages.items()},
        "stage_seconds": round(busy, 3),
        "elsewhere_seconds": round(max(0.0, wall - busy), 3),
        "overlapped_seconds": round(max(0.0, busy - wall), 3),
        "network_seconds": None if network is None else round(network, 3),
        "network_share": None if network is None else round(network / wall, 4),
        "peak_memory_bytes": max(peaks, default=None),
    }


def _count(runs: Sequence[Once]) -> int:
    return min(len(run.stages) for run in runs)


def _medians(seconds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in seconds for name in one)
    return {
        name: statistics.median(one.get(name, 0.0) for one in seconds) for name in names
    }


def _record(ended: Ended) -> dict[str, Any]:
    """Return what the process printed.

    Raises:
        BenchError: it ended without a record, or with an error.
    """
    try:
        record: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        msg = f"'spine segment' ended with status {ended.status}: {last}"
        raise BenchError(msg) from None
    if record["error"] is not None:
        raise BenchError(record["error"]["message"], hint=record["error"]["hint"])
    return record
