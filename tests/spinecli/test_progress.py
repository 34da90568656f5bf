"""A bar for people, lines for logs."""

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from engines.results import CaseResult, Note, Problem
from spinecli import progress

DONE = CaseResult("a", "a.nii", "done", seconds={"read": 2.0, "segment": 10.3})
SKIPPED = CaseResult("b", "b.nii", "skipped", seconds={"read": 1.0})
FAILED = CaseResult("c[1]", "c", "failed", error=Problem("x", "is empty", "Copy it."))
WARNED = CaseResult("d", "d", "done", warnings=(Note("empty_mask", "no spine"),))


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=20, markup=False)


def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm")
    return Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=100
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_one_line_per_case_in_a_log() -> None:
    console = plain()

    with progress.batch(4, to=console) as bar:
        bar.stage("a", "read")
        for result in (DONE, SKIPPED, FAILED, WARNED):
            bar.finished(result)

    assert written(console).splitlines() == [
        "[1/4] a: done in 12.3 s",
        "[2/4] b: skipped",
        "[3/4] c[1]: failed: is empty",
        "[4/4] d: done; no spine",
    ]


def test_the_number_of_cases_may_come_later() -> None:
    console = plain()

    with progress.batch(to=console) as bar:
        bar.finished(SKIPPED)
        bar.expect(7)
        bar.finished(SKIPPED)

    assert written(console) == "[1/?] b: skipped\n[2/7] b: skipped\n"


def test_lines_from_many_threads_do_not_mix() -> None:
    console = plain()
    results = [CaseResult(f"case-{i}", "", "done") for i in range(200)]

    with progress.batch(200, to=console) as bar, ThreadPoolExecutor(8) as pool:
        list(pool.map(bar.finished, results))

    lines = written(console).splitlines()
    counts = [int(re.fullmatch(r"\[(\d+)/200\] case-\d+: done", x)[1]) for x in lines]  # type: ignore[index]
    assert counts == list(range(1, 201))
    assert {x.split()[1] for x in lines} == {f"{r.name}:" for r in results}


def test_the_bar_shows_the_case_that_began_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = terminal(monkeypatch)

    with progress.batch(3, to=console) as bar:
        bar.stage("a", "read")
        bar.stage("b", "read")
        bar.stage("a", "segment")
        bar.finished(DONE)
        bar.stage("b", "write")
        bar.stage("c", "read")

    drawn = [line for line in written(console).splitlines() if "1/3" in line]
    assert "b (write)" in drawn[-1]


def test_the_bar_prints_only_what_needs_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = terminal(monkeypatch)

    with progress.batch(3, to=console) as bar:
        for result in (DONE, FAILED, WARNED):
            bar.finished(result)

    shown = written(console)
    assert "c[1]: failed: is empty" in shown
    assert "d: done; no spine" in shown
    assert "a: done" not in shown
    assert "3/3" in shown


def test_steps_of_a_training_in_a_log() -> None:
    console = plain()

    with progress.steps(to=console) as bar:
        bar.told(5, 10, "step 5/10: loss 0.5000 [x]")

    assert written(console) == "step 5/10: loss 0.5000 [x]\n"


def test_a_log_of_trainings_has_their_validations_and_their_ends() -> None:
    console = plain()

    with progress.runs(3, to=console) as bar:
        bar.told("a", 10, 20, "step 10/20: loss 0.5", notable=False)
        bar.told("a", 20, 20, "step 20/20: validation Dice 0.9", notable=True)
        bar.finished(DONE)
        bar.finished(FAILED)

    assert written(console).splitlines() == [
        "a: step 20/20: validation Dice 0.9",
        "[1/3] a: done in 12.3 s",
        "[2/3] c[1]: failed: is empty",
    ]


def test_a_terminal_shows_all_trainings_and_the_steps_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = terminal(monkeypatch)

    with progress.runs(3, to=console) as bar:
        bar.finished(SKIPPED)
        bar.told("U-Net, Dice", 10, 20, "step 10/20: loss 0.5", notable=False)

    shown = written(console)
    assert "b: skipped" in shown
    assert "1/3" in shown
    assert "U-Net, Dice" in shown
    assert "step 10/20: loss 0.5" in shown


def test_a_line_stands_above_the_bar_and_not_beside_it() -> None:
    """As what is done once, on first use, is said by another thread than the bar's."""
    screen = io.StringIO()
    to = Console(file=screen, force_terminal=True, width=60, color_system=None)
    with progress.batch(2, to=to) as bar:
        bar.stage("a", "gate")
        bar.say("converting, once")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", screen.getvalue()).splitlines()
    assert "converting, once" in [text.strip() for text in lines]


def test_a_log_holds_the_line_too() -> None:
    log = io.StringIO()
    with progress.batch(2, to=Console(file=log, width=60)) as bar:
        bar.say("converting, once")
    assert log.getvalue() == "converting, once\n"
