"""The trainings of a study, and what is known of each before it is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import labels
from engines.errors import SettingsError, TrainingError
from engines.files import sha256_of
from engines.networks.complexity import describe_network
from engines.train import data
from engines.train.data import Pair, Subject
from engines.train.settings import TrainSettings
from engines.train.study import Configuration, Study
from engines.train.study_marks import fingerprint, hashed
from engines.train.study_table import RUNS

Parts = Mapping[str, Sequence[Pair]]


@dataclass(frozen=True, slots=True)
class Planned:
    """One training of a study, with its folder."""

    configuration: Configuration
    seed: int
    settings: TrainSettings
    folder: Path

    @property
    def name(self) -> str:
        """What it is called in texts."""
        return f"{self.configuration.name}, seed {self.seed}"

    @property
    def model(self) -> Path:
        """The model file that comes out."""
        return self.folder / f"{self.settings.name}.safetensors"


def planned(
    study: Study, output: Path, only: Sequence[str] = (), device: str = "auto"
) -> list[Planned]:
    """Return the trainings of a study whose names have one of ``only`` in them.

    Raises:
        SettingsError: there are none.
    """
    found = [
        Planned(
            one, seed, one.of_seed(seed, device), output / RUNS / one.run_name(seed)
        )
        for one in study.configurations
        for seed in study.seeds
        if not only or any(part.lower() in one.name.lower() for part in only)
    ]
    if not found:
        msg = f"no configuration has {' or '.join(map(repr, only))} in its labels"
        names = "; ".join(one.name for one in study.configurations)
        raise SettingsError(msg, hint=f"There are: {names}.")
    return found


class Known:
    """Data and networks of a study; what several trainings share is found out once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._dealt: dict[str, Parts] = {}
        self._sums: dict[Path, str] = {}
        self._networks: dict[str, dict[str, Any]] = {}
        self._loaded: tuple[str, list[Subject]] = ("", [])

    def require_ready(self, one: Planned) -> None:
        """Refuse what cannot be built, trained or scored.

        Raises:
            SpineError: why, with the name of the training.
        """
        if not self.parts(one.settings)["train"]:
            msg = f"{one.name}: the split leaves no scan to train on"
            raise TrainingError(msg, hint="Add scans or choose another split.")
        if not self.held_out(one.settings)[1]:
            msg = f"{one.name}: there is no scan held out to score on"
            hint = 'Give a source the part "test", or choose another split.'
            raise TrainingError(msg, hint=hint)
        try:
            self.network(one.settings)
        except SettingsError as error:
            msg = f"{one.name}: {error.message}"
            raise SettingsError(msg, hint=error.hint) from error

    def parts(self, settings: TrainSettings) -> Parts:
        """Return the scans of each part."""
        key = repr((settings.sources, settings.classes, settings.split, settings.seed))
        if key not in self._dealt:
            found = data.find_pairs(self.root, settings)
            dealt = data.split_pairs(found, settings.split, settings.seed)
            self._dealt[key] = dealt
        return self._dealt[key]

    def held_out(self, settings: TrainSettings) -> tuple[str, Sequence[Pair]]:
        """Return the part that is scored, the test where there is one."""
        parts = self.parts(settings)
        part = "test" if parts["test"] else "val"
        return part, parts[part]

    def scans(self, settings: TrainSettings) -> list[Subject]:
        """Return the held-out scans; those of the last training are in memory."""
        pairs = self.held_out(settings)[1]
        key = repr((settings.classes, settings.prepared_by, pairs))
        if self._loaded[0] != key:
            self._loaded = ("", [])  # never two sets of scans in memory
            self._loaded = key, [data.load(pair, settings) for pair in pairs]
        return self._loaded[1]

    def network(self, settings: TrainSettings) -> dict[str, Any]:
        """Return parameters and GFLOP of a network without weights."""
        classes = len(labels.CLASS_SETS[settings.classes])
        size, options = settings.middle_patch, settings.network_options
        key = repr((settings.network, classes, size, sorted(options.items())))
        if key not in self._networks:
            told = describe_network(settings.network, classes, size, options)
            self._networks[key] = told
        return self._networks[key]

    def fingerprint(self, settings: TrainSettings) -> str:
        """Return the hash of settings, and of the files of each part."""
        files = [
            [part, pair.name, *map(self._sum, (pair.image, pair.mask))]
            for part, pairs in sorted(self.parts(settings).items())
            for pair in pairs
        ]
        return hashed([fingerprint(settings), files])

    def _sum(self, path: Path | None) -> str:
        if path is None:
            return ""
        if path not in self._sums:
            self._sums[path] = sha256_of(path)
        return self._sums[path]
