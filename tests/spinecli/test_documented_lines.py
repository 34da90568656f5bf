"""Every line of the README and of the man pages' examples runs, and does what it says.

Lines run in the order in which they are written, in a folder that has what they name:
``scans/``, ``gt/``, ``DIR`` and so on, small. What would take hours is shortened here
by name (``SHORTER``), in steps and data alone.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from engines.bench import ceiling
from engines.networks import shelf
from engines.networks.manifest import record_metrics
from engines.runtimes import backends
from spinecli.app import app
from spinecli.examples import EXAMPLES
from tests import data_sets, phantoms

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

LEFT_OUT = ("python3 -m venv",)
"""Lines that install the program, which is what runs these tests."""

QUICK = "--repeats 1 --backend torch --precision float32"

SHORTER = (
    ("--steps 2000", "--steps 1 --batch 2"),
    ("--steps 500", "--steps 1 --batch 2"),
    ("mr-networks-losses --data DIR", "mr.toml --data MR"),
    ("--flops 25%", "--flops 25% --batches 1 --finetune 0 --split all"),
    ("--flops 50%", "--flops 50% --batches 1 --finetune 0 --split all"),
    (
        "--steps 3 --compare random,magnitude --seeds 3",
        "--steps 1 --compare random --seeds 1 --batches 1 --finetune 0 "
        "--split all",
    ),
    ("--ratio 50% --dry-run", "--ratio 50% --dry-run --batches 1 --split all"),
    ("--plan half-plan.json", "--plan half-plan.json --finetune 0 --split all"),
    ("--for sm86,sm89,sm120", "--for sm89"),
    ("spine bench -o OUT", f"spine bench scans/ -o OUT {QUICK}"),
    ("--plain --repeats 5", f"--plain {QUICK}"),
    ("--precision float32", f"scans/ {QUICK}"),
    ("--backend torch", QUICK),
    ("gt/ --robustness", "gt/ --robustness --only slices-5mm"),
)  # fmt: skip

NEEDS = {"--for sm": "tensorrt-rtx", "--backend openvino": "openvino"}
"""Part of a line -> the backend that has to be installed for it."""

REFUSED = {"--backend tensorrt ": ("missing_backend", "device")}
"""Part of a line -> codes of the error that it gives on a machine without a GPU."""

MAKES = {
    "-o OUT --dry-run": (),
    "-o OUT --model mru-net-3d": ("OUT/a_ct/a_ct_seg-vert_msk.nii.gz",),
    "segment SCANS -o OUT --model RUN": ("OUT/a_ct/a_ct_seg-spine_msk.nii.gz",),
    "segment scans/ -o OUT": ("OUT/index.html", "OUT/spine-run.csv"),
    "segment /data/2026": ("/results/spine-run.csv", "run.json"),
    "convert /data/export /data/nifti": ("/data/nifti/**/*_ct.nii.gz",),
    "convert exam.zip": ("/data/nifti/**/*.nii.gz",),
    "convert /data/export nifti/ --list": (),
    "convert /data/export nifti/": ("nifti/**/*.nii.gz",),
    "evaluate preds/ gt/ -o scores": ("scores/index.html", "scores/evaluation.csv"),
    "evaluate preds/ gt/ --json": ("scores.json",),
    "--preview-data sheet.png": ("sheet.png",),
    "train --data DIR -o MINE": ("MINE/unet-r34.safetensors",),
    "train --data DIR -o RUN": ("RUN/unet-r34.safetensors", "RUN/curve.png"),
    "preprocess verse20/": ("DIR/**/*_ct.nii.gz",),
    "preprocess spider/": ("DIR/**/*_mr.nii.gz",),
    "preprocess Totalsegmentator_dataset/": ("DIR/**/*_ct.nii.gz",),
    "preprocess Dataset501_Spine/": ("DIR/**/*_ct.nii.gz",),
    "preprocess cases.csv": ("DIR/**/*_ct.nii.gz",),
    "preprocess scans/": ("prepared/**/*.nii.gz",),
    "study mr-networks-losses": ("OUT/study.md", "OUT/index.html"),
    "study mine.toml": ("OUT/study.md", "OUT/index.html"),
    "--dry-run -o half.safetensors": ("half-plan.json",),
    "prune unet-r34": ("*.safetensors", "*-pruning/report.html"),
    "spine bench -o OUT": ("OUT/bench.png", "OUT/bench.json"),
    "--page unet-r34.html": ("unet-r34.html",),
}  # fmt: skip
"""Part of a line -> what lies there afterwards; the first part that fits counts."""

MINE = """
title = "mine"
metrics = ["dice"]
seeds = [0]

[base]
network = "pspnet"
steps = 1
batch = 1
patches = [64]
split = "80/20"

[[base.source]]
path = "."

[[axis]]
name = "Loss"

