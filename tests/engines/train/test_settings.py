"""Settings files: read back whole, refused when they make no sense."""

from pathlib import Path

import pytest

from engines.errors import SettingsError
from engines.train import settings

RECIPES = Path(settings.__file__).parent / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_settings_are_sound(path: Path) -> None:
    read = settings.read_settings(path)
    assert read.sources
    assert all(source.licence and source.origin for source in read.sources)
    assert settings.from_record(read.as_json()) == read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stepz = 3", "no setting called 'stepz'"),
        ("steps = 0", "steps must be at least 1"),
        ("steps = 1.5", "steps cannot be 1.5"),
        ("loss = 'hinge'", "loss cannot be 'hinge'"),
        ("optimizer = 'sgd'", "optimizer cannot be 'sgd'"),
        ("learning_rate = -1", "learning_rate must be above 0"),
        ("average = 1.0", "below 1"),
        ("second_output_weight = -0.1", "second_output_weight must be at least 0"),
        ("second_output_weight = nan", "second_output_weight must be at least 0"),
        ("[[source]]\npath = 'a'\nkind = 'dream'", "kind cannot be 'dream'"),
        ("[[source]]\nplace = 'a'", "no setting called 'place'"),
        ("[augment]\np_cropp = 1", "no setting called 'p_cropp'"),
        ("steps =", "is not TOML"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=told):
        settings.read_settings(path)


def test_missing_file_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        settings.read_settings(tmp_path / "none.toml")


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("steps = 5\nseed = 1\n")
    changed = settings.prepared(path, "binary", {"steps": 7, "seed": None}, {})
    assert (changed.steps, changed.seed) == (7, 1)
    assert changed.sources == (settings.Source(path=".", scheme="binary"),)


CT = "[[source]]\npath = 'a'\nmodality = 'ct'\npart = 'train'\n"
SHOWN = "network = 'unet'\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SHOWN + CT.replace("'ct'", "'pet'"), "modality cannot be 'pet'"),
        (SHOWN + CT.replace("'train'", "'auto'"), "shown as MR is trained on alone: a"),
        (SHOWN + CT + "scheme = 'binary'", "not in binary masks: a"),
        (SHOWN + "classes = 'mr'\n" + CT, "for bodies alone: a"),
    ],
)
def test_ct_that_mr_cannot_learn_from_is_refused(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=told):
        settings.read_settings(path)


def test_ct_is_shown_as_mr_to_networks_for_mr_alone(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(SHOWN + CT)
    read = settings.read_settings(path)
    assert read.shows_as_mr(read.sources[0])
    path.write_text(CT)
    read = settings.read_settings(path)
    assert not read.shows_as_mr(read.sources[0])
