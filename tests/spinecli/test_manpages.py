"""The man pages are those of the app, and say all that it says."""

from pathlib import Path
from typing import Any

import pytest
import typer

from spinecli import manpages
from spinecli.app import app

MAN = Path(__file__).parents[2] / "man"
GROUP: Any = typer.main.get_command(app)
PAGES = manpages.pages()


def test_the_pages_in_the_repository_are_current() -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in MAN.glob("*.1")}

    assert kept == PAGES, "run: python -m spinecli.manpages man/"


@pytest.mark.parametrize("name", GROUP.commands)
def test_a_page_names_every_parameter_of_its_command(name: str) -> None:
    page = PAGES[f"spine-{name}.1"].replace(r"\-", "-")

    for parameter in GROUP.commands[name].params:
        for told in (*parameter.opts, parameter.help):
            if parameter.param_type_name == "option" or told == parameter.help:
                assert told in page
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS"):
        assert f".SH {heading}\n" in page


def test_required_options_stand_in_the_synopsis() -> None:
    lines = PAGES["spine-segment.1"].splitlines()

    synopsis = lines[lines.index(".SH SYNOPSIS") + 2]
    assert synopsis == r"\-\-output DIR [OPTIONS] SCANS..."


def test_models_are_told_where_they_are_used() -> None:
    using = {name for name, page in PAGES.items() if "SPINE_MODELS" in page}

    assert {"spine.1", "spine-segment.1", "spine-evaluate.1"} <= using
    assert "spine-convert.1" not in using


@pytest.mark.parametrize(
    ("plain", "roff"),
    [
        ("--json", r"\-\-json"),
        (r"C:\scans", r"C:\escans"),
        (".hidden", r"\&.hidden"),
        ("'spine doctor'", r"\&'spine doctor'"),
        ("see 'x'", "see 'x'"),
    ],
)
def test_roff_takes_no_text_for_a_command(plain: str, roff: str) -> None:
    assert manpages._text(plain) == roff


def test_writing_removes_the_pages_of_commands_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "spine-gone.1").write_text("old")
    (tmp_path / "other.1").write_text("kept")

    manpages.main([str(tmp_path)])

    written = {path.name for path in tmp_path.iterdir()}
    assert written == {*PAGES, "other.1"}


def test_writing_needs_a_folder() -> None:
    with pytest.raises(SystemExit, match="usage"):
        manpages.main([])
