"""What the live page says of files that it does not send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cyllama.models import TINY_CHAT

from ..support.browser import NEEDS_BROWSER, SECONDS, running_browser, send, wait_for_answer
from ..support.server import ServerProcess
from ..support.vision import png, write_projector

pytestmark = NEEDS_BROWSER

LARGE = b"\xff" * (9 << 20)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """The page of a server whose model reads images."""
    projector = write_projector(tmp_path / "mmproj.gguf")
    options = ("--model", f"eyes={TINY_CHAT}", "--option", f"projector={projector}")
    with ServerProcess(*options) as server, running_browser() as browser:
        page = browser.new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.goto(server.url)
        page.locator("#image-label").wait_for()
        page.locator("#send:enabled").wait_for()
        yield page


def choose(page: Any, *files: tuple[str, str, bytes]) -> None:
    page.locator("#image").set_input_files(
        [{"name": name, "mimeType": kind, "buffer": data} for name, kind, data in files]
    )


def test_files_that_are_too_large_or_no_images_are_named_and_the_others_sent(page: Any):
    red = ("red.png", "image/png", png("red"))
    choose(page, ("holidays.png", "image/png", LARGE), red, ("notes.txt", "text/plain", b"Hello"))
    problems = page.get_by_role("alert").locator("p")
    problems.nth(1).wait_for()
    assert problems.all_inner_texts() == [
        "holidays.png has 9.0 MiB, and an image has at most 8.0 MiB: scale it down, or save it as a JPEG.",
        "notes.txt is not an image.",
    ]
    assert page.locator("#images img").count() == 1
    send(page, "What is this?")
    assert wait_for_answer(page)
    assert page.locator(".message[data-role=user] img").count() == 1
    assert page.get_by_role("alert").count() == 0


def test_what_is_said_of_a_file_goes_when_another_one_is_chosen(page: Any):
    choose(page, ("holidays.png", "image/png", LARGE))
    page.get_by_role("alert").wait_for()
    assert page.locator("#images img").count() == 0
    choose(page, ("blue.png", "image/png", png("blue")))
    page.locator("#images img").wait_for()
    page.get_by_role("alert").wait_for(state="hidden")
