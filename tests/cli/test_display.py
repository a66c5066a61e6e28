"""An answer on a terminal: nothing is lost, lines wrap at words, and Markdown is shown as it is meant."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cyllama.cli.display import Display, markdown_blocks

ANSWER = """\
# Why?

Because of **Rayleigh scattering**: see <b>this</b>, `a & b` and [a page](https://example.org/x).
Next line, with \\(x^2\\) and &lt;.

1. one
2. two

   more of two

| a | b |
|---|---|
| 1 | 2 |

```python
if a < b:

    print("<div>")
```

The end."""


def shown(pieces: Iterable[str], *, markdown: bool = True, columns: int = 60, lines: int = 12) -> list[str]:
    """Return what a terminal shows of a text that grows by these pieces, lines that left the screen included."""
    screen = pyte.HistoryScreen(columns, lines, history=1000)
    stream = pyte.Stream(screen)

    class Output(io.StringIO):
        def write(self, text: str) -> int:
            stream.feed(text.replace("\n", "\r\n"))
            return len(text)

    console = Console(file=Output(), force_terminal=True, width=columns, height=lines, highlight=False, _environ={})
    display = Display(console, markdown=markdown)
    for piece in pieces:
        display.push(piece)
        display.draw()
    display.finish()
    above = ["".join(line[i].data for i in range(columns)) for line in screen.history.top]
    return [line.rstrip() for line in [*above, *screen.display]]


def without_end(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_text_that_grows_is_shown_as_the_whole_one(size: int):
    pieces = [ANSWER[i : i + size] for i in range(0, len(ANSWER), size)]
    assert without_end(shown(pieces)) == without_end(shown([ANSWER], lines=100))


def test_nothing_of_an_answer_is_lost():
    text = " ".join(shown([ANSWER]))
    html = ("<b>this</b>", 'print("<div>")', "if a < b:", "a & b", "&lt;")
    for part in (*html, "a page", "https://example.org/x", "\\(x^2\\)", "1 one", "2 two", "more of two", "The end."):
        assert part in text
    assert "**" not in text
    assert any(line.startswith("Next line") for line in shown([ANSWER])), "lines end where they end in the text"


def test_a_block_longer_than_the_screen_is_shown_once():
    text = "```\n" + "\n".join(f"line {i}" for i in range(100)) + "\n```\n\nThat was it."
    lines = shown([text[i : i + 40] for i in range(0, len(text), 40)])
    numbers = [int(line.split()[1]) for line in lines if line.strip().startswith("line ")]
    assert numbers == list(range(100))


def test_plain_text_is_shown_as_it_is_and_wraps_at_words():
    text = "**not** Markdown\n\n  indented, and a long line that does not fit into forty columns\n"
    assert without_end(shown(text, markdown=False, columns=40)) == [
        "**not** Markdown",
        "",
        "  indented, and a long line that does",
        "not fit into forty columns",
    ]


def test_a_model_cannot_command_the_terminal():
    for markdown in (True, False):
        lines = shown(["before \x1b[2J\x1b[31mafter\x07\x9b2J"], markdown=markdown)
        assert without_end(lines) == ["before \ufffd[2J\ufffd[31mafter\ufffd\ufffd2J"]


words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=6)
markdown_texts = st.lists(
    st.sampled_from(["# ", "- ", "1. ", "> ", "```\n", "\n", "\n\n", " ", "**", "`", "| a |\n|---|\n", "    "]) | words,
    max_size=30,
).map("".join)


@given(markdown_texts)
def test_a_block_that_is_complete_stays_the_same(text: str):
    begins = markdown_blocks(text)
    assert begins == sorted(set(begins))
    assert not text[: begins[0]].strip() if begins else not text.strip()
    if len(begins) > 1:
        assert markdown_blocks(text[: begins[-1]]) == begins[:-1]


@given(markdown_texts, st.integers(1, 9))
def test_letters_are_shown_in_their_order_however_they_come(text: str, size: int):
    def letters(lines: list[str]) -> str:
        return "".join(char for char in "".join(lines) if char.isalpha())

    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert letters(shown(pieces)) == letters(shown([text]))
