"""The plain way to segment a scan, as a script would, for the whole to be held against.

It gives the same labels: the same model, grids, views, mean of probabilities, cleaning
and numbering. But nothing is done cleverly. NIfTI is read with nibabel; the scan
is brought to the recipe's grid by ``scipy.ndimage.affine_transform`` with cubic
splines (order 3); torch runs the network in float32, one slice at a time, over all
slices of all views; each class goes back to the scan's grid in full by the same
function, linear (order 1); nibabel compresses the mask with Python's gzip.

It runs as a process of its own, ``python -m engines.bench.plain JOB.json``, so that its
time and memory compare with those of ``spine segment``.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from engines.bench.process import timed
from engines.bench.whole import Once
from engines.errors import BenchError
from engines.files import write_json
from engines.geometry import Grid
from engines.networks.manifest import Model, load_model
from engines.preprocess import orient, resample
from engines.preprocess.prepare import normalised, target_grid
from engines.segment import clean, levels, views
from engines.segment.models import IN_ORDER
from engines.volume import Volume

KIND = "plain"
FACTS = {"backend": "torch", "precision": "float32"}

Floats = NDArray[np.float32]


def segment(scans: Sequence[Path], model: Path, device: str, output: Path) -> Once:
    """Segment NIfTI ``scans`` the plain way into ``output``, in a new process.

    Raises:
        BenchError: the process failed.
    """
    masks = [output / f"{number}.nii.gz" for number in range(len(scans))]
    seconds = output / "seconds.json"
    job = {
        "model": str(model),
        "device": device,
        "scans": [str(scan) for scan in scans],
        "masks": [str(mask) for mask in masks],
        "seconds": str(seconds),
    }
    write_json(output / "job.json", job)
    ended = timed(
        [sys.executable, "-m", "engines.bench.plain", str(output / "job.json")]
    )
    if ended.status != 0:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        msg = f"the plain way ended with status {ended.status}: {last}"
        raise BenchError(msg)
    stages = json.loads(seconds.read_text(encoding="utf-8"))
    facts = {**FACTS, "device": device}
    return Once(ended.seconds, tuple(stages), ended.peak_bytes, tuple(masks), facts)


def labels(
    path: Path, mask: Path, model: Model, device: torch.device
) -> dict[str, float]:
    """Write the label map of one scan, and return the seconds of each stage."""
    seconds: dict[str, float] = {}
    recipe, classes = model.manifest.recipe, model.manifest.classes
    with _timed(seconds, "read"):
        image: Any = nib.load(path)
        native = Grid(image.shape, image.affine)
        scan = Volume(image.get_fdata(dtype=np.float32), native)
    with _timed(seconds, "prepare"):
        turned = orient.reorient(scan, recipe.orientation)
        grid = target_grid(turned.grid, recipe)
        hu = _resampled(turned.voxels, turned.grid, grid, order=3)
        if recipe.smoothing_mm:
            sigma = [recipe.smoothing_mm / mm for mm in grid.spacing_mm]
            hu = ndimage.gaussian_filter(hu, sigma)
        values, _ = normalised(hu, recipe)
    with _timed(seconds, "network"):
        probability = _probabilities(values, model, device).numpy()
    with _timed(seconds, "clean"):
        clean.clean(probability, grid.spacing_mm)
        if dict(classes) in IN_ORDER:
            levels.settle(probability, classes, grid.spacing_mm, hu)
    with _timed(seconds, "native"):
        winner = _winner(probability, grid, turned.grid)
        found = orient.undo(winner, native, recipe.orientation)
    with _timed(seconds, "write"):
        nib.save(nib.Nifti1Image(found, image.affine), mask)
    return seconds


@torch.no_grad()
def _probabilities(values: Floats, model: Model, device: torch.device) -> torch.Tensor:
    """Return (classes - 1, R, A, S), the mean over views, one slice after the other."""
    network = model.network.to(device)
    total = torch.zeros((model.classes - 1, *values.shape))
    planes = model.manifest.views
    empty, least = float(values.min()), model.manifest.patch
    for view in planes:
        target = torch.movedim(total, 1 + views.NORMALS[view], 1)
        for index, piece in enumerate(np.moveaxis(values, views.NORMALS[view], 0)):
            around = [_margin(n, max(n, least), model.stride) for n in piece.shape]
            framed = np.pad(piece, around, constant_values=empty)
            given = torch.from_numpy(framed)[None, None].to(device)
            found = network(given).softmax(dim=1)[0, 1:].cpu()
            (top, _), (left, _) = around
            rows, columns = piece.shape
            target[:, index] += found[:, top : top + rows, left : left + columns]
    return total / len(planes)


def _margin(size: int, least: int, stride: int) -> tuple[int, int]:
    """Return what is put before and behind ``size`` rows or columns."""
    wanted = -(-least // stride) * stride
    return (wanted - size) // 2, (wanted - size + 1) // 2


def _winner(probability: Floats, source: Grid, target: Grid) -> NDArray[np.uint8]:
    """Return the class (I, J, K) of each voxel of ``target``."""
    best = np.zeros(target.shape, np.float32)
    foreground = np.zeros(target.shape, np.float32)
    index = np.zeros(target.shape, np.uint8)
    for number, one in enumerate(probability, start=1):
        carried = _resampled(one, source, target, order=1)
        foreground += carried
        index[carried > best] = number
        best = np.maximum(best, carried)
    index[best <= 1 - foreground] = 0
    return index


def _resampled(
    voxels: Floats, source: Grid, target: Grid, order: Literal[1, 3]
) -> Floats:
    places = resample.positions(source, target)
    step = [float(place[1] - place[0]) if len(place) > 1 else 1.0 for place in places]
    start = [float(place[0]) for place in places]
    carried: Floats = ndimage.affine_transform(
        voxels,
        step,
        start,
        target.shape,
        output=np.float32,
        order=order,
        mode="nearest",
    )
    return carried


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started


def _run(job: Mapping[str, Any]) -> None:
    model = load_model(Path(job["model"]))
    device = torch.device(job["device"])
    pairs = zip(job["scans"], job["masks"], strict=True)
    done = [labels(Path(scan), Path(mask), model, device) for scan, mask in pairs]
    write_json(Path(job["seconds"]), done)


if __name__ == "__main__":
    _run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
