"""``spine train`` from the shell: a model that segments, and refusals."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spinecli.app import app

DATA = Path(__file__).parents[1] / "data"


def spine(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("tptbox_ct", "tptbox_seg-vert_msk"):
        shutil.copy(DATA / f"{name}.nii.gz", folder)
    return folder


def test_a_trained_model_segments(crop: Path, tmp_path: Path) -> None:
    settings = tmp_path / "small.toml"
    settings.write_text("batch = 1\npatches = [64]\nviews = ['sagittal']\n")
    run = tmp_path / "run"
    done = spine(
        "train", "--data", crop, "-o", run, "--settings", settings,
        "--steps", 2, "--name", "mine", "--split", "all", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["last"]["step"] == 2
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint.pt",
        "curve.csv",
        "curve.png",
        "mine.safetensors",
        "settings.json",
        "split.json",
    ]
    model = run / "mine.safetensors"
    shown = json.loads(spine("models", model, "--json").stdout)["models"][0]
    assert (shown["name"], shown["views"]) == ("mine", ["sagittal"])
    out = tmp_path / "out"
    assert spine("segment", crop, "-o", out, "--model", model).exit_code == 0


def test_cross_validation_goes_into_the_manifest(crop: Path, tmp_path: Path) -> None:
    for ending in ("ct", "seg-vert_msk"):
        shutil.copy(crop / f"tptbox_{ending}.nii.gz", crop / f"twin_{ending}.nii.gz")
    settings = tmp_path / "small.toml"
    settings.write_text(
        "batch = 2\npatches = [64]\nviews = ['sagittal']\nsteps = 1\nsplit = 'all'\n"
        "network = 'linknet-mobilenet-v2'\nname = 'mine'\n"
    )
    run = tmp_path / "run"

    done = spine(
        "train", "--data", crop, "-o", run, "--settings", settings,
        "--cross-validate", "--json",
    )  # fmt: skip

    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)["cross_validation"]
    assert [fold["held_out"] for fold in told["folds"]] == ["tptbox", "twin"]
    shown = spine("models", run / "mine.safetensors", "--json").stdout
    assert json.loads(shown)["models"][0]["training"]["cross_validation"] == told


def test_a_training_of_other_settings_is_left_as_it_was(
    crop: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "small.toml"
    settings.write_text("batch = 1\npatches = [64]\nsteps = 1\nsplit = 'all'\n")
    run = tmp_path / "run"
    options = ("train", "--data", crop, "-o", run, "--settings", settings)
    assert spine(*options).exit_code == 0
    before = (run / "settings.json").read_text()
    refused = spine(*options, "--loss", "dice")
    assert refused.exit_code == 2
    assert "other settings" in refused.stderr
    assert (run / "settings.json").read_text() == before
    assert spine(*options, "--loss", "dice", "--restart").exit_code == 0


def test_the_data_are_previewed_and_nothing_is_trained(
    crop: Path, tmp_path: Path
) -> None:
    (crop / "labels").mkdir()
    mask = "tptbox_seg-vert_msk.nii.gz"
    shutil.copy(crop / mask, crop / "labels" / f"other{mask.removeprefix('tptbox')}")
    settings = tmp_path / "both.toml"
    settings.write_text(
        "patches = [64]\nsplit = 'all'\n"
        "[[source]]\npath = '.'\n"
        "[[source]]\npath = 'labels'\nkind = 'labels'\n"
    )
    sheets = [tmp_path / f"{name}.png" for name in ("first", "again", "other")]
    for sheet, seed in zip(sheets, (5, 5, 6), strict=True):
        done = spine(
            "train", "--data", crop, "--settings", settings,
            "--seed", seed, "--preview-data", sheet, "--json",
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        record = json.loads(done.stdout)
        assert (record["preview"], record["status"]) == (str(sheet), "ok")
        assert "last" not in record
    first, again, other = (sheet.read_bytes() for sheet in sheets)
    assert first.startswith(b"\x89PNG")
    assert first == again
    assert first != other
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".toml", ""}


def test_a_preview_of_cubes_shows_a_plane_of_each(crop: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    settings = tmp_path / "cubes.toml"
    settings.write_text("patches = [32]\nsplit = 'all'\nnetwork = 'mru-net-3d'\n")
    done = spine(
        "train", "--data", crop, "--settings", settings, "--preview-data", sheet
    )
    assert done.exit_code == 0, done.stderr
    assert sheet.exists()


def test_a_training_needs_a_folder(crop: Path) -> None:
    refused = spine("train", "--data", crop, "--split", "all")
    assert refused.exit_code == 2
    assert "a folder is needed" in refused.stderr


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (("--loss", "hinge"), 2, "loss cannot be 'hinge'"),
        (("--network", "unet-r35"), 2, "unet-r35"),
        (("--recipe", "none"), 2, "recipe cannot be 'none'"),
        (("--scheme", "binary"), 1, "in the scheme 'binary'"),
        (("--steps", "0"), 2, "greater than"),
    ],
)
def test_nonsense_is_refused(
    options: tuple[str, ...], status: int, told: str, crop: Path, tmp_path: Path
) -> None:
    result = spine(
        "train", "--data", crop, "-o", tmp_path / "run", "--split", "all", *options
    )
    assert result.exit_code == status
    assert told in result.stderr


def test_a_folder_without_masks_is_an_error(tmp_path: Path) -> None:
    shutil.copy(DATA / "tptbox_ct.nii.gz", tmp_path)
    result = spine("train", "--data", tmp_path, "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "no image with a mask" in result.stderr
