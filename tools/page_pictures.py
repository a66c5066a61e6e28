"""Take docs/live-*.png: the server's live page in an installed Chromium, with the model that `make models` downloads.

    python tools/page_pictures.py

A person chats on the page while other clients use the API.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.browser import running_browser, send, wait_for_answer  # noqa: E402 - needs the path
from tests.support.real_models import path_of  # noqa: E402
from tests.support.server import ServerProcess  # noqa: E402

DOCS = ROOT / "docs"
MOST_BYTES = 200_000
OTHERS = {"agent-7": "Explain how rain forms.", "notes": "Name four rivers of Europe."}
MESSAGES = ("Name three benefits of walking.", "Put that into one short sentence.")
PICTURES: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("light", 1280, 800, "light"),
    ("dark", 1280, 800, "dark"),
    ("narrow", 360, 740, "light"),
)


def ask(server: ServerProcess, name: str, text: str, max_tokens: int) -> None:
    """Ask as another client does."""
    messages = [{"role": "user", "content": text}]
    asked: dict[str, Any] = {"messages": messages, "session_id": name, "max_tokens": max_tokens, "temperature": 0}
    server.http.post("/v1/chat/completions", json=asked, timeout=None).raise_for_status()


def chat(page: Any) -> None:
    """Chat as a person does, with a fork."""
    page.locator("#send:enabled").wait_for()
    page.get_by_role("button", name="Settings").click()
    page.locator("[name=temperature]").fill("0")
    page.locator("[name=max_tokens]").fill("60")
    page.get_by_role("button", name="Engine").click()
    for n, text in enumerate(MESSAGES, 1):
        send(page, text)
        wait_for_answer(page, n)
    page.get_by_role("button", name="Fork from here").first.click()
    page.locator("#chat-title", has_text="Fork:").wait_for()
    send(page, "Which of them matters most?")
    wait_for_answer(page, 2)


def main() -> int:
    """Take the pictures; return the exit status of the process."""
    with ServerProcess("--model", f"smollm2={path_of('smollm2')}") as server, running_browser() as browser:
        for name, text in OTHERS.items():
            ask(server, name, text, 24)
        page = browser.new_page()
        page.set_default_timeout(300_000)  # milliseconds
        page.goto(server.url)
        chat(page)
        running = threading.Thread(target=ask, args=(server, "letter", "Write a letter to a friend about spring.", 120))
        running.start()
        page.locator(".sessions tbody tr", has_text="letter").locator(".running").wait_for()
        page.mouse.move(640, 300)
        sizes: list[int] = []
        for name, width, height, scheme in PICTURES:
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            if page.get_by_role("button", name="Chat", exact=True).is_visible():
                page.get_by_role("button", name="Chat", exact=True).click()
            page.screenshot(path=DOCS / f"live-{name}.png", animations="disabled")
            sizes.append((DOCS / f"live-{name}.png").stat().st_size)
        running.join()
    print(f"docs/live-*.png: {sizes} bytes, at most {MOST_BYTES} each")
    return int(max(sizes) > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
