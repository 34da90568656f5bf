"""OpenVINO on the CPU: layers fused, in float32, bfloat16 or int8.

The network is converted once (``openvino_convert``) and kept in the cache of engines;
compiling it for the CPU at hand takes a tenth of a second, so nothing that depends on
the CPU is kept. Nothing here imports torch: running a kept engine does without.

A bfloat16 has 8 bits, too few for what a scan's values tell apart. The scan is handed
over as two channels therefore, the value as far as 8 bits go and what is then missing,
and the first convolution has its weights twice. It costs nothing that can be measured.
"""

import io
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.networks.probes import Probe
from engines.runtimes import backends, devices
from engines.runtimes.cache import Cache, Key
from engines.runtimes.devices import Device, cpu_has_bfloat16
from engines.runtimes.openvino_library import NAME, library, refused
from engines.runtimes.plan import Plan, Wanted

if TYPE_CHECKING:
    from engines.networks.manifest import Model

XML, WEIGHTS = "model.xml", "model.bin"
"""What an engine's archive holds."""

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
"""Precision -> what layers compute in, for int8 those that stay as they are."""

Floats = NDArray[np.float32]


class OpenvinoRuntime:
    """A converted network, compiled for this CPU."""

    backend = NAME
    device = "cpu"

    def __init__(self, blob: bytes, precision: str, *, threads: int) -> None:
        openvino = library()
        self.precision = precision
        with zipfile.ZipFile(io.BytesIO(blob)) as held:
            xml, weights = held.read(XML), held.read(WEIGHTS)
        core = openvino.Core()
        hint = HINTS[precision] if cpu_has_bfloat16() else "f32"
        try:
            graph = core.read_model(model=xml, weights=weights)
            self._double = graph.inputs[0].partial_shape[1] == 2
            self._compiled = core.compile_model(
                graph,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hint,
                    "INFERENCE_NUM_THREADS": threads,
                    "PERFORMANCE_HINT": "LATENCY",
                },
            )
        except RuntimeError as error:
            raise refused(error) from error

    def predict(self, slices: Floats) -> Floats:
        """Return class probabilities; see the protocol for shapes."""
        given = split(slices) if self._double else slices
        try:
            found: Floats = self._compiled(np.ascontiguousarray(given))[0]
        except RuntimeError as error:
            raise refused(error) from error
        return found


def load(
    model: "Model", device: Device, precision: str, probes: Sequence[Probe]
) -> OpenvinoRuntime:
    """Return the runtime, from the cache if it was there before.

    Args:
        model: what is run; its network is built only where it has to be converted.
        device: the CPU.
        precision: key of ``HINTS``.
        probes: int8 is calibrated on them.

    Raises:
        BackendError: OpenVINO refused the network, or there is nothing to calibrate
            on.
    """
    wanted = Wanted(precision, device=str(device), probes=tuple(probes))
    planned = plan(model, wanted)
    kept = Cache().fetch(planned.title, planned.key, planned.make)
    return OpenvinoRuntime(kept.blob, precision, threads=devices.threads())


def plan(model: "Model", wanted: Wanted) -> Plan:
    """Return the engine that is asked for, which takes slices of any size.

    Raises:
        SettingsError: OpenVINO does not compute so on CPUs.
    """
    row = backends.find(NAME)
    precision = wanted.precision
    row.require("cpu", precision)
    key = Key(
        model.sha256,
        NAME,
        row.version(),
        precision,
        "any",
        ("cpu",),
        calibration=wanted.calibration,
    )

    def make() -> tuple[bytes, Mapping[str, Any]]:
        from engines.runtimes import openvino_convert  # imports torch

        started = time.monotonic()
        blob, facts = openvino_convert.converted(model, precision, wanted.probes)
        seconds = round(time.monotonic() - started, 2)
        told = {"model": model.manifest.name, "seconds": seconds}
        return blob, {**told, **facts}

    return Plan(model.manifest.name, key, {}, make)


def split(image: Floats) -> Floats:
    """Return (N, 1, ...) as (N, 2, ...): as far as bfloat16 goes, and the rest."""
    coarse = rounded_to_bfloat16(image)
    with np.errstate(invalid="ignore"):  # infinity less itself is no number
        return np.concatenate([coarse, image - coarse], axis=1)


def rounded_to_bfloat16(image: Floats) -> Floats:
    """Return float32 numbers rounded to the nearest bfloat16, ties to even.

    A bfloat16 is the upper half of a float32, so that half of the lowest bit that stays
    is added, or one less where that bit is 0, before the lower half is cut off.
    """
    bits = np.ascontiguousarray(image, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(image), np.float32(np.nan), nearest.view(np.float32))
