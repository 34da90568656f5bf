"""Time ``spine evaluate``: against surface_distance, on a whole body, on many cases.

    python tests/benchmarks/evaluate.py [large] [many] [surface] [--rounds 5]

``surface`` scores a map with 20 vertebrae with every metric of this program, and the
same labels with the distances of DeepMind's package, in alternation, so that a busy
machine slows both alike. ``large`` and ``many`` run whole processes: one map of
512 x 512 x 1400 voxels with 26 labels, and a thousand small cases. Nothing here passes
or fails: machines differ, the ratio and the growth are what to look at.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PARTS = ("large", "many", "surface")
"""In this order: what the last one imports would count as memory of the others."""
FEWEST_ROUNDS = 5
SPACING_MM = (0.8, 0.8, 1.0)
CASES = 1000
ENDS = 100
"""So many cases at the beginning and at the end are compared."""


def column(shape: tuple[int, int, int], count: int, shift: int = 0) -> Any:
    """Return a map of ``count`` vertebra-like labels, one above the other along K.

    Each has a body, an arch behind it and a spinous process; none is like another.
    """
    import numpy as np

    labels = np.zeros(shape, np.uint8, order="F")
    across, behind, length = shape
    step = length / count
    random = np.random.default_rng(0)
    for label in range(1, count + 1):
        middle = np.array([across / 2, behind / 2, (label - 0.5) * step]) + shift
        radii = np.array([22, 17, 0.42 * step]) * random.uniform(0.85, 1.15, 3)
        low, high = np.array([40, 24, step / 2]), np.array([40, 64, step / 2])
        start = np.maximum(middle - low, 0).astype(int)
        stop = np.minimum(middle + high, shape).astype(int)
        box = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
        places = np.ogrid[box]
        x, y, z = ((p - m) / r for p, m, r in zip(places, middle, radii, strict=True))
        body = x**2 + y**2 + z**2 < 1
        ring = np.abs(np.hypot(x, 1.3 * (y - 1.6)) - 0.75) < 0.2
        process = (np.abs(x) < 0.2) & (y > 2) & (y < 3.2)
        labels[box][body | ((ring | process) & (np.abs(z) < 0.8))] = label
    return labels


def write_pair(folder: Path, name: str, shape: tuple[int, int, int], count: int) -> int:
    """Write a truth and a moved prediction; return the bytes of both in memory."""
    import numpy as np

    from engines.geometry import Grid
    from engines.volume import Volume, write_nifti

    size = 0
    for side, shift in (("truth", 0), ("preds", 1)):
        labels = column(shape, count, shift)
        like = Volume(labels, Grid(shape, np.diag([*SPACING_MM, 1.0])))
        write_nifti(folder / side / f"{name}.nii.gz", labels, like, {})
        size += labels.nbytes
    return size


def surface(rounds: int) -> None:
    """Print how long both take for 20 labels, distances and overlap."""
    import numpy as np

    from engines.metrics import score, table
    from tests import surface_oracle

    truth, prediction = (column((300, 256, 256), 20, shift) for shift in (0, 1))
    ids = np.unique(truth[truth > 0]).tolist()

    def ours() -> list[dict[str, Any]]:
        maps, _ = score.cut(prediction, truth, SPACING_MM)
        return [table.score([one], "") for one in score.scores(maps)]

    def theirs() -> list[dict[str, float]]:
        pairs = ((prediction == label, truth == label) for label in ids)
        return [surface_oracle.measured(*pair, SPACING_MM) for pair in pairs]

    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(-1, rounds):
        for name, work in (("ours", ours), ("theirs", theirs)):
            before = time.perf_counter()
            work()
            if number >= 0:  # the first round imports and fills caches
                seconds[name].append(time.perf_counter() - before)
    apart = max(
        abs(own["hd95_mm"] - other["hd95"])
        for own, other in zip(ours(), theirs(), strict=True)
    )
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, found in seconds.items():
        print(f"{name}: {medians[name]:.2f} s ({min(found):.2f} to {max(found):.2f})")
    print(
        f"surface_distance / all metrics here, {len(ids)} labels, "
        f"{score.THREADS} threads: {medians['theirs'] / medians['ours']:.2f}; "
        f"HD95 differs by up to {apart:.1g} mm"
    )


def timed(*arguments: object) -> tuple[float, float, str]:
    """Return wall seconds, peak memory in MB and stdout of a whole process.

    A process begins with the peak of the one that starts it, so this one stays small.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, *map(str, arguments)]
    before = time.monotonic()
    with tempfile.TemporaryFile("w+") as stdout:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=subprocess.DEVNULL, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - before
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}")
        stdout.seek(0)
        return seconds, usage.ru_maxrss / 1024, stdout.read()


