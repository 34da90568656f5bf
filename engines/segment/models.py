"""Which model labels which scan: the one that was named, or that for its modality."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines import labels
from engines.errors import SettingsError
from engines.files import sha256_of
from engines.found import Found
from engines.networks import catalog, shelf
from engines.networks.manifest import Manifest, Model, read_manifest
from engines.preprocess.modality import recognise, require_known, sidecar_modality
from engines.segment import views
from engines.volume import Volume

IN_ORDER = (dict(labels.REGION_CLASSES), dict(labels.VERTEBRA_CLASSES))
"""Class sets whose members follow each other along the spine."""


@dataclass(slots=True)
class Chosen:
    """A model of a run, loaded when the first scan needs it.

    Attributes:
        path: its file.
        manifest: what the file says of itself.
        sha256: of the file.
        views: planes in which it segments.
        guide: the model that finds the spine whose vertebrae this one tells apart.
    """

    path: Path
    manifest: Manifest
    sha256: str
    views: tuple[str, ...]
    guide: "Chosen | None" = None
    _model: Model | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def load(self) -> Model:
        """Return the model, proven intact, from any thread; its network comes later.

        Raises:
            ModelFileError: the file is damaged.
        """
        with self._lock:
            if self._model is None:
                self._model = shelf.open(str(self.path))
            return self._model

    @property
    def told(self) -> dict[str, str]:
        """What records say of it."""
        told = {"name": self.manifest.name, "sha256": self.sha256}
        if self.guide is None:
            return told
        own = {f"guide_{key}": value for key, value in self.guide.told.items()}
        return told | own

    @property
    def first(self) -> "Chosen":
        """The model that finds the spine: its guide, or itself."""
        return self.guide or self

    @property
    def tells_order(self) -> bool:
        """Say whether its classes follow each other along the spine."""
        return dict(self.manifest.classes) in IN_ORDER

    @property
    def tells_vertebrae(self) -> bool:
        """Say whether every vertebra is a class."""
        return dict(self.manifest.classes) == dict(labels.VERTEBRA_CLASSES)


def pick(name: str, planes: str | None) -> dict[str, Chosen]:
    """Return the models of a run, by the modality that each is for.

    Args:
        name: of a model, a path, or ``shelf.AUTO`` for one of every modality.
        planes: views to segment in, as ``views.resolve`` has them.

    Raises:
        UnknownModelError, ModelFileError: a model cannot be used.
        SettingsError: the views make no sense for it.
    """
    if name == shelf.AUTO:
        return _defaults(planes)
    one = named(name, planes)
    return {one.manifest.modality: one}


def named(name: str, planes: str | None = None) -> Chosen:
    """Return the model of a name or a path, with its guide.

    Raises:
        UnknownModelError, ModelFileError: it cannot be used.
        SettingsError: the views make no sense for it.
    """
    return _chosen(shelf.locate(name), planes)


def for_scan(
    models: Mapping[str, Chosen],
    found: Found,
    scan: Volume,
    *,
    force: bool = False,
    planes: str | None = None,
    told: str | None = None,
) -> Chosen:
    """Return the model for a scan by what it is.

    Args:
        models: by modality, that for CT first.
        found: the scan's files and name.
        scan: its voxels, in the units they were measured in.
        force: take the first model where none fits.
        planes: views that were asked for, which not every default knows.
        told: what the user says the scan is.

    Raises:
        ModalityError: there is none for it, or what it is cannot be told.
        SettingsError: that for its modality does not know the views.
    """
    if told is not None and told in models:
        return models[told]
    header = told or header_modality(found)
    if not force:
        kind = recognise(scan, found.name, header)
        default = shelf.defaults().get(kind) if kind not in models else None
        if default is not None:
            _chosen(default, planes)  # raises what keeps it from being used
    if force:
        kind = recognise(scan, found.name, header)
        return models.get(kind, next(iter(models.values())))
    return models[require_known(scan, found.name, header, tuple(models))]


def header_modality(found: Found) -> str:
    """Return what DICOM headers, or a sidecar of the scan, say it is; may be empty."""
    if found.stack is not None:
        return found.stack.origin.modality
    return sidecar_modality(found.files[0])


def _defaults(planes: str | None) -> dict[str, Chosen]:
    """Return the default of each modality that knows the views asked for.

    Raises:
        SettingsError: none does.
    """
    found, refused = {}, []
    for kind, path in shelf.defaults().items():
        try:
            found[kind] = _chosen(path, planes)
        except SettingsError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return found


def _chosen(path: Path, planes: str | None) -> Chosen:
    manifest = read_manifest(path)
    if manifest.guide:
        guide = _guide(manifest, planes)
        looked = views.resolve(None, manifest.views, together=_is_solid(manifest))
        return Chosen(path, manifest, sha256_of(path), looked, guide=guide)
    looked = views.resolve(
        planes, manifest.views, together=_is_solid(manifest), name=manifest.name
    )
    return Chosen(path, manifest, sha256_of(path), looked)


def _is_solid(manifest: Manifest) -> bool:
    return catalog.find(manifest.architecture).dimensions == 3


def _guide(manifest: Manifest, planes: str | None) -> Chosen:
    """Return the model that finds the spine for that of ``manifest``."""
    path = shelf.locate(manifest.guide)
    found = read_manifest(path)
    fits = (
        dict(manifest.classes) == dict(labels.VERTEBRA_CLASSES)
        and dict(found.classes) in IN_ORDER
        and found.modality == manifest.modality
        and not found.guide
    )
    if not fits:
        msg = f"{manifest.name} cannot be guided by {found.name}"
        hint = "A model of vertebrae is guided by one of regions, for the same scans."
        raise SettingsError(msg, hint=hint)
    looked = views.resolve(
        planes, found.views, together=_is_solid(found), name=found.name
    )
    return Chosen(path, found, sha256_of(path), looked)
