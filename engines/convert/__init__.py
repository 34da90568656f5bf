"""DICOM series to NIfTI.

The package is also the function that does it:

```python
import engines

for case in engines.convert(["dicom/"], "nifti/"):
    print(case.name, case.status)
```
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.convert.convert import ConvertSettings
    from engines.results import CaseResult


class _Convert(ModuleType):
    """A package that can be called, for ``engines.convert`` is both."""

    def __call__(
        self,
        inputs: Sequence[str | Path],
        output: str | Path,
        *,
        settings: "ConvertSettings | None" = None,
    ) -> list["CaseResult"]:
        """Convert every DICOM series below ``inputs`` into ``output``.

        Args:
            inputs: folders, archives and files.
            output: folder that gets the volumes, their sidecars and the record.
            settings: how to convert; None for the usual.

        Returns:
            one record a series; one that cannot be converted is ``failed``, with its
            reason.

        Raises:
            SettingsError: an input lies in ``output``.
            OutputError: ``output`` cannot be written.
        """
        from engines.convert.convert import ConvertRun, ConvertSettings

        paths = [Path(path) for path in inputs]
        run = ConvertRun(paths, Path(output), settings or ConvertSettings())
        return list(run.results())


sys.modules[__name__].__class__ = _Convert
