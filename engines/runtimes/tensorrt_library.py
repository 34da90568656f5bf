"""The two flavours of TensorRT, and what differs between them and their versions.

``tensorrt`` is for data-centre and older GPUs, ``tensorrt_rtx`` for RTX cards. Their
Python interface is the same. It raises next to nothing: a call that fails returns None
or False and says why to its logger, so that every call goes through ``Library.need``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from engines.errors import BackendError, MissingBackendError
from engines.runtimes import backends

if TYPE_CHECKING:
    import tensorrt as trt_api

MOST_ERRORS = 3
"""Messages of the library that an error quotes, the first ones."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two.

    Attributes:
        backend: its row in ``engines.runtimes.backends``.
        module: what is imported.
        portable: its engines run with any driver on every GPU of the capabilities
            that they were built for, and are built without a GPU; those of the other
            run on the GPU that they were built on.
    """

    backend: str
    module: str
    portable: bool


DATA_CENTRE = Flavour("tensorrt", "tensorrt", portable=False)
RTX = Flavour("tensorrt-rtx", "tensorrt_rtx", portable=True)


@dataclass
class Library:
    """A flavour that is loaded, and what it said since.

    Attributes:
        flavour: which of the two.
        errors: what its logger was told of errors, in order.
        told: everything else that its logger was told.
    """

    flavour: Flavour
    errors: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @cached_property
    def trt(self) -> Any:  # noqa: ANN401
        """Return the module.

        Raises:
            MissingBackendError: it is not installed, or not whole.
        """
        row = backends.find(self.flavour.backend)
        try:
            return import_module(self.flavour.module)
        except (ImportError, OSError) as error:
            raise MissingBackendError(row.name, row.libraries[0], row.extra) from error

    @cached_property
    def logger(self) -> "trt_api.ILogger":
        """Return the logger that fills ``errors`` and ``told``."""
        if not TYPE_CHECKING:
            trt_api = self.trt
        base = trt_api.ILogger

        def start(logger: Any) -> None:  # noqa: ANN401
            base.__init__(logger)

        def log(_: object, severity: object, message: str) -> None:
            bad = (base.Severity.INTERNAL_ERROR, base.Severity.ERROR)
            (self.errors if severity in bad else self.told).append(message)

        recorder = type("Recorder", (base,), {"__init__": start, "log": log})
        made: trt_api.ILogger = recorder()
        return made

    @property
    def version(self) -> str:
        """Return the version of the module."""
        return str(self.trt.__version__)

    @property
    def network_flags(self) -> int:
        """Return what a network is created with: types come from the graph alone.

        Version 10 has to be told; later ones know nothing else, and may lose the flag.
        """
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def capabilities(self) -> dict[str, Any]:
        """Return name -> compute capability that can be built for, as ``sm89``."""
        known = getattr(self.trt, "ComputeCapability", None)
        members = getattr(known, "__members__", {})
        return {k.lower(): v for k, v in members.items() if k.startswith("SM")}

    def need(self, value: Value | None, what: str) -> Value:
        """Return ``value``, unless the call that gave it failed.

        Args:
            value: what the call returned.
            what: what it was to do, as in ``build the engine``.

        Raises:
            BackendError: it is None or False; the message holds the library's own.
        """
        if value is None or value is False:
            raise self.failure(what)
        return value

    def made(self, make: Callable[[], Value | None], what: str) -> Value:
        """Return what ``make`` constructs; the binding raises if that is nothing.

        Raises:
            BackendError: it could not be constructed.
        """
        try:
            return self.need(make(), what)
        except (TypeError, RuntimeError) as error:
            raise self.failure(what) from error

    def failure(self, what: str) -> BackendError:
        """Return the error for a call that failed."""
        said = list(dict.fromkeys(" ".join(text.split()) for text in self.errors))
        reason = "; ".join(said[:MOST_ERRORS]) or "it gave no reason"
        return BackendError(f"{self.flavour.backend} could not {what}: {reason}")
