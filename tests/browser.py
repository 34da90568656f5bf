"""A headless Chromium for tests of pages, or the reason why there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def program() -> str:
    """Return the browser's path, or skip the test."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"no browser is installed ({', '.join(NAMES)})")
    return found


@contextmanager
def running() -> Iterator[Any]:
    """Run a browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program(), args=[*FLAGS])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Any, page_file: Path, *, dark: bool = False
) -> Iterator[SimpleNamespace]:
    """Open a page from disk and watch what it says and asks for.

    Yields:
        ``page``; ``errors``, what its console complains of; ``requests``, the
        addresses it asks for, but for those inside the page.
    """
    context = browser.new_context(color_scheme="dark" if dark else "light")
    page = context.new_page()
    seen = SimpleNamespace(page=page, errors=[], requests=[])
    page.on("console", lambda said: _complaint(said, seen.errors))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda asked: _asked(asked.url, seen.requests))
    page.goto(page_file.as_uri())
    yield seen
    context.close()


def _complaint(said: object, errors: list[str]) -> None:
    if getattr(said, "type", "") in ("error", "warning"):
        errors.append(str(getattr(said, "text", "")))


def _asked(url: str, requests: list[str]) -> None:
    if not url.startswith("data:"):
        requests.append(url)
