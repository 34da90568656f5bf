"""The work of ``spine``: a library without a terminal.

```python
from engines import Segmenter, read_scan

segmenter = Segmenter("unet-r34")
result = segmenter(read_scan("scan.nii.gz"))
result.save("out/scan")
```

What ``__all__`` names is public, and imported when it is first used.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines import convert, errors
    from engines.geometry import Grid
    from engines.metrics.folders import evaluate
    from engines.results import CaseResult, Note
    from engines.scans import find_scans, read_scan
    from engines.segment.run import SegmentRun
    from engines.segment.segmenter import Segmentation, Segmenter
    from engines.segment.settings import SegmentSettings
    from engines.volume import Volume, read_mask, write_nifti

try:
    __version__ = version("spinecli")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"

__all__ = (
    "CaseResult",
    "Grid",
    "Note",
    "SegmentRun",
    "SegmentSettings",
    "Segmentation",
    "Segmenter",
    "Volume",
    "__version__",
    "convert",
    "errors",
    "evaluate",
    "find_scans",
    "read_mask",
    "read_scan",
    "write_nifti",
)

_HOMES = {
    "CaseResult": "engines.results",
    "Grid": "engines.geometry",
    "Note": "engines.results",
    "SegmentRun": "engines.segment.run",
    "SegmentSettings": "engines.segment.settings",
    "Segmentation": "engines.segment.segmenter",
    "Segmenter": "engines.segment.segmenter",
    "Volume": "engines.volume",
    "evaluate": "engines.metrics.folders",
    "find_scans": "engines.scans",
    "read_mask": "engines.volume",
    "read_scan": "engines.scans",
    "write_nifti": "engines.volume",
}
"""Public name -> module that it lives in; the others are modules themselves."""


def __getattr__(name: str) -> Any:  # noqa: ANN401  whatever the name stands for
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in __all__:
        value = import_module(f"engines.{name}")
    else:
        msg = f"module 'engines' has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
