"""Exit statuses are a contract with scripts."""

import pytest

from engines import errors
from engines.results import CaseResult, Status
from spinecli import status
from spinecli.status import MEANINGS, ExitStatus, Word


def cases(*statuses: Status) -> list[CaseResult]:
    return [CaseResult(str(i), str(i), told) for i, told in enumerate(statuses)]


def test_numbers() -> None:
    assert {told.name: told.value for told in ExitStatus} == {
        "DONE": 0,
        "FATAL": 1,
        "USAGE": 2,
        "PARTIAL": 3,
        "INTERRUPTED": 130,
        "CLOSED_PIPE": 141,
    }
    assert set(MEANINGS) == set(ExitStatus)


@pytest.mark.parametrize(
    ("statuses", "number", "word"),
    [
        (["done", "done"], 0, "ok"),
        (["skipped", "done"], 0, "ok"),
        (["skipped"], 0, "ok"),
        (["done", "failed"], 3, "partial"),
        (["failed", "skipped"], 3, "partial"),
        (["failed", "failed"], 1, "failed"),
        ([], 1, "failed"),
    ],
)
def test_batches(statuses: list[Status], number: int, word: Word) -> None:
    told = status.of_cases(cases(*statuses))

    assert (told, status.word(told, cases(*statuses))) == (number, word)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.UnknownModelError("nope", ("unet-r34",)), 2),
        (errors.SettingsError("no such view"), 2),
        (errors.ModelFileError("damaged"), 1),
        (errors.NotFoundError("no scans"), 1),
        (errors.DeviceError("no GPU"), 1),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError(), 1),
    ],
)
def test_errors(error: BaseException, number: int) -> None:
    assert status.of_error(error) == number


@pytest.mark.parametrize(
    ("statuses", "word"),
    [(["done"], "partial"), (["failed"], "failed"), ([], "failed")],
)
def test_an_interrupted_batch_is_partial_if_it_got_anywhere(
    statuses: list[Status], word: Word
) -> None:
    assert status.word(ExitStatus.INTERRUPTED, cases(*statuses)) == word
