"""Names that are no UTF-8, and texts that a terminal would obey, in every command."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.files import printable, write_json, write_text
from spinecli import console
from tests import data_sets, phantoms

ROOT = Path(__file__).parents[2]
FOLDER = os.fsdecode(b"Kn\xf6chel")
NAME = os.fsdecode(b"b\x1b[31m_\xe9")
LOCALES = {
    "posix": {"LC_ALL": "POSIX", "PYTHONIOENCODING": "latin-1"},
    "utf-8": {"LC_ALL": "C.UTF-8"},
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scans, masks and DICOM, named as no text can be."""
    root = tmp_path_factory.mktemp("names")
    scan, mask = data_sets.small()
    data_sets.write(root / "scans" / FOLDER, **{f"{NAME}_ct": scan})
    data_sets.write(root / "scans", z_ct=scan)
    data_sets.write(root / "gt" / FOLDER, **{f"{NAME}_seg-vert_msk": mask})
    data_sets.write(root / "gt", **{"z_seg-vert_msk": mask})

    def edit(_: int, dataset: object) -> None:
        dataset.SeriesDescription = "a\x1b]0;x\x07b\x1b[2J"  # type: ignore[attr-defined]

    volume = phantoms.volume(phantoms.ct_values())
    phantoms.write_dicom(root / "dicom" / FOLDER, volume, edit=edit)
    return root


LINES = {
    "inspect": ("inspect", "dicom"),
    "convert": ("convert", "dicom", "nifti"),
    "preprocess": ("preprocess", "scans", "prepared", "--recipe", "spine-ct"),
    "evaluate": ("evaluate", "gt", "gt", "-o", "scores"),
    "segment": (
        "segment", "scans", "-o", "masks", "--backend", "torch", "--precision",
        "float32",
    ),
}  # fmt: skip
RECORDS = {
    "convert": ("nifti/convert.json", "nifti/convert.csv"),
    "preprocess": ("prepared/preprocess.json",),
    "evaluate": ("scores/evaluation.csv", "scores/index.html"),
    "segment": ("masks/spine-run.json", "masks/spine-run.csv", "masks/index.html"),
}  # fmt: skip


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("command", LINES)
def test_every_command_goes_through_odd_names(
    command: str, locale: str, odd: Path
) -> None:
    if command == "segment" and locale == "utf-8":
        pytest.skip("the slowest command is tried in the worst locale alone")
    for folder in ("nifti", "prepared", "scores", "masks"):
        shutil.rmtree(odd / folder, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "spinecli", *LINES[command]],
        cwd=odd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **LOCALES[locale]},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    for stream in (done.stdout, done.stderr):
        assert b"\x1b" not in stream
        assert b"\x07" not in stream
    for name in RECORDS.get(command, ()):
        path = odd / name
        assert path.is_file(), name
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            json.loads(text)
        elif path.suffix == ".csv":
            assert len(list(csv.reader(text.splitlines()))) > 1


def test_a_record_gives_names_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_json(path, {"name": FOLDER})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": FOLDER}
    write_text(path, f"{FOLDER} ö \ud800")
    assert path.read_text(encoding="utf-8") == "Kn\\xf6chel ö \ufffd"
    assert printable("Wirbelsäule") == "Wirbelsäule"


def test_a_console_prints_no_control_characters_of_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.out().print(f"a\x1b[31mb\tc\u202ed{FOLDER}")
    assert capsys.readouterr().out == "a\ufffd[31mb  c\ufffddKn\\xf6chel\n"
