"""TensorRT, both flavours, as a runtime.

An engine is taken from the cache, one that was built ahead for this GPU among them, or
built at once. Buffers are torch's: the engine reads and writes them where they lie.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from engines.errors import BackendError
from engines.networks.manifest import Model
from engines.networks.probes import Probe
from engines.results import Note
from engines.runtimes.cache import Cache, Fetched, Key
from engines.runtimes.devices import Device
from engines.runtimes.export import INPUT, OUTPUT, Profile, profile_for
from engines.runtimes.plan import Wanted
from engines.runtimes.tensorrt_build import deserialized, plan
from engines.runtimes.tensorrt_library import DATA_CENTRE, RTX, Flavour, Library

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine that can run.

    Attributes:
        profile: batches that it takes.
        engine: kept, since the context lives no longer than it.
        context: what runs it.
    """

    profile: Profile
    engine: "trt.ICudaEngine"
    context: "trt.IExecutionContext"


class TensorRtRuntime:
    """A model run by TensorRT; one thread at a time.

    Attributes:
        notes: what the user should know, as that an engine could not be kept.
    """

    def __init__(
        self,
        flavour: Flavour,
        model: Model,
        device: Device,
        precision: str,
        cache: Cache,
        probes: Sequence[Probe] = (),
    ) -> None:
        self.backend = flavour.backend
        self.precision = precision
        self.device = str(device)
        self.notes: list[Note] = []
        self._library = Library(flavour)
        self._model = model
        self._cache = cache
        self._probes = tuple(probes)
        self._opened: list[Opened] = []

    def ready(self, size: Sequence[int]) -> Opened:
        """Return an engine for slices or cubes of ``size``, opened or built if need be.

        Raises:
            BackendError: it can neither be loaded nor built.
        """
        for opened in self._opened:
            if opened.profile.takes(size):
                return opened
        wanted = Wanted(
            self.precision, device=self.device, size=tuple(size), probes=self._probes
        )
        planned = plan(self._library.flavour, self._model, wanted)
        fetched = self._kept(planned.key, size)
        if fetched is None:
            fetched = self._cache.fetch(planned.title, planned.key, planned.make)
        self.notes += fetched.notes
        self._opened.append(self._open(fetched))
        return self._opened[-1]

    def predict(self, slices: Tensor) -> Tensor:
        """Return class probabilities; see the protocol for shapes.

        A batch larger than the engine takes is run in parts.
        """
        opened = self.ready(slices.shape[2:])
        given = slices.to(self.device, torch.float32).contiguous()
        shape = (len(given), self._model.classes, *given.shape[2:])
        logits = torch.empty(shape, dtype=torch.float32, device=given.device)
        with _side_stream(given.device) as stream:
            for start in range(0, len(given), opened.profile.batch):
                part = slice(start, start + opened.profile.batch)
                self._run(opened.context, given[part], logits[part], stream)
        return logits.softmax(dim=1)

    def _kept(self, key: Key, size: Sequence[int]) -> Fetched | None:
        """Return a kept engine, made for other batches or more GPUs, that will do."""
        fitting = []
        for entry in self._cache.entries():
            alike = replace(entry.key, profile=key.profile, targets=key.targets) == key
            if alike and set(key.targets) <= set(entry.key.targets):
                profile = _profile(entry.facts)
                if profile.takes(size):
                    fitting.append((math.prod(profile.most), -profile.batch, entry))
        for *_, entry in sorted(fitting, key=lambda row: row[:2]):
            fetched = self._cache.load(entry.name)
            if fetched is not None:
                return fetched
        return None

    def _open(self, fetched: Fetched) -> Opened:
        self._library.errors.clear()
        with _current(self.device):
            try:
                engine = deserialized(self._library, fetched.blob)
                made = engine.create_execution_context()
                context = self._library.need(made, "set memory aside")
            except BackendError as error:
                hint = "Run 'spine engine clear', or use --backend torch."
                raise BackendError(str(error), hint=hint) from error
        return Opened(_profile(fetched.facts), engine, context)

    def _run(
        self,
        context: "trt.IExecutionContext",
        part: Tensor,
        out: Tensor,
        stream: int,
    ) -> None:
        need = self._library.need
        self._library.errors.clear()
        shape = tuple(part.shape)
        done = context.set_input_shape(INPUT, shape)
        need(done, f"take a batch of {shape}")
        found = tuple(cast("Sequence[int]", context.get_tensor_shape(OUTPUT)))
        if found != tuple(out.shape):
            msg = f"{self.backend} gives {found} where {tuple(out.shape)} was expected"
            raise BackendError(msg)
        for name, tensor in ((INPUT, part), (OUTPUT, out)):
            done = context.set_tensor_address(name, tensor.data_ptr())
            need(done, f"use the memory of {name}")
        need(context.execute_async_v3(stream), "run the network")


def load(
    model: Model, device: Device, precision: str, probes: Sequence[Probe]
) -> TensorRtRuntime:
    """Return the runtime of data-centre and older GPUs; see ``Backend.load``."""
    return _loaded(DATA_CENTRE, model, device, precision, probes)


def load_rtx(
    model: Model, device: Device, precision: str, probes: Sequence[Probe]
) -> TensorRtRuntime:
    """Return the runtime of RTX cards; see ``Backend.load``."""
    return _loaded(RTX, model, device, precision, probes)


def _loaded(
    flavour: Flavour,
    model: Model,
    device: Device,
    precision: str,
    probes: Sequence[Probe],
) -> TensorRtRuntime:
    runtime = TensorRtRuntime(flavour, model, device, precision, Cache(), probes)
    runtime.ready(profile_for(model).usual)  # what cannot be built is known at once
    return runtime


def _profile(facts: Any) -> Profile:  # noqa: ANN401
    return Profile.from_json(facts["settings"]["profile"])


@contextmanager
def _side_stream(device: torch.device) -> Iterator[int]:
    """Yield a stream beside torch's own, each waiting for the other's work.

    On the default stream the library would wait for the whole GPU after every layer.
    """
    cuda: Any = torch.cuda  # whose streams have no types
    with cuda.device(device):
        usual, beside = cuda.current_stream(), cuda.Stream()
        beside.wait_stream(usual)
        yield beside.cuda_stream
        usual.wait_stream(beside)


def _current(device: str) -> torch.cuda.device:
    """Return a context in which ``device`` is where the library works."""
    return torch.cuda.device(torch.device(device))
