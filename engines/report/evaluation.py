"""An evaluation as a whole: pairs, scores, comparison, pictures and files."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import SettingsError, SpineError
from engines.files import files_below, require_writable, write_text
from engines.labels import VERTEBRAE
from engines.metrics import compare as comparison
from engines.metrics import summary
from engines.metrics.evaluate import EvaluateSettings, evaluate, report, write_report
from engines.metrics.maps import Compared
from engines.metrics.pairs import Pair, find_pairs, key_of, read_pairs
from engines.report import evaluation_page, pictures
from engines.results import CaseResult, Note
from engines.scans import is_label_map
from engines.volume import Volume, suffix_of

PICTURES = 24
"""The page shows pictures of so many cases, the worst ones."""

COLOUR = (240, 150, 50)
"""Of labels that are no vertebrae."""

_PALETTE = tuple({v.colour for v in VERTEBRAE.values()})


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to score: pairs of label maps, and what the user should know of them.

    Attributes:
        truth: where the truth lies, to find other predictions' partners; None where a
            table listed the pairs.
    """

    pairs: Sequence[Pair]
    notes: tuple[Note, ...]
    truth: Path | None


def inputs_of(
    predictions: Path | None, truth: Path | None, table: Path | None
) -> Inputs:
    """Return the pairs in two folders, or those of a table.

    Raises:
        SettingsError: neither both folders nor a table, or both.
        NotFoundError: nothing fits together.
    """
    if table is not None and predictions is None and truth is None:
        return Inputs(read_pairs(table), (), None)
    if table is not None or predictions is None or truth is None:
        msg = "PREDS and GT are needed, or --pairs instead of both"
        raise SettingsError(msg)
    pairs, notes = find_pairs(predictions, truth)
    return Inputs(pairs, tuple(notes), truth)


@dataclass(order=True, slots=True)
class _Picture:
    """A picture of a case, ordered so that the worst case comes last in a heap."""

    dice: float
    name: str
    png: bytes = field(compare=False)


class EvaluateRun:
    """One evaluation.

    Attributes:
        count: cases to score, those of the other predictions included.
        notes: what the user should know of the pairs.
    """

    def __init__(
        self,
        inputs: Inputs,
        settings: EvaluateSettings,
        output: Path | None = None,
        *,
        compare: Path | None = None,
        scans: Path | None = None,
        command: str = "",
    ) -> None:
        """Find all files and check what can be checked before the first case.

        Args:
            inputs: the pairs.
            settings: how to score.
            output: folder for the report; None for none.
            compare: other predictions of the same truth.
            scans: folder of the scans, as the background of pictures.
            command: as the user typed it, for the record.

        Raises:
            SettingsError: other predictions cannot be compared with a table.
            OutputError: ``output`` cannot be written.
        """
        if output is not None:
            require_writable(output)
        self.settings = settings
        self.output = output
        self.command = command
        self.pairs = inputs.pairs
        self.notes = inputs.notes
        self.others: Sequence[Pair] = ()
        if compare is not None:
            if inputs.truth is None:
                msg = "--compare needs PREDS and GT, not --pairs"
                raise SettingsError(msg)
            found, notes = find_pairs(compare, inputs.truth)
            self.others = found
            self.notes += tuple(Note(n.code, f"{compare}: {n.message}") for n in notes)
        self.count = len(self.pairs)
        self._scans = _scans_in(scans) if scans is not None else {}
        self._cases: list[CaseResult] = []
        self._other_cases: list[CaseResult] = []
        self._pictures: list[_Picture] = []
        self._report: dict[str, Any] = {}
        self._reported = 0

    def results(
        self, told: Callable[[str, str], None] = lambda name, stage: None
    ) -> Iterator[CaseResult]:
        """Score every case and yield its record; then write the report.

        Raises:
            OutputError: the report cannot be written.
        """
        seen = self._look if self.output is not None else _ignore
        for result in evaluate(self.pairs, self.settings, told=told, seen=seen):
            self._cases.append(result)
            yield result
        for result in evaluate(self.others, self.settings, told=told):
            self._other_cases.append(result)
            if result.error is not None:
                told_error = (
                    f"other prediction of {result.name}: {result.error.message}"
                )
                self.notes += (Note("other_failed", told_error),)
        if self.output is not None:
            self._write(self.output)

    def report(self) -> dict[str, Any]:
        """Return the scores of the cohort, and the comparison if one was asked for."""
        done = len(self._cases) + len(self._other_cases)
        if self._report and self._reported == done:
            return self._report
        told = report(self._cases, self.settings)
        if self.others:
            told["comparison"] = comparison.compare(
                self._cases, self._other_cases, self.settings.metrics
            )
        self._report, self._reported = told, done
        return told

    def _write(self, output: Path) -> None:
        write_report(output, self._cases, self.settings, self.report())
        worst = {one.name: one.png for one in self._pictures}
        page = evaluation_page.html(
            self._cases, self.report(), self.settings.metrics, worst, self.command
        )
        write_text(output / "index.html", page)

    def _look(self, result: CaseResult, compared: Compared) -> None:
        """Keep a picture of the case if it is among the worst so far."""
        means = summary.means_of(result, self.settings.metrics)
        if not means:
            return
        dice = -means["dice"]
        full = len(self._pictures) == PICTURES
        if full and self._pictures[0].dice >= dice:
            return
        png = _picture(compared, self._background(result, compared))
        keep = heapq.heapreplace if full else heapq.heappush
        keep(self._pictures, _Picture(dice, result.name, png))

    def _background(
        self, result: CaseResult, compared: Compared
    ) -> NDArray[Any] | None:
        """Return the scan where the maps are, if it is there and on their grid."""
        path = self._scans.get(result.name)
        if path is None:
            return None
        try:
            scan = Volume.read(path)
        except SpineError:
            return None
        if not scan.grid.matches(compared.grid):
            return None
        box = tuple(
            slice(start, start + count)
            for start, count in zip(
                compared.corner, compared.maps.truth.shape, strict=True
            )
        )
        return scan.voxels[box]


def _ignore(_: CaseResult, __: Compared) -> None:
    """Look at no case."""


def _scans_in(folder: Path) -> dict[str, Path]:
    """Return name of a case -> its scan."""
    images = (path for path in sorted(files_below(folder)) if suffix_of(path))
    return {
        str(key_of(path.relative_to(folder))): path
        for path in images
        if not is_label_map(path)
    }


def _picture(compared: Compared, scan: NDArray[Any] | None) -> bytes:
    maps = compared.maps
    return pictures.side_by_side(
        pictures.Shown(maps.truth, compared.grid.axes, maps.spacing_mm),
        maps.prediction,
        _colours(compared),
        scan,
    )


def _colours(compared: Compared) -> Mapping[int, pictures.Rgb]:
    labels = np.union1d(compared.maps.truth, compared.maps.prediction).tolist()
    if compared.vertebrae:
        return {n: VERTEBRAE[n].colour for n in labels if n in VERTEBRAE}
    if len(labels) <= 2:
        return dict.fromkeys(labels, COLOUR)
    return {n: _PALETTE[n % len(_PALETTE)] for n in labels if n}
