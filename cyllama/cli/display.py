"""An answer on a terminal while it is generated: wrapped at words, as Markdown or as it is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

_SHARE = 10  # drawing takes at most one part in this many of the time
_SECONDS = 0.05  # and a text that is drawn more often than this looks no smoother

# What a model writes is not HTML, and a backslash or an ampersand in it (LaTeX, code) is itself: nothing is lost.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_PARSER.disable(["escape", "entity", "reference", "html_block", "html_inline"])
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would be commands for the terminal


class Display:
    """Shows a text that grows. Blocks that are complete are printed; the last one is drawn again as it grows.

    Args:
        console: The terminal.
        markdown: Whether the text is Markdown; a block of other text is a line.
        style: The style of all text.
    """

    def __init__(self, console: Console, *, markdown: bool, style: str = "") -> None:
        self._console = console
        self._begins_of: Callable[[str], list[int]] = markdown_blocks if markdown else lines
        self._to_renderable = to_markdown if markdown else Text
        self._style = style
        self._gap = markdown  # blocks have an empty line between them
        self._text = ""  # of the last block
        self._printed = False
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._next_draw = 0.0

    def push(self, text: str) -> None:
        """Show more of the text. It may be drawn a little later."""
        self._text += _CONTROL.sub("\ufffd", text.replace("\r", ""))
        if time.monotonic() >= self._next_draw:
            self.draw()

    def finish(self) -> None:
        """Print what is not printed yet. The cursor is at the beginning of a line then."""
        self._live.stop()
        self._print_blocks(self._text, last=True)
        self._text = ""

    def draw(self) -> None:
        """Print the blocks that are complete, and draw the last one again."""
        start = time.monotonic()
        self._text = self._print_blocks(self._text)
        self._live.start()
        self._live.update(_Tail(self._renderable(self._text)), refresh=True)
        end = time.monotonic()
        self._next_draw = end + max(_SECONDS, _SHARE * (end - start))

    def _print_blocks(self, text: str, *, last: bool = False) -> str:
        """Print the blocks of a text, the last one only if that is complete too; return what is not printed."""
        begins = self._begins_of(text)
        ends = [*begins[1:], len(text)] if last else begins[1:]
        for begin, end in zip(begins, ends, strict=False):
            if self._printed and self._gap:
                self._console.print()
            self._console.print(self._renderable(text[begin:end].removesuffix("\n")))
            self._printed = True
        return text[ends[-1] :] if ends else text

    def _renderable(self, text: str) -> RenderableType:
        shown = self._to_renderable(text)
        if isinstance(shown, Text):
            shown.style = self._style
        return shown


class _Tail:
    """The last lines of what a terminal has not room for: those that grow."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._renderable, options.update(height=None), pad=False)
        for i, line in enumerate(lines[-max(console.height - 2, 1) :]):
            if i:
                yield Segment.line()
            yield from line


def lines(text: str) -> list[int]:
    """Return where the lines of a text begin. Behind a newline that ends it, an empty one begins, unless it is all."""
    begins = [0, *(match.end() for match in re.finditer("\n", text))]
    return begins if text else []


def markdown_blocks(text: str) -> list[int]:
    r"""Return where the blocks of a Markdown text begin. All but the last one are complete.

    >>> markdown_blocks("A list:\n\n- one\n- two"), markdown_blocks("```c\nint x;\n\n")
    ([0, 9], [0])
    """
    first_lines = {token.map[0] for token in _PARSER.parse(text) if token.level == 0 and token.map}
    begins, begin = [], 0
    for i, line in enumerate(text.split("\n")):
        if i in first_lines:
            begins.append(begin)
        begin += len(line) + 1
    return begins


def to_markdown(text: str) -> Markdown:
    """Return a Markdown text to be printed. Its lines end where they end in the text, and it shows where links lead."""
    shown = Markdown("", code_theme="ansi_dark", hyperlinks=False)
    shown.parsed = _PARSER.parse(text)
    for token in shown.parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return shown
