"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest

os.environ["TERM"] = "xterm"
"""A dumb terminal, as many CI services have, knows no colours and no width."""


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch use one thread: tiny images are slower with two, by far when busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
