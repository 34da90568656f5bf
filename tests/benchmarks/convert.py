"""Time ``spine convert`` against dcm2niix and dicom2nifti, side by side.

    python tests/benchmarks/convert.py SCAN [--rounds 5] [--syntax plain|rle]

Writes the CT scan as a DICOM series and converts it with each program as a whole
process, in alternation, so that a busy machine slows all of them alike. Programs that
are not installed are left out. Nothing here passes or fails: machines differ, the
ratios are what to look at.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FEWEST_ROUNDS = 5

Command = Callable[[Path, Path], list[str]]


def spine(source: Path, output: Path) -> list[str]:
    """Return the command of this program."""
    return [sys.executable, "-m", "spinecli", "convert", str(source), str(output)]


def dcm2niix(source: Path, output: Path) -> list[str]:
    """Return the command of dcm2niix."""
    import dcm2niix as package

    return [str(package.bin), "-z", "y", "-o", str(output), str(source)]


def dicom2nifti(source: Path, output: Path) -> list[str]:
    """Return the command of dicom2nifti."""
    code = (
        "import sys, dicom2nifti;"
        "dicom2nifti.convert_directory(sys.argv[1], sys.argv[2])"
    )
    return [sys.executable, "-c", code, str(source), str(output)]


def installed() -> Mapping[str, Command]:
    """Return the programs that can be run here, this one first."""
    others = {"dcm2niix -z y": dcm2niix, "dicom2nifti": dicom2nifti}
    found = {
        name: command
        for name, command in others.items()
        if importlib.util.find_spec(name.split()[0])
    }
    return {"spine convert": spine, **found}


def write_series(scan: Path, folder: Path, *, packed: bool) -> None:
    """Write ``scan`` as a DICOM series."""
    import numpy as np
    from pydicom.uid import RLELossless

    from engines.volume import Volume
    from tests import dicom_phantoms, phantoms

    volume = Volume.read(scan)
    values = np.clip(np.rint(volume.voxels), -1024, 31743).astype(np.int16)
    volume = volume.with_voxels(values)
    for path in phantoms.write_dicom(folder, volume, edit=complete):
        if packed:
            dicom_phantoms.rewrite(path, RLELossless)


def complete(number: int, dataset: object) -> None:
    """Add what dicom2nifti wants of a slice, numbers in the order of places too."""
    wanted = {
        "InstanceNumber": number + 1,
        "Manufacturer": "none",
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.2",
        "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.3",
        "SeriesDescription": "benchmark",
        "ProtocolName": "benchmark",
        "StudyDate": "20240101",
        "StudyTime": "120000",
    }
    for keyword, value in wanted.items():
        setattr(dataset, keyword, value)


def timed(command: list[str]) -> tuple[float, float]:
    """Return wall seconds and peak memory in MB of a whole process.

    A process begins with the peak of the one that starts it, so this one stays small.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    before = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scan", type=Path)
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS)
    parser.add_argument("--syntax", choices=("plain", "rle"), default="plain")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.write:
        write_series(options.scan, options.write, packed=options.syntax == "rle")
        return
    programs = installed()
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    peaks: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "series"
        timed([sys.executable, __file__, *sys.argv[1:], "--write", str(source)])
        sizes = [path.stat().st_size for path in source.iterdir()]
        print(f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB, {options.syntax}")
        for number in range(-1, max(FEWEST_ROUNDS, options.rounds)):
            for index, (name, command) in enumerate(programs.items()):
                output = Path(folder) / f"{index} {number}"
                output.mkdir()
                spent, peak = timed(command(source, output))
                if not [*output.rglob("*.nii.gz")]:
                    sys.exit(f"{name} wrote no volume")
                if number >= 0:  # the first round fills the caches of the disk
                    seconds[name].append(spent)
                    peaks[name].append(peak)
    ours = statistics.median(seconds["spine convert"])
    for name in programs:
        median = statistics.median(seconds[name])
        low, high = min(seconds[name]), max(seconds[name])
        print(
            f"{name:14} {median:6.2f} s ({low:.2f} to {high:.2f}), "
            f"{median / ours:5.2f} times spine convert, "
            f"peak {statistics.median(peaks[name]):.0f} MB"
        )


if __name__ == "__main__":
    main()
