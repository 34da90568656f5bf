"""Prove on a GPU what only a GPU can prove, and write it down: ``bash .ci/gpu``.

Each part is a process of its own with a time limit: one that fails or hangs leaves its
row in the table and the others go on. All of it ends within eight minutes.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests" / "benchmarks" / "GPU.md"
DATA = ROOT / "tests" / "data"
LIMIT_S = 480.0
"""Seconds that all parts may take together."""


@dataclass(frozen=True)
class Part:
    """One thing to be proved.

    Attributes:
        name: its row.
        command: what is run, after the Python.
        limit_s: seconds it may take.
        read: makes its standard output into what the row says.
    """

    name: str
    command: Sequence[str]
    limit_s: float
    read: Callable[[str], str]


@dataclass(frozen=True)
class Row:
    """What became of a part."""

    name: str
    outcome: str
    seconds: float
    told: str


def parts(gpus: int, folder: Path) -> Iterator[Part]:
    """Yield what is to be proved on a machine with so many GPUs."""
    yield Part(
        "tests that need a GPU: TensorRT kinds against torch, graphs against eager",
        ["-m", "pytest", "-q", "-m", "gpu", "-rs", "-p", "no:cacheprovider"],
        200,
        lambda out: "; ".join(out.strip().splitlines()[-1:]),
    )
    train = ["train", "--data", str(DATA), "--steps", "2", "--batch", "4", "--json"]
    yield Part(
        "two training steps on one GPU",
        ["-m", "spinecli", *train, "-o", str(folder / "one")],
        90,
        lambda out: f"loss {json.loads(out)['last']['loss']:.4f}",
    )
    if gpus > 1:
        yield Part(
            "two training steps on two GPUs, over NCCL",
            [
                "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                "-m", "spinecli", *train, "-o", str(folder / "two"),
            ],
            90,
            lambda out: f"loss {json.loads(out.splitlines()[-1])['last']['loss']:.4f}",
        )  # fmt: skip
    segment = ["segment", str(DATA), "-o", str(folder / "out"), "--require-gpu"]
    yield Part(
        "spine segment on the sample scans",
        ["-m", "spinecli", *segment, "--json"],
        90,
        _segmented,
    )
    yield Part(
        "spine bench",
        ["-m", "spinecli", "bench", str(DATA), "--repeats", "1", "--json"],
        180,
        _timed,
    )


def run(part: Part, until: float) -> Row:
    """Run a part within its limit, and within ``until`` of the monotonic clock."""
    started = time.monotonic()
    limit_s = min(part.limit_s, until - started)
    if limit_s <= 5:
        return Row(part.name, "not run", 0.0, "no time was left")
    try:
        done = subprocess.run(
            [sys.executable, *part.command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Row(part.name, "FAILED", limit_s, f"took longer than {limit_s:.0f} s")
    seconds = time.monotonic() - started
    try:
        told = part.read(done.stdout)
    except (ValueError, KeyError, IndexError, TypeError):
        told = ""
    if done.returncode == 0:
        return Row(part.name, "passed", seconds, told)
    last = (done.stderr or done.stdout).strip().splitlines()[-1:]
    return Row(part.name, "FAILED", seconds, told or " ".join(last))


def _segmented(out: str) -> str:
    record = json.loads(out)
    cases = [f"{case['name']} {case['status']}" for case in record["cases"]]
    used = f"{record['backend']} in {record['precision']} on {record['device']}"
    return f"{', '.join(cases)}; {used}: {record['backend_reason']}"


def _timed(out: str) -> str:
    rows = [row for row in json.loads(out)["measurements"] if "backend" in row]
    return "; ".join(_figures(row) for row in rows)


def _figures(row: Mapping[str, Any]) -> str:
    name = f"{row['backend']} {row['precision']}"
    if row["error"] is not None:
        return f"{name}: {row['error']['message']}"
    gate = row.get("gate")
    agrees = "the reference" if gate is None else f"Dice {gate['dice']:.4f}"
    return f"{name}: {row['ms_per_slice']:.2f} ms a slice, {agrees}"


def page(card: str, rows: Sequence[Row]) -> str:
    """Return the table."""
    import torch

    lines = [
        "# What ran on a GPU",
        "",
        "Written by `bash .ci/gpu`; run it on another card to have its table here.",
        "",
        f"- card: {card}",
        f"- torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"Python {platform.python_version()}",
        "",
        "| what | outcome | seconds | figures |",
        "| --- | --- | --: | --- |",
    ]
    for row in rows:
        told = row.told.replace("|", "/")
        lines.append(f"| {row.name} | {row.outcome} | {row.seconds:.0f} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all parts; return 1 where one failed."""
    import torch

    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was proved, the table stays as it is")
        return 0
    gpus = torch.cuda.device_count()
    card = f"{gpus} x {torch.cuda.get_device_name(0)}"
    until = time.monotonic() + LIMIT_S
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(gpus, Path(folder)):
            rows.append(run(part, until))
            print(f"{rows[-1].outcome}: {part.name} ({rows[-1].seconds:.0f} s)")
            TABLE.write_text(page(card, rows), encoding="utf-8")
    return int(any(row.outcome != "passed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