def large(folder: Path) -> None:
    """Print seconds and peak memory of one large case, in several ways."""
    timed(__file__, "--write-large", folder)
    pair = folder / "preds", folder / "truth"
    ways: list[list[object]] = [[], ["-o", folder / "out"], ["--scheme", "verse"]]
    for options in [*ways, ["--binary"], ["--resample"], ["--slices"]]:
        seconds, peak, _ = timed("-m", "spinecli", "evaluate", *pair, *options)
        told = " ".join(["26 labels", *(o for o in options if isinstance(o, str))])
        print(f"512 x 512 x 1400, {told}: {seconds:.1f} s, peak {peak:.0f} MB")


def many(folder: Path) -> None:
    """Print time per case and peak memory of many small cases."""
    timed(__file__, "--write-many", folder)
    _, peak, told = timed(__file__, "--score-many", folder)
    print(f"{told.strip()}, peak {peak:.0f} MB")
    pair = folder / "preds", folder / "truth"
    seconds, peak, _ = timed("-m", "spinecli", "evaluate", *pair, "-o", folder / "out")
    print(f"spine evaluate -o on {CASES} cases: {seconds:.1f} s, peak {peak:.0f} MB")


def score_many(folder: Path) -> None:
    """Score the cases in this process and print the time per case at both ends."""
    from engines.metrics.evaluate import evaluate
    from engines.metrics.pairs import find_pairs

    pairs, _ = find_pairs(folder / "preds", folder / "truth")
    kept, ended = [], [time.perf_counter()]
    for result in evaluate(pairs):
        kept.append(result)
        ended.append(time.perf_counter())
    first = (ended[ENDS] - ended[0]) / ENDS
    last = (ended[-1] - ended[-1 - ENDS]) / ENDS
    print(
        f"{len(kept)} cases: {1000 * first:.1f} ms each for the first {ENDS}, "
        f"{1000 * last:.1f} ms for the last"
    )


def write_many(folder: Path) -> None:
    """Write small cases, each a link to one of a few different ones."""
    kinds = 10
    for number in range(CASES):
        if number < kinds:
            write_pair(folder, f"case{number:04d}", (64, 96, 80), 5 + number)
            continue
        for side in ("preds", "truth"):
            same = folder / side / f"case{number % kinds:04d}.nii.gz"
            (folder / side / f"case{number:04d}.nii.gz").hardlink_to(same)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS)
    parser.add_argument("--write-large", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write-many", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--score-many", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.write_large:
        write_pair(options.write_large, "case", (512, 512, 1400), 26)
        return
    if options.write_many:
        write_many(options.write_many)
        return
    if options.score_many:
        score_many(options.score_many)
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {' '.join(sorted(unknown))}")
    for part in PARTS:
        if options.parts and part not in options.parts:
            continue
        with tempfile.TemporaryDirectory() as folder:
            if part == "surface":
                surface(max(FEWEST_ROUNDS, options.rounds))
            elif part == "large":
                large(Path(folder))
            else:
                many(Path(folder))


if __name__ == "__main__":
    main()
