"""The man pages are those of the app, and say all that it says."""

from collections.abc import Iterator
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


def below(group: Any, title: str = "spine") -> Iterator[tuple[str, Any]]:
    """Yield each command with the name of its page, those of groups too."""
    for name, command in getattr(group, "commands", {}).items():
        yield f"{title}-{name}", command
        yield from below(command, f"{title}-{name}")


COMMANDS = dict(below(GROUP))


def test_every_command_has_a_page() -> None:
    assert {f"{title}.1" for title in COMMANDS} | {"spine.1"} == set(PAGES)
    assert "spine-engine-build.1" in PAGES


def test_the_page_of_a_group_names_its_commands_and_their_pages() -> None:
    page = PAGES["spine-engine.1"].replace(r"\-", "-")

    for word in ("build", "list", "inspect", "clear"):
        assert f".BR spine-engine-{word} (1)" in page
    build = PAGES["spine-engine-build.1"].replace(r"\-", "-").splitlines()
    synopsis = build.index(".SH SYNOPSIS")
    assert build[synopsis + 1 : synopsis + 3] == [
        ".B spine engine build",
        "[OPTIONS] MODEL",
    ]
    assert ".BR spine-engine (1)" in build


@pytest.mark.parametrize("title", COMMANDS)
def test_a_page_names_every_parameter_of_its_command(title: str) -> None:
    page = PAGES[f"{title}.1"].replace(r"\-", "-")

    for parameter in COMMANDS[title].params:
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


def test_the_cache_is_told_where_it_is_used() -> None:
    using = {name for name, page in PAGES.items() if "SPINE_CACHE" in page}

    engines = {name for name in PAGES if "engine" in name}
    others = {"spine.1", "spine-segment.1", "spine-bench.1", "spine-doctor.1"}
    assert using == {*others, *engines}


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
