"""Give an ONNX network int8 weights and activations, calibrated on prepared slices.

The graph says itself what is int8: each convolution's input and weights go through a
pair of ``QuantizeLinear`` and ``DequantizeLinear``. Everything else stays in float32.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engines.errors import BackendError, MissingBackendError

UNSIGNED_TO_SIGNED = 255 / 127
"""What the steps of an unsigned range grow by when it is told in signed numbers."""


def quantized(
    onnx_bytes: bytes, given: str, images: Sequence[NDArray[np.float32]]
) -> bytes:
    """Return the network with int8 in it.

    Args:
        onnx_bytes: the network in float32.
        given: name of its input.
        images: batches (N, 1, H, W), or cubes, of prepared slices.

    Raises:
        MissingBackendError: the library that calibrates is not installed.
        BackendError: it cannot calibrate this network.
    """
    # It would send usage figures to its makers, unless it is told that it is tested.
    os.environ.setdefault("NNCF_CI", "1")
    batches = [{given: batch} for batch in images]
    # It draws progress bars on stdout, which belongs to the results.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # on what it uses of other libraries
        try:
            nncf: Any = import_module("nncf")
            onnx: Any = import_module("onnx")
            import_module("onnxruntime")  # which it runs the network with
            nncf.set_log_level(logging.ERROR)
            made = nncf.quantize(
                onnx.load_from_string(onnx_bytes),
                nncf.Dataset(batches),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                target_device=nncf.TargetDevice.NPU,  # symmetric activations only
                subset_size=len(batches),
            )
        except ImportError as error:
            raise MissingBackendError("int8", str(error.name), "rtx") from error
        except Exception as error:
            msg = f"the network cannot be calibrated for int8: {error}"
            raise BackendError(msg) from error
    _sign(onnx, made.graph)
    return cast("bytes", made.SerializeToString())


def _sign(onnx: Any, graph: Any) -> None:  # noqa: ANN401
    """Tell unsigned activations in signed numbers, the only ones TensorRT knows.

    Their upper half would be cut off without a word otherwise.
    """
    held = {tensor.name: tensor for tensor in graph.initializer}
    pairs = {
        (node.input[1], node.input[2])
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and held[node.input[2]].data_type == onnx.TensorProto.UINT8
    }
    read = onnx.numpy_helper
    for scale in {scale for scale, _ in pairs}:
        steps = read.to_array(held[scale]) * np.float32(UNSIGNED_TO_SIGNED)
        held[scale].CopyFrom(read.from_array(steps.astype(np.float32), scale))
    for zero in {zero for _, zero in pairs}:
        found = read.to_array(held[zero])
        if found.any():
            msg = "the network was calibrated with a zero that is not 0"
            raise BackendError(msg)
        held[zero].CopyFrom(read.from_array(found.astype(np.int8), zero))
    for value in graph.value_info:
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.UINT8:
            kind.elem_type = onnx.TensorProto.INT8
