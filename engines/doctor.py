"""Examine this machine: what is there, what will not work, and how to mend it.

Libraries are imported inside the checks, so that a broken one is reported like
anything else that is wrong.
"""

import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engines import __version__
from engines.errors import OutputError
from engines.files import require_writable

if TYPE_CHECKING:
    from engines.runtimes.verdicts import Verdict as KeptVerdict

Verdict = Literal["ok", "warning", "problem"]

OLDEST_PYTHON = (3, 11)
MEMORY_GIB = 8
"""With less, scans of the whole body may not fit."""
DISK_GIB = 1
NVIDIA_DRIVER = Path("/proc/driver/nvidia")

LIBRARIES = {
    "torch": "torch",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "timm": "timm",
    "safetensors": "safetensors",
    "nibabel": "nibabel",
    "SimpleITK": "SimpleITK",
    "pydicom": "pydicom",
    "numpy": "numpy",
    "array-api-compat": "array_api_compat",
    "scipy": "scipy",
    "isal": "isal",
}
"""Distribution -> module, of what segmentation cannot do without."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        verdict: a ``problem`` makes segmentation impossible, a ``warning`` does not.
        hint: how to mend it; empty when all is well.
        details: the whole record that ``value`` sums up, ready for JSON; often empty.
    """

    name: str
    value: str
    verdict: Verdict = "ok"
    hint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the record for ``--json``; with details where there are any."""
        record: dict[str, Any] = {
            "name": self.name,
            "value": self.value,
            "status": self.verdict,
            "hint": self.hint,
        }
        return record | ({"details": dict(self.details)} if self.details else {})


Check = Callable[[], Iterable[Finding]]


def examine() -> list[Finding]:
    """Return the findings of all checks; one that breaks is a finding itself."""
    return [finding for name, check in CHECKS.items() for finding in _run(name, check)]


def _run(name: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # noqa: BLE001  the others still have to be made
        told = f"cannot be examined: {type(error).__name__}: {error}"
        return [Finding(name, told, "warning", "See the other findings first.")]


def versions() -> Iterator[Finding]:
    """Say which Python and which libraries there are, and whether they load."""
    yield Finding("spine", __version__)
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        hint = f"Install Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer."
        yield Finding("python", found, "problem", hint)
    else:
        yield Finding("python", f"{found} on {platform.system()} {platform.machine()}")
    for distribution, module in LIBRARIES.items():
        yield library(distribution, module)


def library(distribution: str, module: str) -> Finding:
    """Say which version of a library there is, after loading it."""
    try:
        import_module(module)
        return Finding(distribution, version(distribution))
    except Exception as error:  # noqa: BLE001  a broken library may raise anything
        hint = f"Install it again: pip install --force-reinstall {distribution}"
        return Finding(distribution, f"cannot be loaded: {error}", "problem", hint)


def processor() -> Iterator[Finding]:
    """Say which processor it is, how many cores may be used, and if it has bfloat16."""
    from engines.runtimes import devices

    yield Finding("CPU", devices.processor())
    yield Finding("CPU cores", str(cores()))
    fast = devices.cpu_has_bfloat16()
    told = "yes" if fast else "no: float32 is used"
    yield Finding("CPU bfloat16", told)


def cores() -> int:
    """Return how many cores this process may use."""
    from engines.runtimes import devices

    return len(devices.cores())


def memory() -> Iterator[Finding]:
    """Say how much memory there is."""
    from engines.runtimes.devices import memory_gib

    total = memory_gib()
    if total is None:
        yield Finding("memory", "unknown")
    elif total < MEMORY_GIB:
        hint = f"Scans of the whole body may need {MEMORY_GIB} GiB: use --jobs 1."
        yield Finding("memory", f"{total:.1f} GiB", "warning", hint)
    else:
        yield Finding("memory", f"{total:.1f} GiB")


def graphics() -> Iterator[Finding]:
    """Say which CUDA devices there are, and whether they compute."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        yield _no_device([str(warning.message) for warning in said])
        return
    for index in range(torch.cuda.device_count()):
        yield _device(index)


def _no_device(said: list[str]) -> Finding:
    if not (said or NVIDIA_DRIVER.exists()):
        return Finding("CUDA", "no device: the CPU is used")
    told = "there is an NVIDIA driver, but torch cannot use it"
    hint = "Install the torch build that fits the driver (see pytorch.org)."
    reason = f": {said[0].splitlines()[0]}" if said else ""
    return Finding("CUDA", told + reason, "warning", hint)


