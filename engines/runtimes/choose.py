"""Choose the fastest runtime that labels as the reference does."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.networks.manifest import Model
from engines.runtimes import gate
from engines.runtimes.devices import cpu_has_bfloat16
from engines.runtimes.gate import Gate
from engines.runtimes.runtime import Runtime
from engines.runtimes.torch_runtime import TorchRuntime

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime to use, the gate it passed or failed, and why it was chosen."""

    runtime: Runtime
    gate: Gate | None
    reason: str


def choose(
    model: Model, device: torch.device, precision: str, probe: Sequence[Tensor]
) -> Choice:
    """Return the runtime for ``model`` on ``device``.

    Args:
        precision: ``float32`` is the reference itself; ``bfloat16`` and ``auto``
            are used after they agreed with it on ``probe``, else the reference is.
        probe: batches (N, 1, H, W) of prepared slices of the scans at hand.
    """
    reference = TorchRuntime(model, device, "float32")
    if precision == "float32":
        return Choice(reference, None, "float32 was asked for")
    if precision == "auto" and device.type == "cpu" and not cpu_has_bfloat16():
        return Choice(reference, None, "this CPU has no bfloat16 arithmetic")
    candidate = TorchRuntime(model, device, "bfloat16")
    figures = gate.compare(reference, candidate, probe)
    told = f"agreement {figures.agreement:.4%}, Dice {figures.dice:.4f} with float32"
    if figures.passed:
        return Choice(candidate, figures, f"bfloat16 passed the gate: {told}")
    return Choice(reference, figures, f"bfloat16 failed the gate: {told}")
