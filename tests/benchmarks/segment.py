"""Time ``spine segment`` from the shell against the plain way, as ratios.

    python tests/benchmarks/segment.py SCAN [--runs 3]

The plain way reads and resamples with SciPy, runs the network in float32, slice by
slice over the whole scan, and writes with nibabel's gzip. Both run as whole
processes, in turn, on the same two threads. Nothing here passes or fails: machines
differ, the ratio is what to look at.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def plain(scan: Path, output: Path) -> None:
    """Segment ``scan`` the plain way."""
    import nibabel as nib
    import numpy as np
    import torch
    from scipy import ndimage

    from engines.networks import shelf

    model = shelf.load(shelf.DEFAULT_MODEL)
    image = nib.as_closest_canonical(nib.load(scan))
    hu = image.get_fdata(dtype=np.float32)
    zoom = np.array(image.header.get_zooms()) / model.manifest.recipe.spacing_mm
    low, high = model.manifest.recipe.clamp
    values = (np.clip(ndimage.zoom(hu, zoom, order=3), low, high) - low) / (high - low)
    total = np.zeros(values.shape, np.float32)
    for axis in range(3):
        for index in range(values.shape[axis]):
            piece = np.take(values, index, axis)
            rows, columns = (-n % model.stride for n in piece.shape)
            padded = torch.from_numpy(np.pad(piece, ((0, rows), (0, columns))))
            with torch.inference_mode():
                found = model.network(padded[None, None]).softmax(1)[0, 1]
            place = [slice(None)] * 3
            place[axis] = index
            total[tuple(place)] += found[: piece.shape[0], : piece.shape[1]].numpy()
    back = ndimage.zoom(total / 3, np.array(hu.shape) / values.shape, order=1)
    nib.save(nib.Nifti1Image((back > 0.5).astype(np.uint8), image.affine), output)


def timed(command: list[str]) -> tuple[float, float]:
    """Return wall seconds and peak memory in MB of a whole process."""
    before = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - before
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scan", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain(options.scan, options.plain)
        return
    spine = [sys.executable, "-m", "spinecli"]
    ours, theirs, started, memory = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(options.runs):
            out = Path(folder) / str(run)
            seconds, peak = timed(
                [*spine, "segment", str(options.scan), "-o", str(out)]
            )
            ours.append(seconds)
            memory.append(peak)
            target = Path(folder) / f"plain{run}.nii.gz"
            theirs.append(
                timed(
                    [
                        sys.executable,
                        __file__,
                        str(options.scan),
                        "--plain",
                        str(target),
                    ]
                )[0]
            )
            started.append(timed([*spine, "--help"])[0])
        (case,) = json.loads((out / "spine-run.json").read_text())["cases"]
    share = {
        k: round(v / statistics.median(ours), 2) for k, v in case["seconds"].items()
    }
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(f"plain way / spine segment: {ratio:.2f}")
    print(f"spine segment: {statistics.median(ours):.1f} s, peak {max(memory):.0f} MB")
    print(f"spine --help: {statistics.median(started):.2f} s")
    print(f"stages as shares of the whole process: {share}")


if __name__ == "__main__":
    main()