def _device(index: int) -> Finding:
    import torch

    about = torch.cuda.get_device_properties(index)
    told = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    try:
        torch.ones(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        hint = "Use --device cpu, or install a torch build for this device."
        return Finding(f"cuda:{index}", f"{told}; {reason}", "warning", hint)
    return Finding(f"cuda:{index}", told)


def runtimes() -> Iterator[Finding]:
    """Say which backends there are; one that is not installed is no problem."""
    from engines.runtimes.backends import BACKENDS

    for row in BACKENDS.values():
        if row.missing() is None:
            yield Finding(f"backend {row.name}", row.version() or "installed")
        else:
            told = f"not installed: pip install 'spinecli[{row.extra}]'"
            yield Finding(f"backend {row.name}", told)


def models() -> Iterator[Finding]:
    """Say which models are found, and whether the default is among them."""
    from engines.networks import shelf

    yield from _model_folders(shelf.VARIABLE)
    shelved = shelf.models()
    for model in shelved:
        told = f"{model.origin}: {model.path}"
        if model.problem:
            hint = "Remove the file or copy it again."
            yield Finding(f"model {model.name}", model.problem, "warning", hint)
        else:
            yield Finding(f"model {model.name}", told)
    sound = [model.name for model in shelved if not model.problem]
    hint = "Install the package again, or name a folder of models in SPINE_MODELS."
    if not sound:
        yield Finding("models", "none was found", "problem", hint)
    elif shelf.DEFAULT_MODEL not in sound:
        told = f"the default, {shelf.DEFAULT_MODEL}, was not found"
        yield Finding("models", told, "warning", f"{hint} Or give --model.")


def _model_folders(variable: str) -> Iterator[Finding]:
    given = [part for part in os.environ.get(variable, "").split(os.pathsep) if part]
    missing = [part for part in given if not Path(part).is_dir()]
    if missing:
        told = f"no such folder: {', '.join(missing)}"
        yield Finding(variable, told, "warning", f"Correct {variable} or make it.")
    else:
        yield Finding(variable, os.pathsep.join(given) or "not set")


def gate() -> Iterator[Finding]:
    """Say what the parity gate said here of each model, and which order is pinned.

    Verdicts on model files that are not found by name, on other devices, or for other
    versions than those installed do not count here, and are left out.
    """
    from engines.files import sha256_of
    from engines.networks import shelf
    from engines.runtimes import devices, pins, verdicts

    known = {sha256_of(model.path) for model in shelf.models() if not model.problem}
    here = {devices.kind(device) for device in (devices.CPU, *devices.pick_all())}
    judged, torn = verdicts.kept()
    for one in judged:
        if one.key.model in known and one.key.device in here and one.counts():
            yield _verdict(one)
    pinned, broken = pins.kept()
    for pin in pinned:
        if pin.model in known and pin.device in here:
            order = ", ".join(" ".join(candidate) for candidate in pin.order)
            told = f"{order} ({pin.made[:10]}, {pin.device})"
            yield Finding(f"order {pin.title}", told, details=pin.as_json())
    if torn or broken:
        told = f"damaged: {', '.join(path.name for path in (*torn, *broken))}"
        hint = "Run 'spine engine clear'; what is needed is judged again."
        yield Finding("gate", told, "warning", hint)


def _verdict(one: "KeptVerdict") -> Finding:
    key, figures = one.key, one.gate
    if figures is None:
        told = f"could not be loaded or run: {one.problem}"
    else:
        told = f"{'passed' if one.passed else 'failed'}: {figures.figures}"
        if one.ms_per_slice is not None:
            told += f", {one.ms_per_slice:.1f} ms a slice then"
    name = f"gate {one.title} {key.backend} {key.precision}"
    return Finding(name, f"{told} ({one.judged[:10]})", details=one.as_json())


def decoders() -> Iterator[Finding]:
    """Say which kinds of compressed DICOM can be decoded."""
    from engines.convert.decode import missing_decoders
    from engines.errors import MissingDecoderError

    missing = missing_decoders()
    if missing:
        told = f"none for {', '.join(missing)}"
        yield Finding("DICOM decoders", told, "warning", MissingDecoderError.hint)
    else:
        yield Finding("DICOM decoders", "all kinds")


def storage() -> Iterator[Finding]:
    """Say whether the folder for temporary files can be used."""
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(prefix="spine-") as made:
            require_writable(Path(made))
    except (OSError, OutputError) as error:
        hint = "Set TMPDIR to a folder that may be written to."
        yield Finding("temporary files", str(error), "warning", hint)
        return
    free = shutil.disk_usage(folder).free / 2**30
    told = f"{folder}: {free:.1f} GiB free"
    if free < DISK_GIB:
        yield Finding("temporary files", told, "warning", "Make room on this disk.")
    else:
        yield Finding("temporary files", told)


CHECKS: dict[str, Check] = {
    "versions": versions,
    "processor": processor,
    "memory": memory,
    "graphics": graphics,
    "runtimes": runtimes,
    "models": models,
    "gate": gate,
    "decoders": decoders,
    "storage": storage,
}
