"""Arrays of whatever device computes: NumPy's on the CPU, torch's on a GPU.

Code that runs on both is written once, with the functions that ``namespace`` returns
(the Array API standard, https://data-apis.org/array-api). PyTorch is imported only for
arrays on a GPU.
"""

from typing import Any, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any
"""A NumPy array, or a torch tensor."""

CPU = "cpu"


def namespace(*arrays: Array) -> Any:  # noqa: ANN401  a module
    """Return the module of Array API functions for the arrays given."""
    return array_api_compat.array_namespace(*arrays)


def on_device(values: NDArray[Any], device: str) -> Array:
    """Return an array on ``device``: the same one on the CPU, a copy elsewhere.

    Args:
        values: any array.
        device: as in ``cpu`` or ``cuda:0``.
    """
    if device.partition(":")[0] == CPU:
        return values
    import torch

    # Torch warns of arrays that it must not write to, as those of files are.
    return torch.from_numpy(np.require(values, requirements=("C", "W"))).to(device)


def beside(values: NDArray[Any], other: Array) -> Array:
    """Return ``values`` as an array of the library and on the device of ``other``."""
    if array_api_compat.is_numpy_array(other):
        return values
    return namespace(other).asarray(values, device=array_api_compat.device(other))


def to_numpy(values: Array) -> NDArray[Any]:
    """Return an array on the CPU; without a copy if it lies there."""
    if array_api_compat.is_numpy_array(values):
        return np.asarray(values)
    return np.asarray(values.detach().cpu().numpy())
