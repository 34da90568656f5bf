"""The backends that can run a network, one row each.

To add one: write its module beside this one with a function as ``Backend.load``, add
a row here and one for each precision to ``choose.PREFERENCE``, run the tests. Importing
this table imports none of their libraries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from engines.errors import MissingBackendError, SettingsError

if TYPE_CHECKING:
    from engines.networks.manifest import Model
    from engines.networks.probes import Probe
    from engines.runtimes.devices import Device
    from engines.runtimes.runtime import Runtime

Candidate = tuple[str, str]
"""Backend and precision."""

REFERENCE: Candidate = ("torch", "float32")
"""Backend and precision that every other is held against."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One row of the table.

    Attributes:
        name: what the user types.
        factory: ``module:function``, imported only when the backend is used; ``load``
            says what it is given.
        libraries: modules it needs, all of them.
        distribution: package that its version is told of.
        extra: of this program, which brings the libraries.
        precisions: kind of device (``cpu``, ``cuda``) -> what it computes in there.
    """

    name: str
    factory: str
    libraries: tuple[str, ...]
    distribution: str
    extra: str
    precisions: Mapping[str, tuple[str, ...]]

    def missing(self) -> str | None:
        """Return the first library that is not installed, None if all are."""
        return next((name for name in self.libraries if not _is_there(name)), None)

    def version(self) -> str:
        """Return the version of its library; empty where there is none."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return ""

    def require(self, device: str, precision: str) -> None:
        """Refuse what cannot be used here.

        Raises:
            MissingBackendError: a library is not installed.
            SettingsError: it does not run on that kind of device, or not so.
        """
        offered = self.precisions.get(device)
        if offered is None:
            kinds = " or ".join(self.precisions)
            msg = f"{self.name} does not run on {device}"
            raise SettingsError(msg, hint=f"Give --device {kinds}.")
        if precision not in offered:
            msg = f"{self.name} does not compute in {precision} on {device}"
            raise SettingsError(msg, hint=f"Choose one of: {', '.join(offered)}.")
        lost = self.missing()
        if lost is not None:
            raise MissingBackendError(self.name, lost, self.extra)

    def load(
        self,
        model: "Model",
        device: "Device",
        precision: str,
        probes: "Sequence[Probe]" = (),
    ) -> "Runtime":
        """Return ``model`` ready to run.

        Args:
            model: with its network on the CPU.
            device: of a kind that the row names.
            precision: one that the row names for it.
            probes: golden probes of the model; int8 is calibrated on them.

        Raises:
            MissingBackendError: a library is not installed.
            SettingsError: it does not run on that device, or not in that precision.
            BackendError: the library refused the network or the device.
        """
        self.require(device.type, precision)
        module, _, attribute = self.factory.partition(":")
        make = getattr(import_module(module), attribute)
        return cast("Runtime", make(model, device, precision, probes))


def _is_there(module: str) -> bool:
    """Say whether a module can be imported; a folder that only has its name cannot."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def _by_name(rows: Iterable[Backend]) -> Mapping[str, Backend]:
    return MappingProxyType({row.name: row for row in rows})


BACKENDS: Mapping[str, Backend] = _by_name(
    [
        Backend(
            "torch",
            "engines.runtimes.torch_runtime:load",
            libraries=(),
            distribution="torch",
            extra="",
            precisions={
                "cpu": ("bfloat16", "float32"),
                "cuda": ("float16", "bfloat16", "float32"),
            },
        ),
        Backend(
            "openvino",
            "engines.runtimes.openvino_runtime:load",
            libraries=("openvino",),
            distribution="openvino",
            extra="openvino",
            precisions={"cpu": ("int8", "bfloat16", "float32")},
        ),
        Backend(
            "tensorrt",
            "engines.runtimes.tensorrt_runtime:load",
            libraries=("tensorrt", "onnx"),
            distribution="tensorrt",
            extra="tensorrt",
            precisions={"cuda": ("int8", "float16", "float32")},
        ),
        Backend(
            "tensorrt-rtx",
            "engines.runtimes.tensorrt_runtime:load_rtx",
            libraries=("tensorrt_rtx", "onnx"),
            distribution="tensorrt-rtx-cu13",
            extra="rtx",
            precisions={"cuda": ("int8", "float16", "float32")},
        ),
    ]
)


def find(name: str) -> Backend:
    """Return the row called ``name``.

    Raises:
        SettingsError: there is none.
    """
    if name not in BACKENDS:
        msg = f"no backend is called {name!r}"
        known = ", ".join(("auto", *BACKENDS))
        raise SettingsError(msg, hint=f"Choose one of: {known}.")
    return BACKENDS[name]
