"""The front door: a model that labels one scan after the other.

```python
segmenter = Segmenter("unet-r34")
result = segmenter(read_scan("scan.nii.gz"))
result.save("out/scan")
```
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import __version__, labels
from engines.batch import Job
from engines.errors import SettingsError
from engines.networks import shelf
from engines.preprocess.checks import require_scan
from engines.preprocess.modality import admit
from engines.preprocess.restore import to_hounsfield
from engines.results import Note
from engines.segment import compute, models, outputs
from engines.segment.clean import Cleaned
from engines.segment.compute import Computed, Computer, DevicePool
from engines.segment.inference import Prepared, Segmented, label, prepare
from engines.segment.models import Chosen
from engines.segment.native import UNCERTAIN
from engines.volume import Volume

ISLAND_ML = 2.0
"""Islands away from the spine that are larger are worth a note."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What a model says of a scan.

    Attributes:
        labels: (I, J, K) uint8 on the scan's own grid: VerSe ids where vertebrae are
            numbered, else indices of ``classes``; 0 is background, 255 uncertain.
        classes: name -> label.
        numbered: whether ``labels`` are VerSe ids of single vertebrae.
        notes: what a person should know of this result.
        seconds: stage -> seconds.
        provenance: model, version and what computed, as in the header of the mask.
        cleaned: what was taken out.
        computed: what computed the scan, network by network.
        scan: the scan's grid and header, without its voxels.
    """

    labels: NDArray[np.uint8]
    classes: Mapping[str, int]
    numbered: bool
    notes: tuple[Note, ...]
    seconds: Mapping[str, float]
    provenance: Mapping[str, Any]
    cleaned: Cleaned
    computed: tuple[Computed, ...]
    scan: Volume
    _picture: Callable[[], bytes] = field(repr=False)

    @property
    def spine(self) -> NDArray[np.uint8]:
        """(I, J, K): 1 where there is any spine, 255 where that is uncertain."""
        return outputs.any_spine(self.labels)

    @property
    def vertebrae(self) -> NDArray[np.uint8] | None:
        """(I, J, K) VerSe ids; None where the model does not number vertebrae."""
        return self.labels if self.numbered else None

    @property
    def volume_ml(self) -> float:
        """Volume of the spine in millilitres."""
        marked = (self.labels > 0) & (self.labels != UNCERTAIN)
        voxel_ml = float(np.prod(self.scan.grid.spacing_mm)) / 1000
        return float(np.count_nonzero(marked)) * voxel_ml

    def preview(self) -> bytes:
        """Return a picture of the labels over the scan, as a PNG."""
        return self._picture()

    def save(self, stem: str | Path) -> dict[str, Path]:
        """Write the files that ``spine segment`` writes of a scan.

        Args:
            stem: their path up to the suffixes, as in ``out/scan`` for
                ``out/scan_seg-spine_msk.nii.gz`` and ``out/scan_preview.png``.

        Returns:
            kind (``spine``, ``vertebrae``, ``preview``) -> file.

        Raises:
            OutputError: they cannot be written.
        """
        return outputs.write(Path(stem), self)


class Segmenter:
    """A model, its guide if it has one, and what computes them.

    Attributes:
        model: the model that was chosen.
        computer: runs its network.
    """

    def __init__(
        self,
        model: str | Path | Chosen = shelf.DEFAULT_MODEL,
        *,
        views: str | None = None,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        modality: str | None = None,
        vertebrae: bool = False,
        mark_uncertain: bool = False,
        force: bool = False,
        verify: bool = False,
        pool: DevicePool | None = None,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Find the model and check what can be checked before the first scan.

        Args:
            model: name or path of a model.
            views: planes to segment in, with commas between; None for those that the
                model was trained on.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; unused with ``pool``.
            backend: ``torch``, ``openvino``, ``tensorrt``, ``tensorrt-rtx``, or
                ``auto`` for the first in a fixed order that labels the model's golden
                probes as torch in float32 does.
            precision: ``float32``, ``bfloat16``, ``float16``, ``int8`` or ``auto``.
            modality: what scans are, ``ct`` or ``mr``; None lets their values say.
            vertebrae: number single vertebrae where the model knows regions.
            mark_uncertain: label voxels that may be either as 255.
            force: take scans that do not look like the model's modality, with a note.
            verify: compare with torch in float32 on slices of every scan.
            pool: devices shared with other segmenters.
            notify: is called with a line about work that is done once, on first use.

        Raises:
            UnknownModelError, ModelFileError: the model cannot be used.
            SettingsError: the views make no sense for it, its classes are no regions
                of which vertebrae could be counted, or nothing computes as asked.
            DeviceError: the device is not there.
            MissingBackendError: the backend is not installed.
        """
        if not isinstance(model, Chosen):
            model = models.named(str(model), views)
        if vertebrae and not model.tells_order:
            msg = f"{model.manifest.name} does not tell vertebrae, nor regions"
            raise SettingsError(msg, hint="Name a model of regions.")
        self.model = model
        self.computer = Computer(
            model,
            pool or DevicePool(device),
            backend=backend,
            precision=precision,
            verify=verify,
            notify=notify,
        )
        self._modality, self._force = modality, force
        self._mark_uncertain = mark_uncertain
        self._count = vertebrae

    def __call__(self, scan: Volume, *, name: str = "scan") -> Segmentation:
        """Label a scan.

        Args:
            scan: as ``read_scan`` returns it.
            name: what messages call it.

        Raises:
            InputError: the scan is too small, empty, or not of the model's modality.
            BackendError: what was named cannot run the network.
        """
        job = Job(name, name)
        prepared = self.prepare(job, self.admit(job, scan))
        return self.label(job, prepared, self.computer.scan(job, prepared))

    @property
    def numbered(self) -> bool:
        """Say whether labels are VerSe ids of single vertebrae."""
        return self.model.tells_vertebrae or self._count

    @property
    def classes(self) -> Mapping[str, int]:
        """Name -> label, background included."""
        return labels.VERTEBRA_CLASSES if self.numbered else self.model.manifest.classes

    def admit(self, job: Job, scan: Volume, *, may_force: bool = True) -> Volume:
        """Return a scan in the units that the model takes, or refuse it.

        Args:
            job: gets seconds and notes.
            scan: as it was read.
            may_force: whether a hint may name ``--force``.

        Raises:
            InputError: the scan is too small, empty, or not of the model's modality.
        """
        with job.timed("read"):
            require_scan(scan, Path(job.input).name)
            admitted, notes = admit(
                to_hounsfield(scan),
                self.model.manifest.modality,
                force=self._force,
                told=self._modality or "",
                may_force=may_force,
            )
            job.notes += notes
        return admitted

    def prepare(self, job: Job, admitted: Volume) -> Prepared:
        """Bring a scan to the grid and intensities of the first network."""
        with job.timed("prepare"):
            return prepare(admitted, self.model.first.manifest.recipe)

    def label(
        self, job: Job, prepared: Prepared, computed: compute.Found
    ) -> Segmentation:
        """Return the label map of a computed scan on the scan's own grid."""
        with job.timed("label"):
            done = label(
                prepared,
                computed.inferred,
                self.model.first.manifest,
                mark_uncertain=self._mark_uncertain,
                vertebrae=self._count or self.model.guide is not None,
            )
        job.notes += self._notes(done)
        return Segmentation(
            done.labels,
            {name: label for name, label in self.classes.items() if label},
            self.numbered,
            tuple(job.notes),
            job.seconds,
            self._provenance(computed),
            done.cleaned,
            computed.by,
            prepared.scan,
            lambda: outputs.picture(done, self.model.manifest, numbered=self.numbered),
        )

    def _provenance(self, computed: compute.Found) -> dict[str, Any]:
        """Return what the mask's header says of how this very mask was made."""
        return {
            "kind": "segmentation",
            "labels": {str(v): k for k, v in self.classes.items() if v},
            "model": self.model.told,
            "version": __version__,
            **compute.summary(computed.by),
            "views": list(self.model.first.views),
        }

    def _notes(self, done: Segmented) -> list[Note]:
        notes = list(done.notes)
        if not done.labels.any():
            notes.append(Note("empty_mask", "no spine was found in this scan"))
        if done.cleaned.largest_ml >= ISLAND_ML:
            message = (
                f"{done.cleaned.islands} islands away from the spine were removed, "
                f"the largest {done.cleaned.largest_ml:.1f} ml"
            )
            notes.append(Note("islands_removed", message))
        if self.numbered:
            notes += _unsure_names(done.labels)
        return notes


def _unsure_names(found: NDArray[np.uint8]) -> list[Note]:
    """Warn of vertebrae that no border between two regions helped to number."""
    ids = set(np.unique(found[found > 0]).tolist()) & set(labels.VERTEBRAE)
    regions = {labels.VERTEBRAE[number].region for number in ids}
    if len(regions) != 1:
        return []
    message = (
        f"only {regions.pop()} vertebrae are in view: nothing shows which they "
        "are for sure, and all their names may be wrong by one or more"
    )
    return [Note("names_unsure", message)]
