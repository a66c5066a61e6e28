"""Record docs/terminal.svg: a chat in a real terminal, with the model that `make demo` downloads.

    python tools/picture.py

Keys are pressed as a person presses them, in a terminal emulator. Its screen at the end is the picture, as text: a few
kilobytes, in the colours that the reader's system prefers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.command import CTRL_D, ENTER, Terminal  # noqa: E402 - needs the path
from tests.support.real_models import path_of  # noqa: E402

PICTURE = ROOT / "docs/terminal.svg"
COMMAND = ("chat", "-m", "smollm2.gguf", "--temperature", "0")
MESSAGES = (
    "What are the benefits of walking? Give three, as a numbered list.",
    "Put that into one short sentence.",
)
COLUMNS, LINES = 88, 60
WIDTH, HEIGHT, SIZE, MARGIN = 8.4, 19, 14, 16  # of a character, a line, the font and the window, in pixels
STYLE = """\
text{white-space:pre}rect{fill:#f6f8fa;stroke:#d0d7de}text{fill:#1f2328}.d{fill:#59636e}.c{fill:#0550ae}.b{font-weight:bold}
@media(prefers-color-scheme:dark){rect{fill:#0d1117;stroke:#3d444d}text{fill:#e6edf3}.d{fill:#9198a1}.c{fill:#79c0ff}}"""
COLOURS = {"brightblack": "d", "cyan": "c", "blue": "c"}


def record() -> pyte.Screen:
    """Chat, and return the screen at the end."""
    os.chdir(path_of("smollm2").parent)
    with Terminal(*COMMAND, columns=COLUMNS, lines=LINES) as terminal:
        for message in MESSAGES:
            terminal.expect("> ")
            terminal.press(message + ENTER)
        terminal.expect("> ")
        terminal.press(CTRL_D)
        terminal.wait()
        # pyte knows no dim text: here it is grey.
        output = terminal.output.replace(b"\x1b[2m", b"\x1b[90m")
    screen = pyte.Screen(COLUMNS, LINES)
    pyte.ByteStream(screen).feed(output)
    return screen


def styled(line: dict[int, pyte.screens.Char]) -> Iterator[tuple[str, str]]:
    """Yield the pieces of a line, and the classes of each."""

    def classes(char: pyte.screens.Char) -> str:
        return " ".join(filter(None, (COLOURS.get(char.fg), "b" if char.bold else None)))

    for names, chars in groupby((line[i] for i in range(COLUMNS)), classes):
        yield "".join(char.data for char in chars), names


def to_svg(screen: pyte.Screen) -> str:
    """Return the screen as a picture, without the empty lines at its end."""
    rows = [
        [("$ ", "d"), (" ".join(("cyllama", *COMMAND)), "b")],
        *(list(styled(screen.buffer[i])) for i in range(LINES)),
    ]
    while not "".join(text for text, _ in rows[-1]).strip("> "):
        rows.pop()
    lines = []
    for i, row in enumerate(rows):
        spans = [
            f'<tspan class="{names}">{escape(text, quote=False)}</tspan>' if names else escape(text, quote=False)
            for text, names in row
        ]
        if text := "".join(spans).rstrip():
            lines.append(f'<text x="{MARGIN}" y="{MARGIN + HEIGHT * (i + 1) - 5}">{text}</text>')
    width, height = round(COLUMNS * WIDTH + 2 * MARGIN), len(rows) * HEIGHT + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
            f' role="img" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="{SIZE}"'
            ' xml:space="preserve">',
            "<title>A chat with SmolLM2-135M in a terminal</title>",
            f"<style>{STYLE}</style>",
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            *lines,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(to_svg(record()), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")
