"""Compare what is used of TensorRT with the names in a wheel of its bindings.

    pip download --no-deps -d WHEELS tensorrt-cu12-bindings==11.4.0.106
    python -m tests.benchmarks.tensorrt_names WHEELS/*.whl

The library itself need not be installed, and nothing of it is run: the wheel is read
as an archive, and the names of classes, methods and enumerations are looked for in the
compiled module, which holds them, with the signatures of its methods, as text.
"""

import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

USED = {
    "Builder": ("create_network", "create_builder_config",
                "create_optimization_profile", "build_serialized_network"),
    "OnnxParser": ("parse",),
    "INetworkDefinition": ("num_inputs", "num_outputs", "get_input", "get_output"),
    "IBuilderConfig": ("profiling_verbosity", "clear_flag",
                       "add_optimization_profile"),
    "IOptimizationProfile": ("set_shape",),
    "ProfilingVerbosity": ("DETAILED",),
    "BuilderFlag": ("TF32",),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": ("create_execution_context", "create_engine_inspector"),
    "EngineInspector": ("get_engine_information",),
    "LayerInformationFormat": ("JSON",),
    "IExecutionContext": ("set_input_shape", "get_tensor_shape", "set_tensor_address",
                          "execute_async_v3"),
    "ILogger": ("Severity", "INTERNAL_ERROR", "ERROR"),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
}  # fmt: skip
"""Class -> its members that ``engines.runtimes.tensorrt_*`` use."""

MAY_LACK = {"STRONGLY_TYPED"}
"""What later versions may do without; the program asks first."""


def words_of(wheel: Path) -> set[str]:
    """Return every word in the compiled modules of a wheel."""
    found: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith((".so", ".pyd")):
                words = re.findall(rb"[A-Za-z_][A-Za-z0-9_]+", archive.read(name))
                found |= {word.decode() for word in words}
    return found


def missing(wheel: Path) -> Iterator[str]:
    """Yield what is used and not named in a wheel."""
    there = words_of(wheel)
    for kind, members in USED.items():
        if kind not in there:
            yield kind
        for member in members:
            if member not in there and member not in MAY_LACK:
                yield f"{kind}.{member}"


def main(arguments: Sequence[str]) -> int:
    """Report on every wheel named; return 1 where something is missing."""
    status = 0
    for wheel in map(Path, arguments):
        lost = list(missing(wheel))
        status |= bool(lost)
        print(f"{wheel.name}: {', '.join(lost) or 'every name that is used is there'}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
