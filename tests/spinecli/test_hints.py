"""A hint names only options that the command has which shows it."""

import pytest

from engines.errors import ModalityError, SpineError
from engines.results import CaseResult, Problem
from spinecli import hints

KNOWN = {"--model", "--device", "-o"}


@pytest.mark.parametrize(
    ("hint", "fitted"),
    [
        ("Give it with --model, or add --force.", "Give it with --model."),
        (
            "Give the MR, choose a --model for CT, or add --force to go on.",
            "Give the MR, choose a --model for CT.",
        ),
        ("Add --force.", ""),
        ("Check the path of --model.", "Check the path of --model."),
        (
            "Export it again; 'spine convert --regrid' makes even steps.",
            "Export it again; 'spine convert --regrid' makes even steps.",
        ),
        ("Name another -o, or give --restart.", "Name another -o."),
        ("Add --force. See 'spine doctor'.", "See 'spine doctor'."),
        ("", ""),
    ],
)
def test_clauses_with_unknown_options_are_left_out(hint: str, fitted: str) -> None:
    assert hints.fitting(hint, KNOWN) == fitted


def test_bench_has_no_force() -> None:
    hint = "Give the CT in Hounsfield units, choose a model for MR, or add --force."
    error = ModalityError("values from 0 to 255", hint=hint)
    for command, force in (("segment", True), ("bench", False), ("evaluate", False)):
        shown = hints.for_command(Problem.of(error), command).hint
        assert ("--force" in shown) is force
        assert "choose a model for MR" in shown


def test_hints_of_cases_are_fitted_too() -> None:
    error = SpineError("x", hint="Leave it out, or give --plain.")
    case = CaseResult("a", "", "failed", error=Problem.of(error))
    fitted = hints.of_case(case, "segment").error
    assert fitted is not None
    assert fitted.hint == "Leave it out."
    assert hints.of_case(case, "bench") == case


def test_options_of_a_command_below_another() -> None:
    assert "--for" in hints.options_of("engine build")
    assert "--for" not in hints.options_of("engine list")
