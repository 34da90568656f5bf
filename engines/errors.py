"""Failures that a user can act on.

SpineError
├── InputError               the data cannot be used as it is
│   ├── NotFoundError        no scan where one was named
│   ├── UnreadableError      the file is damaged or of another kind
│   ├── UnsupportedError     a sound file that no spine can be read from
│   │   └── MissingDecoderError   compressed DICOM that needs another package
│   ├── GeometryError        the header does not say where the voxels are
│   │   ├── TiltError             DICOM slices are stacked sideways
│   │   ├── SeriesGapError        DICOM slices are missing
│   │   ├── UnevenSlicesError     DICOM slices are unevenly spaced
│   │   ├── FewSlicesError        too few DICOM slices for a volume
│   │   ├── DuplicateSliceError   DICOM slices that lie at the same place
│   │   └── MixedSeriesError      DICOM slices that do not belong together
│   ├── RescaleError         DICOM slices disagree on what their values mean
│   ├── IntensityError       the voxel values cannot be an intact scan
│   ├── MemoryLimitError     the voxels need more memory than there is
│   ├── ModalityError        the values are not those the model was trained on
│   ├── NameClashError       two inputs would write the same files
│   ├── MaskError            a mask does not fit its scan or its scheme
│   └── InapplicableError    an alteration makes no sense for a scan
├── OutputError              the results cannot be written
├── ModelError               the model cannot be used
│   ├── UnknownModelError    no such model
│   └── ModelFileError       the model file is damaged
├── SettingsError            an option or a settings file makes no sense
├── TrainingError            training cannot start or cannot go on
├── DeviceError              the device asked for is not there
│   └── LostDeviceError      it was, and answers no more
├── BenchError               what was to be timed did not work
└── BackendError             a runtime cannot load or run the network
    └── MissingBackendError  the library of a runtime is not installed

Anything outside this tree is a bug in the program and keeps its traceback.
"""

from typing import ClassVar


class SpineError(Exception):
    """Base of the tree above.

    Attributes:
        code: stable name for scripts, printed by ``--json``.
        hint: what to try next, as one imperative sentence.
    """

    code: ClassVar[str] = "error"
    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        return self.message


class InputError(SpineError):
    """The data cannot be used as it is."""

    code = "input"


class NotFoundError(InputError):
    """No scan where one was named."""

    code = "not_found"
    hint = "Give files (.nii .nii.gz .nrrd .nhdr .mha .mhd) or folders that hold scans."


class UnreadableError(InputError):
    """The file is damaged or of another kind than its name says."""

    code = "unreadable"
    hint = "Copy or export the file again and compare sizes or checksums."


class UnsupportedError(InputError):
    """A sound file that no spine can be read from."""

    code = "unsupported"


class MissingDecoderError(UnsupportedError):
    """Compressed DICOM that only another package can decode."""

    code = "missing_decoder"
    hint = "Run: pip install pylibjpeg pylibjpeg-openjpeg python-gdcm"


class GeometryError(InputError):
    """The header does not say where the voxels are."""

    code = "geometry"
    hint = "Convert the scan again from its DICOM series."


class TiltError(GeometryError):
    """Slices of a DICOM series are stacked sideways: gantry tilt, or a shift."""

    code = "gantry_tilt"
    hint = "'spine convert --fix-tilt' shears it to right angles."


class SeriesGapError(GeometryError):
    """Slices of a DICOM series are missing.

    Interpolating over a gap would invent anatomy, so reading refuses.
    """

    code = "series_gap"
    hint = (
        "Export the series again and compare the slice count with the scanner's; "
        "'spine convert --allow-gaps' fills gaps by interpolation."
    )


class UnevenSlicesError(GeometryError):
    """Slices of a DICOM series are unevenly spaced."""

    code = "uneven_slices"
    hint = "'spine convert --regrid' interpolates them to even steps."


class FewSlicesError(GeometryError):
    """Too few DICOM slices to tell their step from a gap."""

    code = "too_few_slices"
    hint = (
        "Export the whole series; 'spine convert --allow-few-slices' takes the "
        "distance between the two for the step."
    )


class DuplicateSliceError(GeometryError):
    """Slices of a DICOM series lie at the same place."""

    code = "duplicate_slices"
    hint = (
        "Keep one phase, echo or copy of the series; 'spine convert --duplicates "
        "first' keeps the first of each."
    )


class MixedSeriesError(GeometryError):
    """Slices of a DICOM series do not belong together."""

    code = "mixed_series"
    hint = "Put the slices of each orientation and size into a folder of their own."


class RescaleError(InputError):
    """DICOM slices disagree on what their stored values mean."""

    code = "inconsistent_slope"
    hint = "'spine convert --allow-slopes' applies each slice's own slope."


class IntensityError(InputError):
    """The voxel values cannot be those of an intact scan."""

    code = "intensity"


class MemoryLimitError(InputError):
    """The voxels need more memory than there is."""

    code = "memory"
    hint = "Crop or resample the image, or use a machine with more memory."


class ModalityError(InputError):
    """The values are not of the kind the model was trained on."""

    code = "modality"


class NameClashError(InputError):
    """Two inputs would write the same files."""

    code = "name_clash"
    hint = (
        "Give the folder above both, so that names are paths below it, "
        "or rename one of them."
    )


class MaskError(InputError):
    """A mask does not fit its scan or its label scheme."""

    code = "mask"


class InapplicableError(InputError):
    """An alteration makes no sense for a scan."""

    code = "inapplicable"


class OutputError(SpineError):
    """The results cannot be written."""

    code = "output"
    hint = "Check that the folder exists, may be written to and has space left."


class ModelError(SpineError):
    """The model cannot be used."""

    code = "model"


class UnknownModelError(ModelError):
    """No model or network of that name."""

    code = "unknown_model"

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"no model is called {name!r}",
            hint=f"Choose one of: {', '.join(known)}; or a model file's path.",
        )
        self.name = name
        self.known = known

    def __reduce__(self) -> tuple[type["UnknownModelError"], tuple[object, ...]]:
        return type(self), (self.name, self.known)


class ModelFileError(ModelError):
    """The model file is damaged or was not written by this program."""

    code = "model_file"
    hint = "Copy the file again, or install the package again for a shipped model."


class SettingsError(SpineError):
    """An option or a settings file makes no sense."""

    code = "settings"


class PlanError(SpineError):
    """A network cannot lose the channels that it should."""

    code = "plan"


class TrainingError(SpineError):
    """Training cannot start, or cannot go on."""

    code = "training"


class DeviceError(SpineError):
    """The device that was asked for is not there."""

    code = "device"
    hint = "Run 'spine doctor' to see the devices of this machine."


class LostDeviceError(DeviceError):
    """A device that was in use answers no more."""

    code = "device_lost"


class BenchError(SpineError):
    """What was to be timed did not work."""

    code = "bench"
    hint = "Run the same without 'spine bench' to see what is wrong."


class BackendError(SpineError):
    """A runtime cannot load or run the network."""

    code = "backend"
    hint = "Use --backend torch, or see what 'spine doctor' says."


class MissingBackendError(BackendError):
    """The library of a runtime is not installed."""

    code = "missing_backend"

    def __init__(self, backend: str, library: str, extra: str) -> None:
        msg = f"{backend} needs the package {library}, which is not installed"
        super().__init__(msg, hint=f"Run: pip install 'spinecli[{extra}]'")
