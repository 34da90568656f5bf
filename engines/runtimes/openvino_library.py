"""The library OpenVINO: how it is imported, and what its refusals become."""

import sys
from importlib import import_module
from typing import Any

from engines.errors import BackendError

NAME = "openvino"
TELEMETRY = "openvino_telemetry"


def library() -> Any:  # noqa: ANN401  its types are not published
    """Return the module openvino, unable to report its use to its makers.

    Its converter has a stand-in for when the package that reports is not there.
    """
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]
    return import_module(NAME)


def refused(error: Exception) -> BackendError:
    """Return the error for what the library raised: the last line that it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return BackendError(
        f"OpenVINO refused the network: {lines[-1] if lines else error}"
    )
