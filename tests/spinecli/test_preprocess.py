"""``spine preprocess`` on real crops: files, record, exit status."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from engines.labels import SCHEMES
from engines.preprocess import recipe
from engines.preprocess.layouts import LAYOUTS
from engines.preprocess.masks import CLASS_CHOICES
from engines.preprocess.split import FRACTIONS
from engines.preprocess.tree import Format, Slices
from engines.volume import Volume
from spinecli.app import app
from spinecli.commands import preprocess
from tests import data_sets

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in DATA.glob("tptbox*.nii.gz"):
        shutil.copy(path, folder)
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["preprocess", *map(str, arguments)])


def record(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_recipe_and_options(source: Path, tmp_path: Path) -> None:
    result = run(
        *(source, tmp_path / "out", "--recipe", "linknet-2025", "--size", 64),
        *("--clamp", -200, 300, "--smoothing", 0, "--classes", "regions"),
        *("--split", "80/20", "--seed", 3, "--json"),
    )

    told = record(result)
    assert result.exit_code == 0
    assert (told["command"], told["status"]) == ("preprocess", "ok")
    assert told["recipe"]["name"] == "linknet-2025, changed"
    (case,) = told["cases"]
    assert (case["name"], case["status"]) == ("tptbox_ct", "done")
    assert set(case["outputs"]) == {"scan", "mask-vert"}

    scan = Volume.read(Path(case["outputs"]["scan"]))
    mask = Volume.read(Path(case["outputs"]["mask-vert"]))
    assert scan.grid.axes == "RAS"
    assert scan.grid.shape[:2] == (64, 64)
    assert (scan.voxels.min(), scan.voxels.max()) == (0, 1)
    assert set(np.unique(mask.voxels)) == {0, 3}
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    assert (split["seed"], split["train"]) == (3, ["tptbox"])


def test_without_recipe_only_the_axes_are_turned(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out")

    assert result.exit_code == 0
    made = Volume.read(tmp_path / "out" / "tptbox_ct.nii.gz")
    original = Volume.read(source / "tptbox_ct.nii.gz")
    assert made.grid.axes == "RAS"
    assert made.voxels.dtype == np.int16
    assert made.voxels.sum(dtype=int) == original.voxels.sum(dtype=int)


def test_failed_case_gives_exit_status_3_and_is_named(
    source: Path, tmp_path: Path
) -> None:
    (source / "bad_ct.nii.gz").write_bytes(b"")
    result = run(source, tmp_path / "out", "--recipe", "spine-ct")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert "bad_ct.nii.gz: the file is empty (0 bytes)" in result.stderr
    assert "1 done, 1 failed" in result.stderr


def test_folder_without_scans_is_a_fatal_error(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "out", "--json")

    assert result.exit_code == 1
    assert record(result)["cases"][0]["error"]["code"] == "not_found"


def test_second_run_skips(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", "--binary")
    again = run(source, tmp_path / "out", "--binary", "--json")
    redone = run(source, tmp_path / "out", "--binary", "--overwrite", "--json")

    assert [case["status"] for case in record(again)["cases"]] == ["skipped"]
    assert [case["status"] for case in record(redone)["cases"]] == ["done"]


def test_unknown_recipe_is_told_the_known_ones(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", "--recipe", "mine", "--json")

    told = record(result)
    assert result.exit_code == 2
    assert told["error"]["code"] == "settings"
    assert all(name in told["error"]["hint"] for name in recipe.RECIPES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--binary", "--classes", "spine"),
        ("--scheme", "binary", "--classes", "regions"),
        ("--orientation", "RLS"),
        ("--clamp", 5, 5),
        ("--spacing", 1, "--size", 64),
        ("--format", "png"),
        ("--normalisation", "z"),
        ("--clamp", 5),
        ("--from", "bids"),
        ("--from", "spider", "--scheme", "verse"),
    ],
    ids=str,
)
def test_wrong_usage(source: Path, tmp_path: Path, options: tuple[Any, ...]) -> None:
    result = run(source, tmp_path / "out", *options, "--json")

    assert result.exit_code == 2
    assert record(result)["error"]["code"] in ("settings", "usage")
    assert not (tmp_path / "out").exists()


def test_originals_are_safe(source: Path) -> None:
    before = (source / "tptbox_ct.nii.gz").read_bytes()
    result = run(source, source, "--recipe", "spine-ct")

    assert result.exit_code == 2
    assert (source / "tptbox_ct.nii.gz").read_bytes() == before


def test_choices_are_those_of_the_engine() -> None:
    def choices(option: Any) -> set[str]:
        kind = get_args(option)[0]
        inner = [arg for arg in get_args(kind) if arg is not type(None)]
        return set(get_args(inner[0]) or inner)

    assert choices(preprocess.Normalisation) == set(recipe.NORMALISATION_NAMES)
    assert choices(preprocess.Modality) == set(recipe.MODALITIES)
    assert choices(preprocess.Split) == set(FRACTIONS)
    assert choices(preprocess.Layout) == set(LAYOUTS)
    assert choices(preprocess.Scheme) == set(SCHEMES)
    assert choices(preprocess.Slices) == set(get_args(Slices))
    assert choices(preprocess.Format) == set(get_args(Format))
    both = choices(preprocess.Classes) | {"binary", "as-they-are"}
    assert both == set(CLASS_CHOICES)


def test_a_data_set_as_downloaded(tmp_path: Path) -> None:
    source = data_sets.spider(tmp_path / "in").source
    result = run(
        *(source, tmp_path / "out", "--from", "spider", "--classes", "vertebrae"),
        *("--split", "80/20-of-train", "--seed", 1, "--json"),
    )

    told = record(result)
    assert result.exit_code == 0, result.stderr
    assert told["recipe"]["modality"] == "mr"
    assert [case["name"] for case in told["cases"]] == [
        *("sub-10_t2", "sub-1_t1", "sub-1_t2_SPACE")
    ]
    outputs = told["cases"][1]["outputs"]
    assert set(outputs) == {"scan", "mask-vert", "mask-mr"}
    assert Path(outputs["scan"]).name == "sub-1_t1_mr.nii.gz"
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    assert split["fractions"] == [0.64, 0.16, 0.2]
    assert sum(len(split[part]) for part in ("train", "val", "test")) == 3
    kept = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert kept["settings"]["layout"] == "spider"
    assert kept["settings"]["scheme"] == "spider"


def test_recipe_and_modality_go_before_what_the_data_set_tells(tmp_path: Path) -> None:
    source = data_sets.totalsegmentator_mr(tmp_path / "in").source
    run(source, tmp_path / "told", "--from", "totalsegmentator")
    run(source, tmp_path / "said", "--from", "totalsegmentator", "--modality", "ct")
    mr = ("--from", "totalsegmentator", "--recipe", "lumbar-mr-2025")
    run(source, tmp_path / "recipe", *mr)

    assert (tmp_path / "told" / "s0004_mr.nii.gz").is_file()
    assert (tmp_path / "said" / "s0004_ct.nii.gz").is_file()
    shown = Volume.read(tmp_path / "recipe" / "s0004_mr.nii.gz")
    assert shown.grid.shape[1:] == (128, 128)


def test_scans_without_spine_are_one_warning(tmp_path: Path) -> None:
    source = data_sets.totalsegmentator(tmp_path / "in").source
    told = run(source, tmp_path / "out", "--from", "totalsegmentator")
    again = run(source, tmp_path / "out", "--from", "totalsegmentator", "--json")

    line = "1 of 2 cases show no spine and were left out: s0002"
    assert told.exit_code == 0
    assert told.stderr.count(line) == 1
    assert record(again)["warnings"] == [{"code": "no_spine", "message": line}]
    assert "1 done, 1 skipped" in told.stderr


def test_another_kind_of_folder_is_a_fatal_error(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", "--from", "nnunet", "--json")

    told = record(result)
    assert result.exit_code == 1
    assert told["error"]["code"] == "not_found"
    assert "no dataset.json in" in told["error"]["message"]
    assert "DatasetXXX" in told["error"]["hint"]


def test_bad_pairs_are_named_and_the_others_done(tmp_path: Path) -> None:
    table = data_sets.pairs_table(tmp_path / "in").source
    with table.open("a") as file:
        file.write("a/x.nii.gz,a/none.nii.gz,lost,\n")
    result = run(table, tmp_path / "out", "--from", "pairs", "--scheme", "verse")

    assert result.exit_code == 3
    assert "3 done, 1 failed" in result.stderr
    assert "cases.csv, line 5: no mask" in result.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, spinecli.commands.preprocess as _;"
        "print({'numpy', 'torch', 'nibabel', 'pydicom'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
