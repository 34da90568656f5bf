"""Turn a network into ONNX, which other runtimes read.

The graph takes ``image`` (N, 1, H, W), or cubes (N, 1, R, A, S), and gives ``logits``
(N, classes, ...), both float32 whatever it computes in, since the newer TensorRTs take
the precision from the graph. The batch is left open. Rows and columns are too, in
multiples of the network's stride, but for the networks named in ``FIXED`` and those in
three dimensions.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim

from engines.errors import BackendError, MissingBackendError, SettingsError
from engines.networks.manifest import Model
from engines.networks.probes import Probe
from engines.runtimes import quantize
from engines.runtimes.plan import BATCH

INPUT, OUTPUT = "image", "logits"
PRECISIONS = ("int8", "float16", "float32")
OPSET = 18
"""Of ONNX: the newest that TensorRT 10.0 reads as well."""

FIXED = frozenset({"pspnet"})
"""2-D networks that are exported for one size: pooling to a fixed grid cuts windows
whose sizes an open one would leave unknown."""

USUAL_EDGE = 256
"""Rows and columns that an engine is tuned for."""

LARGEST_EDGE = 512
"""Rows and columns that an engine takes at most, until larger ones are needed."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The batches that an engine takes.

    Attributes:
        batch: slices or cubes at most; one at least.
        least: smallest size, (H, W) or (R, A, S).
        usual: size that it is tuned for.
        most: largest size.
    """

    batch: int
    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]

    def __str__(self) -> str:
        told = [
            "x".join(map(str, size)) for size in (self.least, self.usual, self.most)
        ]
        sizes = " to ".join(dict.fromkeys((told[0], told[2])))
        return f"1 to {self.batch} of {sizes}, tuned for {told[1]}"

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the smallest, usual and largest shape of the input."""
        batch = self.batch
        return (1, 1, *self.least), (batch, 1, *self.usual), (batch, 1, *self.most)

    def takes(self, size: Sequence[int]) -> bool:
        """Say whether slices or cubes of that size fit."""
        bounds = zip(self.least, size, self.most, strict=True)
        return all(low <= given <= high for low, given, high in bounds)

    def as_json(self) -> dict[str, Any]:
        """Return the record for the engine's facts."""
        return {
            "batch": self.batch,
            "least": list(self.least),
            "usual": list(self.usual),
            "most": list(self.most),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Profile":
        """Rebuild a profile from ``as_json``."""
        sizes = (tuple(record[name]) for name in ("least", "usual", "most"))
        return cls(record["batch"], *sizes)


def is_fixed(model: Model) -> bool:
    """Say whether the network is exported for one size of slices or cubes."""
    return model.dimensions == 3 or model.manifest.architecture in FIXED


def profile_for(
    model: Model, size: Sequence[int] | None = None, batch: int = BATCH
) -> Profile:
    """Return the batches that an engine of ``model`` is made for.

    Args:
        size: what it must take, (H, W) or (R, A, S); None for slices as they usually
            are, or for the cubes that the model was trained on.
        batch: slices or cubes at most. Sizes above ``LARGEST_EDGE`` lower it, so that
            the memory that is set aside stays.
    """
    stride, patch = model.stride, model.manifest.patch
    if is_fixed(model):
        edge = _multiple(max(patch, 1 if model.dimensions == 3 else USUAL_EDGE), stride)
        exact = tuple(size or (edge,) * model.dimensions)
        return Profile(batch, exact, exact, exact)
    edge = _multiple(LARGEST_EDGE, stride)
    slices = batch
    while max(size or (0,)) > edge:
        edge, slices = 2 * edge, max(1, slices // 4)
    usual = _multiple(USUAL_EDGE, stride)
    return Profile(slices, (stride,) * 2, (usual,) * 2, (edge,) * 2)


def onnx_bytes(
    model: Model, precision: str, size: Sequence[int], probes: Sequence[Probe] = ()
) -> bytes:
    """Return the network as ONNX.

    Args:
        precision: ``float32``; ``float16`` for weights and activations; ``int8`` for
            those of convolutions.
        size: (H, W) or (R, A, S) of an example; the only size that a network which
            ``is_fixed`` will take.
        probes: golden probes of the model, which int8 is calibrated on.

    Raises:
        SettingsError: no such precision, or int8 without probes.
        MissingBackendError: what exports is not installed.
        BackendError: the network cannot be exported, or no probe has the only size
            that it takes.
    """
    if precision not in PRECISIONS:
        msg = f"a network cannot be exported in {precision}"
        raise SettingsError(msg, hint=f"Choose one of: {', '.join(PRECISIONS)}.")
    require_probes(precision, probes)
    half = precision == "float16"
    network = _Halved(model.network) if half else model.network
    try:
        exported = _exported(network, model, size)
    except ImportError as error:
        raise MissingBackendError("the export", str(error.name), "rtx") from error
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        msg = f"{model.manifest.architecture} cannot be exported to ONNX: {reason}"
        raise BackendError(msg) from error
    if precision != "int8":
        return exported
    images = [probe.images for probe in probes]
    if is_fixed(model):
        images = [each for each in images if each.shape[2:] == tuple(size)]
    if not images:
        told = "x".join(map(str, size))
        msg = f"int8 is calibrated on golden probes, and none of the model is {told}"
        raise BackendError(msg, hint="Choose float16 or float32.")
    return quantize.quantized(exported, INPUT, images)


def require_probes(precision: str, probes: Sequence[Probe]) -> None:
    """Refuse a precision that has nothing to be calibrated on.

    Raises:
        SettingsError: it is int8 and there are no probes.
    """
    if precision == "int8" and not probes:
        msg = "int8 is calibrated on the golden probes of the model, which has none"
        raise SettingsError(msg, hint="Choose float16 or float32.")


class _Halved(nn.Module):
    """A network in float16 that takes and gives float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of ``image``."""
        logits: Tensor = self.network(image.half())
        return logits.float()


def _exported(network: nn.Module, model: Model, size: Sequence[int]) -> bytes:
    # The exporter takes an axis of length 1 for a fixed one.
    stride = model.stride
    shown = tuple(size) if is_fixed(model) else tuple(max(n, 2 * stride) for n in size)
    image = torch.zeros(2, 1, *shown)
    axes: dict[int, Any] = {0: Dim("batch")}
    if not is_fixed(model):
        # As multiples, since halves of the size are rounded in the graph otherwise.
        axes |= {2: stride * Dim("rows"), 3: stride * Dim("columns")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the exporter's own deprecations
        program = torch.onnx.export(
            network.eval(),
            (image,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(axes,),
        )
    if program is None:
        msg = f"{model.manifest.architecture} was not exported to ONNX"
        raise BackendError(msg)
    return cast("bytes", program.model_proto.SerializeToString())


def _multiple(size: int, stride: int) -> int:
    return -(-size // stride) * stride
