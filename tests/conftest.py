"""What holds for every test."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

# What a CI service says of its terminal decides colours and widths; the tests that
# are about those set their own.
os.environ["TERM"] = "xterm"
for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)
for name in ("COLUMNS", "LINES", "COLORTERM", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)

# How fast an example runs says nothing on a busy machine.
hypothesis.settings.register_profile("any-speed", deadline=None)
hypothesis.settings.load_profile("any-speed")

# Engines and paces of the tests are theirs alone, in whatever process.
os.environ["SPINE_CACHE"] = tempfile.mkdtemp(prefix="spine-cache-")
atexit.register(shutil.rmtree, os.environ["SPINE_CACHE"], ignore_errors=True)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch use one thread: tiny images are slower with two, by far when busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
