"""Plain text where nobody looks at colours."""

import sys

import pytest

from spinecli import console

Captured = pytest.CaptureFixture[str]


def on_a_terminal(patch: pytest.MonkeyPatch, **variables: str) -> None:
    """Make stderr look like a terminal with colours."""
    for name in ("CI", "NO_COLOR", "COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        patch.delenv(name, raising=False)
    patch.setenv("TERM", "xterm")
    for name, value in variables.items():
        patch.setenv(name, value)
    patch.setattr(sys.stderr, "isatty", lambda: True)


def test_a_terminal_gets_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    on_a_terminal(monkeypatch)

    console.err().print("hello", style="red")

    assert capsys.readouterr().err == "\x1b[31mhello\x1b[0m\n"


@pytest.mark.parametrize("variable", ["CI", "NO_COLOR"])
def test_a_variable_turns_them_off(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, variable: str
) -> None:
    on_a_terminal(monkeypatch, **{variable: "1"})

    console.err().print("hello", style="red")

    assert capsys.readouterr().err == "hello\n"


def test_pipes_are_wide_and_plain(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    console.out().print("x" * console.PLAIN_WIDTH, style="red")

    assert capsys.readouterr().out == "x" * console.PLAIN_WIDTH + "\n"


def test_columns_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")

    assert console.err().width == 44


def test_brackets_in_names_are_no_markup(capsys: Captured) -> None:
    console.err().print("scan[bold]:smile:")

    assert capsys.readouterr().err == "scan[bold]:smile:\n"
