"""How a batch is segmented, as one frozen record."""

from dataclasses import dataclass

from engines.errors import SettingsError
from engines.networks import shelf
from engines.runtimes import backends
from engines.runtimes.choose import AUTO, PRECISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSettings:
    """How to segment.

    Attributes:
        model: name or path, or ``auto`` for the default of each scan's modality.
        views: ``axial``, ``sagittal``, ``coronal``, several with commas between, or
            ``all``; None for those the model was trained on.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``auto``, or a row of ``engines.runtimes.backends``.
        precision: ``auto``, or one that the backend computes in.
        require_gpu: fail rather than compute on the CPU.
        memory_gib: that scans on their way may take together; None for half of what
            the machine has.
        threads: that read, and that write.
        overwrite: redo cases that are done.
        force: go on with a scan that does not look like the model's modality.
        mark_uncertain: label voxels that are neither surely spine nor surely not
            as 255, for training on the masks.
        include: globs of names to take; empty takes all.
        exclude: globs of names to leave out.
        vertebrae: number single vertebrae where the model tells regions.
        modality: what the scans are, ``ct`` or ``mr``; None lets each tell.
        verify: compare with torch in float32 on slices of every scan.
    """

    model: str = shelf.AUTO
    views: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int = 2
    overwrite: bool = False
    force: bool = False
    mark_uncertain: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    backend: str = AUTO
    require_gpu: bool = False
    memory_gib: float | None = None
    vertebrae: bool = False
    modality: str | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        if self.backend != AUTO:
            backends.find(self.backend)
        if self.memory_gib is not None and not self.memory_gib > 0:
            msg = f"{self.memory_gib:g} GiB of memory is too little"
            raise SettingsError(msg, hint="Give more, as in --memory 4G.")
        if self.precision not in PRECISIONS:
            msg = f"no precision is called {self.precision!r}"
            raise SettingsError(msg, hint=f"Choose one of: {', '.join(PRECISIONS)}.")
