"""A real browser: an installed Chromium, headless, driven by Playwright, which downloads none.

Tests that need it say so with ``pytestmark = NEEDS_BROWSER``, and are skipped where there is no Chromium.
``CYLLAMA_CHROMIUM`` names one that is not on the path.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

CHROMIUM = os.environ.get("CYLLAMA_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
"""The path of the browser, if there is one."""

SECONDS = 120  # after which something hangs

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed. On Debian: apt install chromium"),
]


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a browser until the `with` block ends. No event loop may run in this thread meanwhile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        try:
            yield browser
        finally:
            browser.close()


def wait_until(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression is true. The page's policy forbids Playwright's own function for that."""
    deadline = time.monotonic() + SECONDS
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never true: {condition}"
        page.wait_for_timeout(50)


@contextmanager
def slow_network(page: Page) -> Iterator[None]:
    """Let a page receive some pieces of an answer a second: no answer ends meanwhile, however fast the model is."""
    session = page.context.new_cdp_session(page)
    conditions = {"offline": False, "latency": 0, "downloadThroughput": 32_768, "uploadThroughput": -1}
    session.send("Network.emulateNetworkConditions", conditions)
    try:
        yield
    finally:
        session.detach()


def send(page: Page, text: str) -> None:
    """Write a message, and send it by the keyboard."""
    page.locator("#prompt").fill(text)
    page.keyboard.press("Enter")


def wait_for_answer(page: Page, n: int = 1) -> str:
    """Wait until a chat has so many answers, all complete; return the text of the last one."""
    answers = page.locator(".message[data-role=assistant]:not([data-busy])")
    answers.nth(n - 1).wait_for()
    page.locator("#send").wait_for()
    return answers.last.locator(".body").inner_text()
