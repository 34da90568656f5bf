"""One browser for all tests of pages."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import running


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with running() as started:
        yield started