[[axis.row]]
label = "Dice"
set = { loss = "dice" }
"""


def lines_of(text: str) -> Iterator[str]:
    """Yield the commands of every block of shell lines, without their comments."""
    for block in BLOCK.findall(text):
        for line in block.splitlines():
            command = re.sub(r"\s+# .*$", "", line).strip()
            if command and not command.startswith(LEFT_OUT):
                yield command


README = list(lines_of((ROOT / "README.md").read_text(encoding="utf-8")))
MANUAL = [line for rows in EXAMPLES.values() for line, _ in rows]


def an_mr(path: Path, seed: int) -> None:
    """Write a lumbar MR of three bodies, and its mask."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 60.0, (16, 40, 48))
    mask = np.zeros(values.shape, np.uint8)
    for place, label in enumerate((24, 23, 22)):
        mask[4:12, 14:26, 6 + 13 * place : 16 + 13 * place] = label
    values[mask > 0] += 300
    affine = np.diag([4.0, 3.0, 3.0, 1.0])
    path.mkdir(exist_ok=True)
    for name, voxels in (("mr", values.astype(np.float32)), ("seg-vert_msk", mask)):
        nib.save(nib.Nifti1Image(voxels, affine), path / f"p{seed}_{name}.nii.gz")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that the lines name."""
    root = tmp_path_factory.mktemp("lines")
    scan, mask = data_sets.small()
    other, other_mask = data_sets.other()
    for folder in ("scans", "SCANS", "data/2026"):
        data_sets.write(root / folder, a_ct=scan)
    data_sets.write(root / "DIR", **{"a_ct": scan, "a_seg-vert_msk": mask})
    data_sets.write(root / "DIR", **{"b_ct": other, "b_seg-vert_msk": other_mask})
    for folder in ("preds", "other_preds", "gt"):
        data_sets.write(root / folder, **{"a_seg-vert_msk": mask})
    ids = {21: 30, 22: 29, 23: 28}
    given = data_sets.renumbered(mask, ids)
    data_sets.write(root / "ts_out", **{"a_seg-vert_msk": given})
    phantoms.write_dicom(root / "data/export/1", phantoms.volume(phantoms.ct_values()))
    shutil.make_archive(str(root / "exam"), "zip", root / "data/export")
    data_sets.verse_2020(root / "verse20")
    data_sets.spider(root / "spider")
    data_sets.totalsegmentator(root / "Totalsegmentator_dataset")
    data_sets.nnunet(root / "Dataset501_Spine")
    data_sets.pairs_table(root)
    for seed in range(5):
        an_mr(root / "MR", seed)
    (root / "mine.toml").write_text(MINE)
    shipped = ROOT / "engines/train/studies/mr-networks-losses.toml"
    grid = re.sub(r"(\[\[axis\.row\]\]\n[^\[]*)(\[\[axis\.row\]\]\n[^\[]*)+", r"\1", shipped.read_text())  # fmt: skip # noqa: E501
    grid = grid.partition("[[figure]]")[0]
    grid = grid.replace("seeds = [0, 1, 2]", "seeds = [0]")
    (root / "mr.toml").write_text(grid.replace("epochs = 50", "epochs = 1"))
    (root / "RUN").mkdir()
    for name in ("parent", "unet-r34"):
        shutil.copy(shelf.locate("unet-r34"), root / "RUN" / f"{name}.safetensors")
    measured = {"metric": "Dice", "value": 0.9, "data": "none: another file, no more"}
    record_metrics(root / "RUN" / "parent.safetensors", [measured])
    program = root / "bin" / "spine"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spinecli "$@"\n')
    program.chmod(0o755)
    return root


def shortened(line: str) -> str:
    for part, shorter in SHORTER:
        if part in line:
            return line.replace(part, shorter)
    return line


def run(line: str, place: Path) -> tuple[int, str]:
    """Run a line in this process, or by the shell where it needs one."""
    line = line.replace("/data/", f"{place}/data/").replace(
        "/results", f"{place}/results"
    )
    if re.search(r"[|<>]", line):
        path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=place,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr
    program, *arguments = shlex.split(line)
    assert program == "spine"
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize("line", [*README, *MANUAL])
def test_the_line_runs(line: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, backend in NEEDS.items():
        if part in line and backends.find(backend).missing() is not None:
            pytest.skip(f"{backend} is not installed")
    monkeypatch.chdir(place)
    monkeypatch.setattr(ceiling, "SIZE", {"cpu": 256, "cuda": 512})
    refused = next((c for part, c in REFUSED.items() if part in f"{line} "), None)
    if refused:
        status, told = run(f"{line} --json", place)
        assert status == 0 or any(f'"code": "{code}"' in told for code in refused)
        return
    for folder in ("OUT", "scores", "DIR-made"):
        shutil.rmtree(place / folder, ignore_errors=True)
    if "preprocess" in line:
        line = line.replace(" DIR ", " DIR-made ")
    if "--table" in line:
        run(MANUAL_STUDY, place)
    status, told = run(shortened(line), place)
    assert status == 0, told
    made = next((paths for part, paths in MAKES.items() if part in line.replace("DIR-made", "DIR")), ())  # fmt: skip # noqa: E501
    for path in made:
        path = path.replace("DIR/", "DIR-made/")
        where = place / path.removeprefix("/")
        assert list(place.glob(str(where.relative_to(place)))), path


MANUAL_STUDY = "spine study mine.toml --data DIR -o OUT"


def test_the_lines_are_those_that_are_written() -> None:
    """A block that is not found would be a test of nothing."""
    assert len(README) > 25
    text = "".join(path.read_text() for path in (ROOT / "man").glob("*.1"))
    for line in MANUAL:
        assert line.replace("-", "\\-") in text


def test_the_notebook_example_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(place)
    shutil.copy(place / "scans" / "a_ct.nii.gz", place / "scan.nii.gz")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert (place / "out" / "scan_seg-spine_msk.nii.gz").is_file()
    assert (place / "out" / "scan_preview.png").is_file()
